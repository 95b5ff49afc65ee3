"""Seplos V3 over Modbus RTU: function 4 reads blocks of registers, function 1 reads blocks of bits.

Address 0 is the system of all packs (EIA, EIB, EIC), each pack has an address of its own from 1 on (PIA, PIB, PIC). A
reply does not say which block it holds: its request does, or, where none was seen, its length and what stands in it.
Numbers of 32 bits have their low word first. Layout: https://github.com/syssi/esphome-seplos-bms, checked on captures.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from firmware_bridge.modbus import ModbusLine, ReadRequest, Reply, read_request, reply_frame
from firmware_bridge.protocol import LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.protocols.seplos_events import V3, V3_HARDWARE
from firmware_bridge.rows import BitSet, Flags, Number, Numbers, Read, Row, Table, Text, names_of, read, written

_BITS: Final = 0x01
_REGISTERS: Final = 0x04
_SYSTEM: Final = 0
_FIRST_PACK: Final = 1
_LAST_PACK: Final = 16
_SETTINGS: Final = 0xE0  # whom settings are asked of, which we never do
_KELVIN: Final = 2731
_NO_SENSOR: Final = (0xFFFF, 0)
_NO_CELL: Final = (0xFFFF,)
_MOST_PERMILLE: Final = 1500  # a state in 0.1 % is below it, a temperature in 0.1 K above


@dataclass(frozen=True, slots=True)
class _Swapped:
    """A number of 32 bits whose low word stands first; it is read as `number`, which counts from its own beginning."""

    number: Number
    at: int

    @property
    def names(self) -> tuple[str, ...]:
        return self.number.names

    def read(self, data: bytes, into: Read) -> None:
        if self.at + 4 <= len(data):
            self.number.read(data[self.at + 2 : self.at + 4] + data[self.at : self.at + 2], into)

    def write(self, data: bytearray, values: Values) -> None:
        whole = bytearray(data[self.at + 2 : self.at + 4] + data[self.at : self.at + 2])
        self.number.write(whole, values)
        data[self.at : self.at + 4] = whole[2:] + whole[:2]


def _long(name: str, at: int, form: str = ">I", per: float = 1, times: float = 1) -> _Swapped:
    return _Swapped(Number(name, 0, form, per, times), at)


def _celsius(name: str, at: int) -> Number:
    return Number(name, at, ">H", per=10, zero=_KELVIN, absent=_NO_SENSOR, lo=-100, hi=300)


_EIA: Final[Table] = (
    _long("pack_v", 0, per=100),
    _long("current_a", 4, ">i", per=10),
    _long("extra.remaining_ah", 8, per=100),
    _long("extra.full_ah", 12, per=100),
    _long("extra.discharged_ah", 16, times=10),
    _long("extra.nominal_ah", 20, per=100),
    _long("extra.packs_online", 24),
    _long("extra.packs_protected", 28),
    _long("discharge_limit_a", 32, per=10),
    _long("charge_limit_a", 36, per=10),
    Number("extra.charge_v_limit", 40, ">H", per=10),
    Number("extra.discharge_v_limit", 42, ">H", per=10),
    Number("extra.packs", 44, ">H"),
    Number("cycles", 46, ">H"),
    Number("soc_bms", 48, ">H", per=1000, hi=2),
    Number("soh_bms", 50, ">H", per=1000, hi=2),
)
_EIB: Final[Table] = (
    Number("extra.cell_max_v", 0, ">H", per=1000),
    Number("extra.cell_min_v", 2, ">H", per=1000),
    Number("extra.pack_highest_v", 8, ">H", per=100),
    Number("extra.pack_lowest_v", 10, ">H", per=100),
    Number("extra.temp_max_c", 16, ">h", per=10),
    Number("extra.temp_min_c", 18, ">h", per=10),
    Number("extra.temp_avg_c", 20, ">h", per=10),
    Number("extra.soc_max", 26, ">H", per=1000, hi=2),
    Number("extra.soc_min", 28, ">H", per=1000, hi=2),
    Number("extra.mos_temp_c", 34, ">h", per=10),
)
_PIA: Final[Table] = (
    Number("pack_v", 0, ">H", per=100),
    Number("current_a", 2, ">h", per=100),
    Number("extra.remaining_ah", 4, ">H", per=100),
    Number("extra.full_ah", 6, ">H", per=100),
    Number("extra.discharged_ah", 8, ">H", times=10),
    Number("soc_bms", 10, ">H", per=1000, hi=2),
    Number("soh_bms", 12, ">H", per=1000, hi=2),
    Number("cycles", 14, ">H"),
    Number("extra.cell_avg_v", 16, ">H", per=1000),
    _celsius("extra.temp_avg_c", 18),
    Number("extra.cell_max_v", 20, ">H", per=1000),
    Number("extra.cell_min_v", 22, ">H", per=1000),
    _celsius("extra.temp_max_c", 24),
    _celsius("extra.temp_min_c", 26),
    Number("discharge_limit_a", 30, ">H"),
    Number("charge_limit_a", 32, ">H"),
)
# Four more sensors have room behind the first four; they stand at 0 degC in every capture and mean nothing.
_PIB: Final[Table] = (
    Numbers(Number("cell_v", 0, ">H", per=1000, absent=_NO_CELL), count=16, no_place=(0, *_NO_CELL)),
    Numbers(_celsius("temp_c", 32), count=4),
    _celsius("ambient_c", 48),
    _celsius("extra.mos_temp_c", 50),
)
_UNUSED_SENSORS: Final = range(40, 48, 2)


def _events(at: int) -> tuple[Row, ...]:
    """The state and what follows it; it begins at byte `at`."""
    raws = ("extra.alarm_raw", "extra.alarm_2_raw", "extra.alarm_3_raw")
    return (
        Number("extra.status", at, ">B"),
        *(Flags(at + 1 + 2 * i, ">H", V3[i], raws[i]) for i in range(len(V3))),
        Number("extra.heating", at + 3, ">B", shift=6, bits=1),
        Flags(at + 7, ">B", {0: "discharge_mos", 1: "charge_mos"}),
        Number("extra.limiter", at + 7, ">B", shift=2, bits=1),
        Number("extra.heater", at + 7, ">B", shift=3, bits=1),
        Flags(at + 8, ">H", V3_HARDWARE, "extra.alarm_4_raw"),
    )


_EIC: Final[Table] = _events(0)
_PIC: Final[Table] = (BitSet("balancing", 6, "<H"), *_events(8))
_VIA: Final[Table] = (
    Text("extra.manufacturer", 0, 20),
    Text("extra.model", 20, 20),
    Text("extra.sw_version", 40, 2),
    Text("extra.serial", 42, 60),
)


@dataclass(frozen=True, slots=True)
class _Block:
    """count: of registers or bits. every: in which rounds it is polled."""

    kind: str
    table: Table
    function: int
    start: int
    count: int
    every: int = 1

    def request(self, address: int) -> ReadRequest:
        return ReadRequest(address, self.function, self.start, self.count)


_OF_SYSTEM: Final = (
    _Block("system", _EIA, _REGISTERS, 0x2000, 26),
    _Block("system_extremes", _EIB, _REGISTERS, 0x2100, 22),
    _Block("system_events", _EIC, _BITS, 0x2200, 80),
    _Block("version", _VIA, _REGISTERS, 0x1700, 51, every=600),
)
_OF_PACK: Final = (
    _Block("pack", _PIA, _REGISTERS, 0x1000, 17),
    _Block("cells", _PIB, _REGISTERS, 0x1100, 26),
    _Block("events", _PIC, _BITS, 0x1200, 144),
)
_BY_START: Final = {(block.function, block.start): block for block in (*_OF_SYSTEM, *_OF_PACK)}
_EIA_BLOCK, _PIB_BLOCK = _OF_SYSTEM[0], _OF_PACK[1]
_BY_LENGTH: Final = {
    (block.function, block.request(0).payload_bytes): block
    for block in (*_OF_SYSTEM, *_OF_PACK)
    if block is not _EIA_BLOCK
} | {(_REGISTERS, 36): _OF_PACK[0]}  # with a register more, as some ask for it
_OF_SETTINGS: Final = {72: "protocols", 106: "limits"}


def _block(reply: Reply) -> _Block | None:
    """The block that a reply holds; None = none that is known."""
    if reply.request is not None:
        return _BY_START.get((reply.function, reply.request.start))
    block = _BY_LENGTH.get((reply.function, len(reply.payload)))
    return _EIA_BLOCK if block is _PIB_BLOCK and _is_system(reply.payload) else block


def _is_system(payload: bytes) -> bool:
    """Whether a payload of 26 registers is the system's: its voltage has no high word, its SoC and SoH are permille."""
    words: tuple[int, ...] = struct.unpack_from(">26H", payload)
    return words[1] == 0 and words[24] <= _MOST_PERMILLE and words[25] <= _MOST_PERMILLE


class SeplosV3Decoder:
    """Reads replies to reads of registers and bits."""

    def __init__(self) -> None:
        self._line = ModbusLine((_BITS, _REGISTERS), lambda address: address <= _LAST_PACK or address == _SETTINGS)

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        return self._line.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        self._line.sent(request)

    def feed(self, data: bytes) -> list[Said]:
        """See ByteDecoder."""
        return [_said(told) for told in self._line.feed(data)]

    def end(self) -> list[Said]:
        """See ByteDecoder."""
        return [_said(told) for told in self._line.end()]


def _said(reply: Reply | LineError) -> Said:
    if isinstance(reply, LineError):
        return reply
    block = _block(reply)
    if block is None:
        size = len(reply.payload)
        if reply.request is None and size not in _OF_SETTINGS:
            return LineError("length", reply.offset, f"no block that a pack tells has {size} bytes")
        what = f"block {reply.request.start:04X}" if reply.request is not None else _OF_SETTINGS[size]
        return LineError("function", reply.offset, f"{what} of {reply.address:02X} is none that is read here")
    told = read(block.table, reply.payload)
    return Part(kind=block.kind, address=reply.address, values=told.values, quality=told.quality)


def reply(address: int, start: int, count: int, values: Values) -> bytes | None:
    """What a pack with these values replies to a read of `count` registers or bits; None = it has no such block."""
    block = _BY_START.get((_REGISTERS, start)) or _BY_START.get((_BITS, start))
    if block is None:
        return None
    payload = bytearray(written(block.table, values, block.request(0).payload_bytes))
    if block is _PIB_BLOCK:
        for at in _UNUSED_SENSORS:
            struct.pack_into(">H", payload, at, _KELVIN)
    size = ReadRequest(address, block.function, start, count).payload_bytes
    return reply_frame(address, block.function, bytes(payload[:size]).ljust(size, b"\0"))


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    request = read_request(asked)
    if request is None or request.function not in (_BITS, _REGISTERS) or address not in (None, request.address):
        return []
    if (request.function, request.start) not in _BY_START:
        return []
    frame = reply(request.address, request.start, request.count, values)
    return [] if frame is None else [frame]


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    asked = _FIRST_PACK if address is None else address
    blocks = _OF_SYSTEM if asked == _SYSTEM else _OF_PACK
    return [Poll(kind=block.kind, request=block.request(asked).frame, every=block.every) for block in blocks]


_EXTRAS: Final[Mapping[str, tuple[str | None, float]]] = {
    **dict.fromkeys(("status", "packs", "alarm_2_raw", "alarm_3_raw", "alarm_4_raw"), ("", 1.0)),
    **dict.fromkeys(("packs_online", "packs_protected"), ("", 1.0)),
    **dict.fromkeys(("limiter", "heater", "heating"), ("1", 1.0)),
    **dict.fromkeys(("pack_highest_v", "pack_lowest_v"), ("V", 0.01)),
    **dict.fromkeys(("temp_max_c", "temp_min_c", "temp_avg_c"), ("degC", 0.1)),
    **dict.fromkeys(("soc_max", "soc_min"), ("1", 0.001)),
    **dict.fromkeys(("manufacturer", "serial"), (None, 0.0)),
    "cell_avg_v": ("V", 0.001),
    "discharged_ah": ("Ah", 10.0),
}

SEPLOS_V3: Final = Protocol(
    name="seplos_v3",
    title="Seplos V3",
    medium="serial",
    rate=19200,
    verified=True,
    fields=names_of(*(block.table for block in (*_OF_SYSTEM, *_OF_PACK))),
    bytes_decoder=SeplosV3Decoder,
    polls=_polls,
    answer=_answer,
    extras=_EXTRAS,
)
