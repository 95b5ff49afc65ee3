"""Daly's newer BMSs over Modbus RTU: `D2` (H, K, M and S series, Bluetooth) and `p81` (48 cells; answers as 0x51).

A reply does not say which registers it holds: its request does, or, where none was seen, its length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from firmware_bridge.modbus import ModbusLine, ReadRequest, Reply, read_request, reply_frame
from firmware_bridge.protocol import LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.protocols.daly_registers import D2_MAP, EXTRAS_OF, FIELDS, P81_MAP, RegisterMap

_READ: Final = 0x03
_D2: Final = 0xD2
_P81_REQUESTS: Final = range(0x81, 0x91)
_P81_SHIFT: Final = 0x30
_P81_REPLIES: Final = range(0x51, 0x61)


def _answers_as(address: int) -> int:
    return address - _P81_SHIFT if address in _P81_REQUESTS else address


def _asked_as(address: int | None) -> int:
    """The address that a request carries, of a pack that is named by it or by the one that it answers as."""
    if address is None:
        return _D2
    return address + _P81_SHIFT if address in _P81_REPLIES else address


def _map_of(address: int, request: ReadRequest | None) -> RegisterMap:
    """The registers behind a reply from an address."""
    is_p81 = address in _P81_REPLIES if request is None else request.address in _P81_REQUESTS
    return P81_MAP if is_p81 else D2_MAP


class DalyModbusDecoder:
    """Reads replies to reads of registers."""

    def __init__(self) -> None:
        self._line = ModbusLine((_READ,), lambda address: address == _D2 or address in _P81_REPLIES, _answers_as)

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
    registers, count = _map_of(reply.address, reply.request), len(reply.payload) // 2
    start = reply.request.start if reply.request is not None else registers.start_of(count)
    if start is None:
        detail = f"{count} registers, and no request that says which: no reply that packs give has this length"
        return LineError("length", reply.offset, detail)
    told = registers.read(start, reply.payload)
    return Part(kind=registers.kind_of(start, count), address=reply.address, values=told.values, quality=told.quality)


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    request = read_request(asked)
    if request is None or request.function != _READ or request.address != _asked_as(address):
        return []
    payload = _map_of(_answers_as(request.address), request).written(request.start, request.count, values)
    return [reply_frame(_answers_as(request.address), _READ, payload)]


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    asked = _asked_as(address)
    registers = P81_MAP if asked in _P81_REQUESTS else D2_MAP
    return [
        Poll(kind=it.kind, request=ReadRequest(asked, _READ, it.start, it.count).frame, every=it.every)
        for it in registers.blocks
        if it.every
    ]


DALY_MODBUS: Final = Protocol(
    name="daly_modbus",
    title="Daly over Modbus (D2, p81)",
    medium="serial",
    rate=9600,
    verified=True,
    fields=FIELDS,
    bytes_decoder=DalyModbusDecoder,
    polls=_polls,
    answer=_answer,
    extras=EXTRAS_OF,
)
