"""The tables of Seplos V2: what stands in its messages, in letters (RS485) and in bytes (Bluetooth) alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import Values
from firmware_bridge.protocols.seplos_events import V2 as EVENTS
from firmware_bridge.rows import BitSet, Flags, Number, Numbers, Read, Table, Text, names_of

_KELVIN: Final = 2731
_NO_SENSOR: Final = (0xFFFF, 0)
_RAWS: Final = ("alarm_raw", "alarm_2_raw", "alarm_3_raw", "alarm_4_raw")


def _celsius(name: str, at: int) -> Number:
    return Number(name, at, ">H", per=10, zero=_KELVIN, absent=_NO_SENSOR, lo=-100, hi=300)


@dataclass(frozen=True, slots=True)
class _Temps:
    """A count and so many sensors; the last two are the air around and the switches."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("temp_c[]", "ambient_c", "extra.mos_temp_c")

    def read(self, data: bytes, into: Read) -> None:
        for row in self._rows(data[0] if data else 0):
            row.read(data, into)

    def write(self, data: bytearray, values: Values) -> None:
        data[0] = (len(data) - 1) // 2
        for row in self._rows(data[0]):
            row.write(data, values)

    @staticmethod
    def _rows(count: int) -> Table:
        if count < 2:
            return (Numbers(_celsius("temp_c", 1), count=count),)
        at = 2 * count - 3
        return (
            Numbers(_celsius("temp_c", 1), count=count - 2),
            _celsius("ambient_c", at),
            _celsius("extra.mos_temp_c", at + 2),
        )


@dataclass(frozen=True, slots=True)
class _Version:
    """10 06 is 16.6."""

    at: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("extra.sw_version",)

    def read(self, data: bytes, into: Read) -> None:
        if self.at + 2 <= len(data):
            into.put(self.names[0], f"{data[self.at]}.{data[self.at + 1]}")

    def write(self, data: bytearray, values: Values) -> None:
        major, _, minor = str(values.get(self.names[0])).partition(".")
        if major.isdecimal() and minor.isdecimal():
            data[self.at : self.at + 2] = bytes([min(int(major), 0xFF), min(int(minor), 0xFF)])


def _measured(prefix: str, at: int, per: int) -> tuple[Number, ...]:
    """per: steps in 1 A and in 1 Ah."""
    return (
        Number(f"{prefix}current_a", at, ">h", per=per),
        Number(f"{prefix}v" if prefix else "pack_v", at + 2, ">H", per=100),
        Number(f"{prefix}remaining_ah" if prefix else "extra.remaining_ah", at + 4, ">H", per=per),
    )


CELLS: Final[Table] = (Numbers(Number("cell_v", 1, ">H", per=1000, absent=(0xFFFF,)), count_at=0),)
TEMPS: Final[Table] = (_Temps(),)
MAIN: Final[Table] = (
    *_measured("", 0, 100),
    Number("extra.full_ah", 7, ">H", per=100),
    Number("soc_bms", 9, ">H", per=1000, hi=2),
    Number("extra.nominal_ah", 11, ">H", per=100),
    Number("cycles", 13, ">H"),
    Number("soh_bms", 15, ">H", per=1000, hi=2),
    Number("extra.port_v", 17, ">H", per=100),
)
COUNT_AT: Final = 6  # of the words that follow
WORDS: Final = 6


def _switches(at: int) -> Table:
    return (
        Flags(at, ">B", {0: "discharge_mos", 1: "charge_mos"}),
        Number("extra.limiter", at, ">B", shift=2, bits=1),
        Number("extra.heater", at, ">B", shift=3, bits=1),
    )


def _events(*at: int) -> Table:
    """The alarms; at: of each two bytes of them."""
    return tuple(Flags(place, ">H", bits, f"extra.{raw}") for place, bits, raw in zip(at, EVENTS, _RAWS, strict=True))


# The second byte's bit 1 was set while cell 10 was the fullest, so cells 1-8 stand first.
TAIL: Final[Table] = (
    Number("extra.status", 0, ">B"),
    *_switches(1),
    *_events(3, 5, 7, 9),
    BitSet("balancing", 11, "<H"),
)
TAIL_BYTES: Final = 15
CUSTOM: Final[Table] = (
    *_events(0, 2, 4, 12),
    *_switches(6),
    BitSet("balancing", 7, "<H"),
    Number("extra.status", 9, ">B"),
)
CUSTOM_BYTES: Final = 20
STATES: Final = {0x00, 0x01, 0x02, 0xF0}  # of a cell or a sensor: well, too low, too high, otherwise wrong
LETTERS_INFO: Final[Table] = (Text("extra.model", 0, 10), _Version(10), Text("extra.manufacturer", 12, 20))
BYTES_INFO: Final[Table] = (
    Text("extra.manufacturer", 0, 20),
    Text("extra.model", 20, 10),
    _Version(30),
    Number("extra.packs", 35, ">B"),
)
INFO_BYTES: Final = {True: 32, False: 36}  # in letters, in bytes


def _any_alarms(at: int) -> Table:
    """Whether any pack of the system has an alarm or a warning that stands; which one, that pack says itself."""
    others = [
        {bit: "alarm.other:warning" if name.endswith(":warning") else "alarm.other" for bit, name in bits.items()}
        for bits in EVENTS
    ]
    return tuple(
        Flags(place, ">H", bits, f"extra.system_{raw}")
        for place, bits, raw in zip(range(at, at + 8, 2), others, _RAWS, strict=True)
    )


# The packs of a system add up to more than 655 Ah, so it counts in tenths of what each of them counts in.
SYSTEM: Final[Table] = (
    Number("extra.system_cell_max_v", 3, ">H", per=1000),
    Number("extra.system_cell_min_v", 5, ">H", per=1000),
    _celsius("extra.system_temp_max_c", 8),
    _celsius("extra.system_temp_min_c", 10),
    *_measured("extra.system_", 16, 10),
    Number("extra.system_full_ah", 23, ">H", per=10),
    Number("extra.system_soc", 25, ">H", per=1000, hi=2),
    Number("extra.system_nominal_ah", 27, ">H", per=10),
    Number("extra.system_cycles", 29, ">H"),
    Number("extra.system_soh", 31, ">H", per=1000, hi=2),
    *_any_alarms(40),
)
SYSTEM_BYTES: Final = 48

FIELDS: Final = names_of(CELLS, TEMPS, MAIN, TAIL, CUSTOM, LETTERS_INFO, BYTES_INFO, SYSTEM)
_COUNTS: Final = ("status", "packs", *_RAWS[1:], *(f"system_{raw}" for raw in _RAWS), "system_cycles")
EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    **dict.fromkeys(_COUNTS, ("", 1.0)),
    **dict.fromkeys(("limiter", "heater"), ("1", 1.0)),
    **dict.fromkeys(("port_v", "system_v"), ("V", 0.01)),
    **dict.fromkeys(("system_cell_max_v", "system_cell_min_v"), ("V", 0.001)),
    **dict.fromkeys(("system_temp_max_c", "system_temp_min_c"), ("degC", 0.1)),
    **dict.fromkeys(("system_remaining_ah", "system_full_ah", "system_nominal_ah"), ("Ah", 0.1)),
    **dict.fromkeys(("system_soc", "system_soh"), ("1", 0.001)),
    "system_current_a": ("A", 0.1),
    "manufacturer": (None, 0.0),
}
