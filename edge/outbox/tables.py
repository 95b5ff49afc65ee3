"""The tables of an outbox file: what stands in them, how an older file gets them, what is wrong with a bad one."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from edge.outbox.records import OutboxError
from shared.errors import ConfigError
from shared.hidden import hidden

FILE_NAME: Final = "outbox.sqlite"
_SQL: Final = Path(__file__).parent / "sql"
_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class Corrupt(OutboxError):
    """The file's content makes no sense any more: it must be salvaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One start of the agent; see table `boot`."""

    no: int
    boot: int
    kernel: str
    replay: bool = False
    open: bool = True
    offset_ns: int | None = None
    safe_seq: int = 0
    next_seq: int = 0
    ahead: int = 0


class Block(NamedTuple):
    """Many records of one boot and priority in one body; see table `block`. id 0 = not stored yet."""

    id: int
    boot_no: int
    first_seq: int
    last_seq: int
    records: int
    samples: int
    priority: int
    undated: int
    put_ns: int
    crc: int
    body: bytes

    def checksum(self) -> int:
        """What `crc` must be: it covers every other column that cannot change."""
        head = json.dumps(self[1:9]).encode()
        return zlib.crc32(self.body, zlib.crc32(head))

    def sealed(self) -> Block:
        """The block with its right crc."""
        return self._replace(crc=self.checksum())

    @property
    def sound(self) -> bool:
        """Whether it is what was written."""
        try:
            return self.crc == self.checksum()
        except TypeError:  # a garbled page may hold text where a number or bytes were
            return False


def upgrade(db: sqlite3.Connection, path: Path) -> None:
    """Brings the file's tables to the newest numbered script; each script is one transaction."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    scripts = {int(script.name[:4]): script for script in sorted(_SQL.glob("*.sql"))}
    if version > max(scripts):
        raise ConfigError(
            f"{path} was written by a newer packtwin (tables {version}, known here {max(scripts)}): "
            "install that one, or set another data_dir"
        )
    run = db.executescript
    if 0 < version < max(scripts):
        with hidden("pandas"):
            from sqlite_utils import Database

        run = Database(db).executescript
    for number, script in scripts.items():
        if number > version:
            run(f"BEGIN IMMEDIATE;\n{script.read_text('utf-8')}\nPRAGMA user_version = {number};\nCOMMIT;")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite as OutboxError, Corrupt where the file is to blame."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPT:
            raise Corrupt(f"{path} is damaged: {error}") from error
        raise OutboxError(f"{path} cannot be used: {error}; check the disk's space and that it is writable") from error
