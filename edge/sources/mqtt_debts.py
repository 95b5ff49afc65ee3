"""Which messages of a session at a broker are still to be acknowledged, and how far each has come. Pure.

While a session stands a message keeps its number until it is acknowledged, and a new connection begins with those that
are not (MQTT 5, 4.4). So what was read over one connection is known when it comes again over the next, and only then: a
connection that did not bring it again says that the broker has forgotten it, and its number may be another message's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from edge.mqtt import Message

_MARK_BYTES: Final = 16


class _Stage(Enum):
    READ = auto()  # in no Sample yet
    SAMPLED = auto()  # in a Sample that is being stored
    STORED = auto()  # its connection had ended before it could be acknowledged


@dataclass(slots=True)
class _Debt:
    """link: the connection over which it came last; only there it can be acknowledged. mark: of what it said."""

    link: object
    mark: bytes
    stage: _Stage = _Stage.READ


class Debts:
    """The messages of one session that were read, by number: as many as may be unacknowledged, of two connections."""

    def __init__(self) -> None:
        self._of: dict[int, _Debt] = {}

    def read(self, link: object, message: Message) -> bool:
        """Takes note of a message; False = it was read over the connection before, and need not be read again."""
        mark = _mark(message)
        debt = self._of.get(message.number)
        if message.is_again and debt is not None and debt.mark == mark:
            debt.link = link
            return False
        self._of.pop(message.number, None)  # the broker gave the number to another one; the newest stands last
        self._of[message.number] = _Debt(link, mark)
        return True

    def sampled(self) -> None:
        """All that was read is in the Sample that is stored next."""
        for debt in self._of.values():
            if debt.stage is _Stage.READ:
                debt.stage = _Stage.SAMPLED

    def settle(self, link: object, *, is_stored: bool) -> list[int]:
        """That Sample is stored or not; the numbers that are to be acknowledged over `link` now, oldest first."""
        for debt in self._of.values():
            if debt.stage is _Stage.SAMPLED:
                debt.stage = _Stage.STORED if is_stored else _Stage.READ
        due = [number for number, debt in self._of.items() if debt.stage is _Stage.STORED and debt.link is link]
        for number in due:
            del self._of[number]
        return due

    def ended(self, link: object) -> None:
        """A connection that the broker knew of is over: what it did not bring will not come again."""
        self._of = {number: debt for number, debt in self._of.items() if debt.link is link}


def _mark(message: Message) -> bytes:
    """Two messages with one mark say the same. Not all of what they say is kept: some gateways say a lot."""
    return hashlib.blake2b(message.topic.encode() + b"\0" + message.payload, digest_size=_MARK_BYTES).digest()
