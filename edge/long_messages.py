"""Messages that are longer than a frame, out of the frames of one bus: J1939's transport, and ISO-TP where it is said.

Pure. What comes of a message is told once its last frame is there; what is lost on the way is counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.dbc.flat import FlatDecoder
from edge.dbc.model import Message, pgn_of
from edge.dbc.plan import NONE
from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED, FrameBatch
from firmware_bridge.isotp import IsoTp
from firmware_bridge.j1939_tp import TRANSPORT_IDS, TRANSPORT_MASK, J1939Tp
from firmware_bridge.reassembly import Assembled

Mask = npt.NDArray[np.bool_]


def takes_tp(messages: Iterable[Message]) -> bool:
    """Whether any of them may come by J1939's transport: 29 bits, and longer than a frame or said to be J1939."""
    return any(m.can_id & EXTENDED and (m.is_j1939 or m.length > CLASSIC_BYTES) for m in messages)


class LongMessages:
    """What the frames of transports on one bus come to, as `decoder` knows it. isotp: ids (with EXTENDED) of ISO-TP.

    frames: so many were part of a message that is longer than one.
    """

    def __init__(self, decoder: FlatDecoder, isotp: Collection[int] = ()) -> None:
        self.decoder = decoder
        self.frames = 0
        self._ids = np.array(sorted(isotp), np.uint32)
        self._isotp, self._tp = IsoTp(), J1939Tp()
        self._has_tp = takes_tp(decoder.messages)
        self._is_needed = bool(len(self._ids)) or self._has_tp

    @property
    def lost(self) -> Counter[tuple[str, str]]:
        """Messages that came to nothing, by transport (`isotp`, `j1939`) and reason."""
        both = (("isotp", self._isotp.lost), ("j1939", self._tp.lost))
        return Counter({(name, reason): n for name, lost in both for reason, n in lost.items()})

    def snapshot(self) -> dict[str, Any]:
        """What is under way, as a copy that JSON can hold; {} where no message is longer than a frame."""
        return {"isotp": self._isotp.snapshot(), "j1939": self._tp.snapshot()} if self._is_needed else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`. KeyError, TypeError, ValueError, AttributeError: it is none."""
        if self._is_needed and state:
            self._isotp.restore(state["isotp"])
            self._tp.restore(state["j1939"])

    def kinds(self, can_id: npt.NDArray[np.uint32]) -> tuple[Mask, Mask, Mask]:
        """Which frames are ISO-TP's, which J1939's transport's, and which say something by themselves.

        A frame of J1939's transport may be both: a DBC can describe the transport too.
        """
        nothing = np.zeros(len(can_id), np.bool_)
        is_isotp = np.isin(can_id, self._ids) if len(self._ids) else nothing
        is_tp = np.isin(can_id & np.uint32(TRANSPORT_MASK), TRANSPORT_IDS) & ~is_isotp if self._has_tp else nothing
        is_own = ~is_isotp
        if is_tp.any():
            is_own[is_tp] = self.decoder.find(can_id[is_tp]) != NONE
        return is_isotp, is_tp, is_own

    def feed(self, t_ns: int, can_id: int, payload: bytes, *, is_isotp: bool) -> list[tuple[Message, Assembled]]:
        """What the frame of a transport ends, as the DBC describes it: of ISO-TP a length byte goes first.

        A message that has no definition is counted like a frame that has none.
        """
        wholes = []
        for whole in (self._isotp if is_isotp else self._tp).feed(t_ns, can_id, payload):
            message = self.decoder.message_of(whole.can_id)
            if message is None and whole.can_id & EXTENDED and not is_isotp:
                message = self.decoder.message_of_pgn(pgn_of(whole.can_id))
            if message is None:
                self.decoder.skipped += 1
                self.decoder.unknown[whole.can_id] += 1
                continue
            length = bytes([len(whole.payload) & 0xFF]) if is_isotp else b""
            wholes.append((message, replace(whole, payload=length + whole.payload)))
        return wholes

    def take(self, batch: FrameBatch) -> tuple[FrameBatch, list[tuple[Message, Assembled]]]:
        """(the frames that say something by themselves, the messages that the others came to)."""
        if not self._is_needed:
            return batch, []
        is_isotp, is_tp, is_own = self.kinds(batch.can_id)
        theirs = is_isotp | is_tp
        if not theirs.any():
            return batch, []
        self.frames += int(np.count_nonzero(~is_own))
        wholes: list[tuple[Message, Assembled]] = []
        for row, by_isotp in zip(batch.take(theirs).rows(), is_isotp[theirs].tolist(), strict=True):
            wholes += self.feed(*row, is_isotp=by_isotp)
        return batch.take(is_own), wholes

    def close(self) -> None:
        """No more frames will come: what is half put together is lost."""
        self._isotp.close()
        self._tp.close()
