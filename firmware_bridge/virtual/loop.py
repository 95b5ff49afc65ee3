"""Virtual packs against the wall clock: moved on, and their line served. The one place here that keeps time."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TextIO

from firmware_bridge import protocol
from firmware_bridge.pack.car import TICK_S
from firmware_bridge.sim.control import Control
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.pack import VirtualPack

_BEAT_S: Final = 0.01
_LATE_S: Final = 0.5  # so much may be made good at once; more is skipped


class Line(Protocol):
    """Where the packs talk. `where`: what to tell the user; `dropped`: what did not get out."""

    where: str
    dropped: int

    def fileno(self) -> int | None:
        """What to watch for `serve`; None = nothing."""

    @property
    def wants_to_write(self) -> bool:
        """Something waits until `fileno` is writable."""

    def serve(self) -> None:
        """Does what can be done now: reads, answers, writes."""

    def tick(self, now_s: float) -> None:
        """Does what is due at that time of the wall clock; called often."""

    def close(self) -> None:
        """Gives the line back."""


class Loop:
    """Runs packs on one line, `speed` times as fast as life; `log` is where it says how it goes."""

    def __init__(
        self,
        spoken: protocol.Protocol,
        packs: Sequence[VirtualPack],
        lies: Lies,
        line: Line,
        control: Control,
        speed: float,
        log: TextIO,
    ) -> None:
        self._spoken, self._packs, self._lies, self._line = spoken, packs, lies, line
        self._ticks_per_s = speed / TICK_S
        self._log, self._is_late = log, False
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, control)
        self._fd = line.fileno()
        if self._fd is not None:
            self._selector.register(self._fd, selectors.EVENT_READ, line)

    def run(self, stop: Callable[[], bool], ticks: int | None) -> None:
        """Runs until `stop()`, or for so many ticks of the packs."""
        done, begin_s = 0, time.monotonic()
        while not stop() and (ticks is None or done < ticks):
            now_s = time.monotonic()
            due = int((now_s - begin_s) * self._ticks_per_s) + 1
            if due - done > max(_LATE_S * self._ticks_per_s, 2):
                begin_s += (due - done - 1) / self._ticks_per_s
                due = done + 1
                self._tell_late()
            if ticks is not None:
                due = min(due, ticks)
            for pack in self._packs:
                pack.step(self._spoken, self._lies, due - done)
            done = due
            self._line.tick(now_s)
            self._wait()

    def _wait(self) -> None:
        if self._fd is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._line.wants_to_write else 0)
            self._selector.modify(self._fd, events, self._line)
        for key, _ in self._selector.select(_BEAT_S):
            key.data.serve()
        if self._fd is None:
            self._line.serve()

    def _tell_late(self) -> None:
        if not self._is_late:
            self._is_late = True
            print("virtual: this machine cannot keep up at this speed; time is skipped", file=self._log, flush=True)
