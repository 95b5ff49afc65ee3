"""The packs on a serial line: bytes of whoever asks in, replies out. Pure: it is told when the line is silent."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from firmware_bridge.protocol import Part, Protocol
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.stammer import Stammer

_MOST_BYTES: Final = 512
_NEIGHBOURS: Final = (2, 3)


class Responder:
    """Answers what is asked on one line for all packs that hang on it."""

    def __init__(
        self, spoken: Protocol, packs: Sequence[VirtualPack], lies: Lies, stammer: Stammer, rng: random.Random
    ) -> None:
        assert spoken.answer is not None
        self._spoken, self._answer = spoken, spoken.answer
        self._packs = packs
        self._lies, self._stammer, self._rng = lies, stammer, rng
        self._heard = b""
        self._known = sorted(
            {poll.request for pack in packs for poll in spoken.polls(pack.address, None)}, key=len, reverse=True
        )
        self.answered = 0

    @property
    def waits(self) -> bool:
        """Bytes have come that are not yet a request."""
        return bool(self._heard)

    def feed(self, data: bytes) -> list[bytes]:
        """The replies to the requests that these bytes complete."""
        self._heard = (self._heard + data)[-_MOST_BYTES:]
        out: list[bytes] = []
        while (found := self._first()) is not None:
            at, request = found
            before, self._heard = self._heard[:at], self._heard[at + len(request) :]
            if before:
                out += self._replies(before)
            out += self._replies(request)
        return out

    def quiet(self) -> list[bytes]:
        """The line has fallen silent: what came is a request of another kind than ours, or none."""
        heard, self._heard = self._heard, b""
        return self._replies(heard) if heard else []

    def _first(self) -> tuple[int, bytes] | None:
        found = [(at, request) for request in self._known if (at := self._heard.find(request)) >= 0]
        return min(found, key=lambda it: it[0], default=None)

    def _replies(self, request: bytes) -> list[bytes]:
        out: list[bytes] = []
        for pack in self._packs:
            replies = list(self._answer(request, pack.values, pack.address))
            if not replies:
                continue
            self.answered += 1
            t_s = pack.car.t_s
            if self._stammer.takes_another(t_s, self._rng):
                replies = self._anothers(request, pack)
            replies = [reply for reply in replies if not self._is_hushed(request, reply, t_s)]
            out += self._stammer.spoilt(request, replies, t_s, self._rng)
        return out

    def _anothers(self, request: bytes, pack: VirtualPack) -> list[bytes]:
        """What another pack, which nobody asked, would reply; where packs have no addresses, another reply of it."""
        polls = self._spoken.polls(pack.address, None)
        at = next((i for i, poll in enumerate(polls) if poll.request == request), 0)
        for address in _NEIGHBOURS:
            others = [poll.request for poll in self._spoken.polls(address, None) if poll.kind == polls[at].kind]
            if others and others[0] != request and address not in (each.address for each in self._packs):
                return list(self._answer(others[0], pack.values, address))
        strange = polls[(at + 1) % len(polls)].request
        return list(self._answer(strange, pack.values, pack.address)) if strange != request else []

    def _is_hushed(self, request: bytes, reply: bytes, t_s: float) -> bool:
        """A message that carries the silent field is not sent."""
        if self._lies.silent_field is None or self._spoken.bytes_decoder is None:
            return False
        line = self._spoken.bytes_decoder()
        line.sent(request)
        said = line.feed(reply) + line.end()
        return any(self._lies.hushes(name, t_s) for it in said if isinstance(it, Part) for name in it.values)
