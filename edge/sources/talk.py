"""The talk on a serial line: one request, its reply, a pause, the next. Pure: time and bytes in, bytes to send out.

Half duplex: while a pack has the word nobody else is asked, and after a reply that failed the line must first fall
silent, so that what comes late is never taken for another pack's. A pack that sleeps is woken by asking it again.
A line on which something comes all the time never falls silent: what is asked there has an end all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.sources.ear import Asking, Ear, Told
from edge.sources.rounds import Round
from firmware_bridge.protocol import LineError, Part, Poll

FAST_TICK_S: Final = 0.02
"""How often the line is looked at while a reply is due."""
_SECOND_NS: Final = 1_000_000_000
_ANSWER_S: Final = 0.5  # until a reply begins
_WAKING: Final = 3  # requests to a pack that has said nothing in this round: the first may only wake it
_TRIES: Final = 2
LONGEST_S: Final = 5.0
"""So long an exchange may take, however much comes; the longest replies of BMSs take one second."""
_LONGEST_NS: Final = int(LONGEST_S * _SECOND_NS)


@dataclass(slots=True)
class _Exchange:
    """A request that is being answered. replies: good ones so far. last_ns: when the line last moved.

    is_cut: noise, or another one's talk, was still coming when its time was over.
    """

    pack: int
    poll: Poll
    tries: int
    begun_ns: int
    last_ns: int
    replies: int = 0
    has_begun: bool = False
    is_cut: bool = False


class Talk:
    """Asks the packs of one line in turn. `heard`, then `is_silent` and `end`, then `due` and `sent`, each tick."""

    def __init__(self, ear: Ear, packs: Sequence[Asking], *, silence_s: float, gap_s: float) -> None:
        self._ear = ear
        self._rounds = [Round(pack) for pack in packs]
        self._silence_ns, self._gap_ns = int(silence_s * _SECOND_NS), int(gap_s * _SECOND_NS)
        self._exchange: _Exchange | None = None
        self._again: _Exchange | None = None
        self._free_ns = 0
        self._heard_ns = 0
        self._busy_ns = 0  # since when there was neither silence nor anything that a BMS said
        self.timeouts = [0] * len(self._rounds)
        """Requests of each pack that nobody answered."""

    @property
    def is_busy(self) -> bool:
        """Whether a reply, or the next request of a round, is due at any moment."""
        return self._exchange is not None or self._again is not None or any(one.todo for one in self._rounds)

    @property
    def is_restless(self) -> bool:
        """Whether something comes all the time that no BMS says."""
        return self._heard_ns - self._busy_ns >= _LONGEST_NS

    def unanswered(self, pack: int) -> int:
        """Rounds in a row in which a pack said nothing."""
        return self._rounds[pack].unanswered

    def reset(self, now_ns: int) -> None:
        """The line is new: whoever had the word has lost it, everybody is asked from the start."""
        self._exchange = self._again = None
        self._free_ns = self._heard_ns = self._busy_ns = now_ns
        for one in self._rounds:
            one.reset(now_ns)

    def heard(self, now_ns: int, data: bytes) -> list[Told]:
        """Takes in what came; what it says, and of which pack."""
        if now_ns - self._heard_ns >= self._silence_ns:
            self._busy_ns = now_ns
        self._heard_ns = now_ns
        self._free_ns = max(self._free_ns, now_ns + self._gap_ns)
        if self._exchange is not None:
            self._exchange.last_ns, self._exchange.has_begun = now_ns, True
        told = self._ear.feed(data)
        if any(isinstance(said, Part) for _, said in told):
            self._busy_ns = now_ns
        self._count(told)
        exchange = self._exchange
        if exchange is not None and 0 < exchange.poll.replies <= exchange.replies:
            self._finish()
        return told

    def is_silent(self, now_ns: int) -> bool:
        """Whether what was asked, or what has begun, is over because nothing more came."""
        if self._exchange is None:
            return self._ear.has_begun and (now_ns - self._heard_ns >= self._silence_ns or self.is_restless)
        if now_ns - self._exchange.begun_ns >= _LONGEST_NS:
            return True
        wait_ns = self._silence_ns if self._exchange.has_begun else int(_ANSWER_S * _SECOND_NS)
        return now_ns - self._exchange.last_ns >= max(wait_ns, self._silence_ns)

    def end(self, now_ns: int) -> list[Told]:
        """The line has fallen silent; what that completes."""
        told = self._ear.end()
        self._count(told)
        if self._exchange is not None:
            self._exchange.is_cut = now_ns - self._exchange.last_ns < self._silence_ns
            # Another pack gets the word only when what the one before may still say would be over, too.
            is_late = not self._exchange.replies and len(self._rounds) > 1
            self._free_ns = max(self._free_ns, now_ns + (self._silence_ns if is_late else self._gap_ns))
            self._finish()
        return told

    def due(self, now_ns: int) -> tuple[int, Poll] | None:
        """(pack, what to ask it now); None = nothing yet."""
        if now_ns - self._heard_ns >= self._silence_ns:
            self._busy_ns = self._heard_ns
        if self._exchange is not None or now_ns < self._free_ns or self._ear.has_begun:
            return None
        if self._again is not None:
            return self._again.pack, self._again.poll
        at = next((at for at, one in enumerate(self._rounds) if one.todo), None)
        if at is None:
            at = min(range(len(self._rounds)), key=lambda i: self._rounds[i].due_ns)
            one = self._rounds[at]
            if now_ns < one.due_ns or not one.asking.polls:
                return None
            one.begin(now_ns)
            if not one.todo:
                return None
        return at, self._rounds[at].todo[0]

    def sent(self, now_ns: int, pack: int, poll: Poll) -> None:
        """The request of `due` was put on the line."""
        again, self._again = self._again, None
        if again is None:
            self._rounds[pack].todo.popleft()
        tries = 1 if again is None else again.tries + 1
        self._exchange = _Exchange(pack, poll, tries, now_ns, now_ns)
        self._ear.sent(poll.request)

    def _count(self, told: Sequence[Told]) -> None:
        """Counts the answers to what was asked; a no of the BMS is one."""
        exchange = self._exchange
        if exchange is None:
            return
        for owner, said in told:
            is_answer = isinstance(said, Part) or (isinstance(said, LineError) and said.error == "response")
            exchange.replies += is_answer and owner == exchange.pack

    def _finish(self) -> None:
        """The exchange is over: with an answer, or to be tried again, or given up."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        one = self._rounds[exchange.pack]
        if exchange.replies:
            one.answered(exchange.poll)
            return
        self.timeouts[exchange.pack] += exchange.is_cut or not exchange.has_begun
        if exchange.tries < (_TRIES if one.answers else _WAKING):
            self._again = exchange
        else:
            one.missed(exchange.poll, exchange.last_ns)
