"""What Daly's BMSs say in eight bytes a command: the same over UART (`daly_uart`) and over CAN (`daly_can`).

I > 0 discharges on this wire. Bytes behind what a command fills are left over from the reply before: nobody reads them.
Layout: https://github.com/jblance/mpp-solar and https://github.com/fl4p/batmon-ha, checked on captures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import LineError, Part, Said, Values
from firmware_bridge.rows import BitSet, Choice, Count, Flags, Number, Read, Table, names_of, read, size_of, written

PAYLOAD_BYTES: Final = 8
PACKS: Final = range(0x01, 0x20)
"""Addresses of packs; higher ones are hosts."""
HOST: Final = 0x40
BLUETOOTH: Final = 0x80
INFO: Final = 0x94
CELLS: Final = 0x95
TEMPS: Final = 0x96
_UNSET: Final = 0xFFFF
_NO_SENTENCE: Final = 0xFF

ZERO_A: Final = 30000
"""The number that stands for 0 A."""

_SWITCH: Final = {0: False, 1: True}
_PAIRS: Final = (  # of bits: the warning, then the alarm
    ("cell_over_voltage", "cell_under_voltage", "pack_over_voltage", "pack_under_voltage"),
    ("charge_over_temp", "charge_under_temp", "discharge_over_temp", "discharge_under_temp"),
    ("charge_over_current", "discharge_over_current", "other", "low_soc"),  # other: SoC is too high
    ("cell_imbalance", "temp_imbalance"),
)
_SINGLES: Final = (
    (
        "mos_over_temp",  # charging, discharging
        "mos_over_temp",
        "temp_sensor_fault",  # of the switches
        "temp_sensor_fault",
        "mos_fault",  # stuck closed: charging, discharging
        "mos_fault",
        "mos_fault",  # stuck open
        "mos_fault",
    ),
    (
        "front_end_fault",
        "voltage_sensor_fault",  # a wire to a cell is off
        "temp_sensor_fault",
        "bms_fault",  # EEPROM
        "bms_fault",  # clock
        "precharge_fault",
        "communication_fault",  # with the vehicle
        "communication_fault",  # within
    ),
    ("current_sensor_fault", "voltage_sensor_fault", "short_circuit", "lockout"),  # lockout: too empty to be charged
    ("other",) * 8,  # a code of a fault
)


def _alarm_bits() -> tuple[dict[int, str], ...]:
    """By byte: bit -> name."""
    pairs = tuple(
        {
            2 * i + level: f"alarm.{code}{kind}"
            for i, code in enumerate(codes)
            for level, kind in ((0, ":warning"), (1, ""))
        }
        for codes in _PAIRS
    )
    return pairs + tuple({i: f"alarm.{code}" for i, code in enumerate(codes)} for codes in _SINGLES)


def alarm_words(form: str) -> tuple[Flags, ...]:
    """The eight bytes of alarms as four words, each counted from its own beginning; the first byte is the low one.

    Over UART that is `<H`; over Modbus each word is a register, `>H`.
    """
    by_byte = _alarm_bits()
    return tuple(
        Flags(
            0,
            form,
            by_byte[2 * i] | {8 + bit: name for bit, name in by_byte[2 * i + 1].items()},
            f"extra.{name}",
        )
        for i, name in enumerate(ALARM_RAWS)
    )


ALARM_RAWS: Final = ("alarm_raw", "alarm_2_raw", "alarm_3_raw", "alarm_4_raw")


@dataclass(frozen=True, slots=True)
class _Alarms:
    """The four words side by side."""

    words: tuple[Flags, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return names_of(self.words)

    def read(self, data: bytes, into: Read) -> None:
        for i, word in enumerate(self.words):
            word.read(data[2 * i : 2 * i + 2], into)

    def write(self, data: bytearray, values: Values) -> None:
        for i, word in enumerate(self.words):
            part = data[2 * i : 2 * i + 2]
            word.write(part, values)
            data[2 * i : 2 * i + 2] = part


_TABLES: Final[Mapping[int, tuple[str, Table]]] = {
    0x50: (
        "rated",
        (
            Number("extra.nominal_ah", 0, ">I", per=1000),
            Number("extra.cell_nominal_v", 4, ">I", per=1000),
        ),
    ),
    0x90: (
        "soc",
        (
            Number("pack_v", 0, ">H", per=10, absent=(_UNSET,)),
            Number("extra.acquisition_v", 2, ">H", per=10, absent=(0, _UNSET)),
            Number("current_a", 4, ">H", per=10, zero=ZERO_A, sign=-1, absent=(0, _UNSET)),
            Number("soc_bms", 6, ">H", per=1000, absent=(_UNSET,), hi=2),
        ),
    ),
    0x91: (
        "cell_range",
        (
            Number("extra.cell_max_v", 0, ">H", per=1000),
            Number("extra.cell_max_number", 2, ">B"),
            Number("extra.cell_min_v", 3, ">H", per=1000),
            Number("extra.cell_min_number", 5, ">B"),
        ),
    ),
    0x92: (
        "temp_range",
        (
            Number("extra.temp_max_c", 0, ">B", zero=40, absent=(0, 0xFF)),
            Number("extra.temp_max_number", 1, ">B"),
            Number("extra.temp_min_c", 2, ">B", zero=40, absent=(0, 0xFF)),
            Number("extra.temp_min_number", 3, ">B"),
        ),
    ),
    0x93: (
        "switches",
        (
            Number("extra.direction", 0, ">B"),
            Choice("charge_mos", 1, _SWITCH),
            Choice("discharge_mos", 2, _SWITCH),
            Number("extra.life", 3, ">B"),
            Number("extra.remaining_ah", 4, ">I", per=1000),
        ),
    ),
    INFO: (
        "info",
        (
            Count("cell_v", 0),
            Count("temp_c", 1),
            Number("extra.charger", 2, ">B"),
            Number("extra.load", 3, ">B"),
            Number("cycles", 5, ">H"),
        ),
    ),
    0x97: ("balancing", (BitSet("balancing", 0, "<H", words=3),)),
    0x98: ("alarms", (_Alarms(alarm_words("<H")),)),
}
_SILENT: Final = frozenset(range(0x51, 0x64))
"""Commands that read settings and production data, of which nothing is taken."""


@dataclass(frozen=True, slots=True)
class _Sentences:
    """An array in several sentences: byte 0 says which it is, then come `size` places. most: places at most."""

    kind: str
    each: Number
    size: int
    most: int
    count_at: int

    def payload(self, sentence: int, values: Values) -> bytes:
        """The sentence (0, 1 ...) of what a pack has."""
        data = bytearray(PAYLOAD_BYTES)
        data[0] = sentence + 1
        for i, at in self.places():
            if (name := f"{self.each.name}[{sentence * self.size + i}]") in values:
                self.each.put(data, at, values[name])
        return bytes(data)

    def places(self) -> list[tuple[int, int]]:
        """(which of the sentence, where it stands)."""
        step = (PAYLOAD_BYTES - 1) // self.size
        return [(i, 1 + i * step) for i in range(self.size)]


_ARRAYS: Final = {
    CELLS: _Sentences("cells", Number("cell_v", 0, ">H", per=1000, absent=(_UNSET,)), 3, 48, 0),
    TEMPS: _Sentences("temps", Number("temp_c", 0, ">B", zero=40, absent=(0, 0xFF)), 7, 21, 1),
}
POLLED: Final = {
    0x90: ("soc", 1),
    0x93: ("switches", 1),
    INFO: ("info", 1),  # before the cells: it says how many there are
    CELLS: ("cells", 1),
    TEMPS: ("temps", 1),
    0x98: ("alarms", 1),
    0x97: ("balancing", 5),
    0x91: ("cell_range", 10),
    0x92: ("temp_range", 10),
    0x50: ("rated", 600),
}
"""What a pack is asked for: command -> (kind of Part, in each so many rounds)."""
FIELDS: Final = (*names_of(*(table for _, table in _TABLES.values())), "cell_v[]", "temp_c[]")
EXTRAS_OF: Final[Mapping[str, tuple[str | None, float]]] = {
    "acquisition_v": ("V", 0.1),
    "alarm_2_raw": ("", 1.0),
    "alarm_3_raw": ("", 1.0),
    "alarm_4_raw": ("", 1.0),
    "cell_max_number": ("", 1.0),
    "cell_min_number": ("", 1.0),
    "cell_nominal_v": ("V", 0.001),
    "charger": ("1", 1.0),
    "direction": ("", 1.0),  # 0 rests, 1 charges, 2 discharges
    "life": ("", 1.0),
    "load": ("1", 1.0),
    "temp_max_c": ("degC", 0.1),
    "temp_max_number": ("", 1.0),
    "temp_min_c": ("degC", 0.1),
    "temp_min_number": ("", 1.0),
}


def is_known(command: int) -> bool:
    """Whether a pack has replies to a command that reads."""
    return command in _TABLES or command in _ARRAYS or command in _SILENT


class Payloads:
    """Reads payloads. Remembers of each address how many cells and sensors it said to have."""

    def __init__(self) -> None:
        self._counts: dict[int, bytes] = {}
        self._from_zero: set[tuple[int, int]] = set()

    def said(self, address: int, command: int, payload: bytes, offset: int) -> Said:
        """What a payload of eight bytes says."""
        if command in _ARRAYS:
            return self._sentence(address, command, payload, offset)
        if command in _SILENT:
            return Part(kind="settings", address=address, values={})
        if command not in _TABLES:
            return LineError("function", offset, f"command {command:02X} is not one that reads")
        kind, table = _TABLES[command]
        sizes: dict[str, int] = {}
        if command == INFO:
            self._counts[address] = payload[:2]
            # Sentences that came before it may have told of places that the pack has not.
            sizes = {it.each.name: count for it in _ARRAYS.values() if (count := payload[it.count_at])}
        told = read(table, payload)
        return Part(kind=kind, address=address, values=told.values, quality=told.quality, sizes=sizes)

    def _sentence(self, address: int, command: int, payload: bytes, offset: int) -> Said:
        """Some places of an array.

        Places behind the last that a pack has hold zeros, or what was there before: how many it has stands in another
        reply. Without that one, zeros at a sentence's end are such places; a zero before another cell is a number.
        """
        array, number = _ARRAYS[command], payload[0]
        if number == _NO_SENTENCE:
            return Part(kind=array.kind, address=address, values={})
        if number == 0:  # the maker's manual counts from 0, most packs from 1
            self._from_zero.add((address, command))
        first = (number - ((address, command) not in self._from_zero)) * array.size
        if first >= array.most:
            return LineError("length", offset, f"sentence {number} of {command:02X}, of {array.most} places at most")
        count = self._counts.get(address, b"\0\0")[array.count_at]
        raws = [array.each.raw(payload, at) for _, at in array.places()]
        told = Read()
        while raws and ((first + len(raws) > count) if count else raws[-1] == 0):
            raws.pop()
        for i, raw in enumerate(raws):
            told.put(f"{array.each.name}[{first + i}]", *array.each.meaning(raw))
        return Part(kind=array.kind, address=address, values=told.values, quality=told.quality)


def payloads(command: int, values: Values) -> list[bytes]:
    """What a pack with these values replies to a command: none if it does not know it."""
    if command in _TABLES:
        return [written(_TABLES[command][1], values, PAYLOAD_BYTES)]
    if command in _ARRAYS:
        array = _ARRAYS[command]
        count = min(size_of(array.each.name, values), array.most)
        return [array.payload(sentence, values) for sentence in range(-(-count // array.size))]
    return []


def pack_of(host: int) -> int | None:
    """The pack that a host asks at an address of its own; None = it asks nobody.

    0x40 (wired) and 0x80 (Bluetooth) ask the first pack, the numbers behind them the next ones, 0x20 (GPRS) the first.
    """
    if host == 0x20:
        return PACKS.start
    number = host % HOST + PACKS.start
    return number if HOST <= host < BLUETOOTH + HOST and number in PACKS else None


def host_of(pack: int | None) -> int:
    """The host's address that asks a pack by wire; None is the first pack."""
    return HOST + (pack or PACKS.start) - PACKS.start
