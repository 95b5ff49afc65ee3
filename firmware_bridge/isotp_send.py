"""ISO-TP, the sending half: a message as frames, and the flow control that paces them. Pure; see isotp.py to receive.

Classic CAN, normal addressing, a message of at most 4,095 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from firmware_bridge.frames import CLASSIC_BYTES

FLOW_CONTROL: Final = 0x30
"""The first byte of a flow control that says: go on. 0x31 says wait, 0x32 that the receiver has no room."""
_WAIT: Final = 0x31
_MOST_BYTES: Final = 4095
_FIRST_BYTES: Final = CLASSIC_BYTES - 2  # of the message, in its first frame
_NEXT_BYTES: Final = CLASSIC_BYTES - 1
_MS_S: Final = 0.001
_US_S: Final = 0.000_1  # of STmin F1..F9


def single(message: bytes, fill: int = 0) -> bytes:
    """The one frame of a message of 1..7 bytes."""
    return (bytes([len(message)]) + message).ljust(CLASSIC_BYTES, bytes([fill]))


def segments(message: bytes, fill: int = 0) -> list[bytes]:
    """The frames of a message of 1..4095 bytes, in their order; the unused bytes of the last are `fill`."""
    if len(message) < CLASSIC_BYTES:
        return [single(message, fill)]
    if len(message) > _MOST_BYTES:
        raise ValueError(f"an ISO-TP message has at most {_MOST_BYTES} bytes, not {len(message)}")
    frames = [bytes([0x10 | len(message) >> 8, len(message) & 0xFF]) + message[:_FIRST_BYTES]]
    for number, at in enumerate(range(_FIRST_BYTES, len(message), _NEXT_BYTES), 1):
        frame = bytes([0x20 | number & 0xF]) + message[at : at + _NEXT_BYTES]
        frames.append(frame.ljust(CLASSIC_BYTES, bytes([fill])))
    return frames


def flow_control(block: int = 0, separation_ms: int = 0, fill: int = 0) -> bytes:
    """A receiver's "go on". block: frames until the next one is wanted, 0 = all. separation_ms: between two, 0..127."""
    return bytes([FLOW_CONTROL, block, separation_ms]).ljust(CLASSIC_BYTES, bytes([fill]))


@dataclass(slots=True)
class Sender:
    """Messages on their way to one receiver, one at a time.

    separation_s: how far apart the receiver wants the frames that `flow` returned.
    """

    fill: int = 0
    separation_s: float = 0.0
    _rest: list[bytes] = field(default_factory=list)

    def begin(self, message: bytes) -> bytes:
        """The first frame of a message; what is left of an earlier one is dropped."""
        first, *self._rest = segments(message, self.fill)
        return first

    def flow(self, control: bytes) -> list[bytes]:
        """The frames that a flow control lets go."""
        if not self._rest or len(control) < 3 or control[0] == _WAIT:
            return []
        if control[0] != FLOW_CONTROL:
            self._rest.clear()
            return []
        self.separation_s = _separation_s(control[2])
        count = control[1] or len(self._rest)
        going, self._rest = self._rest[:count], self._rest[count:]
        return going


def _separation_s(raw: int) -> float:
    """STmin: 0..7F = ms, F1..F9 = 100 us each; what is reserved means the longest."""
    if raw <= 0x7F:
        return raw * _MS_S
    return (raw & 0xF) * _US_S if 0xF1 <= raw <= 0xF9 else 0x7F * _MS_S
