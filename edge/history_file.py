"""The file that keeps what was measured of one pack: whole or told to be torn, and replaced at once or not at all."""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shared.errors import WireError
from shared.feature_table import schema_id
from shared.features import FeatureStateError
from shared.record_lines import from_line, to_line
from shared.records import Session

MAX_BYTES: Final = 1 << 20
_MAGIC: Final = b"PTFS"
_FRAME: Final = struct.Struct("<4sI")  # magic, crc32 of all that follows
_HEAD: Final = struct.Struct("<QIII")  # steps, sizes of the notes, the Meter, the History
_SCHEMA: Final = schema_id()


@dataclass(slots=True)
class Kept:
    """What is kept of one pack. steps: how often it was written, so that of two files the newer is known.

    pending: Sessions that ended and are not known to be in the outbox. pasts: sha256 of the files imported.
    """

    steps: int = 0
    meter: bytes = b""
    history: bytes = b""
    pending: list[Session] = field(default_factory=list)
    pasts: list[str] = field(default_factory=list)
    notes: bytes = b""

    def note(self) -> None:
        """To be called when pending or pasts have changed: they are text and seldom change."""
        notes = {"schema": _SCHEMA, "pending": [to_line(session) for session in self.pending], "pasts": self.pasts}
        self.notes = json.dumps(notes).encode()

    def to_bytes(self) -> bytes:
        """The content of the file."""
        sizes = (len(self.notes), len(self.meter), len(self.history))
        body = _HEAD.pack(self.steps, *sizes) + self.notes + self.meter + self.history
        return _FRAME.pack(_MAGIC, zlib.crc32(body)) + body

    @classmethod
    def from_bytes(cls, content: bytes) -> Kept:
        """What `to_bytes` wrote; FeatureStateError if it is torn or belongs to another table of features."""
        body = content[_FRAME.size :]
        if len(content) < _FRAME.size + _HEAD.size or _FRAME.unpack_from(content) != (_MAGIC, zlib.crc32(body)):
            raise FeatureStateError("is torn")
        steps, notes, meter, history = _HEAD.unpack_from(body)
        parts = body[_HEAD.size :]
        if len(parts) != notes + meter + history:
            raise FeatureStateError("is torn")
        try:
            told: dict[str, Any] = json.loads(parts[:notes])
            if told["schema"] != _SCHEMA:
                raise FeatureStateError(f"was made for the features {told['schema']}, here are {_SCHEMA}")
            pending = [_session(line) for line in told["pending"]]
            kept = cls(steps, parts[notes : notes + meter], parts[notes + meter :], pending, list(told["pasts"]))
        except (ValueError, KeyError, TypeError, WireError) as error:
            raise FeatureStateError(f"cannot be read: {error}") from None
        kept.note()
        return kept


def _session(line: str) -> Session:
    record = from_line(line, "a kept record")
    if not isinstance(record, Session):
        raise FeatureStateError("keeps a record that is no Session")
    return record


def read(path: Path) -> Kept | None:
    """What the file keeps; None without a file. FeatureStateError: it is torn or foreign; OSError: it is unreadable."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    return Kept.from_bytes(content)


def write(path: Path, content: bytes, *, durable: bool) -> None:
    """Replaces the file at once or not at all. durable: it is on flash when this returns. OSError when it fails."""
    new = path.with_name(path.name + ".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        at = 0
        while at < len(content):
            at += os.write(file, content[at:] if at else content)
        if durable:
            os.fsync(file)
    finally:
        os.close(file)
    os.rename(new, path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
