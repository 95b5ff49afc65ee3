"""The CSV of GVRET and SavvyCAN: `Time Stamp,ID,Extended,Bus,LEN,D1,...`, with or without a column Dir; times in us."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import IO, Final

from edge.logs.frames import LATEST_NS, BadLine, Block, Notes, Row, identifier, payload_of, seconds_text
from edge.logs.shapes import US_NS, Shape, shaped_blocks
from shared.errors import ConfigError

NAME: Final = "GVRET CSV"
_NEEDED: Final = (b"time stamp", b"id", b"extended", b"bus", b"len", b"d1")
_FLAGS: Final = {b"true": True, b"1": True, b"false": False, b"0": False}


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return set(_NEEDED) <= set(_header(head.partition(b"\n")[0]))


def blocks(file: IO[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file, a piece of it at a time."""
    header = _header(file.readline())
    return shaped_blocks(file, _Reader(header, notes), notes, first_line=2)


class _Reader:
    restarts = None

    def __init__(self, header: list[bytes], notes: Notes) -> None:
        if not set(_NEEDED) <= set(header):
            raise ConfigError("a GVRET CSV begins with a line of names: Time Stamp,ID,Extended,Bus,LEN,D1")
        self._notes = notes
        self._time, self._id, self._extended, self._bus, self._length, self._data = map(header.index, _NEEDED)

    def shape(self, line: bytes) -> Shape | None:
        text = line.rstrip().split(b",")
        if len(text) < self._data or not text[self._time].isdigit() or not text[self._length].isdigit():
            return None
        ends = list(accumulate(len(cell) + 1 for cell in text))
        cells = [(end - 1 - len(cell), end - 1) for end, cell in zip(ends, text, strict=True)]
        is_extended, length = _FLAGS.get(text[self._extended].lower()), int(text[self._length])
        data = cells[self._data : self._data + length]
        if is_extended is None or len(data) != length or any(end - begin != 2 for begin, end in data):
            return None
        return Shape(
            time=cells[self._time],
            unit_ns=US_NS,
            can_id=cells[self._id],
            is_extended=is_extended,
            data=tuple(begin for begin, _ in data),
            channel=text[self._bus].decode("ascii", "replace"),
            loose=((data[-1][1] if data else cells[self._length][1], len(line)),),
        )

    def parse(self, line: bytes) -> Row | None:
        cells = line.split(b",")
        if len(cells) < self._data:
            raise BadLine("fewer cells than the header has")
        t_us = int(cells[self._time])
        is_extended = _FLAGS.get(cells[self._extended].strip().lower())
        if is_extended is None:
            raise BadLine("Extended that is neither true nor false")
        if abs(t_us) * US_NS >= LATEST_NS:
            raise BadLine("a time that is none")
        payload = payload_of(cells[self._data :], int(cells[self._length]))
        can_id = identifier(int(cells[self._id], 16), is_extended)
        bus = self._notes.channel(cells[self._bus].strip().decode("ascii", "replace"))
        return t_us * US_NS, seconds_text(t_us * US_NS), bus, can_id, payload


def _header(line: bytes) -> list[bytes]:
    return [name.strip().lower() for name in line.split(b",")]
