"""Frames out of a line of bytes that may hold anything: junk, echoes, frames that were cut off, two at once.

A frame that is bad costs itself alone: the search goes on one byte after its beginning, so that a good frame that lies
within what it claimed is still found. Each stretch of bytes is complained of once: what follows a bad frame and is no
frame either belongs to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from typing import Protocol as Shape

from firmware_bridge.protocol import LineError

_SHOWN_BYTES: Final = 12


class Framing(Shape):
    """How a protocol's frames can be told from other bytes."""

    def start(self, data: bytes, at: int) -> int:
        """Where the next frame may begin, at `at` or later, its beginning perhaps cut off; len(data) = nowhere."""

    def length(self, data: bytes, at: int) -> int | None:
        """Bytes of the frame that begins at `at`; None = more bytes are needed to tell; 0 = no frame begins here."""

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        """What is wrong with a frame of that length, as (error, detail); None = nothing."""


@dataclass(frozen=True, slots=True)
class Found:
    """A good frame. offset: of its first byte since the stream began."""

    offset: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class _Bad:
    """A bad frame and what is to be told of it. begin, end: since the stream began."""

    error: str
    offset: int
    detail: str
    begin: int
    end: int


class Stream:
    """Cuts bytes into frames. Holds no more than the longest frame that its framing speaks of.

    filler: bytes that are nothing at all directly behind a good frame. is_nothing: whether bytes of no frame, 12 at
    most, are nothing at all directly before a good one. is_loose: what begins a frame stands within frames and junk as
    well. Then all up to the next good frame is one complaint, but for a bad frame that begins where the one before it,
    good or surely a frame, ended.
    """

    def __init__(
        self,
        framing: Framing,
        filler: bytes = b"",
        *,
        is_nothing: Callable[[bytes], bool] = lambda junk: False,
        is_loose: bool = False,
    ) -> None:
        self._framing = framing
        self._filler = filler
        self._is_nothing = is_nothing
        self._is_loose = is_loose
        self._buffer = b""
        self._offset = 0  # of the buffer's first byte
        self._good_to = -1  # up to here all was well
        self._blamed_to = -1  # up to here something was complained of
        self._sure_at = 0  # where the next frame begins, if all that came were frames
        self._is_spoilt = False  # something was complained of since the last good frame
        self._bad: _Bad | None = None  # not told yet: a good frame within it would show what is wrong
        self._junk = b""
        self._junk_at = 0
        self._junk_bytes = 0

    @property
    def pending(self) -> bytes:
        """The bytes that wait for the rest of their frame."""
        return self._buffer

    def feed(self, data: bytes) -> list[Found | LineError]:
        """The frames that these bytes complete, and what was wrong on the way."""
        self._buffer += data
        return self._cut(is_end=False)

    def end(self) -> list[Found | LineError]:
        """Nothing more comes for what has begun."""
        out = self._cut(is_end=True)
        self._tell(out)
        self._sure_at, self._is_spoilt = self._offset, False
        return out

    def _cut(self, *, is_end: bool) -> list[Found | LineError]:
        out: list[Found | LineError] = []
        data, at = self._buffer, 0
        while at < len(data):
            begin = self._framing.start(data, at)
            if begin > at:
                self._skip(data, at, begin)
                at = begin
            if begin >= len(data):
                break
            length = self._framing.length(data, begin)
            if length is None or begin + length > len(data):
                if not is_end:
                    break
                # What is less than a beginning is junk like any other.
                if length is None:
                    self._skip(data, begin, begin + 1)
                else:
                    self._blame(out, "length", begin, len(data), f"{len(data) - begin} of {length} bytes came")
                at = begin + 1
            elif length == 0:
                self._skip(data, begin, begin + 1)
                at = begin + 1
            else:
                frame = data[begin : begin + length]
                wrong = self._framing.fault(frame)
                if wrong is None:
                    self._find(out, begin, frame)
                    at = begin + length
                else:
                    self._blame(out, wrong[0], begin, begin + length, wrong[1])
                    at = begin + 1
        self._buffer = data[at:]
        self._offset += at
        if self._bad is not None and self._bad.end <= self._offset:
            self._tell_bad(out)
        return out

    def _find(self, out: list[Found | LineError], begin: int, frame: bytes) -> None:
        """A good frame. A bad one within which it begins was cut off, whatever the check of both together is."""
        at = self._offset + begin
        bad = self._bad
        if bad is not None and bad.begin < at < bad.end and bad.error == "checksum":
            detail = f"{at - bad.begin} of {bad.end - bad.begin} bytes came, then the next frame begins"
            self._bad = replace(bad, error="length", detail=detail)
        if self._junk_at + len(self._junk) == at and self._is_nothing(self._junk):
            self._junk_bytes = 0
        self._tell(out)
        out.append(Found(at, frame))
        self._good_to = self._sure_at = at + len(frame)
        self._is_spoilt = False

    def _blame(self, out: list[Found | LineError], error: str, begin: int, end: int, detail: str) -> None:
        """A bad frame; one that begins within another bad one is part of that one."""
        at = self._offset + begin
        if at < self._blamed_to:
            return
        is_sure = at == self._sure_at
        if self._is_loose and self._is_spoilt and not is_sure:
            self._blamed_to = at + 1
            return
        told_at = at
        if self._is_loose and self._junk_bytes:
            told_at, self._junk_bytes = self._junk_at, 0
        self._tell(out)
        self._bad = _Bad(error, told_at, detail, at, self._offset + end)
        self._blamed_to = self._bad.end
        self._sure_at = self._bad.end if is_sure else -1
        self._is_spoilt = True

    def _skip(self, data: bytes, begin: int, end: int) -> None:
        """Bytes that belong to no frame; those of a bad frame have been complained of, and what follows it with it."""
        while begin < end and self._offset + begin == self._good_to and data[begin] in self._filler:
            begin += 1
            self._good_to += 1
        if self._offset + begin <= self._blamed_to < self._offset + end:
            self._blamed_to = self._offset + end
        begin = max(begin, self._blamed_to - self._offset)
        if begin >= end:
            return
        if not self._junk_bytes:
            self._junk_at, self._junk = self._offset + begin, b""
        self._junk_bytes += end - begin
        self._junk = (self._junk + data[begin:end])[:_SHOWN_BYTES]

    def _tell(self, out: list[Found | LineError]) -> None:
        """What was wrong so far."""
        self._tell_bad(out)
        if self._junk_bytes:
            more = "..." if self._junk_bytes > _SHOWN_BYTES else ""
            detail = f"{self._junk_bytes} bytes of no frame: {self._junk.hex()}{more}"
            out.append(LineError("noise", self._junk_at, detail))
        self._junk_bytes = 0

    def _tell_bad(self, out: list[Found | LineError]) -> None:
        if self._bad is not None:
            out.append(LineError(self._bad.error, self._bad.offset, self._bad.detail))
            self._bad = None
