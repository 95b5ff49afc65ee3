"""A language of a BMS small enough to see through: `S address command value sum`, five bytes both ways.

TOY tells in each reply whose it is; MUTE does not (its address byte is 0), so that only who was asked tells it.
"""

from __future__ import annotations

from collections.abc import Sequence

from firmware_bridge.checksums import sum8
from firmware_bridge.protocol import Asked, LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.stream import Found, Stream

VOLTS, AMPS, NAME = 1, 2, 3
_FIELDS = {VOLTS: "pack_v", AMPS: "current_a", NAME: "extra.model"}


def message(address: int, command: int, value: int) -> bytes:
    body = bytes([0x53, address, command, value])
    return body + bytes([sum8(body)])


class _Framing:
    def start(self, data: bytes, at: int) -> int:
        found = data.find(0x53, at)
        return len(data) if found < 0 else found

    def length(self, data: bytes, at: int) -> int | None:
        return 5

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        return None if frame[4] == sum8(frame[:4]) else ("checksum", "it is wrong")


class ToyDecoder:
    """Replies have bit 7 of their command set."""

    def __init__(self) -> None:
        self._stream = Stream(_Framing())
        self._asked = Asked()

    @property
    def pending(self) -> bytes:
        return self._stream.pending

    def sent(self, request: bytes) -> None:
        self._asked.sent(request)

    def feed(self, data: bytes) -> list[Said]:
        return [self._said(found) for found in self._stream.feed(data)]

    def end(self) -> list[Said]:
        said = [self._said(found) for found in self._stream.end()]
        self._asked.forget()
        return said

    def _said(self, found: Found | LineError) -> Said:
        if isinstance(found, LineError):
            return found
        _, address, command, value, _ = found.frame
        if not command & 0x80:
            return LineError("echo", found.offset, "a request")
        command &= 0x7F
        if self._asked.any:
            fits = self._asked.answered(lambda request: request[2] == command and address in (0, request[1]))
            if fits is None:
                return LineError("address", found.offset, "nobody asked")
        if value == 0xFF:
            return LineError("response", found.offset, "no")
        told = str(value) if command == NAME else float(value)
        return Part(kind=str(command), address=address or None, values={_FIELDS[command]: told})


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    at = 1 if address is None else address
    commands = ((VOLTS, 1), (AMPS, 1), (NAME, 10))
    return [Poll(kind=str(command), request=message(at, command, 0), every=every) for command, every in commands]


def reply(request: bytes, values: Values, address: int) -> bytes:
    """What a pack replies; 0xFF = it refuses."""
    value = values.get(_FIELDS[request[2]])
    return message(address, request[2] | 0x80, 0xFF if value is None else int(value))


TOY = Protocol(
    name="toy",
    title="for tests",
    medium="serial",
    rate=9600,
    verified=False,
    fields=tuple(_FIELDS.values()),
    bytes_decoder=ToyDecoder,
    polls=_polls,
    answer=lambda asked, values, address: [reply(asked, values, address or 1)] if asked[1] == (address or 1) else [],
)
