"""The only way onto a CAN bus. What is no reading request of the pack's own language does not pass, whoever asks.

A source without a voice listens only: it has nothing to send with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edge.sources.source import SourceError
from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import Poll
from firmware_bridge.uds import is_flow_control, is_reading_frame

Write = Callable[[int, bytes], bool]
"""Puts a frame on the bus; False = the bus takes none now."""

_DALY_PRIORITY: Final = 0x18
_DALY_READS: Final = frozenset({*range(0x50, 0x60), *range(0x90, 0x99)})
_DALY_HOST: Final = 0x40
_DALY_PACKS: Final = range(1, 17)
_PYLONTECH_ASK: Final = EXTENDED | 0x4200
_PYLONTECH_READS: Final = (0x00, 0x02)  # the ensemble; the equipment


class NotAllowed(SourceError):
    """Something was to be sent that is no reading request: a mistake of the program, and nothing was sent.

    This source is down then; the others are none the wiser.
    """


def _is_diagnostic(can_id: int, payload: bytes) -> bool:
    """Services 22, 21 and 01 in a single frame, and the flow control that their answers need."""
    return not can_id & EXTENDED and 0x700 <= can_id < 0x800 and (is_reading_frame(payload) or is_flow_control(payload))


def _is_daly(can_id: int, payload: bytes) -> bool:
    """The commands that read, from the host to a pack, without any data."""
    priority, command, pack, host = can_id.to_bytes(4, "big")
    return (
        priority == EXTENDED >> 24 | _DALY_PRIORITY
        and command in _DALY_READS
        and pack in _DALY_PACKS
        and host == _DALY_HOST
        and payload == bytes(8)
    )


def _is_pylontech(can_id: int, payload: bytes) -> bool:
    return can_id == _PYLONTECH_ASK and payload[:1] in map(_byte, _PYLONTECH_READS) and not any(payload[1:])


def _byte(number: int) -> bytes:
    return bytes([number])


READS: Final[Mapping[str, Callable[[int, bytes], bool]]] = {
    "uds_ev": _is_diagnostic,
    "daly_can": _is_daly,
    "pylontech_hv_can": _is_pylontech,
}
"""By language: whether a frame only reads. A language that is not here cannot be asked anything over CAN."""


class Voice:
    """Sends the requests of one pack. polls: all that will ever be asked; flow controls go to those ids alone.

    sent: frames that went out. refused: frames that the bus did not take.
    """

    def __init__(self, language: str, polls: tuple[Poll, ...], write: Write) -> None:
        self._is_read = READS.get(language)
        self._ids = frozenset(poll.can_id for poll in polls)
        self._write = write
        self.sent = self.refused = 0

    def say(self, can_id: int, payload: bytes) -> bool:
        """Sends one frame; False = the bus takes none now. NotAllowed: it would not only read; nothing was sent."""
        if self._is_read is None or can_id not in self._ids or not self._is_read(can_id, payload):
            raise NotAllowed(f"{can_id:X}#{payload.hex().upper()} is no reading request: it was not sent")
        taken = self._write(can_id, payload)
        self.sent += taken
        self.refused += not taken
        return taken
