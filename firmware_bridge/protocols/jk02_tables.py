"""The 300-byte frames of a JK BMS as tables: `55 AA EB 90 kind counter ... sum8`, little endian, `at` from the 55 on.

A status has one of two layouts: 24 cells (firmware before 11) or 32 (since), which moves what follows. The frame itself
shows which: the mask of cells stands where its layout has it. Layouts: https://github.com/syssi/esphome-jk-bms and JK's
"BMS RS485 Modbus V1.1", checked on captures of firmware 7 to 19.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firmware_bridge.checksums import sum8
from firmware_bridge.protocol import Value, Values
from firmware_bridge.rows import Flags, Number, Read, Table, Text, size_of, written

HEAD: Final = b"\x55\xaa\xeb\x90"
FRAME_BYTES: Final = 300
SETTINGS: Final = 1
STATUS: Final = 2
ABOUT: Final = 3
KINDS: Final[Mapping[int, str]] = {SETTINGS: "settings", STATUS: "status", ABOUT: "about"}

NEWER_SENSORS: Final[Mapping[str, slice]] = {
    "extra.mos2_temp_c": slice(254, 256),
    "temp_c[2]": slice(256, 260),
    "temp_c[3]": slice(256, 260),
}
"""Which bytes show that firmware has these: where it has not, zeros stand there, though the bits claim a sensor."""

_CELLS_AT: Final = 6
_PACK_AT: Final = 118  # where there are 24 places for cells
_SPREAD: Final = 0.05
_NO_SENSOR: Final = -2000
_ALARMS: Final = {
    0: "alarm.voltage_sensor_fault",  # a cell's wire has too much resistance
    1: "alarm.mos_over_temp",
    2: "alarm.bms_fault",  # another number of cells than it is set to
    3: "alarm.current_sensor_fault",
    4: "alarm.cell_over_voltage",
    5: "alarm.pack_over_voltage",
    6: "alarm.charge_over_current",
    7: "alarm.short_circuit",
    8: "alarm.charge_over_temp",
    9: "alarm.charge_under_temp",
    10: "alarm.communication_fault",  # with its second processor
    11: "alarm.cell_under_voltage",
    12: "alarm.pack_under_voltage",
    13: "alarm.discharge_over_current",
    14: "alarm.short_circuit",
    15: "alarm.discharge_over_temp",
}
_MORE_ALARMS: Final = _ALARMS | {
    16: "alarm.mos_fault",
    17: "alarm.mos_fault",
    # 18 "GPS is gone" and 19 "change the password" say nothing of the pack; they stay in alarm_raw.
    20: "alarm.mos_fault",
    21: "alarm.discharge_over_temp",
    22: "alarm.temp_sensor_fault",
    23: "alarm.communication_fault",
    27: "alarm.discharge_under_temp",
}


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells, and behind them a mask of those that are there, their mean, their spread, and which are the outermost."""

    places: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("cell_v[]",)

    @property
    def mask_at(self) -> int:
        return _CELLS_AT + 2 * self.places

    def read(self, data: bytes, into: Read) -> None:
        raw = struct.unpack_from(f"<{self.places}H", data, _CELLS_AT)
        mask = struct.unpack_from("<I", data, self.mask_at)[0]
        if not mask:  # then those up to the last that has a voltage
            mask = (1 << max((i + 1 for i, mv in enumerate(raw) if mv), default=0)) - 1
        for i in range(min(mask.bit_length(), self.places)):
            into.put(f"cell_v[{i}]", raw[i] / 1000, None if mask >> i & 1 else "absent")

    def write(self, data: bytearray, values: Values) -> None:
        count = min(size_of("cell_v", values), self.places)
        known = {i: v for i in range(count) if (v := values[f"cell_v[{i}]"]) is not None}
        raw = {i: min(max(round(float(v) * 1000), 0), 0xFFFF) for i, v in known.items()}
        for i, mv in raw.items():
            struct.pack_into("<H", data, _CELLS_AT + 2 * i, mv)
        if raw:
            most, least = max(raw, key=raw.__getitem__), min(raw, key=raw.__getitem__)
            mask, mean = sum(1 << i for i in raw), round(sum(raw.values()) / len(raw))
            struct.pack_into("<IHHBB", data, self.mask_at, mask, mean, raw[most] - raw[least], most, least)


@dataclass(frozen=True, slots=True)
class _Sensors:
    """Temperatures (0.1 degC) by (name, bit, at), and a byte of bits that says which of them are there (0 = all)."""

    mask_at: int
    places: tuple[tuple[str, int, int], ...]
    spare: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.partition("[")[0] + "[]" * ("[" in name) for name, _, _ in self.places))

    def read(self, data: bytes, into: Read) -> None:
        mask = data[self.mask_at] or 0xFF
        for name, bit, at in self.places:
            raw = struct.unpack_from("<h", data, at)[0]
            if raw == _NO_SENSOR or not mask >> bit & 1:
                into.put(name, None, "absent")
            else:
                into.put(name, raw / 10, None if -1000 <= raw <= 3000 else "invalid")

    def write(self, data: bytearray, values: Values) -> None:
        mask = self.spare
        for name, bit, at in self.places:
            value: Value = values.get(name)
            if value is not None:
                mask |= 1 << bit
                struct.pack_into("<h", data, at, min(max(round(float(value) * 10), -0x8000), 0x7FFF))
            elif name in values or name not in NEWER_SENSORS:
                struct.pack_into("<h", data, at, _NO_SENSOR)
        data[self.mask_at] = mask


def _status(places: int, sensors: _Sensors, alarms: Flags) -> Table:
    """The status of a firmware with so many places for cells; alarms and sensors do not move with the others."""
    moved = 4 * (places - 24)  # by the voltages and by the resistances of the cells
    return (
        _Cells(places),
        Number("pack_v", _PACK_AT + moved, "<I", per=1000),
        Number("current_a", 126 + moved, "<i", per=1000),
        sensors,
        alarms,
        Number("extra.balance_a", 138 + moved, "<h", per=1000),
        Number("extra.balance_action", 140 + moved, "<B"),  # 0 none, 1 charges a cell, 2 discharges one
        Number("soc_bms", 141 + moved, "<B", per=100, hi=2),
        Number("extra.remaining_ah", 142 + moved, "<I", per=1000),
        Number("extra.full_ah", 146 + moved, "<I", per=1000),  # learned; what is set stands in the settings
        Number("cycles", 150 + moved, "<I"),
        Number("throughput_ah", 154 + moved, "<I", per=1000),
        Number("soh_bms", 158 + moved, "<B", per=100, hi=2),
        Number("extra.runtime_s", 162 + moved, "<I"),
        Flags(166 + moved, "<B", {0: "charge_mos"}),
        Flags(167 + moved, "<B", {0: "discharge_mos"}),
    )


OF_24: Final = _status(
    24,
    _Sensors(182, (("temp_c[0]", 0, 130), ("temp_c[1]", 1, 132), ("extra.mos_temp_c", 2, 134))),
    Flags(136, "<H", _ALARMS, "extra.alarm_raw"),
)
OF_32: Final = _status(
    32,
    _Sensors(
        214,
        (
            ("extra.mos_temp_c", 0, 144),
            ("temp_c[0]", 1, 162),
            ("temp_c[1]", 2, 164),
            ("extra.mos2_temp_c", 3, 254),
            ("temp_c[2]", 4, 256),
            ("temp_c[3]", 5, 258),
        ),
        spare=0xC0,
    ),
    Flags(166, "<I", _MORE_ALARMS, "extra.alarm_raw"),
)
_SETTINGS: Final[Table] = (
    Number("extra.cell_uv_v", 10, "<I", per=1000),
    Number("extra.cell_ov_v", 18, "<I", per=1000),
    Number("extra.charge_a_max", 50, "<I", per=1000),
    Number("extra.discharge_a_max", 62, "<I", per=1000),
    Number("extra.cell_count", 114, "<I"),
    Number("extra.nominal_ah", 130, "<I", per=1000),
)
_ABOUT: Final[Table] = (
    Text("extra.model", 6, 16),
    Text("extra.hw_version", 22, 8),
    Text("extra.sw_version", 30, 8),
    Text("extra.name", 46, 16),
    # 62 and 97 are passwords.
    Text("extra.serial", 86, 11),
)
TABLES: Final = (OF_24, OF_32, _SETTINGS, _ABOUT)
EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    "balance_action": ("", 1.0),
    "runtime_s": ("s", 1.0),
    "mos2_temp_c": ("degC", 0.1),
    "cell_uv_v": ("V", 0.001),
    "cell_ov_v": ("V", 0.001),
    "charge_a_max": ("A", 0.001),
    "discharge_a_max": ("A", 0.001),
    "cell_count": ("", 1.0),
    "name": (None, 0.0),
    "serial": (None, 0.0),
}


def _adds_up(frame: bytes, places: int) -> bool:
    """Whether the voltage of the pack is that of its cells, where a layout of so many places has both."""
    cells: int = sum(struct.unpack_from(f"<{places}H", frame, _CELLS_AT))
    pack: int = struct.unpack_from("<I", frame, _PACK_AT + 4 * (places - 24))[0]
    return abs(pack - cells) < _SPREAD * cells


def table_of(frame: bytes) -> Table | None:
    """The table of a frame of a kind that is known; None = its layout is that of another family (JK04's floats)."""
    if frame[4] == ABOUT:
        return _ABOUT
    if frame[4] == SETTINGS:
        return None if frame[9] in (0x3F, 0x40) else _SETTINGS
    highs = struct.unpack_from("<HxxH", frame, _CELLS_AT + 2)
    if all(0x3E80 <= high < 0x4100 for high in highs):  # cells 1 and 2 as floats of 0.25 to 8 V; 16 V is no cell's
        return None
    mask_24 = struct.unpack_from("<I", frame, 54)[0]
    if mask_24 == 0 and _adds_up(frame, 24) and not _adds_up(frame, 32):
        return OF_24
    if mask_24 == 0:  # if neither has cells, 32 has more to say at the end
        return OF_32 if any(frame[70:74]) or any(frame[270:299]) else OF_24
    # Where 24 has mask, mean and voltage, 32 has cells 25 and 26, cell 27, and the resistances of two wires.
    is_24 = mask_24 < 1 << 24 and struct.unpack_from("<I", frame, _PACK_AT)[0] < 1 << 18
    return OF_24 if is_24 and (any(frame[58:60]) or not any(frame[270:299])) else OF_32


def frame_of(kind: int, values: Values, counter: int = 0) -> bytes:
    """The frame of a kind that a pack with these values sends; firmware 5 to 10 has the layout of 24 cells."""
    major = str(values.get("extra.sw_version") or "").partition(".")[0]
    status = OF_24 if major.isdigit() and 5 <= int(major) < 11 else OF_32
    table = {SETTINGS: _SETTINGS, STATUS: status, ABOUT: _ABOUT}[kind]
    data = bytearray(written(table, values, FRAME_BYTES - 1))
    data[:6] = HEAD + bytes([kind, counter & 0xFF])
    if table is OF_32:
        data[287:291] = b"\xfe\xff\x7f\xdc"
    return bytes(data) + bytes([sum8(bytes(data))])
