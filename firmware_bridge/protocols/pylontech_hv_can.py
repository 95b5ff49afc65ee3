"""Pylontech's high-voltage batteries on CAN (unverified on hardware): 29-bit ids, the last digit is the battery's.

A host asks by 0x4200 (byte 0: 00 what it measures, 02 what it is); the battery answers by 0x421x ... 0x428x and by
0x731x ... 0x734x, little-endian. Currents are raw - 30000 tenths of an ampere, above 0 it charges; temperatures are
raw - 1000 tenths of a degree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import Asked, LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.rows import Choice, Flags, Number, Read, Table, Text, names_of, read, written

_REQUEST: Final = 0x4200
_ADDRESS: Final = 0xF
_BYTES: Final = 8
_MEASURED, _DESCRIBED = 0, 2
_ZERO_A: Final = 30000
_ZERO_C: Final = 1000
_NONE: Final = (0xFFFF,)
_FORBIDDEN: Final = 0xAA


def _celsius(name: str, at: int) -> Number:
    return Number(name, at, "<H", per=10, zero=_ZERO_C, absent=_NONE, lo=-100, hi=300)


@dataclass(frozen=True, slots=True)
class _Most:
    """A limit of a current: its amount, whichever sign a maker gives it; it is written with `sign`."""

    name: str
    at: int
    sign: int

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def _number(self) -> Number:
        return Number(self.name, self.at, "<H", per=10, zero=_ZERO_A, sign=self.sign, absent=_NONE)

    def read(self, data: bytes, into: Read) -> None:
        self._number.read(data, into)
        value = into.values.get(self.name)
        if value is not None:
            into.values[self.name] = abs(float(value))

    def write(self, data: bytearray, values: Values) -> None:
        self._number.write(data, values)


_ERRORS: Final = {
    0: "alarm.voltage_sensor_fault",
    1: "alarm.temp_sensor_fault",
    2: "alarm.communication_fault",
    3: "alarm.bms_fault",  # too much voltage at its input
    4: "alarm.bms_fault",  # poles reversed
    5: "alarm.contactor_fault",
    6: "alarm.bms_fault",  # damaged
    7: "alarm.other",
}
_LIMITS: Final = {
    0: "alarm.cell_under_voltage",
    1: "alarm.cell_over_voltage",
    2: "alarm.pack_under_voltage",
    3: "alarm.pack_over_voltage",
    4: "alarm.charge_under_temp",
    5: "alarm.charge_over_temp",
    6: "alarm.discharge_under_temp",
    7: "alarm.discharge_over_temp",
    8: "alarm.charge_over_current",
    9: "alarm.discharge_over_current",
    10: "alarm.pack_under_voltage",  # one module
    11: "alarm.pack_over_voltage",
}


@dataclass(frozen=True, slots=True)
class _Message:
    """question: byte 0 of the request that it answers. least: bytes that say anything."""

    kind: str
    table: Table
    question: int = _MEASURED
    least: int = _BYTES


_MESSAGES: Final[Mapping[int, _Message]] = {
    0x4210: _Message(
        "measured",
        (
            Number("pack_v", 0, "<H", per=10, absent=_NONE),
            Number("current_a", 2, "<H", per=10, zero=_ZERO_A, absent=_NONE),
            _celsius("extra.bms_temp_c", 4),
            Number("soc_bms", 6, "<B", per=100, absent=(0xFF,)),
            Number("soh_bms", 7, "<B", per=100, absent=(0xFF,)),
        ),
    ),
    0x4220: _Message(
        "limits",
        (
            Number("extra.charge_v_limit", 0, "<H", per=10, absent=_NONE),
            Number("extra.discharge_v_limit", 2, "<H", per=10, absent=_NONE),
            _Most("charge_limit_a", 4, 1),
            _Most("discharge_limit_a", 6, -1),
        ),
    ),
    0x4230: _Message(
        "cells",
        (
            Number("extra.cell_max_v", 0, "<H", per=1000, absent=_NONE),
            Number("extra.cell_min_v", 2, "<H", per=1000, absent=_NONE),
            Number("extra.cell_max_at", 4, "<H"),
            Number("extra.cell_min_at", 6, "<H"),
        ),
        least=4,
    ),
    0x4240: _Message(
        "temps",
        (
            _celsius("extra.temp_max_c", 0),
            _celsius("extra.temp_min_c", 2),
            Number("extra.temp_max_at", 4, "<H"),
            Number("extra.temp_min_at", 6, "<H"),
        ),
        least=4,
    ),
    0x4250: _Message(
        "status",
        (
            Number("extra.status", 0, "<B"),
            Number("cycles", 1, "<H"),
            Flags(3, "<B", _ERRORS, "extra.fault_raw"),
            Flags(4, "<H", {bit: f"{name}:warning" for bit, name in _LIMITS.items()}, "extra.warning_raw"),
            Flags(6, "<H", _LIMITS, "extra.alarm_raw"),
        ),
    ),
    0x4260: _Message(
        "modules",
        (
            Number("extra.module_max_v", 0, "<H", per=1000, absent=_NONE),
            Number("extra.module_min_v", 2, "<H", per=1000, absent=_NONE),
        ),
        least=4,
    ),
    0x4270: _Message(
        "module_temps",
        (_celsius("extra.module_temp_max_c", 0), _celsius("extra.module_temp_min_c", 2)),
        least=4,
    ),
    0x4280: _Message(
        "permitted",
        (
            Choice("charge_mos", 0, {0x00: True, 0x55: True, _FORBIDDEN: False}),
            Choice("discharge_mos", 1, {0x00: True, 0x55: True, _FORBIDDEN: False}),
        ),
        least=2,
    ),
    0x7320: _Message(
        "size",
        (
            Number("extra.modules", 0, "<H"),
            Number("extra.modules_in_series", 2, "<B"),
            Number("extra.module_cells", 3, "<B"),
            Number("extra.nominal_v", 4, "<H"),
            Number("extra.nominal_ah", 6, "<H"),
        ),
        _DESCRIBED,
    ),
    0x7330: _Message("maker", (Text("extra.manufacturer", 0, _BYTES),), _DESCRIBED),
    0x7340: _Message("maker_end", (Text("extra.manufacturer_end", 0, _BYTES),), _DESCRIBED),
}
_KINDS: Final = {_MEASURED: "measured", _DESCRIBED: "size"}


class PylontechHvCanDecoder:
    """Reads what batteries answer, each by its address.

    Once another host has been heard asking, an answer that nobody of us asked for is its, and good.
    """

    def __init__(self) -> None:
        self._frames = 0
        self._asked = Asked()
        self._is_shared = False

    def sent(self, can_id: int, payload: bytes) -> None:
        """See FrameDecoder."""
        if can_id == EXTENDED | _REQUEST:
            self._asked.sent(payload[:1])

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """See FrameDecoder."""
        at, self._frames = self._frames, self._frames + 1
        if can_id == EXTENDED | _REQUEST:
            self._is_shared = True
            return []
        message = _MESSAGES.get((can_id ^ EXTENDED) & ~_ADDRESS)
        if message is None:
            return []
        if self._asked.any and not self._is_shared:
            question = bytes([message.question])
            if self._asked.answered(lambda asked: asked == question) is None:
                return [LineError("address", at, f"nobody asked for {can_id ^ EXTENDED:X}")]
        if len(payload) < message.least:
            detail = f"{can_id ^ EXTENDED:X} has {len(payload)} bytes, at least {message.least}"
            return [LineError("length", at, detail)]
        told = read(message.table, payload[:_BYTES])
        return [Part(kind=message.kind, address=can_id & _ADDRESS, values=told.values, quality=told.quality)]

    def end(self) -> list[Said]:
        """See FrameDecoder."""
        self._asked.forget()
        return []


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    return [
        Poll(
            kind=kind,
            request=bytes([question, *bytes(_BYTES - 1)]),
            can_id=EXTENDED | _REQUEST,
            replies=0,
            every=1 if question == _MEASURED else 600,
        )
        for question, kind in _KINDS.items()
    ]


def _frames(values: Values, address: int | None, vehicle: str | None) -> Sequence[tuple[int, bytes]]:
    whose = EXTENDED | (address or 0) & _ADDRESS
    return [
        (whose | base, written(message.table, values, _BYTES))
        for base, message in _MESSAGES.items()
        if any(name in values for name in names_of(message.table))
    ]


_EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    **dict.fromkeys(("cell_max_at", "cell_min_at", "temp_max_at", "temp_min_at", "status"), ("", 1.0)),
    **dict.fromkeys(("modules", "modules_in_series", "module_cells", "fault_raw", "warning_raw"), ("", 1.0)),
    **dict.fromkeys(("bms_temp_c", "temp_max_c", "temp_min_c"), ("degC", 0.1)),
    **dict.fromkeys(("module_temp_max_c", "module_temp_min_c"), ("degC", 0.1)),
    **dict.fromkeys(("module_max_v", "module_min_v"), ("V", 0.001)),
    **dict.fromkeys(("manufacturer", "manufacturer_end"), (None, 0.0)),
    "nominal_v": ("V", 1.0),
}

PYLONTECH_HV_CAN: Final = Protocol(
    name="pylontech_hv_can",
    title="Pylontech, high voltage",
    medium="can",
    rate=500_000,
    verified=False,
    fields=names_of(*(message.table for message in _MESSAGES.values())),
    frames_decoder=lambda vehicle: PylontechHvCanDecoder(),
    polls=_polls,
    frames=_frames,
    extras=_EXTRAS,
)
