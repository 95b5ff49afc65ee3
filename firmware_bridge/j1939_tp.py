"""J1939-21 transport: parameter groups longer than a frame, seen from beside the bus. Pure; time is that of the frames.

BAM (to all) comes in order or not at all. A connection (RTS/CTS) may send packets again; a listener sees them all and
keeps each by its number. A message goes out under the id that it would have had if it had fitted into one frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED, REMOTE
from firmware_bridge.reassembly import MAX_SESSIONS, Assembled, Sessions

CONNECTION_PF: Final = 0xEC
"""PDU format of TP.CM: what announces a message, and the receiver's answers."""
DATA_PF: Final = 0xEB
"""PDU format of TP.DT: the packets."""
TRANSPORT_MASK: Final = EXTENDED | 0x03FF_0000
TRANSPORT_IDS: Final = tuple(EXTENDED | pf << 16 for pf in (CONNECTION_PF, DATA_PF))
"""An id under the mask that is one of these belongs to the transport, whoever sends and whomever it is for."""
MAX_BYTES: Final = 1785
GLOBAL: Final = 0xFF
BAM_TIMEOUT_NS: Final = 750_000_000
"""T1: the longest pause between two packets to all."""
CONNECTION_TIMEOUT_NS: Final = 1_250_000_000
"""T2, T3: the longest pause within a connection."""
_RTS, _CTS, _END, _BAM, _ABORT = 16, 17, 19, 32, 255
_PACKET_BYTES: Final = 7
_PDU2: Final = 0xF0
_Key = tuple[int, int]  # who sends, to whom: at most one message at a time


@dataclass(slots=True)
class _Session:
    last_ns: int
    can_id: int  # of the message
    length: int
    data: bytearray = field(default_factory=bytearray)
    missing: set[int] = field(default_factory=set)  # numbers of packets
    newest: int = 0


class J1939Tp:
    """Reassembles the messages of all senders on one bus at once. `lost`: those that came to nothing, by reason.

    Reasons: `sequence` (a packet is missing), `timeout`, `length` (size and packets do not fit each other), `short` (a
    frame with fewer bytes than it must have), `aborted`, `interrupted`, `no_first_frame`, `too_many`, `cut_off`.
    """

    def __init__(self, *, sessions: int = MAX_SESSIONS) -> None:
        self._sessions: Sessions[_Key, _Session] = Sessions(sessions)

    @property
    def lost(self) -> Counter[str]:
        """Messages that came to nothing, by reason."""
        return self._sessions.lost

    def feed(self, t_ns: int, can_id: int, payload: bytes) -> list[Assembled]:
        """The message that this frame ends, if it ends one. Frames of other parameter groups are ignored."""
        if can_id & REMOTE or can_id & TRANSPORT_MASK not in TRANSPORT_IDS or not payload:
            return []
        key = (can_id & 0xFF, can_id >> 8 & 0xFF)
        if can_id >> 16 & 0xFF == DATA_PF:
            return self._packet(t_ns, key, payload)
        if len(payload) < CLASSIC_BYTES:
            self._sessions.lost["short"] += 1
        elif payload[0] in (_RTS, _BAM):
            self._announced(t_ns, key, can_id, payload)
        else:
            self._answered(t_ns, key, payload)
        return []

    def snapshot(self) -> dict[str, Any]:
        """What is under way, as a copy that JSON can hold."""
        return self._sessions.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`. KeyError, TypeError, ValueError: it is none."""
        self._sessions.restore(state, lambda key: (int(key[0]), int(key[1])), _session)

    def close(self) -> None:
        """No more frames will come: what is under way is counted as `cut_off`."""
        self._sessions.close()

    def _announced(self, t_ns: int, key: _Key, can_id: int, payload: bytes) -> None:
        length, packets = payload[1] | payload[2] << 8, payload[3]
        self._sessions.interrupt(key)
        if not CLASSIC_BYTES < length <= MAX_BYTES or packets != -(-length // _PACKET_BYTES):
            self._sessions.lose(key, "length")
            return
        group = int.from_bytes(payload[5:8], "little") & 0x3_FFFF
        if group >> 8 & 0xFF < _PDU2:  # such a group has no own low byte: there stands to whom it goes
            group = group & 0x3_FF00 | key[1]
        named = EXTENDED | can_id & 0x1C00_0000 | group << 8 | key[0]
        session = _Session(t_ns, named, length, bytearray(packets * _PACKET_BYTES), set(range(1, packets + 1)))
        self._sessions.begin(key, session)

    def _answered(self, t_ns: int, key: _Key, payload: bytes) -> None:
        """What the receiver says of a connection (so sender and receiver change places), or an abort of either."""
        theirs = (key[1], key[0])
        session = self._sessions.get(theirs)
        if payload[0] == _ABORT:
            for who in (theirs, key):
                if key[1] != GLOBAL and self._sessions.get(who) is not None:
                    self._sessions.lose(who, "aborted")
        elif session is None:
            return
        elif payload[0] == _CTS:
            session.last_ns = t_ns
        elif payload[0] == _END:  # the receiver has what we missed
            self._sessions.lose(theirs, "sequence")

    def _packet(self, t_ns: int, key: _Key, payload: bytes) -> list[Assembled]:
        session = self._sessions.get(key)
        if session is None:
            self._sessions.stray(key)
            return []
        number, is_to_all = payload[0], key[1] == GLOBAL
        at = (number - 1) * _PACKET_BYTES
        wanted = min(_PACKET_BYTES, session.length - at)
        if t_ns - session.last_ns > (BAM_TIMEOUT_NS if is_to_all else CONNECTION_TIMEOUT_NS):
            self._sessions.lose(key, "timeout")
        elif (is_to_all and number != session.newest + 1) or number == 0 or wanted <= 0:
            self._sessions.lose(key, "sequence")
        elif len(payload) - 1 < wanted:
            self._sessions.lose(key, "short")
        else:
            session.data[at : at + wanted] = payload[1 : 1 + wanted]
            session.missing.discard(number)
            session.last_ns, session.newest = t_ns, number
            if not session.missing:
                self._sessions.end(key)
                return [Assembled(t_ns, session.can_id, bytes(session.data[: session.length]))]
        return []


def _session(data: str, missing: list[int], **told: int) -> _Session:
    """One of a snapshot."""
    return _Session(data=bytearray.fromhex(data), missing=set(missing), **told)
