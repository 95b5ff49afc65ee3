"""PEAK's TRC, versions 1.0 to 2.1: `1) 1059.900 Rx 0300 7 00 ...`; times are ms since the start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Final

from edge.logs.frames import BadLine, Block, Notes, Row, decimal_ns, identifier, payload_of, remote, seconds_text
from edge.logs.shapes import MS_NS, Shape, shaped_blocks
from firmware_bridge.frames import CLASSIC_BYTES, FD_LENGTHS
from shared.errors import ConfigError

NAME: Final = "PEAK TRC"
_VERSION_1_0: Final = re.compile(rb"\s*\d+\)\s+\d+(\.\d+)?\s+[0-9A-Fa-f]{4,8}\s+\d+\s")
_COLUMNS: Final = {  # what stands where, by version; N number, O ms, T type, B bus, I id, d direction, L length, D data
    "1.0": "N,O,I,L,D",
    "1.1": "N,O,d,I,L,D",
    "1.2": "N,O,B,d,I,L,D",
    "1.3": "N,O,B,d,I,R,L,D",
}
_FRAMES: Final = {b"DT", b"FD", b"FB", b"FE", b"BI", b"RR"}
_DATA: Final = _FRAMES - {b"RR"}
_BUS_INFO: Final = b"FFFFFFFF"
_CELL: Final = re.compile(rb"\S+")
_NO_FRAMES: Final = {b"ST", b"EC", b"EV"}  # status, error counters, an event
_EPOCH_DAYS: Final = 25_569  # from 1899-12-30, where Windows' days begin
_DAY_NS: Final = 86_400 * 1_000_000_000


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    lines = head.splitlines()[:60]
    if any(line.startswith(b";$FILEVERSION=") for line in lines):
        return True
    data = [line for line in lines if line.strip() and not line.startswith(b";")]
    return bool(data) and lines[0].startswith(b";") and _VERSION_1_0.match(data[0] + b" ") is not None


def blocks(file: IO[bytes], notes: Notes) -> Iterator[Block]:
    """The frames of a file, a piece of it at a time."""
    return shaped_blocks(file, _Reader(notes), notes)


class _Reader:
    restarts = re.compile(rb";")

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._set_columns(_COLUMNS["1.0"])

    def shape(self, line: bytes) -> Shape | None:
        at = self._at
        cells = [found.span() for found in _CELL.finditer(line)]
        if len(cells) < self._data_at:
            return None
        text = [line[begin:end] for begin, end in cells]
        code, data = text[at["l" if "l" in at else "L"]], cells[self._data_at :]
        is_frame = ("T" not in at or text[at["T"]] in _DATA) and ("d" not in at or text[at["d"]] in (b"Rx", b"Tx"))
        if not is_frame or not code.isdigit() or text[at["I"]] == _BUS_INFO or not text[at["O"]][:1].isdigit():
            return None
        if any(end - begin != 2 for begin, end in data) or self._length(int(code), len(data)) != len(data):
            return None
        return Shape(
            time=cells[at["O"]],
            unit_ns=MS_NS,
            can_id=cells[at["I"]],
            is_extended=len(text[at["I"]]) > 4,
            data=tuple(begin for begin, _ in data),
            channel=text[at["B"]].decode("ascii", "replace") if "B" in at else "",
            loose=((0, cells[at["N"]][1]),),
        )

    def parse(self, line: bytes) -> Row | None:
        if line.startswith(b";"):
            self._header(line.decode("latin-1"))
            return None
        at = self._at
        cells = line.split(None, self._data_at)
        kind = cells[at["T"]] if len(cells) > at.get("T", len(cells)) else b"DT"
        if kind in _NO_FRAMES:  # which have columns of their own
            return None
        if len(cells) < self._data_at:
            raise BadLine("fewer cells than a frame has")
        direction = cells[at["d"]] if "d" in at else b"Rx"
        if kind == b"ER" or direction == b"Error":
            self._notes.error_frames += 1
            return None
        if direction == b"Warng":
            return None
        if kind not in _FRAMES or direction not in (b"Rx", b"Tx"):
            raise BadLine("a kind of line that TRC does not have")
        id_text = cells[at["I"]]
        if id_text == _BUS_INFO:  # how version 1.0 tells of the bus
            return None
        can_id = identifier(int(id_text, 16), len(id_text) > 4)
        data = cells[self._data_at].split() if len(cells) > self._data_at else []
        code = int(cells[at["l" if "l" in at else "L"]])
        if kind == b"RR" or data[:1] == [b"RTR"]:
            can_id, payload = remote(can_id, code)
        else:
            payload = payload_of(data, self._length(code, len(data)))
        t_ns = _ms_ns(cells[at["O"]])
        bus = cells[at["B"]].decode("ascii", "replace") if "B" in at else ""
        return t_ns, seconds_text(t_ns), self._notes.channel(bus), can_id, payload

    def _length(self, code: int, there: int) -> int:
        """Bytes of a frame: of CAN FD the number is a code, which some writers take for the number of bytes."""
        if "l" in self._at or code <= CLASSIC_BYTES or code == there:
            return code
        return FD_LENGTHS[code] if code < len(FD_LENGTHS) else code

    def _header(self, line: str) -> None:
        name, _, value = line.partition("=")
        if name == ";$FILEVERSION":
            version = value.strip()
            if version in _COLUMNS:
                self._set_columns(_COLUMNS[version])
            elif not version.startswith("2."):
                raise ConfigError(f"it is a TRC of version {version}, and versions 1.0 to 1.3 and 2.x are known")
        elif name == ";$COLUMNS":
            self._set_columns(value)
        elif name == ";$STARTTIME":
            self._notes.start_ns = round((float(value) - _EPOCH_DAYS) * _DAY_NS)

    def _set_columns(self, columns: str) -> None:
        names = [name.strip() for name in columns.split(",")]
        if not {"N", "O", "I", "D"} <= set(names) or not {"l", "L"} & set(names) or names[-1] != "D":
            raise BadLine("columns that no frame can be read from")
        self._at = {name: i for i, name in enumerate(names)}
        self._data_at = self._at["D"]


def _ms_ns(text: bytes) -> int:
    """Milliseconds as text -> ns, exactly."""
    whole, _, fraction = text.partition(b".")
    sign, digits = (b"-", whole[1:]) if whole.startswith(b"-") else (b"", whole)
    digits = digits.rjust(4, b"0")
    return decimal_ns(sign + digits[:-3] + b"." + digits[-3:] + fraction)
