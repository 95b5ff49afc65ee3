"""The note: what the cold file held, written beside it after each flush, so that a file that lost more than it should
(torn, truncated, or on flash that only says it has written) is found out, and what it lost can be told.

Two slots of a file of fixed size, written in turn: one sector is rewritten in place, the older slot stays whole.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from edge.books import Tally
from edge.outbox.records import OutboxError
from edge.outbox.tables import Boot

_NAME: Final = "outbox.note"
_SLOT_BYTES: Final = 32 << 10
_MAX_BOOTS: Final = 100


@dataclass(frozen=True, slots=True)
class Note:
    """boots: all known starts by no; next_seq = the first seq that was not on flash. hot: the hot file's tally then."""

    count: int = 0
    boots: Mapping[int, Boot] = field(default_factory=dict)
    hot: Tally = field(default_factory=Tally)


def read_note(folder: Path) -> Note:
    """The newest whole note; an empty one if there is none."""
    try:
        data = (folder / _NAME).read_bytes()
    except OSError:
        return Note()
    slots = [_parsed(data[at : at + _SLOT_BYTES]) for at in (0, _SLOT_BYTES)]
    return max(slots, key=lambda note: note.count)


class NoteFile:
    """Writes notes; each is on flash when `write` returns."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._count = read_note(folder).count
        try:
            if not self._path.exists() or self._path.stat().st_size != 2 * _SLOT_BYTES:
                self._path.write_bytes(bytes(2 * _SLOT_BYTES))
            self._file = os.open(self._path, os.O_WRONLY)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, boots: Iterable[Boot], hot: Tally) -> None:
        """Notes what the cold file holds now."""
        self._count += 1
        kept = [asdict(boot) for boot in boots][-_MAX_BOOTS:]
        body = json.dumps({"count": self._count, "boots": kept, "hot": asdict(hot)}, separators=(",", ":")).encode()
        data = f"{zlib.crc32(body):08x} {len(body):08x} ".encode() + body
        try:
            os.pwrite(self._file, data, self._count % 2 * _SLOT_BYTES)
            os.fdatasync(self._file)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)

    def _failed(self, error: OSError) -> OutboxError:
        return OutboxError(f"{self._path} cannot be written: {error.strerror}")


def _parsed(slot: bytes) -> Note:
    try:
        crc, size = int(slot[:8], 16), int(slot[9:17], 16)
        body = slot[18 : 18 + size]
        if zlib.crc32(body) != crc:
            return Note()
        told = json.loads(body)
        boots = {boot["no"]: Boot(**boot) for boot in told["boots"]}
        return Note(told["count"], boots, Tally(**told["hot"]))
    except (ValueError, TypeError, KeyError):
        return Note()
