"""The two maps of registers of Daly's BMSs: `D2` with 32 places for cells, `p81` with 48 and what else that moved.

I > 0 charges on this wire, unlike Daly's A5. Layout: https://github.com/syssi/esphome-daly-bms and
https://github.com/patman15/aiobmsble, checked on captures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from firmware_bridge.protocol import Values
from firmware_bridge.protocols.daly_payloads import ALARM_RAWS, ZERO_A, alarm_words
from firmware_bridge.rows import BitSet, Choice, Count, Flags, Number, Read, Row, Text, names_of

_UNSET: Final = 0xFFFF
_NO_TEMP: Final = (0, 0xFF, _UNSET)
_SWITCH: Final = {0: False, 1: True}
EXTRAS_OF: Final[Mapping[str, tuple[str | None, float]]] = {
    "alarm_2_raw": ("", 1.0),
    "alarm_3_raw": ("", 1.0),
    "alarm_4_raw": ("", 1.0),
    "balancer": ("", 1.0),  # 0 off, 1 passive, 2 active
    "board_temp_c": ("degC", 0.1),
    "cell_max_number": ("", 1.0),
    "direction": ("", 1.0),  # 0 rests, 1 charges, 2 discharges
    "heartbeat": ("", 1.0),
    "heating": ("1", 1.0),
    "precharging": ("1", 1.0),
    "temp_max_c": ("degC", 0.1),
    "temp_max_number": ("", 1.0),
    "temp_min_c": ("degC", 0.1),
    "temp_min_number": ("", 1.0),
}


@dataclass(frozen=True, slots=True)
class _At:
    """What stands in `words` registers from `start` on; the row counts its bytes from there."""

    start: int
    row: Row
    words: int = 1


@dataclass(frozen=True, slots=True)
class _Places:
    """An array of `most` registers from `start` on; the register `count_at` says how many of them a pack has."""

    start: int
    most: int
    count_at: int
    each: Number


@dataclass(frozen=True, slots=True)
class _Block:
    """Registers that are read together. every: in each n-th round of polls; 0 = we do not ask for them."""

    kind: str
    start: int
    count: int
    every: int = 0


@dataclass(frozen=True, slots=True)
class RegisterMap:
    """A map of registers. from_zero: a reply of at least so many registers that is none of the blocks begins at 0."""

    rows: Sequence[_At]
    arrays: Sequence[_Places]
    blocks: Sequence[_Block]
    from_zero: int

    def start_of(self, count: int) -> int | None:
        """Where a reply of so many registers begins when nobody knows; None = that cannot be told."""
        for block in self.blocks:
            if block.count == count:
                return block.start
        return 0 if count >= self.from_zero else None

    def kind_of(self, start: int, count: int) -> str:
        """The kind of Part that these registers make: that of the first block that they touch."""
        for block in self.blocks:
            if start < block.start + block.count and block.start < start + count:
                return block.kind
        return "other"

    def read(self, start: int, data: bytes) -> Read:
        """What the registers from `start` on say; rows that are not wholly among them say nothing."""
        told = Read()
        for it in self.rows:
            at = 2 * (it.start - start)
            if at >= 0 and at + 2 * it.words <= len(data):
                it.row.read(data[at : at + 2 * it.words], told)
        for array in self.arrays:
            _read_places(array, start, data, told)
        return told

    def written(self, start: int, count: int, values: Values) -> bytes:
        """The registers of a pack with these values."""
        size = max(chain((it.start + it.words for it in self.rows), (it.start + it.most for it in self.arrays)))
        data = bytearray(2 * max(size, start + count))
        for it in self.rows:
            part = data[2 * it.start : 2 * (it.start + it.words)]
            it.row.write(part, values)
            data[2 * it.start : 2 * (it.start + it.words)] = part
        for array in self.arrays:
            for i in range(array.most):
                if (name := f"{array.each.name}[{i}]") in values:
                    array.each.put(data, 2 * (array.start + i), values[name])
        return bytes(data[2 * start : 2 * (start + count)])


def _read_places(array: _Places, start: int, data: bytes, told: Read) -> None:
    """The places that a pack has; without their number, all up to the last that is not zero."""
    at = 2 * (array.count_at - start)
    count = int.from_bytes(data[at : at + 2], "big") if 0 <= at <= len(data) - 2 else 0
    first = max(start - array.start, 0)
    last = min(start - array.start + len(data) // 2, array.most)
    raws = [array.each.raw(data, 2 * (array.start + i - start)) for i in range(first, last)]
    if 1 <= count <= array.most:
        del raws[max(count - first, 0) :]
    else:
        while raws and raws[-1] == 0:
            raws.pop()
    for i, raw in enumerate(raws):
        told.put(f"{array.each.name}[{first + i}]", *array.each.meaning(raw))


def _temp(name: str) -> Number:
    return Number(name, 0, ">H", zero=40, absent=_NO_TEMP, hi=215)  # as far as a byte goes


def _volt(name: str) -> Number:
    return Number(name, 0, ">H", per=1000, absent=(_UNSET,))


_CELL: Final = _volt("cell_v")
_TEMP: Final = _temp("temp_c")
_PACK_V: Final = Number("pack_v", 0, ">H", per=10, absent=(_UNSET,))
_CURRENT: Final = Number("current_a", 0, ">H", per=10, zero=ZERO_A, absent=(0, _UNSET))
_SOC: Final = Number("soc_bms", 0, ">H", per=1000, absent=(_UNSET,), hi=2)
_DIRECTION: Final = Number("extra.direction", 0, ">H")
_REMAINING: Final = Number("extra.remaining_ah", 0, ">H", per=10, absent=(_UNSET,))
_CYCLES: Final = Number("cycles", 0, ">H", absent=(_UNSET,))
_BALANCER: Final = Number("extra.balancer", 0, ">H", absent=(_UNSET,))
_BALANCE_A: Final = Number("extra.balance_a", 0, ">H", per=1000, zero=ZERO_A, absent=(0, _UNSET))
_NOMINAL: Final = Number("extra.nominal_ah", 0, ">H", per=10, absent=(0, _UNSET))


@dataclass(frozen=True, slots=True)
class _Hardware:
    """The hardware's name in the D2 map: behind 16 bytes of the software's, or behind 32 in some packs."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("extra.hw_version",)

    def read(self, data: bytes, into: Read) -> None:
        near = data[16] not in (0, _UNSET & 0xFF)
        Text("extra.hw_version", 16 if near else 32, 16).read(data, into)

    def write(self, data: bytearray, values: Values) -> None:
        Text("extra.hw_version", 16, 16).write(data, values)


D2_MAP: Final = RegisterMap(
    rows=(
        _At(0x28, _PACK_V),
        _At(0x29, _CURRENT),
        _At(0x2A, _SOC),
        _At(0x2B, _volt("extra.cell_max_v")),
        _At(0x2C, _volt("extra.cell_min_v")),
        _At(0x2D, _temp("extra.temp_max_c")),
        _At(0x2E, _temp("extra.temp_min_c")),
        _At(0x2F, _DIRECTION),
        _At(0x30, _REMAINING),
        _At(0x31, Count("cell_v", 0, ">H")),
        _At(0x32, Count("temp_c", 0, ">H")),
        _At(0x33, _CYCLES),
        _At(0x34, _BALANCER),
        _At(0x35, Choice("charge_mos", 0, _SWITCH, ">H")),
        _At(0x36, Choice("discharge_mos", 0, _SWITCH, ">H")),
        *(_At(0x3A + i, word) for i, word in enumerate(alarm_words(">H"))),
        _At(0x3E, BitSet("balancing", 0, ">H", words=2), 2),
        _At(0x40, _BALANCE_A),
        _At(0x42, _temp("extra.mos_temp_c")),
        _At(0x43, _temp("extra.board_temp_c")),
        _At(0x80, _NOMINAL),
        _At(0xA9, Text("extra.sw_version", 0, 16), 32),
        _At(0xA9, _Hardware(), 32),
    ),
    arrays=(_Places(0x00, 32, 0x31, _CELL), _Places(0x20, 8, 0x32, _TEMP)),
    blocks=(
        _Block("status", 0x00, 62, 1),
        _Block("balancing", 0x3E, 9, 1),
        _Block("settings", 0x80, 41, 600),
        _Block("version", 0xA9, 32, 600),
        _Block("password", 0xC9, 3),
        _Block("balancer_switch", 0xCF, 1),
    ),
    from_zero=43,  # up to the SoC
)
P81_MAP: Final = RegisterMap(
    rows=(
        _At(0x38, _PACK_V),
        _At(0x39, _CURRENT),
        _At(0x3A, _SOC),
        _At(0x3B, Number("extra.heartbeat", 0, ">H")),
        _At(0x3C, Count("cell_v", 0, ">H")),
        _At(0x3D, Count("temp_c", 0, ">H")),
        _At(0x3E, _volt("extra.cell_max_v")),
        _At(0x3F, Number("extra.cell_max_number", 0, ">H", absent=(_UNSET,))),
        _At(0x43, _temp("extra.temp_max_c")),
        _At(0x44, Number("extra.temp_max_number", 0, ">H", absent=(_UNSET,))),
        _At(0x45, _temp("extra.temp_min_c")),
        _At(0x46, Number("extra.temp_min_number", 0, ">H", absent=(_UNSET,))),
        _At(0x48, _DIRECTION),
        _At(0x4B, _REMAINING),
        _At(0x4C, _CYCLES),
        _At(0x4D, _BALANCER),
        _At(0x4E, _BALANCE_A),
        _At(0x4F, BitSet("balancing", 0, ">H", words=3), 3),
        _At(0x52, Choice("charge_mos", 0, _SWITCH, ">H")),
        _At(0x53, Choice("discharge_mos", 0, _SWITCH, ">H")),
        _At(0x54, Number("extra.precharging", 0, ">H", absent=(_UNSET,))),
        _At(0x55, Number("extra.heating", 0, ">H", absent=(_UNSET,))),
        _At(0x5A, _temp("extra.mos_temp_c")),
        _At(0x5B, _temp("extra.board_temp_c")),
        # Nobody knows what each bit is: that one stands is all that can be said.
        *(
            _At(0x6D + i, Flags(0, ">H", dict.fromkeys(range(16), "alarm.other"), f"extra.{name}"))
            for i, name in enumerate(ALARM_RAWS[:2])
        ),
        _At(0x100, _NOMINAL),
        _At(0x178, Text("extra.sw_version", 0, 28), 14),
        _At(0x186, Text("extra.hw_version", 0, 14), 7),
    ),
    arrays=(_Places(0x00, 48, 0x3C, _CELL), _Places(0x30, 8, 0x3D, _TEMP)),
    blocks=(
        _Block("status", 0x00, 64, 1),
        _Block("switches", 0x41, 62, 1),
        _Block("settings", 0x100, 81, 600),
        _Block("version", 0x178, 74, 600),
        _Block("accumulated", 0xA4, 10),
        _Block("balancer_switch", 0xCF, 1),
        _Block("more_settings", 0x151, 39),
        _Block("more_settings", 0x1C3, 80),
        _Block("more_settings", 0x220, 11),
        _Block("more_settings", 0x24B, 2),
    ),
    from_zero=0x10000,
)
FIELDS: Final = (
    *names_of([it.row for registers in (D2_MAP, P81_MAP) for it in registers.rows]),
    "cell_v[]",
    "temp_c[]",
)
