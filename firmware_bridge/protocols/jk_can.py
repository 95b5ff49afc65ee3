"""JK over CAN, its second protocol: 11-bit ids 2F4 4F4 5F4 7F4 and 29-bit ids 18xx28F4. Unverified: no captures of it.

Little-endian, no check, all ids by themselves: 2F4 every 20 ms. The number of a pack, 0 to 15, is added to each id.
Where a byte's meaning is known from one source alone, it stands at its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import LineError, Part, Protocol, Said, Values
from firmware_bridge.rows import Flags, Number, Read, Table, names_of, read, size_of, written

_PACKS: Final = range(16)
_UNSET: Final = 0xFFFF
_NO_TEMP: Final = (0, 0xFF)
_CELLS_A_FRAME: Final = 4
_FRAME_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class _Levels:
    """Two bits an alarm, the lowest pair first: 0 there is none, 1 to 3 how bad it is. Which is worse is not known."""

    what: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (*dict.fromkeys(self.what), "extra.alarm_raw")

    def read(self, data: bytes, into: Read) -> None:
        raw = int.from_bytes(data[:4], "little")
        for i, name in enumerate(self.what):
            into.values[name] = bool(into.values.get(name)) or bool(raw >> 2 * i & 3)
        into.put("extra.alarm_raw", float(raw))

    def write(self, data: bytearray, values: Values) -> None:
        raw = int(values.get("extra.alarm_raw") or 0)
        for name in dict.fromkeys(self.what):
            shift = 2 * self.what.index(name)
            if values.get(name) and not raw >> shift & 3:
                raw |= 1 << shift
        data[:4] = (raw & 0xFFFF_FFFF).to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class _Cells:
    """Four cells. A frame does not say how many cells there are: zeros at its end are places without one."""

    first: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("cell_v[]",)

    def read(self, data: bytes, into: Read) -> None:
        raws = [_CELL.raw(data, at) for at in range(0, min(len(data), _FRAME_BYTES) - 1, 2)]
        while raws and raws[-1] == 0:
            raws.pop()
        for i, raw in enumerate(raws):
            into.put(f"cell_v[{self.first + i}]", *_CELL.meaning(raw))

    def write(self, data: bytearray, values: Values) -> None:
        for i in range(_CELLS_A_FRAME):
            if (name := f"cell_v[{self.first + i}]") in values:
                _CELL.put(data, 2 * i, values[name])


@dataclass(frozen=True, slots=True)
class _Sensors:
    """Temperatures of the battery's sensors, at these bytes."""

    at: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return ("temp_c[]",)

    def read(self, data: bytes, into: Read) -> None:
        for i, at in enumerate(self.at):
            if at < len(data):
                into.put(f"temp_c[{i}]", *_TEMP.meaning(data[at]))

    def write(self, data: bytearray, values: Values) -> None:
        for i, at in enumerate(self.at):
            _TEMP.put(data, at, values.get(f"temp_c[{i}]"))


@dataclass(frozen=True, slots=True)
class _Message:
    """least: bytes that say anything."""

    kind: str
    table: Table
    least: int = 1


_CELL: Final = Number("cell_v", 0, "<H", per=1000, absent=(_UNSET,))
_TEMP: Final = Number("temp_c", 0, "<B", zero=50, absent=_NO_TEMP)
_ALARMS: Final = (
    "alarm.cell_over_voltage",
    "alarm.cell_under_voltage",
    "alarm.pack_over_voltage",
    "alarm.pack_under_voltage",
    "alarm.cell_imbalance",
    "alarm.discharge_over_current",
    "alarm.charge_over_current",
    "alarm.discharge_over_temp",
    "alarm.discharge_under_temp",
    "alarm.temp_imbalance",
    "alarm.low_soc",
    "alarm.insulation",
    "alarm.other",  # the loop of contacts is open
    "alarm.communication_fault",  # with others
    "alarm.communication_fault",  # within
    "alarm.other",
)
_MESSAGES: Final[Mapping[int, _Message]] = {
    0x2F4: _Message(
        "state",
        (
            Number("pack_v", 0, "<H", per=10, absent=(_UNSET,)),
            Number("current_a", 2, "<H", per=10, zero=4000, absent=(_UNSET,)),
            Number("soc_bms", 4, "<B", per=100, absent=(0xFF,)),
        ),
        least=5,
    ),
    0x4F4: _Message(
        "cell_range",
        (
            Number("extra.cell_max_v", 0, "<H", per=1000, absent=(_UNSET,)),
            Number("extra.cell_max_number", 2, "<B"),
            Number("extra.cell_min_v", 3, "<H", per=1000, absent=(_UNSET,)),
            Number("extra.cell_min_number", 5, "<B"),
        ),
        least=6,
    ),
    0x5F4: _Message(
        "temp_range",
        (
            Number("extra.temp_max_c", 0, "<B", zero=50, absent=_NO_TEMP),
            Number("extra.temp_max_number", 1, "<B"),
            Number("extra.temp_min_c", 2, "<B", zero=50, absent=_NO_TEMP),
            Number("extra.temp_min_number", 3, "<B"),
        ),
        least=4,
    ),
    0x7F4: _Message("alarms", (_Levels(_ALARMS),), least=4),
    EXTENDED | 0x18F1_28F4: _Message(
        "charge",
        (
            Number("extra.remaining_ah", 0, "<H", per=10, absent=(_UNSET,)),
            Number("extra.full_ah", 2, "<H", per=10, absent=(_UNSET,)),
            Number("extra.throughput_raw", 4, "<H"),  # Ah, or tenths of it: sources differ
            Number("cycles", 6, "<H", absent=(_UNSET,)),
        ),
        least=8,
    ),
    # The third byte is the switches', as in JK's other languages; one source.
    EXTENDED | 0x18F2_28F4: _Message(
        "temps",
        (_Sensors((0, 1, 3, 4)), Number("extra.mos_temp_c", 2, "<B", zero=50, absent=_NO_TEMP)),
    ),
    EXTENDED | 0x18F5_28F4: _Message(
        "switches",
        (Flags(0, "<B", {0: "charge_mos", 1: "discharge_mos"}), Number("extra.balance_on", 0, "<B", shift=2, bits=1)),
    ),
    **{EXTENDED | 0x18E0_28F4 + (i << 16): _Message("cells", (_Cells(_CELLS_A_FRAME * i),), least=2) for i in range(6)},
}
_BY_ID: Final = {base + pack: (pack, message) for base, message in _MESSAGES.items() for pack in _PACKS}


class JkCanDecoder:
    """Reads the frames of all packs on a bus. Other ids are none of its business."""

    def __init__(self) -> None:
        self._count = 0

    def sent(self, can_id: int, payload: bytes) -> None:
        """See FrameDecoder. Packs talk without being asked."""

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """See FrameDecoder."""
        offset, self._count = self._count, self._count + 1
        if can_id not in _BY_ID:
            return []
        pack, message = _BY_ID[can_id]
        if len(payload) < message.least:
            detail = f"{len(payload)} bytes of {message.kind} of pack {pack}, {message.least} it has"
            return [LineError("length", offset, detail)]
        told = read(message.table, payload[:_FRAME_BYTES])
        return [Part(kind=message.kind, address=pack, values=told.values, quality=told.quality)]

    def end(self) -> list[Said]:
        """See FrameDecoder. Each frame says all it says."""
        return []


def _frames(values: Values, address: int | None, vehicle: str | None) -> Sequence[tuple[int, bytes]]:
    cells = size_of("cell_v", values)
    return [
        (base + (address or 0), written(message.table, values, _FRAME_BYTES))
        for base, message in _MESSAGES.items()
        if not isinstance(row := message.table[0], _Cells) or row.first < cells
    ]


JK_CAN: Final = Protocol(
    name="jk_can",
    title="JK over CAN",
    medium="can",
    rate=250_000,
    verified=False,
    fields=names_of(*(message.table for message in _MESSAGES.values())),
    frames_decoder=lambda vehicle: JkCanDecoder(),
    frames=_frames,
    extras={
        "balance_on": ("1", 1.0),
        "cell_max_number": ("", 1.0),
        "cell_min_number": ("", 1.0),
        "temp_max_c": ("degC", 0.1),
        "temp_max_number": ("", 1.0),
        "temp_min_c": ("degC", 0.1),
        "temp_min_number": ("", 1.0),
        "throughput_raw": ("", 1.0),
    },
)
