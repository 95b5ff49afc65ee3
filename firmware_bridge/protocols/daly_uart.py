"""Daly over UART, RS485 and older Bluetooth: sentences `A5 address command 08 payload(8) sum`.

A BMS that sleeps sends the request back: a sentence like any other, but from a host's address. The sum of a sentence
that lost bytes is wrong, and the next one begins within it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from firmware_bridge.checksums import sum8
from firmware_bridge.protocol import Asked, LineError, Poll, Protocol, Said, Values
from firmware_bridge.protocols.daly_payloads import (
    EXTRAS_OF,
    FIELDS,
    PACKS,
    PAYLOAD_BYTES,
    POLLED,
    Payloads,
    host_of,
    is_known,
    pack_of,
    payloads,
)
from firmware_bridge.stream import Found, Stream

_START: Final = 0xA5
_HEAD_BYTES: Final = 4
_SENTENCE_BYTES: Final = 13


class _Framing:
    """Sentences begin with A5, and their length byte is always 8.

    A sum of 8 bits is right by chance once in 256 times: of a sentence that was cut off, with the next one's beginning
    for its end. So a good sentence within a good one has the last word.
    """

    def __init__(self) -> None:
        self.is_end = False
        """Nothing more comes that could decide."""

    def start(self, data: bytes, at: int) -> int:
        found = data.find(_START, at)
        return len(data) if found < 0 else found

    def length(self, data: bytes, at: int) -> int | None:
        head = data[at : at + _HEAD_BYTES]
        if len(head) < _HEAD_BYTES:
            return None
        if head[3] != PAYLOAD_BYTES and not (_is_speaker(head[1]) and is_known(head[2])):
            return 0
        if _is_good(data[at : at + _SENTENCE_BYTES]):
            for cut in _later_beginnings(data[at : at + _SENTENCE_BYTES]):
                within = data[at + cut : at + cut + _SENTENCE_BYTES]
                if not _begins(within[:_HEAD_BYTES]):
                    continue
                if _is_good(within):
                    return cut
                if len(within) < _SENTENCE_BYTES and not self.is_end:
                    return None
        return _SENTENCE_BYTES

    def fault(self, frame: bytes) -> tuple[str, str] | None:
        cut = len(frame)
        if cut == _SENTENCE_BYTES:
            if frame[3] != PAYLOAD_BYTES:
                return "length", f"its length byte is {frame[3]:02X} instead of {PAYLOAD_BYTES:02X}"
            if _is_good(frame):
                return None
            # One byte alone is too little to say that it was cut off.
            cut = next((at for at in _later_beginnings(frame) if at < _SENTENCE_BYTES - 1), 0)
        if cut:
            return "length", f"{cut} of {_SENTENCE_BYTES} bytes came, then the next sentence begins"
        return "checksum", f"{frame[-1]:02X} came, {sum8(frame[:-1]):02X} it is"


def _is_good(frame: bytes) -> bool:
    return len(frame) == _SENTENCE_BYTES and frame[3] == PAYLOAD_BYTES and sum8(frame[:-1]) == frame[-1]


def _is_speaker(address: int) -> bool:
    return address in PACKS or pack_of(address) is not None


def _begins(head: bytes) -> bool:
    """Whether a sentence seems to begin with these bytes, at most four of them."""
    return (
        head[0] == _START
        and (len(head) < 2 or _is_speaker(head[1]))
        and (len(head) < 3 or is_known(head[2]))
        and (len(head) < _HEAD_BYTES or head[3] == PAYLOAD_BYTES)
    )


def _later_beginnings(frame: bytes) -> Iterator[int]:
    """Where within a sentence another one seems to begin."""
    at = frame.find(_START, 1)
    while at >= 0:
        if _begins(frame[at : at + _HEAD_BYTES]):
            yield at
        at = frame.find(_START, at + 1)


class DalyUartDecoder:
    """Reads sentences of packs."""

    def __init__(self) -> None:
        self._framing = _Framing()
        self._stream = Stream(self._framing, is_loose=True)
        self._asked = Asked()
        self._payloads = Payloads()

    @property
    def pending(self) -> bytes:
        """See ByteDecoder."""
        return self._stream.pending

    def sent(self, request: bytes) -> None:
        """See ByteDecoder."""
        self._asked.sent(request)

    def feed(self, data: bytes) -> list[Said]:
        """See ByteDecoder."""
        return [self._said(found) for found in self._stream.feed(data)]

    def end(self) -> list[Said]:
        """See ByteDecoder."""
        self._framing.is_end = True
        said = [self._said(found) for found in self._stream.end()]
        self._framing.is_end = False
        self._asked.forget()
        return said

    def _said(self, found: Found | LineError) -> Said:
        if isinstance(found, LineError):
            return found
        frame, at = found.frame, found.offset
        address, command = frame[1], frame[2]
        if frame in self._asked or pack_of(address) is not None:
            return LineError("echo", at, f"a request: {frame.hex()}")
        if address not in PACKS:
            return LineError("address", at, f"{address:02X} is not the address of a pack")
        if self._asked.any and self._asked.answered(lambda request: _asks(request, address, command)) is None:
            return LineError("address", at, f"nobody asked {address:02X} for {command:02X}")
        return self._payloads.said(address, command, frame[_HEAD_BYTES:-1], at)


def _asks(request: bytes, pack: int, command: int) -> bool:
    """Whether a request is for that reply."""
    return len(request) == _SENTENCE_BYTES and request[2] == command and pack_of(request[1]) == pack


def sentence(address: int, command: int, payload: bytes) -> bytes:
    """A sentence of a pack, or of a host (its payload is zeros)."""
    body = bytes([_START, address, command, PAYLOAD_BYTES]) + payload
    return body + bytes([sum8(body)])


def request(command: int, pack: int | None = None) -> bytes:
    """What asks a pack for a command; None is the first pack."""
    return sentence(host_of(pack), command, bytes(PAYLOAD_BYTES))


def _answer(asked: bytes, values: Values, address: int | None) -> Sequence[bytes]:
    pack = address or PACKS.start
    if not _is_good(asked) or not _begins(asked[:_HEAD_BYTES]):
        return []
    if pack_of(asked[1]) != pack:
        return []
    return [sentence(pack, asked[2], payload) for payload in payloads(asked[2], values)]


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    return [
        Poll(kind=kind, request=request(command, address), replies=0 if kind in ("cells", "temps") else 1, every=every)
        for command, (kind, every) in POLLED.items()
    ]


DALY_UART: Final = Protocol(
    name="daly_uart",
    title="Daly over UART or RS485 (A5)",
    medium="serial",
    rate=9600,
    verified=True,
    fields=FIELDS,
    bytes_decoder=DalyUartDecoder,
    polls=_polls,
    answer=_answer,
    extras=EXTRAS_OF,
    counter="life",
    moves_always=False,
    silence_s=0.15,
)
