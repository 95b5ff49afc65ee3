"""Serial lines with BMSs on them: one `Line` a port, a `Seat` on it for each pack. Nothing but polls is ever sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

from edge.capture.recorder import Track
from edge.sources.ear import Asking, Ear, Told
from edge.sources.port import SerialPort
from edge.sources.source import READ_TICK_S, SourceError, Untold
from edge.sources.talk import FAST_TICK_S, Talk
from firmware_bridge.protocol import Protocol, Said
from shared.errors import ConfigError

_EXCHANGE_S: Final = 0.15
"""What a request and its reply take, about: by this a line with many packs gives each its time."""
_NOTED: Final = 3  # rounds in a row without any answer


class Line:
    """One port and the packs on it. Its seats step it; whoever comes first reads for all."""

    def __init__(self, channel: str, protocol: Protocol, baudrate: int | None, packs: Sequence[Asking]) -> None:
        """ConfigError: the packs cannot be told from each other."""
        assert protocol.bytes_decoder is not None
        requests = [{poll.request for poll in protocol.polls(pack.address, None)} for pack in packs]
        if any(a & b for a, b in combinations(requests, 2)) or (len(packs) > 1 and not all(requests)):
            raise ConfigError(
                f"{channel}: several packs of {protocol.name} on one line cannot be told apart by their address: "
                "give each a port of its own"
            )
        self.channel, self.protocol = channel, protocol
        self.baudrate = baudrate or protocol.rate
        self._port = SerialPort(channel, self.baudrate)
        self._opening = threading.Lock()
        self._ear = Ear(protocol.bytes_decoder(), packs)
        self._talk = Talk(self._ear, packs, silence_s=protocol.silence_s, gap_s=protocol.gap_s)
        exchanges = sum(len(pack.polls) for pack in packs)
        self.seats = [Seat(self, at, pack, exchanges * _EXCHANGE_S) for at, pack in enumerate(packs)]
        self._is_new = True
        self.on_heard: Callable[[bytes], None] | None = None
        """Who else wants to know what came; None = nobody."""

    def open(self) -> None:
        """Opens the port if it is not open. SourceError: it cannot be had."""
        with self._opening:
            if not self._port.is_open:
                self._is_new = True
                self._port.open()

    def close(self) -> None:
        """Closes the port when none of the seats is taken any more."""
        if not any(seat.is_taken for seat in self.seats):
            self._port.close()

    def step(self, mono_ns: int) -> None:
        """Reads what came and asks what is due. SourceError: the line has gone, for all seats."""
        try:
            if not self._port.is_open:
                raise SourceError(f"{self.channel} is not open")
            if self._is_new:
                self._is_new = False
                self._record(mono_ns, b"", sent=False)
                self._deal(mono_ns, self._ear.end())
                self._talk.reset(mono_ns)
            data = self._port.read(mono_ns)
            if data:
                self._record(mono_ns, data, sent=False)
                if self.on_heard is not None:
                    self.on_heard(data)
                self._deal(mono_ns, self._talk.heard(mono_ns, data))
            if self._talk.is_silent(mono_ns):
                self._record(mono_ns, b"", sent=False)
                self._deal(mono_ns, self._talk.end(mono_ns))
            self._ask(mono_ns)
        except SourceError:
            for seat in self.seats:
                seat.is_taken = False
            self._port.close()
            raise

    def _ask(self, mono_ns: int) -> None:
        due = self._talk.due(mono_ns)
        if due is not None:
            pack, poll = due
            self._record(mono_ns, poll.request, sent=True)
            self._talk.sent(mono_ns, pack, poll)
            self._port.write(poll.request)

    def _record(self, mono_ns: int, data: bytes, *, sent: bool) -> None:
        """Every pack's record has all that was on the line; an empty chunk says that it fell silent."""
        for seat in self.seats:
            if seat.track is not None:
                seat.track.chunk(mono_ns, data, sent=sent)

    def _deal(self, mono_ns: int, told: Sequence[Told]) -> None:
        for owner, said in told:
            self.seats[owner].inbox.append((mono_ns, said))

    def tick_s(self, seat: Seat) -> float:
        """The line is looked at often while a reply is due, by the first of those that listen."""
        is_first = seat is next((one for one in self.seats if one.is_taken), None)
        return FAST_TICK_S if is_first and self._talk.is_busy else READ_TICK_S

    @property
    def is_busy(self) -> bool:
        """Whether a reply, or the next request of a round, is due at any moment."""
        return self._talk.is_busy

    @property
    def is_restless(self) -> bool:
        """See Talk."""
        return self._talk.is_restless

    @property
    def both(self) -> tuple[int, int] | None:
        """(The address that is taken for the pack that has none, another one that speaks); None = there is no other."""
        bound, other = self._ear.bound, self._ear.other
        return None if bound is None or other is None else (bound, other)

    def timeouts(self, at: int) -> int:
        """Requests to this pack that nobody answered."""
        return self._talk.timeouts[at]

    def unanswered(self, at: int) -> int:
        """Rounds in a row in which this pack said nothing."""
        return self._talk.unanswered(at)

    def snapshot(self, at: int) -> dict[str, Any]:
        """See Speaker."""
        addresses = [seat.asking.address for seat in self.seats]
        others = addresses[:at] + addresses[at + 1 :]
        polls = bool(self.seats[at].asking.polls)
        return {"address": addresses[at], "others": others, "polls": polls, **self._ear.snapshot()}


class Seat(Untold):
    """One pack on a line: a Speaker."""

    def __init__(self, line: Line, at: int, asking: Asking, line_s: float) -> None:
        super().__init__()
        self.line, self.asking = line, asking
        self._at = at
        self.pace_s = max(asking.poll_s, line_s)
        self.track: Track | None = None
        self.is_taken = False
        self.inbox: list[tuple[int, Said]] = []

    @property
    def tick_s(self) -> float:  # type: ignore[override]
        """See Source."""
        return self.line.tick_s(self)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """See Source."""
        if self.line.is_restless:
            return (
                f"something comes on {self.line.channel} all the time that is nothing in {self.line.protocol.name}: "
                "noise (check A/B, ground, the 120 ohm ends and the baudrate), or another one that asks there: then "
                "poll = false",
            )
        return (*self._both(), *self._unanswered())

    def _both(self) -> tuple[str, ...]:
        if self.line.both is None:
            return ()
        mine, other = self.line.both
        return (
            f"addresses {mine} and {other} both speak on {self.line.channel}: {mine} is taken for this pack, as it was "
            f"heard first, {other} and whoever else is there is left out: give it its address, and each other one a "
            "source of its own",
        )

    def _unanswered(self) -> tuple[str, ...]:
        if self.line.unanswered(self._at) < _NOTED:
            return ()
        name, rate = self.line.protocol.name, self.line.baudrate
        whom = "it" if self.asking.address is None else f"address {self.asking.address}"
        return (
            f"{whom} does not answer in {name} at {rate} bit/s: check wires (A/B, RX/TX), baudrate and address; "
            f"`edge doctor --port {self.line.channel}` finds out what is there",
        )

    @property
    def errors(self) -> Mapping[str, int]:
        """See Speaker."""
        timeouts = self.line.timeouts(self._at)
        return {"timeout": timeouts} if timeouts else {}

    def open(self) -> None:
        """See Source."""
        self.line.open()
        self.is_taken = True

    def tick(self, mono_ns: int) -> None:
        """See Speaker."""
        self.line.step(mono_ns)

    def take(self) -> list[tuple[int, Said]]:
        """See Speaker."""
        taken, self.inbox = self.inbox, []
        return taken

    def snapshot(self) -> Any:
        """See Speaker."""
        return self.line.snapshot(self._at)

    def close(self) -> None:
        """See Source."""
        self.is_taken = False
        self.line.close()
