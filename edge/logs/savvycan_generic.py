"""SavvyCAN's "generic" CSV: `ID,Data Bytes`, an id and its bytes; it knows neither times nor buses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from edge.logs.frames import BadLine, Block, Notes, Row, identifier, payload_of
from edge.logs.lines import line_blocks
from firmware_bridge.frames import LARGEST_11_BIT

NAME: Final = "SavvyCAN generic CSV"
_HEADER: Final = b"id,data bytes"


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head.lstrip()[: len(_HEADER)].lower() == _HEADER


def blocks(lines: Iterable[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file."""
    notes.has_times = False
    channel = notes.channel("")

    def parse(line: bytes) -> Row | None:
        if line.lower().endswith(_HEADER):
            return None
        id_text, comma, data = line.partition(b",")
        if not comma:
            raise BadLine("not a frame")
        value, cells = int(id_text, 16), data.replace(b",", b" ").split()
        return 0, b"", channel, identifier(value, value > LARGEST_11_BIT), payload_of(cells, len(cells))

    return line_blocks(lines, parse, notes)
