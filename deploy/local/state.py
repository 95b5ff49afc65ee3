"""What runs here: `.local/run/state.json`, written by the supervisor, checked live by everyone who reads it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from processes import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One service as the supervisor last saw it."""

    name: str
    address: str
    process: Identity | None  # None = none of ours (your own database), or waiting to be started again
    health: str  # what to ask: http://..., mqtt://..., kafka://..., or `` = being alive is all
    restarts: int
    problem: str = ""  # why it does not run here and what to do; `` = it does


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything another command needs to know of a running stack."""

    supervisor: Identity
    api_url: str
    database: dict[str, str]  # DB_HOST, DB_PORT, DB_NAME, DB_USER; the password is in secrets.env or the environment
    services: tuple[Running, ...]
    environment: dict[str, str] = field(default_factory=dict)  # what a command on this stack is told, no secrets


def write(path: Path, state: State) -> None:
    """Replaces the file at once: a reader sees the old or the new state, never half of one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(state), indent=1))
    new.replace(path)


def read(path: Path) -> State | None:
    """Returns the state as last written; None when there is none or it cannot be read."""
    try:
        raw = json.loads(path.read_text())
        return State(
            supervisor=Identity(**raw["supervisor"]),
            api_url=raw["api_url"],
            database=raw["database"],
            services=tuple(
                Running(**{**service, "process": service["process"] and Identity(**service["process"])})
                for service in raw["services"]
            ),
            environment=raw.get("environment", {}),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _identity(raw: dict[str, int] | None) -> Identity | None:
    return None if raw is None else Identity(**raw)


class Lock(AbstractContextManager["Lock"]):
    """At most one supervisor per checkout; the kernel lets go of it however that one ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def taken(self) -> bool:
        """Returns whether another process holds it now."""
        got = self.acquire()
        if got:
            self.release()
        return not got

    def acquire(self) -> bool:
        """Returns True when this process holds the lock now."""
        self._file = self._path.open("a")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(self, *_: object) -> None:
        self.release()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns rows as text, columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def secret(path: Path, name: str, make: str) -> str:
    """Returns the secret of that name from a file only its owner may read; `make` is written on the first call."""
    lines = path.read_text().splitlines() if path.exists() else []
    for line in lines:
        if line.startswith(name + "="):
            return line.split("=", 1)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "a") as out:
        out.write(f"{name}={make}\n")
    return make
