"""MQTT v5 on the wire, as much of it as the gateway needs: packets to bytes, bytes to packets. Pure.

A library of general use spends four times as long on each message, most of it on properties that nobody looks at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from shared.errors import PacktwinError

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
PINGRESP: Final = 13
DISCONNECT: Final = 14

PING: Final = b"\xc0\x00"
GOODBYE: Final = b"\xe0\x00"

FAILURE: Final = 0x80
"""A reason code from here on says no."""
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_PACKET: Final = 0x27
SERVER_KEEPALIVE: Final = 0x13
CONTENT_TYPE: Final = 0x03
CORRELATION: Final = 0x09
_EXPIRY: Final = 0x02
_SESSION_EXPIRY: Final = 0x11
_USER_PROPERTY: Final = 0x26
_SUBSCRIPTION: Final = 0x0B
_BYTES_OF: Final = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), 4),
}
"""Properties that are numbers of a fixed size; the others are texts or data with their length before them."""
_MOST_LENGTH_BYTES: Final = 4

Properties = dict[int, int | bytes]


class ProtocolError(PacktwinError):
    """What came is no MQTT v5."""


@dataclass(frozen=True, slots=True)
class Publish:
    """A message; number 0 = QoS 0, which nobody acknowledges."""

    topic: str
    payload: bytes
    number: int
    properties: Properties = field(default_factory=dict)


def connect(
    client_id: str,
    *,
    keepalive_s: int,
    session_s: int,
    receive_maximum: int,
    maximum_packet: int,
    user: str = "",
    password: str = "",
) -> bytes:
    """CONNECT that goes on with the session the broker may have of us."""
    flags = (0x80 if user else 0) | (0x40 if user else 0)
    properties = struct.pack(
        ">BIBHBI", _SESSION_EXPIRY, session_s, RECEIVE_MAXIMUM, receive_maximum, MAXIMUM_PACKET, maximum_packet
    )
    body = b"\x00\x04MQTT\x05" + struct.pack(">BH", flags, keepalive_s) + _length(len(properties)) + properties
    body += _text(client_id) + (_text(user) + _text(password) if user else b"")
    return _packet(0x10, body)


def subscribe(number: int, topics: Sequence[str]) -> bytes:
    """SUBSCRIBE with QoS 1."""
    return _packet(0x82, struct.pack(">HB", number, 0) + b"".join(_text(topic) + b"\x01" for topic in topics))


def publish(
    topic: str, payload: bytes, number: int, *, retain: bool, correlation: bytes, content_type: str, expiry_s: int
) -> bytes:
    """PUBLISH with QoS 1."""
    properties = b""
    if expiry_s:
        properties = struct.pack(">BI", _EXPIRY, expiry_s)
    if content_type:
        properties += b"\x03" + _text(content_type)
    if correlation:
        properties += struct.pack(">BH", CORRELATION, len(correlation)) + correlation
    body = _text(topic) + struct.pack(">H", number) + _length(len(properties)) + properties + payload
    return _packet(0x33 if retain else 0x32, body)


def puback(number: int) -> bytes:
    """PUBACK: the message is ours now."""
    return b"\x40\x02" + number.to_bytes(2)


class Stream:
    """Bytes as they come -> packets. A packet is (kind, flags, body)."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """The packets that are complete now. Raises ProtocolError for one that is longer than agreed."""
        buffer = self._buffer
        buffer += data
        at = 0
        while True:
            start, size = _length_at(buffer, at + 1)
            if start < 0 or len(buffer) < start + size:
                if size > self._most_bytes:
                    raise ProtocolError(f"a packet of {size} bytes")
                break
            yield buffer[at] >> 4, buffer[at] & 0x0F, bytes(buffer[start : start + size])
            at = start + size
        del buffer[:at]


def read_publish(flags: int, body: bytes) -> Publish:
    """PUBLISH. Raises ProtocolError."""
    try:
        size = int.from_bytes(body[:2])
        topic, at = body[2 : 2 + size].decode(), 2 + size
        number = 0
        if flags & 0x06:
            number, at = int.from_bytes(body[at : at + 2]), at + 2
        properties, at = _properties(body, at)
    except (IndexError, ValueError) as error:
        raise ProtocolError("a PUBLISH that makes no sense") from error
    return Publish(topic, body[at:], number, properties)


def read_connack(body: bytes) -> tuple[int, Properties]:
    """(reason code, what the broker told of itself). Raises ProtocolError."""
    try:
        return body[1], _properties(body, 2)[0] if len(body) > 2 else {}
    except (IndexError, ValueError) as error:
        raise ProtocolError("a CONNACK that makes no sense") from error


def read_suback(body: bytes) -> bytes:
    """A reason code per topic. Raises ProtocolError."""
    try:
        return body[_properties(body, 2)[1] :]
    except (IndexError, ValueError) as error:
        raise ProtocolError("a SUBACK that makes no sense") from error


def _properties(body: bytes, at: int) -> tuple[Properties, int]:
    """(what is known of them, where they end). Raises IndexError or ValueError."""
    at, size = _length_at(body, at)
    if at < 0 or at + size > len(body):
        raise ValueError("properties are cut off")
    end = at + size
    found: Properties = {}
    while at < end:
        key = body[at]
        at += 1
        fixed = _BYTES_OF.get(key)
        if fixed is not None:
            found[key] = int.from_bytes(body[at : at + fixed])
            at += fixed
        elif key == _SUBSCRIPTION:
            at, found[key] = _length_at(body, at)
        else:
            for _ in range(2 if key == _USER_PROPERTY else 1):
                length = int.from_bytes(body[at : at + 2])
                found[key] = body[at + 2 : at + 2 + length]
                at += 2 + length
    if at != end:
        raise ValueError("properties overlap what follows")
    return found, end


def _length_at(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """(where it ends, the length); (-1, 0) when it is not all there. Raises ProtocolError for one that never ends."""
    value = shift = 0
    for i in range(at, min(at + _MOST_LENGTH_BYTES, len(data))):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return i + 1, value
        shift += 7
    if len(data) >= at + _MOST_LENGTH_BYTES:
        raise ProtocolError("a length that never ends")
    return -1, 0


def _length(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2) + data


def _packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + _length(len(body)) + body
