"""BUSMASTER's log: `22:20:14:992 Rx 1 0x21A s 8 FE 36`; the time is of the day, since the start, or since the last."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from edge.logs.frames import BadLine, Block, Notes, Row, decimal_ns, identifier, payload_of, remote
from edge.logs.lines import line_blocks

NAME: Final = "BUSMASTER"
_TIME: Final = re.compile(rb"(\d+):(\d{1,2}):(\d{1,2}):(\d{1,6})")
_KINDS: Final = {b"s": False, b"sr": False, b"x": True, b"xr": True, b"s-fd": False, b"x-fd": True}
_BEGAN: Final = re.compile(rb"START DATE AND TIME (\d+):(\d+):(\d+) ")
_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head.lstrip().startswith(b"***BUSMASTER")


def blocks(lines: Iterable[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file."""
    base, is_relative, now_ns, midnight_ns = 16, False, 0, 0

    def parse(line: bytes) -> Row | None:
        nonlocal base, is_relative, now_ns, midnight_ns
        if line.startswith(b"***"):
            said = line.strip(b"*").upper()
            base = {b"HEX": 16, b"DEC": 10}.get(said, base)
            is_relative = said == b"RELATIVE MODE" or (is_relative and not said.endswith(b" MODE"))
            if (began := _BEGAN.match(said)) and not notes.start_ns:
                notes.start_ns = _midnight_ns(*map(int, began.groups()))
            return None
        cells = line.split()
        found = _TIME.fullmatch(cells[0])
        if found is None or len(cells) < 3:
            raise BadLine("not a frame")
        hours, minutes, seconds, fraction = found.groups()
        t_text = b"%d.%b" % (int(hours) * 3600 + int(minutes) * 60 + int(seconds), fraction)
        t_ns = decimal_ns(t_text)
        if is_relative:
            now_ns = t_ns = now_ns + t_ns
            t_text = b"%d.%06d" % (t_ns // _SECOND_NS, t_ns % _SECOND_NS // 1000)
        else:
            midnight_ns += _DAY_NS * (now_ns - midnight_ns - t_ns > _DAY_NS // 2)  # the log ran past midnight
            now_ns = t_ns = midnight_ns + t_ns
        if b"ERR" in line.upper():
            notes.error_frames += 1
            return None
        kind = cells[4].lower()
        is_extended = _KINDS.get(kind)
        if is_extended is None:
            raise BadLine("a kind of frame that BUSMASTER does not have")
        can_id, length = identifier(int(cells[3], base), is_extended), int(cells[5], base)
        payload = payload_of(cells[6:], length, base) if not kind.endswith(b"r") else b""
        if kind.endswith(b"r"):
            can_id, payload = remote(can_id, length)
        return t_ns, t_text, notes.channel(cells[2].decode("ascii", "replace")), can_id, payload

    return line_blocks(lines, parse, notes)


def _midnight_ns(day: int, month: int, year: int) -> int:
    try:
        return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * _SECOND_NS
    except ValueError:
        return 0
