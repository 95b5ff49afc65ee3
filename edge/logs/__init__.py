"""Logs of CAN traffic, whoever wrote them: `open_log(path)`. The format is told by the content, never by the name."""

from __future__ import annotations

import gzip
import io
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from edge.logs import asc, blf, busmaster, candump, crtd, gvret, mf4, microchip, savvycan_generic, trc
from edge.logs.frames import Bad, Block, Notes
from firmware_bridge.frames import FrameBatch
from shared.errors import ConfigError

__all__ = ["FORMATS", "Bad", "Block", "Log", "open_log"]

_BY_LINE: Final = (gvret, savvycan_generic, crtd, microchip, busmaster, asc, trc)
_BY_FILE: Final = (blf, candump)
FORMATS: Final = tuple(reader.NAME for reader in (*_BY_FILE, *_BY_LINE, mf4))
_HEAD_BYTES: Final = 1 << 16
_GZIP: Final = b"\x1f\x8b"
_PIECE_BYTES: Final = 1 << 16


class Log:
    """A log that can be read, any number of times, a piece at a time. `notes` is that of the last reading.

    format: one of FORMATS. size_bytes: of the file; `done_bytes` of them have been read.
    """

    def __init__(self, path: Path, reader: Any, size_bytes: int) -> None:
        self.path = path
        self.format: str = reader.NAME
        self.size_bytes = size_bytes
        self.done_bytes = 0
        self.notes = Notes()
        self._reader = reader

    @property
    def channels(self) -> list[str]:
        """The channels seen so far, as the log prints them."""
        return self.notes.channels

    def blocks(self) -> Iterator[Block]:
        """The frames of all channels in the order of the log. ConfigError in one sentence for a file that is broken."""
        notes = self.notes = Notes()
        try:
            if self._reader is mf4:
                yield from mf4.blocks(self.path, notes)
                self.done_bytes = self.size_bytes
                return
            with _opened(self.path, notes) as (file, plain):
                for block in self._reader.blocks(file, notes):
                    self.done_bytes = plain.tell()
                    yield block
                self.done_bytes = self.size_bytes
        except ConfigError as error:
            raise ConfigError(f"{self.path} cannot be read as {self.format}: {error}") from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def batches(self) -> Iterator[FrameBatch]:
        """The frames channel by channel within each block (of about 2,000 frames, candump: 1 MiB of text)."""
        for block in self.blocks():
            for index in np.unique(block.channel).tolist():
                frames = block.frames.take(block.channel == index)
                yield FrameBatch(self.channels[index], frames.t_ns, frames.can_id, frames.length, frames.data)


def open_log(path: Path) -> Log:
    """The log at `path`, its format recognised. ConfigError in one sentence for what is none that we know."""
    notes = Notes()
    try:
        size_bytes = path.stat().st_size
        with _opened(path, notes) as (file, _):
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give the path of a log") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    for reader in (mf4, blf, *_BY_LINE, candump):
        if reader.is_one(head):
            return Log(path, reader, size_bytes)
    if notes.fault:
        raise ConfigError(f"{path}: {notes.fault}")
    what = "is empty" if not head.strip() else "is in no format of a log that is known"
    raise ConfigError(f"{path} {what}: give one of {', '.join(FORMATS)}")


@contextmanager
def _opened(path: Path, notes: Notes) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The content behind a byte order mark, unpacked where it is packed by gzip, and the file itself."""
    with path.open("rb") as plain:
        is_packed = plain.read(2) == _GZIP
        plain.seek(0)
        file: Any = io.BufferedReader(_Unpacked(plain, notes), _PIECE_BYTES) if is_packed else plain
        if file.peek(len(BOM_UTF8))[: len(BOM_UTF8)] == BOM_UTF8:
            file.read(len(BOM_UTF8))
        yield file, plain


class _Unpacked(io.RawIOBase):
    """What can be unpacked of a gzip file; where it is damaged it ends, and `notes.fault` says so."""

    def __init__(self, packed: IO[bytes], notes: Notes) -> None:
        self._file, self._notes = gzip.GzipFile(fileobj=packed, mode="rb"), notes

    def readable(self) -> bool:
        """See io."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See io."""
        if self._notes.fault:
            return 0
        try:
            data = self._file.read1(len(buffer))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self._notes.fault = f"the gzip file is damaged ({error}): what comes after that is lost, fetch it again"
            return 0
        buffer[: len(data)] = data
        return len(data)
