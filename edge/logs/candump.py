"""can-utils' candump: the log (`(1.000000) can0 123#0A1B`, CAN FD `##1..`) and what it shows on a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Final

from edge.logs.frames import BadLine, Block, Notes, Row, decimal_ns, identifier, remote
from edge.logs.shapes import SECOND_NS, Shape, shaped_blocks
from firmware_bridge.frames import FD_LENGTHS

NAME: Final = "candump"
_LINE: Final = re.compile(
    rb"\((\d+\.\d{1,9})\)\s+(\S+)\s+([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})(##[0-9A-Fa-f]|#)([0-9A-Fa-f.]*|[Rr]\w*)"
    rb"(_[0-9A-Fa-f])?(?:\s+[RTrt])?"
)
_SHOWN: Final = re.compile(
    rb"\((\d+\.\d{1,9})\)\s+(\S+)\s+(?:[RT]X\s+[-BEX ]+\s+)?([0-9A-Fa-f]{3}|[0-9A-Fa-f]{8})\s+\[(\d+)\]\s*"
    rb"((?:[0-9A-Fa-f]{2}\s*)*|remote request)(?:'.*')?"
)
_ERROR_FRAME: Final = 0x2000_0000


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one: a frame among its first lines."""
    lines = head.splitlines()[:200]
    return any(_LINE.fullmatch(line.strip()) or _SHOWN.fullmatch(line.strip()) for line in lines)


def blocks(file: IO[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file, a piece of it at a time."""
    return shaped_blocks(file, _Reader(notes), notes)


class _Reader:
    restarts = None

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def shape(self, line: bytes) -> Shape | None:
        found = _LINE.fullmatch(line.rstrip(b"\r"))
        if found is None or found.group(6) or len(found.group(5)) % 2 or not _is_hex(found.group(5)):
            return None
        begin, end = found.span(5)
        return Shape(
            time=found.span(1),
            unit_ns=SECOND_NS,
            can_id=found.span(3),
            is_extended=len(found.group(3)) == 8,
            data=tuple(range(begin, end, 2)),
            channel=found.group(2).decode("utf-8", "replace"),
        )

    def parse(self, line: bytes) -> Row | None:
        if line.startswith(b"#"):
            return None
        found, shown = _LINE.fullmatch(line), _SHOWN.fullmatch(line)
        told = found or shown
        if told is None:
            raise BadLine("not a frame")
        t_text, name, id_text = told.group(1, 2, 3)
        value, is_extended = int(id_text, 16), len(id_text) == 8
        if is_extended and value & _ERROR_FRAME:
            self._notes.error_frames += 1
            return None
        can_id = identifier(value, is_extended)
        length: int | None = None
        if found is not None:
            body = found.group(5).replace(b".", b"")
            if body[:1] in (b"R", b"r"):
                length = int(body[1:2] or b"0", 16)
        else:
            body = told.group(5)
            if body == b"remote request":
                length = int(told.group(4))
        if length is not None:
            can_id, payload = remote(can_id, length)
        else:
            payload = bytes.fromhex(body.decode("ascii"))
        if found is None and len(payload) != int(told.group(4)):
            raise BadLine("fewer bytes than its length says")
        if len(payload) > FD_LENGTHS[-1]:
            raise BadLine("an impossible length")
        return decimal_ns(t_text), t_text, self._notes.channel(name.decode("utf-8", "replace")), can_id, payload


def _is_hex(text: bytes) -> bool:
    return b"." not in text and text[:1] not in (b"R", b"r")
