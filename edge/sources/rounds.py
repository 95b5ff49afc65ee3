"""Rounds of requests to one pack: what is asked when, and how seldom what it does not answer. Pure."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from edge.sources.ear import Asking
from firmware_bridge.protocol import Poll

_SECOND_NS: Final = 1_000_000_000
_LONGEST_REST_S: Final = 5.0
_REFUSED: Final = 3  # rounds in a row without an answer to a request; then it is only asked
_SELDOM: Final = 60  # each so many rounds


@dataclass(slots=True)
class Round:
    """How far a pack's round of polls has got. unanswered: rounds in a row in which it said nothing at all."""

    asking: Asking
    due_ns: int = 0
    number: int = 0
    todo: deque[Poll] = field(default_factory=deque)
    answers: int = 0
    unanswered: int = 0
    misses: Counter[bytes] = field(default_factory=Counter)

    def reset(self, now_ns: int) -> None:
        """The line is new: it is asked from the start."""
        self.todo.clear()
        self.due_ns, self.number, self.unanswered = now_ns, 0, 0

    def begin(self, now_ns: int) -> None:
        """The next round. Late ones are not made up for."""
        polls = [poll for poll in self.asking.polls if self._is_due(poll)]
        self.todo = deque(polls)
        # A pack that does not know the first request is not asked for that one alone.
        self.todo.rotate(-self.unanswered)
        self.number, self.answers = self.number + 1, 0
        self.due_ns = max(self.due_ns + int(self.asking.poll_s * _SECOND_NS), now_ns)

    def _is_due(self, poll: Poll) -> bool:
        if self.misses[_key(poll)] >= _REFUSED and self.number % _SELDOM:
            return poll is self.asking.polls[0]
        return self.number % poll.every == 0 or self.number == 0

    def answered(self, poll: Poll) -> None:
        """It answered that."""
        self.answers += 1
        self.unanswered = 0
        self.misses.pop(_key(poll), None)

    def refused(self, poll: Poll) -> None:
        """It said that it has no such thing: it lives, but is soon asked that more seldom."""
        self.answers += 1
        self.unanswered = 0
        self.misses[_key(poll)] += 1

    def missed(self, poll: Poll, last_ns: int) -> None:
        """It did not answer that, however often it was asked. last_ns: when the line last moved."""
        if self.answers:
            self.misses[_key(poll)] += 1
            return
        self.todo.clear()
        self.unanswered += 1
        rest_s = min(self.asking.poll_s * 2 ** min(self.unanswered, 6), max(_LONGEST_REST_S, self.asking.poll_s))
        self.due_ns = last_ns + int(rest_s * _SECOND_NS)


def _key(poll: Poll) -> bytes:
    """What tells a poll from the others; on CAN several have the same bytes."""
    return (poll.can_id or 0).to_bytes(4, "big") + poll.request
