"""The log of Microchip's CAN BUS Analyzer (also SavvyCAN's export): `166064;RX;0x0000021A;8;0xFE;...`, times in ms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from edge.logs.frames import BadLine, Block, Notes, Row, identifier, payload_of
from edge.logs.lines import line_blocks
from firmware_bridge.frames import LARGEST_11_BIT

NAME: Final = "Microchip CAN BUS Analyzer"
_MS_NS: Final = 1_000_000
_LATEST_MS: Final = 1 << 42


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head.lstrip().startswith(b"//") and b"Microchip Technology" in head[:2000]


def blocks(lines: Iterable[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file."""
    channel = notes.channel("")
    is_header = False

    def parse(line: bytes) -> Row | None:
        nonlocal is_header
        if line.startswith(b"//"):  # a ruler above and below the header
            is_header = not is_header
            return None
        if is_header:
            return None
        cells = line.rstrip(b";").split(b";")
        if len(cells) < 4 or cells[1].strip().upper() not in (b"RX", b"TX"):
            raise BadLine("not a frame")
        t_ms, value = int(cells[0]), int(cells[2], 16)
        if not 0 <= t_ms < _LATEST_MS:
            raise BadLine("a time that is none")
        can_id = identifier(value, value > LARGEST_11_BIT)
        payload = payload_of([cell.strip()[-2:] for cell in cells[4:]], int(cells[3]))
        t_text = b"%d.%03d" % divmod(t_ms, 1000)
        return t_ms * _MS_NS, t_text, channel, can_id, payload

    return line_blocks(lines, parse, notes)
