"""The CAN bus between a battery and an inverter, as Pylontech began it and Victron wrote it down: 11-bit ids 351-382.

Spoken by Pylontech, BYD, REC, JBD, JK, Seplos, SimpBMS and others at 500 kbit/s (REC: 250), each id about once a
second, little-endian, without any check. Makers cut frames short (4, 6 or 7 bytes) or fill them up to 8, so a row that
lies beyond the end tells nothing. Facts: captures of Pylontech, Eco-Worthy, REC and BYD batteries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import EXTRA, LineError, Part, Protocol, Said, Twice, Value, Values
from firmware_bridge.protocols.pylontech_can_rows import Letters, Model, NotFilledUp, Pairs, Soc, Version
from firmware_bridge.rows import Flags, Number, Numbers, Table, names_of, read, written

_NONE_U16: Final = (0xFFFF,)
_NONE_I16: Final = (0x7FFF, -0x8000)
_MOST_MODULES: Final = 1000  # SimpBMS sends cells by the id of the modules: numbers that no rack has
_FILLED_UP: Final = (0,)
"""What stands where a maker only fills a frame up."""
_PROTECTIONS: Final = {
    1: "alarm.pack_over_voltage",
    2: "alarm.pack_under_voltage",
    3: "alarm.discharge_over_temp",
    4: "alarm.discharge_under_temp",
    7: "alarm.discharge_over_current",
    8: "alarm.charge_over_current",
    11: "alarm.bms_fault",
    15: "alarm.bms_fault",  # where Battery-Emulator writes it
}
_WARNINGS: Final = {16 + bit: f"{name}:warning" for bit, name in _PROTECTIONS.items() if bit <= 8} | {
    27: "alarm.communication_fault:warning"
}
_PAIRED: Final = (
    "alarm.other",
    "alarm.pack_over_voltage",
    "alarm.pack_under_voltage",
    "alarm.discharge_over_temp",
    "alarm.discharge_under_temp",
    "alarm.charge_over_temp",
    "alarm.charge_under_temp",
    "alarm.discharge_over_current",
    "alarm.charge_over_current",
    "alarm.contactor_fault",
    "alarm.short_circuit",
    "alarm.bms_fault",
    "alarm.cell_imbalance",
)
_LIMITS: Final[Table] = (
    Number("extra.charge_v_limit", 0, "<H", per=10, absent=_NONE_U16),
    Number("charge_limit_a", 2, "<h", per=10, absent=_NONE_I16, lo=0),
    Number("discharge_limit_a", 4, "<h", per=10, absent=_NONE_I16, lo=0),
    Number("extra.discharge_v_limit", 6, "<H", per=10, absent=(*_FILLED_UP, *_NONE_U16)),
)
_CHARGE: Final[Table] = (Soc(), Number("soh_bms", 2, "<H", per=100, absent=_NONE_U16, hi=2))
_MEASURED: Final[Table] = (
    Number("pack_v", 0, "<h", per=100, absent=_NONE_I16),
    Number("current_a", 2, "<h", per=10, absent=_NONE_I16),
    Numbers(Number("temp_c", 4, "<h", per=10, absent=_NONE_I16, lo=-100, hi=300), count=1),
    Number("cycles", 6, "<H", absent=_FILLED_UP),  # JBD
)
_PROTECTION: Final[Table] = (
    Flags(0, "<I", _PROTECTIONS | _WARNINGS, "extra.alarm_raw"),
    Number("extra.modules", 4, "<B"),
)
_ALARMS: Final[Table] = (Pairs(0, _PAIRED), Pairs(4, tuple(f"{name}:warning" for name in _PAIRED)))
_PERMITTED: Final[Table] = (
    Flags(0, "<B", {7: "charge_mos", 6: "discharge_mos"}),
    Number("extra.force_charge", 0, "<B", shift=5, bits=1),
    Number("extra.force_charge_2", 0, "<B", shift=4, bits=1),
    Number("extra.full_charge_request", 0, "<B", shift=3, bits=1),
)
_DEVICE: Final[Table] = (
    Number("extra.chemistry", 0, "<H"),
    Version(2),
    Number("extra.full_ah", 4, "<H", absent=(*_FILLED_UP, *_NONE_U16)),
    Number("extra.device_id", 6, "<H"),
)
# A decoder of a maker's adds 273, not 273.15: 10.8 and 11.8 degC stand as 283 and 284 beside each other in a capture.
_EXTREMES: Final[Table] = (
    NotFilledUp(
        4,
        (
            Number("extra.cell_min_v", 0, "<H", per=1000, absent=_NONE_U16),
            Number("extra.cell_max_v", 2, "<H", per=1000, absent=_NONE_U16),
        ),
    ),
    Number("extra.temp_min_c", 4, "<H", zero=273, absent=(*_FILLED_UP, *_NONE_U16)),
    Number("extra.temp_max_c", 6, "<H", zero=273, absent=(*_FILLED_UP, *_NONE_U16)),
)
_MODULES: Final[Table] = tuple(
    Number(f"extra.modules_{state}", at, "<H", hi=_MOST_MODULES)
    for at, state in ((0, "online"), (2, "no_charge"), (4, "no_discharge"), (6, "offline"))
)
_ENERGY: Final[Table] = (
    Number("extra.charged_kwh", 0, "<I", per=10),
    Number("extra.discharged_kwh", 4, "<I", per=10),
)
_CAPACITY: Final[Table] = (Number("extra.nominal_ah", 0, "<H", absent=(*_FILLED_UP, *_NONE_U16)),)


@dataclass(frozen=True, slots=True)
class _Message:
    """least: bytes that say anything. size: bytes as we send it."""

    kind: str
    table: Table
    least: int = 2
    size: int = 8


def _text(kind: str) -> _Message:
    return _Message(kind, (Letters(f"extra.{kind}"),), least=1)


_MESSAGES: Final = {
    0x351: _Message("limits", _LIMITS),
    0x355: _Message("charge", _CHARGE, size=6),
    0x356: _Message("measured", _MEASURED),
    0x359: _Message("protection", _PROTECTION, least=4, size=7),
    0x35A: _Message("alarms", _ALARMS, least=1),
    0x35C: _Message("permitted", _PERMITTED, least=1, size=2),
    0x35E: _text("manufacturer"),
    0x35F: _Message("device", _DEVICE),
    0x370: _Message("model", (Model(),), least=1),
    0x371: _text("model_end"),
    0x372: _Message("modules", _MODULES),
    0x373: _Message("extremes", _EXTREMES),
    0x374: _text("cell_min_at"),
    0x375: _text("cell_max_at"),
    0x376: _text("temp_min_at"),
    0x377: _text("temp_max_at"),
    0x378: _Message("energy", _ENERGY, least=4),
    0x379: _Message("capacity", _CAPACITY),
    0x380: _text("serial"),
    0x381: _text("serial_end"),
    0x382: _text("family"),
}
_BETTER: Final = {0x359: 0x35A, 0x370: 0x373}
"""Of two ids that tell the same: the one that says less -> the one that says more."""


class PylontechCanDecoder:
    """Reads the frames of one battery. Other ids on the bus are none of its business."""

    def __init__(self) -> None:
        self._frames = 0
        self._twice = {poorer: Twice() for poorer in _BETTER}

    def sent(self, can_id: int, payload: bytes) -> None:
        """See FrameDecoder. The battery talks without being asked."""

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """See FrameDecoder."""
        at, self._frames = self._frames, self._frames + 1
        message = _MESSAGES.get(can_id)
        if message is None:
            return []
        if len(payload) < message.least:
            return [LineError("length", at, f"{can_id:03X} has {len(payload)} bytes, at least {message.least}")]
        told = read(message.table, payload)
        values = self._once(can_id, told.values)
        if not values:
            return []
        quality = {name: reason for name, reason in told.quality.items() if name in values}
        return [Part(kind=message.kind, values=values, quality=quality)]

    def end(self) -> list[Said]:
        """See FrameDecoder. Each frame says all it says."""
        return []

    def _once(self, can_id: int, values: dict[str, Value]) -> dict[str, Value]:
        for poorer, better in _BETTER.items():
            if can_id == better:
                self._twice[poorer].better(values)
            elif can_id == poorer:
                return self._twice[poorer].poorer(values)
        return values


def _frames(values: Values, address: int | None, vehicle: str | None) -> Sequence[tuple[int, bytes]]:
    out = []
    for can_id, message in _MESSAGES.items():
        if any(_is_said(name, values) for name in names_of(message.table)):
            if can_id == 0x370 and values.get("extra.model") is None and values.get("extra.temp_max_fine_c") is None:
                continue
            out.append((can_id, written(message.table, values, message.size)))
    return out


def _is_said(name: str, values: Values) -> bool:
    return name in values or f"{name[:-1]}0]" in values


_REQUESTS: Final = ("force_charge", "force_charge_2", "full_charge_request")
_TEXTS: Final = ("cell_min_at", "cell_max_at", "temp_min_at", "temp_max_at")
_EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    "modules": ("", 1.0),
    **{row.names[0][len(EXTRA) :]: ("", 1.0) for row in _MODULES},
    **dict.fromkeys(_REQUESTS, ("1", 1.0)),
    **dict.fromkeys(("chemistry", "device_id"), ("", 1.0)),
    **dict.fromkeys(("temp_min_c", "temp_max_c"), ("degC", 1.0)),
    **dict.fromkeys(("temp_min_fine_c", "temp_max_fine_c"), ("degC", 0.1)),
    **dict.fromkeys(("charged_kwh", "discharged_kwh"), ("kWh", 0.1)),
    **dict.fromkeys(("manufacturer", "model_end", "serial", "serial_end", "family", *_TEXTS), (None, 0.0)),
}

PYLONTECH_CAN: Final = Protocol(
    name="pylontech_can",
    title="Pylontech, Victron and those who speak like them, low voltage",
    medium="can",
    rate=500_000,
    verified=True,
    fields=names_of(*(message.table for message in _MESSAGES.values())),
    frames_decoder=lambda vehicle: PylontechCanDecoder(),
    frames=_frames,
    extras=_EXTRAS,
)
