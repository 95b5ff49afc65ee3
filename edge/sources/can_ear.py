"""The ear on a CAN bus: what one pack says there in a language of `firmware_bridge`. Pure; a replay uses the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from firmware_bridge.frames import REMOTE
from firmware_bridge.protocol import LineError, Protocol, Said

Frame = tuple[int, int, bytes]
"""(t_ns, can_id, payload)"""

_REMEMBERED: Final = 64
"""Frames that bring another ear to the same point: more than the longest message of a car has."""


class CanEar:
    """Decodes the frames of one pack. address None = the first pack that speaks is the one.

    asks: the ids of requests that go out; where there are any, such a frame is a question, whoever sent it.
    """

    def __init__(self, protocol: Protocol, vehicle: str | None, address: int | None, asks: Iterable[int] = ()) -> None:
        assert protocol.frames_decoder is not None
        self._decoder = protocol.frames_decoder(vehicle)
        self._address = address
        self._asks = frozenset(asks)
        self._newest: deque[Frame] = deque(maxlen=_REMEMBERED)

    def heard(self, frames: Iterable[Frame]) -> list[tuple[int, Said]]:
        """What the frames say, each with its t_ns, and also what was sent itself."""
        told: list[tuple[int, Said]] = []
        for frame in frames:
            t_ns, can_id, payload = frame
            if can_id & REMOTE:
                continue
            self._newest.append(frame)
            if can_id in self._asks:
                self._decoder.sent(can_id, payload)
            else:
                told += [(t_ns, said) for said in self._decoder.frame(t_ns, can_id, payload) if self._is_mine(said)]
        return told

    def _is_mine(self, said: Said) -> bool:
        if isinstance(said, LineError) or said.address is None:
            return True
        if self._address is None:
            self._address = said.address
        return said.address == self._address

    def snapshot(self) -> dict[str, Any]:
        """Enough for another ear on the bus to go on from here, as JSON can hold it."""
        return {
            "address": self._address,
            "asks": sorted(self._asks),
            "frames": [[t_ns, can_id, payload.hex()] for t_ns, can_id, payload in self._newest],
        }

    @classmethod
    def restored(cls, protocol: Protocol, vehicle: str | None, state: Mapping[str, Any]) -> CanEar:
        """An ear that goes on from a `snapshot`. KeyError, TypeError, ValueError: it is none."""
        address = state["address"]
        ear = cls(protocol, vehicle, None if address is None else int(address), map(int, state["asks"]))
        ear.heard((int(t_ns), int(can_id), bytes.fromhex(text)) for t_ns, can_id, text in state["frames"])
        return ear
