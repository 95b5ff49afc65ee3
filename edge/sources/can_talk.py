"""The talk with one pack on a CAN bus: one request, its answer, a pause, the next. Pure: time and frames in and out.

A long answer of a car (ISO-TP) stops after its first frame until it is told to go on; that is only ever told for an
answer to what was asked here. What another tester is answered keeps nobody waiting, and every exchange has an end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge.sources.can_ear import Frame
from edge.sources.ear import Asking
from edge.sources.rounds import Round
from firmware_bridge.isotp_send import flow_control
from firmware_bridge.protocol import LineError, Part, Poll, Said
from firmware_bridge.uds import ANSWER, NEGATIVE, PENDING

BUSY_TICK_S: Final = 0.01
"""How often the bus is looked at while an answer is due."""
_SECOND_NS: Final = 1_000_000_000
_ANSWER_S: Final = 0.5  # until an answer begins
_PATIENCE_S: Final = 5.0  # when the ECU said that it takes longer
_LONGEST_S: Final = 5.0  # until it is whole, however much comes
_LONGEST_PENDING_S: Final = 20.0  # however often the ECU says that it takes longer
_TRIES: Final = 2
_SINGLE: Final = 0
_FIRST: Final = 1


@dataclass(slots=True)
class _Exchange:
    """A request that is being answered. wait_ns: for how long nothing of the answer may come until it is over.

    is_coming: the long message that its ECU is sending is the answer, not another tester's.
    """

    poll: Poll
    tries: int
    begun_ns: int
    last_ns: int
    wait_ns: int
    longest_ns: int = int(_LONGEST_S * _SECOND_NS)
    replies: int = 0
    has_begun: bool = False
    is_coming: bool = False
    is_refused: bool = False

    def moves(self, now_ns: int, wait_ns: int) -> None:
        """Something of the answer came."""
        self.last_ns, self.has_begun, self.wait_ns = now_ns, True, wait_ns

    def is_over(self, now_ns: int) -> bool:
        """Whether all has come that can come, or that is waited for."""
        is_whole = self.is_refused or 0 < self.poll.replies <= self.replies
        return is_whole or now_ns - self.last_ns >= self.wait_ns or now_ns - self.begun_ns >= self.longest_ns


class CanTalk:
    """Asks one pack in rounds. Each tick: `flows` with what came, `heard` with what it said, then `due` and `sent`."""

    def __init__(self, asking: Asking, *, silence_s: float, gap_s: float) -> None:
        self._round = Round(asking)
        self._silence_ns, self._gap_ns = int(silence_s * _SECOND_NS), int(gap_s * _SECOND_NS)
        self._exchange: _Exchange | None = None
        self._again: _Exchange | None = None
        self._free_ns = 0
        self.timeouts = 0
        """Requests that nobody answered."""

    @property
    def is_busy(self) -> bool:
        """Whether an answer, or the next request of a round, is due at any moment."""
        return self._exchange is not None or self._again is not None or bool(self._round.todo)

    @property
    def unanswered(self) -> int:
        """Rounds in a row in which the pack said nothing."""
        return self._round.unanswered

    def reset(self, now_ns: int) -> None:
        """The bus is new: all is asked from the start."""
        self._exchange = self._again = None
        self._free_ns = now_ns
        self._round.reset(now_ns)

    def flows(self, now_ns: int, frames: Iterable[Frame]) -> list[tuple[int, bytes]]:
        """The flow controls to send at once, as (can_id, payload), for the answers that begin in these frames."""
        exchange = self._exchange
        if exchange is None or exchange.poll.answer_id is None or exchange.poll.can_id is None:
            return []
        service = exchange.poll.request[1]
        read = bytes([service + ANSWER]) + exchange.poll.request[2 : 1 + exchange.poll.request[0]]
        pending = bytes([NEGATIVE, service, PENDING])
        flows = []
        for _, can_id, payload in frames:
            if can_id != exchange.poll.answer_id or not payload:
                continue
            kind = payload[0] >> 4
            if kind == _FIRST:
                exchange.is_coming = payload[2:].startswith(read)
                flows += [(exchange.poll.can_id, flow_control())] * exchange.is_coming
            if kind == _SINGLE and payload[1:4] == pending:
                exchange.last_ns, exchange.wait_ns = now_ns, int(_PATIENCE_S * _SECOND_NS)
                exchange.longest_ns = int(_LONGEST_PENDING_S * _SECOND_NS)
            elif exchange.is_coming if kind != _SINGLE else payload[1:].startswith(read):
                exchange.moves(now_ns, self._silence_ns)
        return flows

    def heard(self, now_ns: int, said: Iterable[Said]) -> None:
        """Counts the answers to what was asked; a no of the pack is one. Ends an exchange that is over."""
        exchange = self._exchange
        if exchange is None:
            return
        for one in said:
            if isinstance(one, Part) and one.kind == exchange.poll.kind:
                exchange.replies += 1
                exchange.moves(now_ns, self._silence_ns)
            elif isinstance(one, LineError) and one.error == "response":
                exchange.is_refused = True
        if exchange.is_over(now_ns):
            self._finish(exchange, now_ns)

    def due(self, now_ns: int) -> Poll | None:
        """What to ask now; None = nothing yet."""
        if self._exchange is not None or now_ns < self._free_ns:
            return None
        if self._again is not None:
            return self._again.poll
        if not self._round.todo:
            if now_ns < self._round.due_ns or not self._round.asking.polls:
                return None
            self._round.begin(now_ns)
        return self._round.todo[0] if self._round.todo else None

    def sent(self, now_ns: int, poll: Poll) -> None:
        """The request of `due` was put on the bus."""
        again, self._again = self._again, None
        if again is None:
            self._round.todo.popleft()
        tries = 1 if again is None else again.tries + 1
        wait_ns = max(int(_ANSWER_S * _SECOND_NS), self._silence_ns)
        self._exchange = _Exchange(poll, tries, now_ns, now_ns, wait_ns)

    def _finish(self, exchange: _Exchange, now_ns: int) -> None:
        """The exchange is over: with an answer, or to be tried again, or given up."""
        self._exchange = None
        self._free_ns = now_ns + self._gap_ns
        if exchange.replies:
            self._round.answered(exchange.poll)
            return
        if exchange.is_refused:
            # It is there, but has no such thing: it is not asked for it in each round.
            self._round.refused(exchange.poll)
            return
        self.timeouts += not exchange.has_begun
        if exchange.tries < _TRIES:
            self._again = exchange
        else:
            self._round.missed(exchange.poll, exchange.last_ns)
