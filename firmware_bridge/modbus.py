"""Modbus RTU as BMSs speak it: what is read, what comes back, and which reply answers which request. Never a write.

A reply names neither its registers nor its place in a queue: only its address, its function and its length tie it to a
request. A right CRC alone proves nothing about who speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from dataclasses import dataclass
from typing import Final

from firmware_bridge.checksums import ModbusSums, crc16_modbus
from firmware_bridge.protocol import Asked, LineError
from firmware_bridge.stream import Found, Stream

COILS: Final = (0x01, 0x02)
REGISTERS: Final = (0x03, 0x04)
_READS: Final = (*COILS, *REGISTERS)
_WRITES: Final = (0x05, 0x06, 0x0F, 0x10)
_REFUSED: Final = 0x80
_KNOWN: Final = frozenset((*_READS, *_WRITES, *(function | _REFUSED for function in (*_READS, *_WRITES))))
_REQUEST_BYTES: Final = 8
_BESIDE_BYTES: Final = 5  # of a reply, beside its payload; all of a refusal
_MOST: Final = {0x01: 2000, 0x02: 2000, 0x03: 125, 0x04: 125}
_REFUSALS: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledged, not done yet",
    6: "busy",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target does not answer",
}


def with_crc(body: bytes) -> bytes:
    """The frame of a body: its CRC behind it, low byte first."""
    return body + crc16_modbus(body).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What was asked: `count` registers (or coils) from `start` on."""

    address: int
    function: int
    start: int
    count: int

    @property
    def frame(self) -> bytes:
        """As it goes on the line."""
        counts = self.start.to_bytes(2, "big") + self.count.to_bytes(2, "big")
        return with_crc(bytes([self.address, self.function]) + counts)

    @property
    def payload_bytes(self) -> int:
        """Bytes of payload in its reply."""
        return (self.count + 7) // 8 if self.function in COILS else 2 * self.count


def read_request(frame: bytes) -> ReadRequest | None:
    """The request that a whole frame is; None = it is no good request to read."""
    if len(frame) != _REQUEST_BYTES or frame[1] not in _READS or crc16_modbus(frame):
        return None
    count = int.from_bytes(frame[4:6], "big")
    if not 1 <= count <= _MOST[frame[1]]:
        return None
    return ReadRequest(frame[0], frame[1], int.from_bytes(frame[2:4], "big"), count)


def reply_frame(address: int, function: int, payload: bytes) -> bytes:
    """The reply with this payload (at most 255 bytes)."""
    return with_crc(bytes([address, function, len(payload)]) + payload)


def refusal_frame(address: int, function: int, code: int) -> bytes:
    """The reply that says no."""
    return with_crc(bytes([address, function | _REFUSED, code]))


@dataclass(frozen=True, slots=True)
class Reply:
    """A good reply. offset: of its first byte since the line began. request: what it answers; None = nobody knows."""

    offset: int
    address: int
    function: int
    payload: bytes
    request: ReadRequest | None


class ModbusLine:
    """Bytes of a line in any pieces -> replies to reads.

    functions: that the protocol reads with; any other is an error `function`. is_usual: the addresses that packs
    answer as when nothing is known of requests; any other is an error `address`. answers_as: the address in the reply
    to a request to an address.
    """

    def __init__(
        self,
        functions: Collection[int],
        is_usual: Callable[[int], bool],
        answers_as: Callable[[int], int] = lambda address: address,
    ) -> None:
        self._functions = functions
        self._answers_as = answers_as
        self._asked = Asked()
        self._ours = {address for address in range(0x100) if is_usual(address)}
        self._heard: ReadRequest | None = None  # came in as if it were a reply: an echo, or another master's
        self._stream = Stream(_Framing(self._ours), is_loose=True)

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        return self._stream.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        self._asked.sent(request)
        if request:
            self._ours.add(self._answers_as(request[0]))

    def feed(self, data: bytes) -> list[Reply | LineError]:
        """The replies that these bytes complete, and what was wrong on the way."""
        return [self._told(found) for found in self._stream.feed(data)]

    def end(self) -> list[Reply | LineError]:
        """The line has fallen silent. See ByteDecoder."""
        told = [self._told(found) for found in self._stream.end()]
        self._asked.forget()
        self._heard = None
        return told

    def _told(self, found: Found | LineError) -> Reply | LineError:
        if isinstance(found, LineError):
            return found
        frame, at = found.frame, found.offset
        address, function = frame[0], frame[1]
        if frame in self._asked:
            return LineError("echo", at, f"a request: {frame.hex()}")
        if function not in self._functions and function & ~_REFUSED not in self._functions:
            return LineError("function", at, f"function {function:02X} of {address:02X} is none that is read with")
        if function & _REFUSED:
            return self._refused(frame, at)
        request = read_request(frame)
        if request is not None and len(frame) != _BESIDE_BYTES + frame[2]:
            self._heard = request
            return LineError("echo", at, f"a request: {frame.hex()}")
        payload = frame[3:-2]
        if not payload or (function in REGISTERS and len(payload) % 2):
            return LineError("length", at, f"a reply of {len(payload)} bytes holds no registers")
        return self._reply(Reply(at, address, function, payload, None))

    def _reply(self, reply: Reply) -> Reply | LineError:
        """A reply with the request that it answers, if it may be taken at all."""

        def fits(request: ReadRequest | None) -> bool:
            return (
                request is not None
                and self._answers_as(request.address) == reply.address
                and request.function == reply.function
                and request.payload_bytes == len(reply.payload)
            )

        size = len(reply.payload)
        if self._asked.any:
            asked = self._asked.answered(lambda frame: fits(read_request(frame)))
            if asked is None:
                return LineError("address", reply.offset, f"nobody asked {reply.address:02X} for {size} bytes")
            return Reply(reply.offset, reply.address, reply.function, reply.payload, read_request(asked))
        if reply.address not in self._ours:
            return LineError("address", reply.offset, f"{reply.address:02X} is not the address of a pack")
        heard = self._heard if fits(self._heard) else None
        return Reply(reply.offset, reply.address, reply.function, reply.payload, heard)

    def _refused(self, frame: bytes, at: int) -> LineError:
        address, function = frame[0], frame[1] & ~_REFUSED

        def fits(asked: bytes) -> bool:
            # What is refused may well be a request that asks for more than there may be.
            return asked[1:2] == bytes([function]) and self._answers_as(asked[0]) == address

        is_asked = self._asked.answered(fits) is not None if self._asked.any else address in self._ours
        if not is_asked:
            return LineError("address", at, f"nobody asked {address:02X} for what it refuses")
        why = _REFUSALS.get(frame[2], "for no reason that Modbus knows")
        return LineError("response", at, f"{address:02X} refuses function {function:02X}: {frame[2]} ({why})")


class _Framing:
    """A frame begins with an address and a function; nothing else marks it, so its CRC decides where it may be doubted.

    Bytes from an address that is not one of `ours` are a frame only when all of them are there and their CRC is right.
    """

    def __init__(self, ours: Set[int]) -> None:
        self._ours = ours
        self._sums = ModbusSums()
        self._is_good = False

    def start(self, data: bytes, at: int) -> int:
        while at + 1 < len(data) and data[at + 1] not in _KNOWN and data[at] not in self._ours:
            at += 1
        return at

    def length(self, data: bytes, at: int) -> int | None:
        have = len(data) - at
        if have < 3:
            return None
        self._sums.begin(data, at)
        reply, other = _sizes(data, at)
        waits = False
        shortest_first = (other, reply) if other < reply else (reply, other)
        for size in shortest_first:  # so that it is the same one however the bytes come
            if size > have:
                waits = True
            elif size and self._sums.is_good(size):
                self._is_good = True
                return size
        claimed = other if other and not data[at + 2] else reply
        if data[at + 1] in _KNOWN and (claimed > have or not waits) and data[at] in self._ours:
            self._is_good = False
            return claimed
        return None if waits else 0

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        # `length` has just looked: once more for each of the long frames that noise is full of would take long.
        return None if self._is_good else ("checksum", f"{int.from_bytes(frame[-2:], 'little'):04X} is not its CRC")


def _sizes(data: bytes, at: int) -> tuple[int, int]:
    """The lengths that a frame which begins there may have: the likelier one, and another one (0 = none)."""
    function, count = data[at + 1], data[at + 2]
    if function & _REFUSED:
        return _BESIDE_BYTES, 0
    if function in _WRITES:
        is_long = function >= 0x0F and at + 6 < len(data)
        return _REQUEST_BYTES, 9 + data[at + 6] if is_long else 0
    reply = _BESIDE_BYTES + count
    if function not in _READS or reply == _REQUEST_BYTES:
        return reply, 0
    if at + 6 <= len(data) and not 1 <= data[at + 4] << 8 | data[at + 5] <= _MOST[function]:
        return reply, 0
    return reply, _REQUEST_BYTES
