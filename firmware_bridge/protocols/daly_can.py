"""Daly over CAN, 29-bit ids `18 command destination source`; payloads as over UART. Unverified: no captures of it.

All sentences of the cells have one id: whoever keeps only the latest frame of an id loses cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import Asked, LineError, Poll, Protocol, Said, Values
from firmware_bridge.protocols.daly_payloads import (
    EXTRAS_OF,
    FIELDS,
    HOST,
    PACKS,
    PAYLOAD_BYTES,
    POLLED,
    Payloads,
    is_known,
    pack_of,
    payloads,
)

_PRIORITY: Final = 0x18
_ID_BYTES: Final = 4


def frame_id(command: int, destination: int, source: int) -> int:
    """The id (with EXTENDED) of a frame."""
    return EXTENDED | _PRIORITY << 24 | command << 16 | destination << 8 | source


class DalyCanDecoder:
    """Reads what packs say to hosts; frames of anybody else on the bus are nobody's mistake."""

    def __init__(self) -> None:
        self._asked = Asked()
        self._payloads = Payloads()
        self._count = 0

    def sent(self, can_id: int, payload: bytes) -> None:
        """See FrameDecoder."""
        self._asked.sent(can_id.to_bytes(_ID_BYTES, "big"))

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """See FrameDecoder."""
        offset = self._count
        self._count += 1
        command, destination, source = can_id >> 16 & 0xFF, can_id >> 8 & 0xFF, can_id & 0xFF
        is_reply = source in PACKS and pack_of(destination) is not None and is_known(command)
        if not is_reply or can_id != frame_id(command, destination, source):
            return []
        wanted = frame_id(command, source, destination).to_bytes(_ID_BYTES, "big")
        if self._asked.any and self._asked.answered(lambda asked: asked == wanted) is None:
            return [LineError("address", offset, f"nobody asked {source:02X} for {command:02X}")]
        if len(payload) < PAYLOAD_BYTES:
            return [LineError("length", offset, f"{len(payload)} bytes of {command:02X}, {PAYLOAD_BYTES} it has")]
        return [self._payloads.said(source, command, payload[:PAYLOAD_BYTES], offset)]

    def end(self) -> list[Said]:
        """See FrameDecoder."""
        self._asked.forget()
        return []


def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    return [
        Poll(
            kind=kind,
            request=bytes(PAYLOAD_BYTES),
            can_id=frame_id(command, address or PACKS.start, HOST),
            replies=0 if kind in ("cells", "temps") else 1,
            every=every,
        )
        for command, (kind, every) in POLLED.items()
    ]


def _frames(values: Values, address: int | None, vehicle: str | None) -> Sequence[tuple[int, bytes]]:
    return [
        (frame_id(command, HOST, address or PACKS.start), payload)
        for command in POLLED
        for payload in payloads(command, values)
    ]


DALY_CAN: Final = Protocol(
    name="daly_can",
    title="Daly over CAN",
    medium="can",
    rate=250_000,
    verified=False,
    fields=FIELDS,
    frames_decoder=lambda vehicle: DalyCanDecoder(),
    polls=_polls,
    frames=_frames,
    extras=EXTRAS_OF,
    counter="life",
    moves_always=False,
)
