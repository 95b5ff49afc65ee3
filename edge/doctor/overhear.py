"""What is said on a line while we listen: in which language, by whom, whether another one asks. Pure.

A request or a reply that checks means that the line is taken: two that ask disturb each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.addresses import check_address
from edge.doctor.found import Pack
from firmware_bridge.protocol import ByteDecoder, LineError, Part, Protocol, Said
from shared.errors import ConfigError

LEAST_S: Final = 10.0
MOST_S: Final = 30.0
"""So long it is listened to a line that is taken: less when every kind of message has come twice."""
ADDRESSES: Final = range(16)
"""What the switches of a BMS can be set to."""
_TWICE: Final = 2
_SECOND_NS: Final = 1_000_000_000
_ECHO_NS: Final = 2 * _SECOND_NS
"""So long after we have asked something it may be our own that is heard."""


def requests_of(languages: Sequence[Protocol]) -> dict[bytes, str]:
    """Every request that packs of these languages are asked with -> its language."""
    return {
        poll.request: one.name
        for one in languages
        for address in (None, *ADDRESSES)
        for poll in one.polls(address, None)
    }


class _Finder:
    """Finds whole requests in what comes in pieces. A decoder alone does not know all of its language's."""

    def __init__(self, known: Mapping[bytes, str]) -> None:
        self._known = known
        self._longest = max(map(len, known), default=1)
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Those that have become whole."""
        seen, before = self._tail + data, len(self._tail)
        self._tail = seen[len(seen) - self._longest + 1 :] if len(seen) >= self._longest else seen
        return [one for one in self._known if seen.find(one, max(before - len(one) + 1, 0)) >= 0]


class Strangers:
    """Hears whether another one asks while we do. Our own requests come back from some adapters, and from sleepers."""

    def __init__(self, languages: Sequence[Protocol]) -> None:
        self._known = requests_of(languages)
        self._finder = _Finder(self._known)
        self._now_ns = 0
        self._asking: frozenset[bytes] = frozenset()
        self._asked_ns: dict[bytes, int] = {}
        self.asked: str | None = None
        """The language in which another one was heard asking; None = none was."""

    def ask(self, requests: Iterable[bytes]) -> None:
        """From now on we ask these."""
        self._asking = frozenset(requests)

    def now(self, now_ns: int) -> None:
        """So late it is, while we ask."""
        self._now_ns = now_ns
        self._asked_ns |= dict.fromkeys(self._asking, now_ns)

    def heard(self, data: bytes) -> None:
        """What came."""
        for request in self._finder.feed(data):
            if self._now_ns - self._asked_ns.get(request, -_ECHO_NS) >= _ECHO_NS:
                self.asked = self._known[request]


@dataclass(slots=True)
class _Language:
    """One language's ear. counts: how often each (address, kind) came; requests: what another one asked."""

    protocol: Protocol
    decoder: ByteDecoder
    packs: dict[int | None, Pack] = field(default_factory=dict)
    counts: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    requests: int = 0

    def take(self, said: Sequence[Said]) -> None:
        for one in said:
            if isinstance(one, Part):
                pack = self.packs.setdefault(
                    one.address, Pack(self.protocol, self.protocol.rate, one.address, was_asked=False)
                )
                pack.take(one)
                self.counts[one.address, one.kind] += 1
            elif isinstance(one, LineError) and one.error == "echo":
                self.requests += 1


class Overheard:
    """What languages of one bit rate make of what comes. `feed` each tick, also with nothing."""

    def __init__(self, languages: Sequence[Protocol], now_ns: int) -> None:
        self._ears = [_Language(one, one.bytes_decoder()) for one in languages if one.bytes_decoder is not None]
        self._known = requests_of(languages)
        self._finder = _Finder(self._known)
        self._heard_ns = now_ns
        self._taken_ns: int | None = None
        self.bytes = 0

    def feed(self, now_ns: int, data: bytes) -> None:
        """What came since the last call."""
        if data:
            self.bytes += len(data)
            self._heard_ns = now_ns
            for request in self._finder.feed(data):
                next(ear for ear in self._ears if ear.protocol.name == self._known[request]).requests += 1
        for ear in self._ears:
            ear.take(ear.decoder.feed(data))
            if not data and ear.decoder.pending and now_ns - self._heard_ns >= ear.protocol.silence_s * _SECOND_NS:
                ear.take(ear.decoder.end())
        if self._taken_ns is None and any(ear.counts or ear.requests for ear in self._ears):
            self._taken_ns = now_ns

    @property
    def is_taken(self) -> bool:
        """Whether anything that checks was heard."""
        return self._taken_ns is not None

    def is_enough(self, now_ns: int) -> bool:
        """Whether a line that is taken has told all that it is likely to tell."""
        if self._taken_ns is None:
            return False
        listened_s = (now_ns - self._taken_ns) / _SECOND_NS
        best = self._best
        has_all = bool(best and best.counts and min(best.counts.values()) >= _TWICE) and all(
            pack.cells and not pack.unheard for pack in self.packs
        )
        return listened_s >= MOST_S or (has_all and listened_s >= LEAST_S)

    @property
    def _best(self) -> _Language | None:
        """The language that most of what came was in."""
        return max(self._ears, key=lambda ear: ear.counts.total(), default=None)

    @property
    def packs(self) -> list[Pack]:
        """Those that answered somebody, in the language that most was said in."""
        if self._best is None:
            return []
        found = list(self._best.packs.values())
        for pack in found:
            try:
                check_address("", pack.protocol, None, pack.address, polls=False)
            except ConfigError:  # a number that says nothing of whom to ask
                pack.address = None
        return found

    @property
    def requests(self) -> list[str]:
        """The languages in which another one asks."""
        return [ear.protocol.name for ear in self._ears if ear.requests]
