"""Follows the multiplexors of frames to what each frame holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.dbc.plan import NONE, Index, Plan
from edge.dbc.values import Payloads, Values


@dataclass(slots=True, eq=False)
class Rows:
    """Frames of known messages, sorted by frame (one may have several rows), each with the state it came to.

    is_short: whether some frame ends before its message. quality: the code of all values of a frame, None = all good.
    """

    frame: Index
    state: Index
    payloads: Payloads
    is_short: bool
    quality: npt.NDArray[np.uint8] | None


class Follower:
    """Follows the switches of one plan."""

    def __init__(self, plan: Plan, values: Values) -> None:
        self._plan, self._values = plan, values
        states, switches = plan.states, plan.switches
        self.has_parts = bool(len(states.parts))
        ends = switches.next_state[switches.next_state != NONE]
        self._has_more = self.has_parts or bool((states.switch[ends] != NONE).any())  # switches beyond the first
        self._has_scaled = bool(switches.is_scaled.any())

    def follow(
        self, payloads: Payloads, frame: Index, state: Index, length: npt.NDArray[np.integer] | None
    ) -> tuple[Index, Index, Index | None]:
        """(frame, state) of all rows at the end of their ways, and the frames whose switch has an unknown number.

        length: bytes of each frame of the batch, where some are short: there a switch may be out of reach.
        """
        states, switches = self._plan.states, self._plan.switches
        if not len(switches.signal):
            return frame, state, None
        lost: list[Index] = []
        count = len(frame)
        fresh: Index | None = None  # None = all
        while True:
            if self.has_parts:
                every = np.arange(count) if fresh is None else fresh
                frame, state, fresh = self._split(frame, state, every)
            switch = states.switch.take(state if fresh is None else state[fresh], mode="clip")
            going = (switch != NONE).nonzero()[0]
            if not len(going):
                break
            fresh, switch = going if fresh is None else fresh[going], switch[going]
            if length is not None:
                reached = self._plan.table.end_byte[switches.signal[switch]] <= length[frame[fresh]]
                fresh, switch = fresh[reached], switch[reached]
            following = self._following(payloads, frame[fresh], switch)
            found = following != NONE
            if np.count_nonzero(found) < len(found):
                lost.append(frame[fresh[~found]])
                fresh, following = fresh[found], following[found]
            state[fresh] = following
            if not self._has_more:
                break
        if len(frame) > count:
            order = np.argsort(frame, kind="stable")
            frame, state = frame[order], state[order]
        return frame, state, np.concatenate(lost) if lost else None

    def _following(self, payloads: Payloads, frame: Index, switch: Index) -> Index:
        """The state that each switch's number leads to, NONE = nowhere."""
        switches = self._plan.switches
        signal = switches.signal.take(switch, mode="clip")
        number = self._values.raw(payloads, frame * payloads.width, signal)
        nowhere = None
        if self._has_scaled and np.count_nonzero(scaled := switches.is_scaled[switch]):
            at = scaled.nonzero()[0]
            value = self._values.value(signal[at], number[at])
            is_number = np.isfinite(value) & (abs(value) < 2.0**63)
            number[at] = np.where(is_number, value, 0).astype(np.int64)
            nowhere = at[~is_number]
        following = switches.next_state[switch, switches.bounds.searchsorted(number, side="right")]
        if nowhere is not None:
            following[nowhere] = NONE
        return following

    def _split(self, frame: Index, state: Index, fresh: Index) -> tuple[Index, Index, Index]:
        """Rows in a split state go on in its first part, and for each other part comes a row at the end."""
        states = self._plan.states
        at = fresh[states.part_count[state[fresh]] > 0]
        if not len(at):
            return frame, state, fresh
        old = state[at]
        more = states.part_count[old] - 1
        nth = np.arange(more.sum()) - np.repeat(np.cumsum(more) - more, more) + 1
        added = states.parts[np.repeat(states.part_first[old], more) + nth]
        state[at] = states.parts[states.part_first[old]]
        fresh = np.concatenate([fresh, len(frame) + np.arange(len(added))])
        return np.concatenate([frame, np.repeat(frame[at], more)]), np.concatenate([state, added]), fresh
