"""JBD UP16S over RS485: `address function start end length payload crc`, big endian but for the CRC. Part of jbd.py.

Function 78 reads a stretch of bytes, 45 the pack in other words; 79 writes, which is never asked here. Layout: read off
captures of two packs (esphome-jbd-bms) and four of dbus-serialbattery. Unverified on hardware: the temperatures of 78,
in 0.1 K from -50 degC on (they agree with those in kelvin of 45, and no thermometer was beside them), what each bit of
its faults means (so they are `other`), and which switch is which.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from firmware_bridge.checksums import ModbusSums, crc16_modbus
from firmware_bridge.protocol import Asked, LineError, Part, Poll, Said, Twice, Values
from firmware_bridge.rows import (
    BitSet,
    Flags,
    Number,
    Numbers,
    Read,
    Row,
    Table,
    Text,
    names_of,
    read,
    size_of,
    written,
)

READ: Final = 0x78
WRITE: Final = 0x79
READ_PACK: Final = 0x45
_BESIDE_BYTES: Final = 10  # of a frame, beside its payload
_MOST_BYTES: Final = 0x200  # of a payload, and of a stretch
_STATUS: Final = (READ, 0x1000, 0x10A0)
_ABOUT: Final = (READ, 0x1C00, 0x1CA0)
_TOTALS: Final = (READ, 0x2006, 0x2018)
_PACK: Final = (READ_PACK, 0x0000, 0x0054)
_CELLS_AT: Final = 68  # of the status
_PACK_CELLS_AT: Final = 2
_PACK_BYTES: Final = 74  # beside cells and sensors
_CELL: Final = Number("cell_v", 0, ">H", per=1000)
_SENSOR: Final = Number("temp_c", 0, ">H", per=10, zero=500, absent=(0, 0xFFFF), hi=300)
_KELVIN: Final = Number("temp_c", 0, ">H", per=10, zero=2731, absent=(0, 0xFFFF), lo=-100, hi=300)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Cells behind their count, then what is `between` and moves with their number, then sensors, then what is `after`.

    cells_at: of the first cell; its count is the number of 16 bits before. count_at: of the byte that counts the
    sensors, from the end of the cells; the sensors stand at sensors_at. Rows of `between` count from the end of the
    cells, those of `after` from the end of the sensors.
    """

    cells_at: int
    sensor: Number
    count_at: int
    sensors_at: int
    between: Table = ()
    after: Table = ()

    @property
    def names(self) -> tuple[str, ...]:
        return ("cell_v[]", *names_of(self.between), "temp_c[]", *names_of(self.after))

    def read(self, data: bytes, into: Read) -> None:
        if len(data) < self.cells_at:
            return
        cells = min(struct.unpack_from(">H", data, self.cells_at - 2)[0], (len(data) - self.cells_at) // 2)
        Numbers(replace(_CELL, at=self.cells_at), cells).read(data, into)
        rest = data[self.cells_at + 2 * cells :]
        for row in self.between:
            row.read(rest, into)
        if self.count_at >= len(rest):
            return
        sensors = min(rest[self.count_at], (len(rest) - self.sensors_at) // 2)
        Numbers(replace(self.sensor, at=self.sensors_at), sensors).read(rest, into)
        for row in self.after:
            row.read(rest[self.sensors_at + 2 * sensors :], into)

    def write(self, data: bytearray, values: Values) -> None:
        cells, sensors = size_of("cell_v", values), size_of("temp_c", values)
        struct.pack_into(">H", data, self.cells_at - 2, cells)
        Numbers(replace(_CELL, at=self.cells_at), cells).write(data, values)
        at = self.cells_at + 2 * cells
        rest = data[at:]
        for row in self.between:
            row.write(rest, values)
        rest[self.count_at] = sensors
        Numbers(replace(self.sensor, at=self.sensors_at), sensors).write(rest, values)
        last = self.sensors_at + 2 * sensors
        end = rest[last:]
        for row in self.after:
            row.write(end, values)
        data[at:] = rest[:last] + end


@dataclass(frozen=True, slots=True)
class _Version:
    """A version in two bytes: 0C 04 is 12.4."""

    at: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("extra.sw_version",)

    def read(self, data: bytes, into: Read) -> None:
        if self.at + 2 <= len(data):
            into.put(self.names[0], f"{data[self.at]}.{data[self.at + 1]}")

    def write(self, data: bytearray, values: Values) -> None:
        version = str(values.get(self.names[0]) or "").split(".")
        if len(version) == 2 and all(part.isdigit() and int(part) < 256 for part in version):
            data[self.at : self.at + 2] = bytes(map(int, version))


def _every(bits: int, name: str) -> Mapping[int, str]:
    return dict.fromkeys(range(bits), name)


_STATUS_TABLE: Final[Table] = (
    Number("pack_v", 0, ">H", per=100),
    Number("current_a", 4, ">I", per=100, zero=300000),
    Number("soc_bms", 8, ">H", per=10000, hi=2),
    Number("extra.remaining_ah", 10, ">H", per=100),
    Number("extra.full_ah", 12, ">H", per=100),
    Number("extra.nominal_ah", 14, ">H", per=100),
    replace(_SENSOR, name="extra.mos_temp_c", at=16),
    replace(_SENSOR, name="ambient_c", at=18),
    Number("soh_bms", 22, ">H", per=100, hi=2),
    Flags(24, ">I", _every(32, "alarm.other"), "extra.alarm_raw"),
    Flags(28, ">I", _every(32, "alarm.other:warning"), "extra.warning_raw"),
    Flags(32, ">H", {0: "charge_mos", 1: "discharge_mos"}),
    Number("cycles", 36, ">H"),
    Number("extra.charge_v_limit", 58, ">H", per=10),
    Number("charge_limit_a", 60, ">H", per=10),
    Number("extra.discharge_v_limit", 62, ">H", per=10),
    Number("discharge_limit_a", 64, ">H", per=10),
    _Lists(_CELLS_AT, _SENSOR, 1, 2, after=(BitSet("balancing", 2, ">H"), _Version(4))),
)
_ABOUT_TABLE: Final[Table] = (Text("extra.model", 16, 30), Text("extra.serial", 52, 30))
_TOTALS_TABLE: Final = (
    Number("extra.charged_ah", 0x2010, ">I", per=10),
    Number("extra.discharged_ah", 0x2014, ">I", per=10),
)
_PACK_TABLE: Final[Table] = (
    _Lists(
        _PACK_CELLS_AT,
        _KELVIN,
        72,
        74,
        between=(
            Number("pack_v", 4, ">H", per=100),
            Number("current_a", 6, ">i", per=100),
            Number("extra.full_ah", 14, ">H", per=100),
            Number("extra.remaining_ah", 16, ">H", per=100),
            Number("cycles", 18, ">H"),
            Number("soc_bms", 20, ">H", per=100, hi=2),
            Number("soh_bms", 22, ">H", per=100, hi=2),
            replace(_KELVIN, name="extra.mos_temp_c", at=68),
            replace(_KELVIN, name="ambient_c", at=70),
        ),
    ),
)
FIELDS: Final = names_of(_STATUS_TABLE, _ABOUT_TABLE, _TOTALS_TABLE, _PACK_TABLE)
EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    "warning_raw": ("", 1.0),
    "charged_ah": ("Ah", 0.1),
    "discharged_ah": ("Ah", 0.1),
    "serial": (None, 0.0),
}


def _head(data: bytes, at: int) -> tuple[int, int, int, int]:
    """(function, start, end, length) of the frame that begins there."""
    function, start, end, length = struct.unpack_from(">BHHH", data, at + 1)
    return function, start, end, length


class Lengths:
    """Of the frames of UP16S on a line. See Framing."""

    def __init__(self) -> None:
        self._sums = ModbusSums()
        self._is_good = False

    def length(self, data: bytes, at: int) -> int | None:
        """See Framing; the address and the function are there."""
        if at + 8 > len(data):
            return None
        _, start, end, size = _head(data, at)
        if not (start < end <= start + _MOST_BYTES and size <= _MOST_BYTES):
            return 0
        self._sums.begin(data, at)
        self._is_good = at + _BESIDE_BYTES + size <= len(data) and self._sums.is_good(_BESIDE_BYTES + size)
        return _BESIDE_BYTES + size

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        """See Framing. `length` has just looked: summed up anew, noise full of long frames would take long."""
        return None if self._is_good else ("checksum", f"{int.from_bytes(frame[-2:], 'little'):04X} is not its CRC")


def said(frame: bytes, at: int, asked: Asked, twice: Twice) -> Said:
    """What a good frame says. at: its offset. twice: of its address; 45 tells what 78 does, in whole percent."""
    address, payload = frame[0], frame[8:-2]
    function, start, _, size = _head(frame, 0)
    if not size and function != WRITE:
        return LineError("echo", at, f"a request: {frame.hex()}")
    if asked.any and asked.answered(lambda request: len(request) == _BESIDE_BYTES and request[:4] == frame[:4]) is None:
        return LineError("address", at, f"nobody asked {address} for {start:04X} by {function:02X}")
    kind, table = _meaning(function, start, len(payload))
    if not kind:
        return LineError("function", at, f"what {function:02X} has from {start:04X} on is not known")
    told = read(table, payload)
    if not told.values:
        return LineError("length", at, f"{kind} in {len(payload)} bytes")
    if table is _STATUS_TABLE:
        twice.better(told.values)
    values = twice.poorer(told.values) if table is _PACK_TABLE else told.values
    quality = {name: reason for name, reason in told.quality.items() if name in values}
    return Part(kind=kind, address=address, values=values, quality=quality)


def _meaning(function: int, start: int, size: int) -> tuple[str, Sequence[Row]]:
    """The kind of a payload and its table; "" = it has none."""
    if (function, start) == _STATUS[:2]:
        return ("status", _STATUS_TABLE) if size >= _CELLS_AT else ("", ())
    if (function, start) == _PACK[:2]:
        return ("pack", _PACK_TABLE) if size >= _PACK_CELLS_AT else ("", ())
    if (function, start) == _ABOUT[:2]:
        return "about", _ABOUT_TABLE
    totals = [replace(row, at=row.at - start) for row in _TOTALS_TABLE if start <= row.at < start + size]
    return ("totals", totals) if function == READ and totals else ("", ())


def _frame(address: int, what: tuple[int, int, int], payload: bytes) -> bytes:
    body = struct.pack(">BBHHH", address, *what, len(payload)) + payload
    return body + crc16_modbus(body).to_bytes(2, "little")


def request(address: int, what: tuple[int, int, int]) -> bytes:
    """The request to read (function, start, end)."""
    return _frame(address, what, b"")


def answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    """See Protocol."""
    whats = (_STATUS, _ABOUT, _TOTALS, _PACK)
    what = next((what for what in whats if asked[:1] and asked == request(asked[0], what)), None)
    if what is None or address not in (None, asked[0]):
        return []
    lists = 2 * (size_of("cell_v", values) + size_of("temp_c", values))
    size = {_STATUS: _CELLS_AT + 48 + lists, _PACK: _PACK_CELLS_AT + _PACK_BYTES + lists, _ABOUT: 0x86, _TOTALS: 0x12}
    _, table = _meaning(what[0], what[1], size[what])
    return [_frame(asked[0], what, written(table, values, size[what]))]


def polls(address: int) -> Sequence[Poll]:
    """See Protocol."""
    return (
        Poll(kind="status", request=request(address, _STATUS)),
        Poll(kind="totals", request=request(address, _TOTALS), every=60),
        Poll(kind="about", request=request(address, _ABOUT), every=600),
    )
