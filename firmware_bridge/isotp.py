"""ISO-TP (ISO 15765-2): messages longer than a frame, seen from beside the bus. Normal addressing, CAN and CAN FD.

A listener sends no flow control and needs none: it ignores those of the receiver. Pure; time is that of the frames.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from firmware_bridge.frames import CLASSIC_BYTES, REMOTE
from firmware_bridge.reassembly import MAX_SESSIONS, Assembled, Sessions

MAX_BYTES: Final = 65_535
"""Longest message taken in: 4,095 by the short length, more by the escape; a length of gigabytes is noise."""
TIMEOUT_NS: Final = 1_000_000_000
"""N_Cr: the longest pause between two frames of one message."""
_SINGLE, _FIRST, _CONSECUTIVE, _FLOW_CONTROL = range(4)


@dataclass(slots=True)
class _Session:
    last_ns: int
    length: int  # of the whole message
    frame_bytes: int  # of its first frame: all but the last are as long
    data: bytearray = field(default_factory=bytearray)
    next_number: int = 1


class IsoTp:
    """Reassembles the messages of any number of ids at once. `lost`: messages that came to nothing, by reason.

    Reasons: `sequence` (a frame is missing or twice), `timeout`, `overlong`, `length` (impossible), `short` (a frame
    with fewer bytes than it must have), `interrupted`, `no_first_frame`, `unknown_kind`, `too_many`, `cut_off`.
    """

    def __init__(
        self, *, timeout_ns: int = TIMEOUT_NS, max_bytes: int = MAX_BYTES, sessions: int = MAX_SESSIONS
    ) -> None:
        self._timeout_ns = timeout_ns
        self._max_bytes = max_bytes
        self._sessions: Sessions[int, _Session] = Sessions(sessions)

    @property
    def lost(self) -> Counter[str]:
        """Messages that came to nothing, by reason."""
        return self._sessions.lost

    def feed(self, t_ns: int, can_id: int, payload: bytes) -> list[Assembled]:
        """The message that this frame ends, if it ends one."""
        if can_id & REMOTE or not payload:
            return []
        kind = payload[0] >> 4
        if kind == _SINGLE:
            return self._single(t_ns, can_id, payload)
        if kind == _FIRST:
            self._first(t_ns, can_id, payload)
        elif kind == _CONSECUTIVE:
            return self._consecutive(t_ns, can_id, payload)
        elif kind != _FLOW_CONTROL:
            self._sessions.lost["unknown_kind"] += 1
        return []

    def snapshot(self) -> dict[str, Any]:
        """What is under way, as a copy that JSON can hold."""
        return self._sessions.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`. KeyError, TypeError, ValueError: it is none."""
        self._sessions.restore(state, int, _session)

    def close(self) -> None:
        """No more frames will come: what is under way is counted as `cut_off`."""
        self._sessions.close()

    def _single(self, t_ns: int, can_id: int, payload: bytes) -> list[Assembled]:
        self._sessions.interrupt(can_id)
        length, at = payload[0] & 0xF, 1
        if length == 0 and len(payload) > CLASSIC_BYTES:  # CAN FD: the length stands in the next byte
            length, at = payload[1], 2
        if length == 0:
            self._sessions.lost["length"] += 1
        elif len(payload) - at < length:
            self._sessions.lost["short"] += 1
        else:
            return [Assembled(t_ns, can_id, payload[at : at + length])]
        return []

    def _first(self, t_ns: int, can_id: int, payload: bytes) -> None:
        if len(payload) < CLASSIC_BYTES:
            self._sessions.interrupt(can_id)
            self._sessions.lose(can_id, "short")
            return
        length, at = (payload[0] & 0xF) << 8 | payload[1], 2
        if length == 0:  # the escape: 32 bits of length
            length, at = int.from_bytes(payload[2:6], "big"), 6
        self._sessions.interrupt(can_id)
        if length > self._max_bytes:
            self._sessions.lose(can_id, "overlong")
        elif length <= len(payload) - at or length < CLASSIC_BYTES:  # it would have been a single frame
            self._sessions.lose(can_id, "length")
        else:
            session = _Session(t_ns, length, len(payload), bytearray(payload[at:]))
            self._sessions.begin(can_id, session)

    def _consecutive(self, t_ns: int, can_id: int, payload: bytes) -> list[Assembled]:
        session = self._sessions.get(can_id)
        if session is None:
            self._sessions.stray(can_id)
            return []
        missing = session.length - len(session.data)
        if t_ns - session.last_ns > self._timeout_ns:
            self._sessions.lose(can_id, "timeout")
        elif payload[0] & 0xF != session.next_number:
            self._sessions.lose(can_id, "sequence")
        elif len(payload) - 1 < min(missing, session.frame_bytes - 1):
            self._sessions.lose(can_id, "short")
        else:
            session.data += payload[1 : 1 + missing]
            session.last_ns = t_ns
            session.next_number = (session.next_number + 1) & 0xF
            if len(session.data) == session.length:
                self._sessions.end(can_id)
                return [Assembled(t_ns, can_id, bytes(session.data))]
        return []


def _session(data: str, **told: int) -> _Session:
    """One of a snapshot."""
    return _Session(data=bytearray.fromhex(data), **told)
