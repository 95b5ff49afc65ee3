"""Finds out what BMS is on a serial port: listens first, then asks in each language, with read requests only.

Where somebody else already asks on the line, nothing is sent: two that ask disturb each other. One that is heard only
while we ask, because it asks so seldom, ends our asking.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edge.clock import both_ns
from edge.doctor.alike import each_once
from edge.doctor.found import Found, Pack
from edge.doctor.overhear import ADDRESSES, MOST_S, Overheard, Strangers
from edge.sources.ear import Asking
from edge.sources.port import SerialPort
from edge.sources.serial_line import Line
from edge.sources.talk import FAST_TICK_S
from firmware_bridge.protocol import Part, Protocol
from firmware_bridge.shelf import NAMES, protocol

_SECOND_NS: Final = 1_000_000_000
_REPLY_S: Final = 0.6  # until one must have begun
_WAKING: Final = 3  # requests: the first may only wake it
_WHOLE_S: Final = 6.0  # in which a pack tells all
_NOISE_BYTES: Final = 16  # what an open line or an adapter may make up

Now = Callable[[], int]
Sleep = Callable[[float], None]


def serial_languages() -> list[Protocol]:
    """The languages that are spoken on serial lines, in the order in which they are tried."""
    found = []
    for name in NAMES:
        try:
            one = protocol(name)
        except ImportError:
            continue
        if one.bytes_decoder is not None:
            found.append(one)
    return found


class _Taken(Exception):
    """Somebody else was heard asking, in that language."""

    def __init__(self, language: str, rate: int) -> None:
        super().__init__(language)
        self.language, self.rate = language, rate


class Probe:
    """One port. `run` says what it does as it goes, by `say`."""

    def __init__(
        self,
        port: str,
        languages: Sequence[Protocol],
        *,
        listen_s: float,
        mono_ns: Now = lambda: both_ns()[0],
        sleep: Sleep = time.sleep,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._port, self._languages, self._listen_s = port, languages, listen_s
        self._mono_ns, self._sleep, self._say = mono_ns, sleep, say
        self._strangers: dict[int, Strangers] = {}  # of each bit rate

    def run(self) -> Found:
        """What is there. SourceError: the port cannot be opened, or goes."""
        found = Found()
        if self._listen(found):
            return found
        try:
            self._find(found)
        except _Taken as taken:
            self._say(f"another one asks there in {taken.language}: asking is ended, listening for up to {MOST_S:g} s")
            self._overhear(found, taken.rate, MOST_S)
            found.is_taken, found.requests = True, found.requests or [taken.language]
        return found

    def _find(self, found: Found) -> None:
        """Asks in each language. _Taken: somebody else was heard asking."""
        for one in self._languages:
            if one.polls(None, None):
                self._say(f"asking in {one.name} at {one.rate} bit/s")
                found.asked.append(one.name)
                pack = self._ask(one, None, _WAKING)
                if pack is not None:
                    found.packs = self._with_others(pack)
                    return
        for one in self._languages:
            if self._has_addresses(one):
                self._say(f"asking in {one.name}, addresses {ADDRESSES[0]} to {ADDRESSES[-1]}")
                found.packs = each_once(self._at(one, ADDRESSES), len(ADDRESSES))
                if found.packs:
                    return

    def _listen(self, found: Found) -> bool:
        """Whether the line is taken: somebody talks there without our asking."""
        for rate in dict.fromkeys(one.rate for one in self._languages):
            self._say(f"listening at {rate} bit/s for {self._listen_s:g} s")
            self._overhear(found, rate, self._listen_s)
            if found.is_taken:
                return True
        return any(count > _NOISE_BYTES for count in found.heard_bytes.values())

    def _overhear(self, found: Found, rate: int, seconds: float) -> None:
        """Listens for so long; when something is said there in a language known here, until all of it was heard."""
        port = SerialPort(self._port, rate)
        port.open()
        try:
            begun_ns = self._mono_ns()
            heard = Overheard([one for one in self._languages if one.rate == rate], begun_ns)
            end_ns, is_told = begun_ns + int(seconds * _SECOND_NS), bool(found.asked)
            while not heard.is_enough(now_ns := self._mono_ns()):
                heard.feed(now_ns, port.read(now_ns))  # also what came while this process was held up
                if heard.is_taken and not is_told:
                    is_told = True
                    self._say(f"somebody talks there: nothing is sent, and it is listened to for up to {MOST_S:g} s")
                if not heard.is_taken and now_ns >= end_ns:
                    break
                self._sleep(FAST_TICK_S)
        finally:
            port.close()
        found.listened_s += (now_ns - begun_ns) / _SECOND_NS
        found.heard_bytes[rate] = found.heard_bytes.get(rate, 0) + heard.bytes
        found.is_taken = heard.is_taken
        if heard.is_taken:
            found.packs, found.requests = heard.packs, heard.requests

    def _ask(self, spoken: Protocol, address: int | None, tries: int) -> Pack | None:
        """The pack that answers there, with all that it told; None = nobody does. _Taken: somebody else asks."""
        asking = Asking.of(spoken, None, address, None)
        line = Line(self._port, spoken, None, [asking])
        strangers = self._strangers.setdefault(
            spoken.rate, Strangers([one for one in self._languages if one.rate == spoken.rate])
        )
        strangers.ask(poll.request for poll in asking.polls)
        line.on_heard = strangers.heard
        seat = line.seats[0]
        pack = Pack(spoken, line.baudrate, address, was_asked=True)
        begun_ns = self._mono_ns()
        seat.open()
        try:
            while line.is_busy or not pack.values:
                now_ns = self._mono_ns()
                strangers.now(now_ns)
                seat.tick(now_ns)
                if strangers.asked is not None:
                    raise _Taken(strangers.asked, spoken.rate)
                for _, said in seat.take():
                    if isinstance(said, Part):
                        pack.take(said)
                wait_s = _WHOLE_S if pack.values else tries * _REPLY_S
                if now_ns - begun_ns > wait_s * _SECOND_NS:
                    break
                self._sleep(FAST_TICK_S)
        finally:
            seat.close()
        return pack if pack.values else None

    def _has_addresses(self, spoken: Protocol) -> bool:
        first, second = (tuple(spoken.polls(address, None)) for address in (1, 2))
        return bool(first) and first != second

    def _with_others(self, pack: Pack) -> list[Pack]:
        """The pack, and further ones of its language on the line."""
        spoken = pack.protocol
        if not self._has_addresses(spoken):
            return [pack]
        usual = spoken.polls(None, None)[0].request
        own = next((at for at in range(256) if spoken.polls(at, None)[0].request == usual), None)
        others = [at for at in ADDRESSES if at != own]
        self._say(f"asking for further packs in {spoken.name}, {len(others)} addresses")
        answered = list(self._at(spoken, others))
        if len(answered) == len(others) and len(each_once(answered, len(ADDRESSES))) == 1:
            return [pack]  # one that answers to whatever address
        packs = each_once([pack, *answered], len(ADDRESSES))
        if own is None:
            pack.doubles.clear()  # it answers with and without its address
        if len(packs) == 1:
            return packs
        pack.address = own  # several share the line, so each needs one
        # One without an address of its own has been found again by the one that it has.
        return [one for one in packs if one.address is not None]

    def _at(self, spoken: Protocol, addresses: Sequence[int]) -> Iterator[Pack]:
        for address in addresses:
            pack = self._ask(spoken, address, 1)
            if pack is not None:
                yield pack
