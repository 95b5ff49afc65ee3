"""CRTD, the log of OVMS and SavvyCAN: `166.064000 R11 0000021A FE 36`, an event a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from edge.logs.frames import BadLine, Block, Notes, Row, decimal_ns, identifier, payload_of
from edge.logs.lines import line_blocks

NAME: Final = "CRTD"
_LINE: Final = re.compile(rb"\d+\.\d+\s+\d?(?:[RT](?:11|29)|C[A-Z]{2}|E[A-Z0-9]{2})\b")
_EXTENDED: Final = {b"R11": False, b"T11": False, b"R29": True, b"T29": True}


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    first = next((line for line in head.splitlines() if line.strip()), b"")
    return _LINE.match(first.strip()) is not None


def blocks(lines: Iterable[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file."""

    def parse(line: bytes) -> Row | None:
        cells = line.split()
        if len(cells) < 2:
            raise BadLine("not a frame")
        t_ns, kind = decimal_ns(cells[0]), cells[1]
        bus = ""
        if kind[:1].isdigit():  # a bus stands before the kind where there is more than one
            bus, kind = chr(kind[0]), kind[1:]
        is_extended = _EXTENDED.get(kind)
        if is_extended is None:
            if kind[:1] in (b"C", b"E") and len(kind) == 3:  # comments and events
                return None
            raise BadLine("a kind of line that CRTD does not have")
        payload = payload_of(cells[3:], len(cells) - 3)
        return t_ns, cells[0], notes.channel(bus), identifier(int(cells[2], 16), is_extended), payload

    return line_blocks(lines, parse, notes)
