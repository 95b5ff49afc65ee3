"""Decodes frames all at once: (frame, signal) pairs by repeat and gather, no Python per frame.

The values are those of cantools bit for bit. What cantools refuses is counted by reason and says so in its quality.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edge.dbc.follow import Follower, Rows
from edge.dbc.lookup import Lookup, first_by_pgn, groups_of
from edge.dbc.model import Message
from edge.dbc.plan import NONE, Floats, Index, Plan, compile_plan
from edge.dbc.values import Payloads, Values
from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch

GOOD: Final = 0
SHORT_FRAME: Final = 1  # the frame ends before the signal does: no value
OUT_OF_RANGE: Final = 2  # beyond the limits of the DBC; the value stands
INVALID: Final = 3  # NaN or infinite
GROUP: Final = 4  # another signal of the frame, a multiplexor, has a number that the DBC does not know
LAYOUT: Final = 5  # the DBC lets signals of this frame overlap or go beyond the message
QUALITIES: Final = ("", "short_frame", "out_of_range", "invalid", "group", "layout")
"""What a quality code is called."""


Match = Literal["auto", "id", "pgn"]
Integers = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """n values in the order of their frames, within a frame in that of the DBC.

    frame int[n]: index into the batch. signal int[n]: index into the decoder's `signals`. raw int64[n]: the bits of
    the signal, with its sign; 64 bits without sign and floats are to be seen as such (`FlatDecoder.exact` does).
    value float64[n]: NaN with short_frame. quality uint8[n]: a code of QUALITIES.
    wide: raw numbers of more than 64 bits; raw is their index here.
    """

    frame: Index
    signal: Index
    raw: npt.NDArray[np.int64]
    value: Floats
    quality: npt.NDArray[np.uint8]
    wide: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)


class FlatDecoder:
    """Decodes the frames of one bus. Counts from the start: `frames`, `skipped` (of no message), `unknown` (by id) and
    `errors` by reason: empty, short_frame, group, layout, remote.

    match: "id" takes a frame by its id; "pgn" every 29-bit id by its J1939 PGN, whoever sent it; "auto" so only where
    the DBC says that a message is J1939. The id itself always goes first. only: decode no other signals than these.
    """

    def __init__(
        self, messages: Sequence[Message], *, match: Match = "auto", only: Collection[str] | None = None
    ) -> None:
        self.plan: Plan = compile_plan(messages, only)
        self.messages = self.plan.messages
        self.signals = self.plan.signals
        # Of several with one id the last counts, as in cantools.
        by_id = {message.can_id: i for i, message in enumerate(messages)}
        self._by_id = Lookup(by_id)
        by_pgn = first_by_pgn(messages, lambda m: match == "pgn" or (match == "auto" and m.is_j1939))
        self._any_pgn = first_by_pgn(messages, lambda _: True)
        self._by_pgn = Lookup(by_pgn) if by_pgn else None
        self._lengths = np.array([message.length for message in messages], np.int32)
        self._values = Values(self.signals, self.plan.table)
        self._follower = Follower(self.plan, self._values)
        table, states = self.plan.table, self.plan.states
        self.has_limits = bool(np.isfinite(table.lo).any() or np.isfinite(table.hi).any())
        self.is_whole = self._values.is_whole and not self._follower.has_parts
        self.has_slow = self._values.has_slow
        self._has_odd = bool(states.is_odd.any())
        self._end = states.first + states.count
        # Few signals: numbers so small numpy sorts without comparing them.
        self.small = np.dtype(np.int16 if len(self.signals) < 1 << 15 else np.int32)
        self._numbers: Index = np.arange(1 << 14)
        self.frames = 0
        self.skipped = 0
        self.unknown: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()

    def message_of(self, can_id: int) -> Message | None:
        """The message that frames of this id (with EXTENDED) are decoded by."""
        found = self.find(np.array([can_id], np.uint32))[0]
        return None if found == NONE else self.messages[found]

    def message_of_pgn(self, pgn: int) -> Message | None:
        """The first 29-bit message of a J1939 PGN, whatever `match` says: for payloads that came by its transport."""
        index = self._any_pgn.get(pgn)
        return None if index is None else self.messages[index]

    def find(self, can_id: npt.NDArray[np.uint32]) -> Index:
        """The message of each id as an index into `messages`, NONE = of no message."""
        message = self._by_id.find(can_id)
        if self._by_pgn is not None:
            rest = ((message == NONE) & (can_id & np.uint32(EXTENDED | REMOTE) == EXTENDED)).nonzero()[0]
            if len(rest):
                message[rest] = self._by_pgn.find(groups_of(can_id[rest]))
        return message

    def decode(self, batch: FrameBatch) -> Decoded:
        """All values in the frames of a batch."""
        return self.decoded(self.rows(batch), batch)

    def decode_payload(self, message: Message, t_ns: Sequence[int], payload: Sequence[bytes]) -> Decoded:
        """All values in payloads of one message, of any length (ISO-TP, J1939 transport); frame = index into them."""
        index = self.messages.index(message)
        width = max([8, *map(len, payload)])
        width += -width % 8
        data = np.frombuffer(b"".join(p.ljust(width, b"\0") for p in payload), np.uint8).reshape(len(payload), width)
        length = np.array([len(p) for p in payload], np.int32)
        rows = self._rows(np.full(len(payload), index), length, Payloads(data))
        return self._decoded(rows, length)

    def exact(self, signal: int, raw: int, wide: Sequence[int] = ()) -> int | float:
        """The value as cantools gives it (an int where it gives one). signal, raw, wide: as in Decoded."""
        return self._values.exact(signal, raw, wide)

    def value(self, signal: Index, raw: npt.NDArray[np.int64]) -> Floats:
        """The values of raw numbers of at most 64 bits as float64."""
        return self._values.value(signal, raw)

    def rows(self, batch: FrameBatch) -> Rows:
        """The frames of known messages, and how far their multiplexors led; counts all others."""
        self.frames += len(batch)
        message = self.find(batch.can_id)
        known = message != NONE
        if np.count_nonzero(known) < len(batch):
            self._count_unknown(batch.can_id[~known])
        return self._rows(message, batch.length, Payloads(batch.data))

    def _count_unknown(self, can_id: npt.NDArray[np.uint32]) -> None:
        self.skipped += len(can_id)
        ids, counts = np.unique(can_id, return_counts=True)
        for one, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if one & REMOTE:
                self.errors["remote"] += count
            else:
                self.unknown[one] += count

    def _rows(self, message: Index, length: Integers, payloads: Payloads) -> Rows:
        """message: of each frame, NONE = leave it out."""
        frame, lengths = self._counting(len(message)), length
        known = message != NONE
        if np.count_nonzero(known) < len(message):
            frame = known.nonzero()[0]
            message, lengths = message[frame], length[frame]
        short = lengths < self.plan.need_bytes.take(message, mode="clip")
        payloads.has_beyond = is_short = bool(np.count_nonzero(short))
        if is_short:
            here = lengths > 0
            self._count("empty", int((~here & (self._lengths[message] > 0)).sum()))
            frame, message, lengths = frame[here], message[here], lengths[here]
            self._count("short_frame", int((lengths < self._lengths[message]).sum()))
        state = self.plan.root.take(message, mode="clip")
        frame, state, lost = self._follower.follow(payloads, frame, state, length if is_short else None)
        quality = None
        if self._has_odd or lost is not None:
            quality = self._refused(frame, state, lost, len(length))
        return Rows(frame, state, payloads, is_short, quality)

    def _refused(self, frame: Index, state: Index, lost: Index | None, frames: int) -> npt.NDArray[np.uint8] | None:
        """The quality of each row by what cantools refuses of its frame, None where it refuses nothing; counts them."""
        whole = np.zeros(frames, np.uint8)
        whole[frame[self.plan.states.is_odd[state]]] = LAYOUT
        self._count("layout", int((whole == LAYOUT).sum()))
        if lost is not None:
            self._count("group", int((whole[np.unique(lost)] == GOOD).sum()))
            whole[lost] = GROUP
        quality = whole[frame]
        return quality if quality.any() else None

    def _count(self, reason: str, count: int) -> None:
        if count:
            self.errors[reason] += count

    def _counting(self, n: int) -> Index:
        """0, 1, 2 ... n - 1, not to be written to."""
        if n > len(self._numbers):
            self._numbers = np.arange(2 * n)
        return self._numbers[:n]

    def pairs(self, rows: Rows) -> tuple[Index, Index, npt.NDArray[np.int64]]:
        """(begin, signal, raw) of each value of at most 64 bits in the rows; begin = frame x width of the payloads."""
        states = self.plan.states
        count = states.count.take(rows.state, mode="clip")
        at = (self._end.take(rows.state, mode="clip") - count.cumsum()).repeat(count)
        at += self._counting(len(at))
        signal = states.listing.take(at, mode="clip")
        begin = (rows.frame * rows.payloads.width).repeat(count)
        return begin, signal, self._values.raw(rows.payloads, begin, signal)

    def decoded(self, rows: Rows, batch: FrameBatch) -> Decoded:
        """All values in rows of a batch."""
        return self._decoded(rows, batch.length)

    def _decoded(self, rows: Rows, length: Integers) -> Decoded:
        table, values = self.plan.table, self._values
        begin, signal, raw = self.pairs(rows)
        frame = begin // rows.payloads.width
        quality = np.zeros(len(frame), np.uint8)
        if rows.quality is not None:
            quality = rows.quality.repeat(self.plan.states.count[rows.state])
        if self._follower.has_parts:  # the signals of a frame that has several rows in one order
            order = np.lexsort((signal, frame))
            frame, signal, raw, quality = frame[order], signal[order], raw[order], quality[order]
        wide = values.wide(rows.payloads, frame, signal, raw) if values.has_wide else ()
        value = values.value(signal, raw, wide)
        if values.has_float or values.has_wide:
            quality[~np.isfinite(value) & (quality == GOOD)] = INVALID
        if self.has_limits:
            out = value < table.lo.take(signal, mode="clip")
            out |= value > table.hi.take(signal, mode="clip")
            if np.count_nonzero(out):
                quality[out & (quality == GOOD)] = OUT_OF_RANGE
        if rows.is_short:
            short = table.end_byte[signal] > length[frame]
            quality[short], value[short], raw[short] = SHORT_FRAME, np.nan, 0
        return Decoded(frame, signal, raw, value, quality, wide)
