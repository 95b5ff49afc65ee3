"""How `fault` talks to a running simulator: one JSON line there, one back, over a unix socket in the run folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from firmware_bridge.pack.faults import Faults, Target
from shared.errors import ConfigError, PacktwinError

_SOCKETS: Final = "sim-*.sock"
_LINE_BYTES: Final = 4096
_ANSWER_S: Final = 5.0
_REQUEST_S: Final = 0.2


class Control:
    """The simulator's end. `serve` answers one request; requests change `faults` (by pack id)."""

    def __init__(self, folder: Path, faults: Mapping[str, Faults]) -> None:
        self._faults = faults
        self._path = folder / f"sim-{os.getpid()}-{secrets.token_hex(3)}.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        with _short(self._path) as name:
            self._listener.bind(name)
        self._listener.listen()

    def fileno(self) -> int:
        """What to watch for `serve`."""
        return self._listener.fileno()

    def serve(self) -> None:
        """Takes one connection and answers its line. A client that says nothing loses its turn."""
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(_REQUEST_S)
                connection.sendall(json.dumps(self._answer(_line(connection))).encode() + b"\n")

    def close(self) -> None:
        """Closes and removes the socket."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if request["do"] == "packs":
                return {"packs": list(self._faults)}
            faults = self._faults[request["pack"]]
            target = None if request["target"] is None else Target.parse(request["target"])
            if request["do"] == "clear":
                faults.clear(target)
            elif request["do"] == "put" and target is not None:
                faults.put(target, float(request["offset"]))
            return {"standing": faults.standing()}
        except ConfigError as error:
            return {"refused": str(error)}
        except (ValueError, KeyError, TypeError) as error:
            return {"refused": f"the simulator does not understand the request ({type(error).__name__})"}


def ask(folder: Path, pack_id: str, do: str, target: Target | None, offset: float = 0.0) -> dict[str, float]:
    """Puts (`do` = put), clears or shows faults of a pack; returns those that then stand.

    ConfigError if no running simulator in `folder` has the pack; PacktwinError if it refuses.
    """
    packs_of = {path: packs for path in sorted(folder.glob(_SOCKETS)) if (packs := _packs(path)) is not None}
    if not packs_of:
        raise ConfigError(f"no simulator runs in {folder}: start one with `python -m firmware_bridge sim`")
    having = [path for path, packs in packs_of.items() if pack_id in packs]
    if not having:
        known = ", ".join(sorted({pack for packs in packs_of.values() for pack in packs}))
        raise ConfigError(f"no running simulator has a pack {pack_id}: there are {known}")
    if len(having) > 1:
        raise ConfigError(f"{len(having)} running simulators have a pack {pack_id}: stop all but one")
    request = {"do": do, "pack": pack_id, "target": None if target is None else str(target), "offset": offset}
    try:
        answer = _exchange(having[0], request)
    except (OSError, ValueError) as error:
        raise PacktwinError(f"the simulator that has {pack_id} went away before it answered: start it again") from error
    if "refused" in answer:
        raise PacktwinError(str(answer["refused"]))
    return {str(field): float(value) for field, value in answer["standing"].items()}


def _packs(path: Path) -> list[str] | None:
    """The packs of the simulator behind a socket; None if nobody is there any more."""
    try:
        return [str(pack) for pack in _exchange(path, {"do": "packs"})["packs"]]
    except (OSError, ValueError, KeyError):
        return None


def _exchange(path: Path, request: Mapping[str, object]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_S)
        with _short(path) as name:
            connection.connect(name)
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(_line(connection))
        return answer


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES and (piece := connection.recv(_LINE_BYTES)):
        line += piece
    return line


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket address (about 100 bytes), however deep the folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
