"""Vector's ASC: `0.153600 1  594 Rx d 8 34 21 ...`, CAN FD as `0.1 CANFD 1 Rx 594 1 0 d 32 ...`, bases hex and dec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Final

from edge.logs.frames import BadLine, Block, Notes, Row, decimal_ns, identifier, payload_of, remote, seconds_text
from edge.logs.shapes import SECOND_NS, Shape, shaped_blocks
from firmware_bridge.frames import FD_LENGTHS

NAME: Final = "Vector ASC"
_BASE: Final = re.compile(rb"base\s+(hex|dec)(?:\s+timestamps\s+(absolute|relative))?", re.IGNORECASE)
_HEADER: Final = re.compile(
    rb"date\b|base\b|(no\s+)?internal events|begin\s*triggerblock|end\s*triggerblock|//|#|previous log file",
    re.IGNORECASE,
)
_OTHER_BUS: Final = re.compile(rb"li|l\d+|fr\w*|eth\w*|most\w*|j1939tp|a429|afdx|wlan", re.IGNORECASE)
_TIME: Final = re.compile(rb"-?\d+(\.\d+)?")
_CLASSIC: Final = re.compile(
    rb"\s*(?P<time>\d+\.\d+)\s+(?P<channel>\d+)\s+(?P<id>[0-9A-Fa-f]+)(?P<x>x?)\s+[RT]x\s+d\s+(?P<length>[0-8])(?=\s|$)"
)
_FD: Final = re.compile(
    rb"\s*(?P<time>\d+\.\d+)\s+CANFD\s+(?P<channel>\d+)\s+[RT]x\s+(?P<id>[0-9A-Fa-f]+)(?P<x>x?)\s+"
    rb"[01]\s+[01]\s+[0-9A-Fa-f]\s+(?P<length>[1-9]\d?)(?=\s|$)"
)
_ID: Final = re.compile(rb"[0-9A-Fa-f]+x?")
_CELL: Final = re.compile(rb"\S+")
_DATE: Final = re.compile(rb"(?:date|begin\s*triggerblock)\s+(.*)", re.IGNORECASE)
_CLOCK: Final = re.compile(r"(\d{1,2}):(\d\d):(\d\d)(?:\.(\d+))?")
_MONTHS: Final = {
    name: number
    for number, names in enumerate(
        ("jan", "feb", "mar mär mrz", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"), 1
    )
    for name in names.split()
}


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    lines = [line.strip().lower() for line in head.splitlines()[:50]]
    return any(_BASE.match(line) and b"timestamps" in line for line in lines)


def blocks(file: IO[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file, a piece of it at a time."""
    return shaped_blocks(file, _Reader(notes), notes)


class _Reader:
    restarts = _BASE

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._base = 16
        self._is_relative = False
        self._now_ns = 0
        self._has_trigger = False

    def shape(self, line: bytes) -> Shape | None:
        found = _CLASSIC.match(line) or _FD.match(line)
        if found is None or self._base != 16 or self._is_relative:
            return None
        length = int(found["length"], 16 if found.re is _CLASSIC else 10)
        data = tuple(cell.start() for cell in _CELL.finditer(line, found.end()))[:length]
        if len(data) < length or any(len(cell) != 2 for cell in line[found.end() :].split()[:length]):
            return None
        return Shape(
            time=found.span("time"),
            unit_ns=SECOND_NS,
            can_id=found.span("id"),
            is_extended=bool(found["x"]),
            data=data,
            channel=found["channel"].decode("ascii"),
            loose=((data[-1] + 2 if data else found.end(), len(line)),),
        )

    def parse(self, line: bytes) -> Row | None:
        cells = line.split()
        if _HEADER.match(line):
            self._header(line)
            return None
        if not _TIME.fullmatch(cells[0]) or len(cells) < 2:
            raise BadLine("not a frame")
        t_ns, t_text = decimal_ns(cells[0]), cells[0]
        if self._is_relative:  # each time is that since the line before
            t_ns = self._now_ns = self._now_ns + t_ns
            t_text = seconds_text(t_ns)
        is_fd = cells[1].upper() == b"CANFD"
        if not is_fd and not cells[1].isdigit():
            if not _OTHER_BUS.fullmatch(cells[1]) and {b"rx", b"tx"} & {cell.lower() for cell in cells}:
                raise BadLine("a channel that is none")
            return None  # an event, or a frame of a bus that is no CAN
        cells = cells[2:] if is_fd else cells[1:]
        if b"errorframe" in line.lower():
            self._notes.error_frames += 1
            return None
        if not cells[0].isdigit() or len(cells) < 2:
            raise BadLine("not a frame")
        can_id, payload = self._fd(cells) if is_fd else self._classic(cells)
        return (
            None
            if can_id < 0
            else (t_ns, t_text, self._notes.channel(cells[0].decode("ascii", "replace")), can_id, payload)
        )

    def _header(self, line: bytes) -> None:
        found = _BASE.match(line)
        if found:
            self._base = 10 if found.group(1).lower() == b"dec" else 16
            self._is_relative = (found.group(2) or b"").lower() == b"relative"
        elif dated := _DATE.match(line):
            # `date` may be when the file was written: the first trigger block is when it was measured.
            is_trigger = line[:1] in (b"b", b"B")
            start_ns = _date_ns(dated.group(1).decode("latin-1"))
            if start_ns and (not self._notes.start_ns or (is_trigger and not self._has_trigger)):
                self._notes.start_ns = start_ns
                self._has_trigger = is_trigger

    def _identifier(self, text: bytes) -> int:
        is_extended = text[-1:] in (b"x", b"X")
        try:
            value = int(text[:-1] if is_extended else text, self._base)
        except ValueError:
            raise BadLine("an id that is no number") from None
        return identifier(value, is_extended)

    def _classic(self, cells: list[bytes]) -> tuple[int, bytes]:
        """can_id and payload of `channel id Rx d 8 34 ...`; an event of a channel has another third word: -1."""
        if cells[2:3] == [] or cells[2].lower() not in (b"rx", b"tx", b"txrq"):
            if _ID.fullmatch(cells[1]):
                raise BadLine("a direction that is none")
            return -1, b""
        if len(cells) < 4:
            raise BadLine("fewer cells than a frame has")
        can_id, kind = self._identifier(cells[1]), cells[3].lower()
        length = int(cells[4], 16) if len(cells) > 4 and kind in (b"d", b"r") else 0
        if kind == b"r":
            return remote(can_id, length)
        if kind != b"d" or len(cells) < 5:
            raise BadLine("neither data nor a remote frame")
        return can_id, payload_of(cells[5:], min(length, 8), self._base)

    def _fd(self, cells: list[bytes]) -> tuple[int, bytes]:
        """can_id and payload of `channel Rx id [name] brs esi dlc length 34 ...`."""
        can_id, rest = self._identifier(cells[2]), cells[3:]
        if rest[0] not in (b"0", b"1") or len(rest) < 4 or rest[1] not in (b"0", b"1"):
            rest = rest[1:]  # the name of the message
        code, length = int(rest[2], 16), int(rest[3])
        if length == 0 and code:
            return remote(can_id, FD_LENGTHS[min(code, 15)])
        return can_id, payload_of(rest[4:], length, self._base)


def _date_ns(text: str) -> int:
    """UTC ns of a date in any of the orders and languages in which ASC files have it; 0 when it cannot be told."""
    clock = _CLOCK.search(text)
    words = re.findall(r"[a-zäö]+|\d+", _CLOCK.sub(" ", text).lower())
    month = next((_MONTHS[word[:3]] for word in words[1:] if word[:3] in _MONTHS), 0)
    year = next((int(word) for word in words if word.isdigit() and len(word) == 4), 0)
    day = next((int(word) for word in words if word.isdigit() and len(word) <= 2), 0)
    if clock is None:
        return 0
    hour = int(clock.group(1)) % 12 + 12 * ("pm" in words) if {"am", "pm"} & set(words) else int(clock.group(1))
    try:
        start = datetime(year, month, day, hour, int(clock.group(2)), int(clock.group(3)), tzinfo=UTC)
    except ValueError:
        return 0
    return int(start.timestamp()) * 1_000_000_000 + int((clock.group(4) or "0")[:9].ljust(9, "0"))
