"""What every source of frames is, and the error that says that it cannot be read now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final, Protocol

from edge.config_sources import SourceConfig
from firmware_bridge.frames import FrameBatch
from shared.errors import PacktwinError

READ_TICK_S: Final = 0.1
"""How often a source is read that does not ask for more."""
HELD_S: Final = 1.2
"""So long what was read may wait to be looked at: a little longer than from one Sample to the next, by default."""


class SourceError(PacktwinError):
    """The bus cannot be opened or read now; worth another try later."""


class Telling(Protocol):
    """What whatever is read tells of itself. `open` may take long and raise SourceError. Counts are since the start."""

    @property
    def drops(self) -> int | None:
        """Frames that came and were lost for want of room; None = this kind of bus cannot tell."""

    @property
    def error_frames(self) -> Mapping[str, int]:
        """What controllers said of the bus, by kind."""

    @property
    def buffer_bytes(self) -> int | None:
        """The kernel's receive buffer; None = not open, or there is none of a known size."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of it now, a sentence each."""

    @property
    def tick_s(self) -> float:
        """The longest time until it is read next, READ_TICK_S at most."""

    def open(self) -> None:
        """Makes the bus ready; after a SourceError it may be called again."""

    def count_drops(self) -> int | None:
        """`drops` up to this instant, also what no frame has told yet."""

    def close(self) -> None:
        """Lets the bus go; may be called when it is not open."""


class Source(Telling, Protocol):
    """A bus. `poll` never takes long; it may raise SourceError.

    What was polled waits in the source: looked at together, ten polls cost little more than one.
    """

    @property
    def bad_lines(self) -> int:
        """Junk lines."""

    def poll(self, t_ns: int) -> int:
        """Takes what came since the last call: so many frames. `t_ns` is now, and stamps what no kernel has stamped."""

    def frames(self) -> FrameBatch:
        """What was polled since the last call, also by a bus that has gone since."""

    def read(self, t_ns: int) -> FrameBatch:
        """What was polled and comes now."""


class SendingSource(Source, Protocol):
    """A bus onto which frames can be put, where the config says so."""

    def send(self, can_id: int, payload: bytes) -> bool:
        """Puts a classic frame on the bus; False = it takes none now. SourceError: the bus has gone.

        RuntimeError: this source is configured to listen, and nothing was sent.
        """


class Untold:
    """The counters of a bus that has none, and its ordinary pace."""

    bad_lines: int = 0
    drops: int | None = None
    buffer_bytes: int | None = None
    notes: tuple[str, ...] = ()
    tick_s: float = READ_TICK_S

    def __init__(self) -> None:
        self.error_frames: dict[str, int] = {}

    def count_drops(self) -> int | None:
        """See Source."""
        return None


class Listed(Untold):
    """A bus that gives its frames one by one: what was polled waits as it is."""

    def __init__(self, channel: str) -> None:
        super().__init__()
        self._channel = channel
        self._polled: list[FrameBatch] = []

    def _received(self, t_ns: int) -> FrameBatch:
        raise NotImplementedError

    def poll(self, t_ns: int) -> int:
        """See Source."""
        batch = self._received(t_ns)
        if len(batch):
            self._polled.append(batch)
        return len(batch)

    def frames(self) -> FrameBatch:
        """See Source."""
        polled, self._polled = self._polled, []
        return FrameBatch.concat(self._channel, polled)

    def read(self, t_ns: int) -> FrameBatch:
        """See Source."""
        self.poll(t_ns)
        return self.frames()


def plain_reason(error: Exception) -> str:
    """Why, without what the libraries put around it."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error) or type(error).__name__


def only_where_allowed(config: SourceConfig) -> None:
    """The last door before a bus: RuntimeError where the config does not say `poll = true`."""
    if not config.can.poll:
        raise RuntimeError(f"{config.pack_id} only listens on {config.channel}: nothing is sent there")
