"""foxBMS 2 on CAN (unverified on hardware): what it sends of its pack, strings and cells, big-endian throughout.

Where each number stands was written down from foxbms.dbc of foxBMS 2 (https://github.com/foxBMS/foxbms-2), and a test
holds this table against that file. `CellVoltage_NNN_invalidFlag` and its kin are 1 while the value is valid: the DBC's
value table and foxBMS's own tests say so, only the name says the contrary. A current above 0 discharges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import ALARM, LineError, Part, Protocol, Said, Values
from firmware_bridge.rows import Flags, Number, Read, Row, Table, names_of, read, size_of

_BYTES: Final = 8
_STRINGS: Final = 4  # so many have extras of their own
_OVER_CURRENT: Final = ("alarm.discharge_over_current", "alarm.charge_over_current")


def _big(
    name: str, start: int, bits: int, per: float = 1, times: float = 1, sign: int = 1, *, signed: bool = False
) -> Number:
    """A number where a DBC says it is: `start` is its highest bit, 7 = the highest of the first byte."""
    shift = 64 - (8 * (start // 8) + 7 - start % 8) - bits
    return Number(name, 0, ">Q", per, times, sign=sign, shift=shift, bits=bits, signed=signed)


def _flags(bits: Mapping[int, str]) -> Flags:
    """Bits where a DBC says they are."""
    return Flags(0, ">Q", {63 - (8 * (bit // 8) + 7 - bit % 8): name for bit, name in bits.items()})


@dataclass(frozen=True, slots=True)
class _Group:
    """Numbers of one array, as many as `each`; byte 0 counts groups, a bit of byte 1 says that a number is valid."""

    each: tuple[Number, ...]
    first_flag: int

    @property
    def names(self) -> tuple[str, ...]:
        return (f"{self.each[0].name}[]",)

    def read(self, data: bytes, into: Read) -> None:
        for i, row in enumerate(self.each):
            is_valid = data[1] >> self.first_flag + i & 1
            value = row.meaning(row.raw(data, 0))[0] if is_valid else None
            into.put(f"{row.name}[{data[0] * len(self.each) + i}]", value, None if is_valid else "invalid")

    def write(self, data: bytearray, values: Values) -> None:
        for i, row in enumerate(self.each):
            value = values.get(f"{row.name}[{data[0] * len(self.each) + i}]")
            if value is not None:
                row.put(data, 0, value)
                data[1] |= 1 << self.first_flag + i


@dataclass(frozen=True, slots=True)
class _Connected:
    """How many strings are on the bus: the pack is, when any is."""

    number: Number

    @property
    def names(self) -> tuple[str, ...]:
        return ("contactor_main",)

    def read(self, data: bytes, into: Read) -> None:
        into.put(self.names[0], self.number.raw(data, 0) > 0)

    def write(self, data: bytearray, values: Values) -> None:
        if values.get(self.names[0]) is not None:
            self.number.put(data, 0, float(bool(values[self.names[0]])))


_STATE: Final[Table] = (
    _Connected(_big("", 7, 4)),
    _big("extra.bms_state", 3, 4),
    _big("extra.cooling", 15, 1),
    _big("extra.heating", 14, 1),
    _big("extra.insulation_coarse_kohm", 63, 8, times=200),
    _flags(
        {
            10: "alarm.bms_fault",
            11: "alarm.bms_fault",  # it is about to open the contactors
            12: "alarm.bms_fault",  # its tasks are late
            9: "alarm.bms_fault:warning",
            23: "alarm.insulation",
            22: "alarm.lockout",  # the interlock is open
            21: "alarm.contactor_fault:warning",  # the main fuse is blown
            20: "alarm.ambient_under_temp",  # its board
            19: "alarm.ambient_over_temp",
            18: "alarm.bms_fault",  # its processor is too hot
            17: "alarm.precharge_fault",
            16: "alarm.precharge_fault",
            30: "alarm.bms_fault",  # clamp 30C
            28: "alarm.bms_fault",  # memory
            27: "alarm.bms_fault",
            26: _OVER_CURRENT[0],
            25: _OVER_CURRENT[1],
            24: "alarm.bms_fault",  # CAN is late
        }
    ),
)
_TEMPS: Final[Table] = (
    _big("extra.temp_min_c", 39, 8, signed=True),
    _big("extra.temp_max_c", 47, 8, signed=True),
)
_VOLTS: Final[Table] = (
    _big("extra.cell_max_v", 37, 14, per=1000, signed=True),
    _big("extra.cell_min_v", 53, 14, per=1000, signed=True),
)
_LIMITS: Final[Table] = (
    _big("discharge_limit_a", 7, 12, per=4),
    _big("charge_limit_a", 11, 12, per=4),
    _big("extra.discharge_limit_kw", 31, 12, per=10),
    _big("extra.charge_limit_kw", 35, 12, per=10),
    _big("extra.charge_v_limit", 55, 8, times=4),
    _big("extra.discharge_v_limit", 63, 8, times=4),
)
_VALUES: Final[Table] = (
    _big("pack_v", 7, 15, per=10, signed=True),
    _big("extra.bus_v", 8, 15, per=10, signed=True),
    _big("extra.power_kw", 25, 17, per=100, sign=-1, signed=True),
    _big("current_a", 40, 17, per=100, sign=-1, signed=True),
)
_INSULATION: Final[Table] = (_big("insulation_kohm", 7, 13, times=7),)
_ESTIMATE: Final[Table] = (
    _big("soc_bms", 7, 10, per=1000),  # of the emptiest string
    _big("extra.soc_max", 13, 10, per=1000),
    _big("extra.soe_min", 19, 10, per=1000),
    _big("extra.soe_max", 25, 10, per=1000),
    _big("soh_bms", 47, 8, per=200),
    _big("extra.remaining_kwh", 55, 16, per=10),
)
_LEVELS: Final = (
    (7, "cell_under_voltage"),
    (6, "cell_over_voltage"),
    (5, "discharge_over_current"),
    (4, "charge_over_current"),
    (3, "discharge_under_temp"),
    (2, "discharge_over_temp"),
    (1, "charge_under_temp"),
    (0, "charge_over_temp"),
)
_STRING_STATE: Final[Table] = (
    _big("extra.balancing_active", 5, 1),
    _flags(
        {
            **{8 + bit: ALARM + code for bit, code in _LEVELS},  # beyond the maximum safe limit
            **{16 + bit: f"{ALARM}{code}:warning" for bit, code in _LEVELS},  # the maximum operating limit
            **{24 + bit: f"{ALARM}{code}:warning" for bit, code in _LEVELS},  # the recommended safe limit
            7: "alarm.cell_under_voltage",  # deep discharge
            6: "alarm.other",  # the string's fuse is blown
            **dict.fromkeys((37, 35), "alarm.communication_fault"),
            34: "alarm.front_end_fault",
            **dict.fromkeys((33, 32), "alarm.contactor_fault"),
            **dict.fromkeys((39, 47, 46, 53, 52, 49, 48), "alarm.voltage_sensor_fault"),
            **dict.fromkeys((45, 44, 43), "alarm.current_sensor_fault"),
            **dict.fromkeys((41, 51), "alarm.temp_sensor_fault"),
            55: "alarm.cell_imbalance",
            54: "alarm.temp_imbalance",
            63: "alarm.discharge_over_current",  # of the string, either way
        }
    ),
)
_CELLS: Final = _Group(tuple(_big("cell_v", start, 13, per=1000) for start in (11, 30, 33, 52)), 4)
_SENSORS: Final = _Group(tuple(_big("temp_c", start, 8, signed=True) for start in range(23, 64, 8)), 0)


def _string(n: int) -> dict[int, Table]:
    """What is told of each string, by id."""
    of = f"extra.string{n}_"
    return {
        0x241: (
            _big(f"{of}temp_max_c", 31, 8, per=2, signed=True),
            _big(f"{of}temp_min_c", 39, 8, per=2, signed=True),
        ),
        0x242: (
            _big(f"{of}cell_max_v", 31, 14, per=1000, signed=True),
            _big(f"{of}cell_min_v", 33, 14, per=1000, signed=True),
        ),
        0x243: (
            _big(f"{of}v", 4, 18, per=100, signed=True),
            _big(f"{of}current_a", 18, 18, per=100, sign=-1, signed=True),
            _big(f"{of}power_kw", 32, 18, per=100, sign=-1, signed=True),
        ),
        0x244: (_big(f"{of}energy_wh", 15, 32, signed=True),),
        0x245: (
            _big(f"{of}soc_min", 3, 9, per=500),
            _big(f"{of}soc_max", 10, 9, per=500),
            _big(f"{of}soh", 47, 9, per=500),
            _big(f"{of}remaining_kwh", 54, 15, per=100),
        ),
    }


_STATE_ID, _STRING_STATE_ID = 0x220, 0x240
_MESSAGES: Final[Mapping[int, tuple[str, Table]]] = {
    _STATE_ID: ("state", _STATE),
    0x230: ("temps", _TEMPS),
    0x231: ("volts", _VOLTS),
    0x232: ("limits", _LIMITS),
    0x233: ("values", _VALUES),
    0x234: ("insulation", _INSULATION),
    0x235: ("estimate", _ESTIMATE),
}
_SHARED: Final = frozenset((*names_of(_STRING_STATE), *_OVER_CURRENT))
_PACK: Final = -1
_STRING_STATE_MUX: Final = _big("", 3, 4)
_MUXES: Final = {
    0x241: _big("", 3, 4),
    0x242: _big("", 3, 4),
    0x243: _big("", 7, 3),
    0x244: _big("", 7, 4),
    0x245: _big("", 7, 4),
}
_OF_STRINGS: Final = tuple(_string(n) for n in range(_STRINGS))
_GROUPS: Final = {0x250: ("cells", _CELLS), 0x260: ("sensors", _SENSORS)}
_FRONT_END: Final = {0x270: 0x250, 0x280: 0x260}
"""What an external front end tells foxBMS -> what foxBMS tells of it."""


class FoxbmsCanDecoder:
    """Reads the frames of one foxBMS. Whoever tells of a flag tells it of all: it stands if it does for any string."""

    def __init__(self) -> None:
        self._frames = 0
        self._groups: set[int] = set()
        self._flags: dict[int, Values] = {}  # of each string, and of the pack as a whole

    def sent(self, can_id: int, payload: bytes) -> None:
        """See FrameDecoder. foxBMS talks without being asked."""

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """See FrameDecoder."""
        at, self._frames = self._frames, self._frames + 1
        if not _is_known(can_id):
            return []
        if len(payload) < _BYTES:
            return [LineError("length", at, f"{can_id:03X} has {len(payload)} bytes instead of {_BYTES}")]
        kind, told = self._read(can_id, payload[:_BYTES])
        return [Part(kind=kind, values=told.values, quality=told.quality)] if told.values else []

    def end(self) -> list[Said]:
        """See FrameDecoder. Each frame says all it says."""
        return []

    def _read(self, can_id: int, data: bytes) -> tuple[str, Read]:
        if can_id == _STRING_STATE_ID:
            n = _STRING_STATE_MUX.raw(data, 0)
            return f"string{n}_state", self._together(n, read(_STRING_STATE, data))
        if can_id in _MUXES:
            n = _MUXES[can_id].raw(data, 0)
            return f"string{n}", read(_OF_STRINGS[n][can_id], data) if n < _STRINGS else Read()
        if can_id in _MESSAGES:
            kind, table = _MESSAGES[can_id]
            told = read(table, data)
            return kind, self._together(_PACK, told) if can_id == _STATE_ID else told
        return self._group(can_id, data)

    def _group(self, can_id: int, data: bytes) -> tuple[str, Read]:
        own = _FRONT_END.get(can_id, can_id)
        if own == can_id:
            self._groups.add(can_id)
        kind, group = _GROUPS[own]
        kind = kind if own == can_id else f"front_end_{kind}"
        return kind, Read() if own != can_id and own in self._groups else read((group,), data)

    def _together(self, who: int, told: Read) -> Read:
        """What it tells of the pack or a string, with the flags that stand for any other."""
        self._flags[who] = {name: value for name, value in told.values.items() if name in _SHARED}
        for name, own in self._flags[who].items():
            told.values[name] = next((it for flags in self._flags.values() if (it := flags.get(name))), own)
        return told


def _is_known(can_id: int) -> bool:
    return can_id in _MESSAGES or can_id in _MUXES or can_id in (_STRING_STATE_ID, *_GROUPS, *_FRONT_END)


def _frames(values: Values, address: int | None, vehicle: str | None) -> Sequence[tuple[int, bytes]]:
    return list(_said(values))


def _said(values: Values) -> Iterator[tuple[int, bytes]]:
    for can_id, (_, table) in _MESSAGES.items():
        if _has(table, values):
            yield can_id, _payload(table, values)
    if _has(_STRING_STATE, values):
        yield _STRING_STATE_ID, _payload(_STRING_STATE, values)
    for n, tables in enumerate(_OF_STRINGS):
        for can_id, table in tables.items():
            if _has(table, values):
                data = bytearray(_payload(table, values))
                _MUXES[can_id].put(data, 0, float(n))
                yield can_id, bytes(data)
    for can_id, (_, group) in _GROUPS.items():
        size = len(group.each)
        for m in range(min(-(-size_of(group.names[0][:-2], values) // size), 256)):
            yield can_id, _payload((group,), values, m)


def _has(table: Table, values: Values) -> bool:
    return any(name in values for name in names_of(table))


def _payload(table: Sequence[Row], values: Values, first: int = 0) -> bytes:
    data = bytearray([first, *bytes(_BYTES - 1)])
    for row in table:
        row.write(data, values)
    return bytes(data)


_STRING_EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    **dict.fromkeys(("temp_max_c", "temp_min_c"), ("degC", 0.5)),
    **dict.fromkeys(("cell_max_v", "cell_min_v"), ("V", 0.001)),
    **dict.fromkeys(("soc_min", "soc_max", "soh"), ("1", 0.002)),
    "v": ("V", 0.01),
    "current_a": ("A", 0.01),
    "power_kw": ("kW", 0.01),
    "energy_wh": ("Wh", 1.0),
    "remaining_kwh": ("kWh", 0.01),
}
_EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    **{f"string{n}_{name}": it for n in range(_STRINGS) for name, it in _STRING_EXTRAS.items()},
    **dict.fromkeys(("cooling", "heating", "balancing_active"), ("1", 1.0)),
    **dict.fromkeys(("temp_min_c", "temp_max_c"), ("degC", 1.0)),
    **dict.fromkeys(("discharge_limit_kw", "charge_limit_kw"), ("kW", 0.1)),
    **dict.fromkeys(("soc_max", "soe_min", "soe_max"), ("1", 0.001)),
    "bms_state": ("", 1.0),
    "insulation_coarse_kohm": ("kohm", 200.0),
    "bus_v": ("V", 0.1),
    "power_kw": ("kW", 0.01),
    "remaining_kwh": ("kWh", 0.1),
}

FOXBMS_CAN: Final = Protocol(
    name="foxbms_can",
    title="foxBMS 2",
    medium="can",
    rate=500_000,
    verified=False,
    fields=names_of(
        *(table for _, table in _MESSAGES.values()),
        _STRING_STATE,
        (_CELLS, _SENSORS),
        *(table for tables in _OF_STRINGS for table in tables.values()),
    ),
    frames_decoder=lambda vehicle: FoxbmsCanDecoder(),
    frames=_frames,
    extras=_EXTRAS,
)
