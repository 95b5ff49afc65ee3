"""Nissan Leaf: the battery controller (79B -> 7BB) tells groups, asked by service 21; 96 cells, four sensors at most.

Layout: https://github.com/dalathegreat/Battery-Emulator and https://github.com/openvehicles; checked on captures of a
2019 car (CSS Electronics, 2F6913DB): state of charge, temperatures, voltage. Not proved: the current's scale, what the
24 kWh cars tell (a group 01 of 39 bytes), the cells, the shunts.

Two currents stand in group 01; in the one capture that has it the first is 0.6 of the second. The first is taken, in
1/1024 A: that car stood with its heater on and told -3 A, so + charges.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import Values
from firmware_bridge.protocols.vehicles.vehicle import Ecu, Reading, Vehicle
from firmware_bridge.rows import Number, Numbers, Read, Row, Table

BATTERY: Final = Ecu(0x79B, 0x7BB)
_NO_SENSOR: Final = 0xFFFF
_SENSORS: Final = 4
_SENSOR_BYTES: Final = 3
_SHUNT_BYTES: Final = 24


@dataclass(frozen=True, slots=True)
class _Sensors:
    """Two bytes of the thermistor, FFFF = there is none, then its temperature: FF beside a thermistor is -1 degC."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("temp_c[]",)

    def read(self, data: bytes, into: Read) -> None:
        for i in range(min(_SENSORS, len(data) // _SENSOR_BYTES)):
            raw, temp_c = struct.unpack_from(">Hb", data, i * _SENSOR_BYTES)
            into.put(f"temp_c[{i}]", float(temp_c), "absent" if raw == _NO_SENSOR else None)

    def write(self, data: bytearray, values: Values) -> None:
        for i in range(_SENSORS):
            value = values.get(f"temp_c[{i}]")
            if value is None:
                struct.pack_into(">HB", data, i * _SENSOR_BYTES, _NO_SENSOR, 0xFF)
            else:
                temp_c = min(max(round(float(value)), -128), 127)
                # The thermistor falls by about 5 a degree, as the captures around 0 degC show.
                struct.pack_into(">Hb", data, i * _SENSOR_BYTES, 711 - 5 * temp_c, temp_c)


@dataclass(frozen=True, slots=True)
class _Shunts:
    """Which cells are balanced: four a byte, the first of them the highest of the low four bits."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("balancing",)

    def read(self, data: bytes, into: Read) -> None:
        bits = 0
        for i, byte in enumerate(data[:_SHUNT_BYTES]):
            for place in range(4):
                bits |= (byte >> 3 - place & 1) << 4 * i + place
        into.put("balancing", bits)

    def write(self, data: bytearray, values: Values) -> None:
        bits = int(values.get("balancing") or 0)
        for i in range(_SHUNT_BYTES):
            data[i] = sum((bits >> 4 * i + place & 1) << 3 - place for place in range(4))


def _status(later: int) -> tuple[Row, ...]:
    """Group 01. later: bytes that newer packs have in its middle."""
    return (
        Number("current_a", 0, ">i", per=1024),
        Number("extra.current_2_a", 6, ">i", per=1024),
        Number("pack_v", 18, ">H", per=100),
        Number("extra.hx", 26 + later, ">H", per=10240),
        Number("soc_bms", 28 + later, ">I", per=1_000_000, hi=2),
        Number("extra.full_ah", 32 + later, ">I", per=10_000),
    )


_CELLS: Final[Table] = (Numbers(Number("cell_v", 0, ">H", per=1000, absent=(0xFFFF,)), count=96),)

LEAF: Final = Vehicle(
    "leaf",
    "Nissan Leaf (unverified on hardware: the current's scale, packs of 24 kWh, cells, shunts)",
    (
        Reading(ecu=BATTERY, request=b"\x21\x01", layouts={36: _status(0), 40: _status(2)}, size=51),
        Reading(ecu=BATTERY, request=b"\x21\x02", layouts={2: _CELLS}, size=196),
        Reading(ecu=BATTERY, request=b"\x21\x04", layouts={12: (_Sensors(),)}, size=29),
        Reading(ecu=BATTERY, request=b"\x21\x06", layouts={_SHUNT_BYTES: (_Shunts(),)}, size=_SHUNT_BYTES, every=10),
    ),
)
