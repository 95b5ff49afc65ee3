"""Keeps a list of services running: in order up, again when one dies, in reverse order down."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import state
from processes import end, identify
from services import Child, Service, described, last_words

from shared.errors import PacktwinError

TICK_S = 0.2
LOG_CHECK_S = 30.0
PATIENCE_S = 20.0  # how long the start waits for optional services in all; later ones say when they are ready
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(Exception):
    """Somebody asked us to end while we were starting."""


class Supervisor:
    """Runs services until a signal; `say` gets one sentence per event, `publish` the state after every change."""

    def __init__(
        self,
        services: Sequence[Service],
        logs: Path,
        say: Callable[[str], None],
        publish: Callable[[Sequence[state.Running]], None],
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._children = [Child(service, logs / f"{service.name}.log") for service in services]
        self._say, self._publish = say, publish
        self._late: list[Child] = []  # optional ones that are not ready yet
        self._stop = threading.Event()

    def on_signals(self) -> None:
        """From here on SIGINT, SIGTERM and SIGHUP end `start` and `keep` in an orderly way."""

        def ask(_number: int, _frame: FrameType | None) -> None:
            self._stop.set()

        for number in ENDINGS:
            signal.signal(number, ask)

    def start(self) -> None:
        """Starts the services one after the other, each when the one before answers; optional ones side by side.

        PacktwinError: one ended or did not answer in time, with its last words. Stopped: a signal came.
        """
        for child in self._children:
            self._begin(child)
            self._announce()
            if child.problem:
                continue
            if child.service.optional:
                self._late.append(child)
                continue
            self._await(child)
            self._tell_ready(child)
        deadline = time.monotonic() + PATIENCE_S
        while self._late and time.monotonic() < deadline and not self._stop.wait(0.05):
            self._look_after()
        if self._stop.is_set():
            raise Stopped
        for child in self._late:
            self._say(f"{child.service.name} is not ready yet and will say when it is; see {child.log}")
        self._announce()

    def _begin(self, child: Child) -> None:
        if child.problem:
            return
        try:
            child.service.prepare()
            child.start(time.monotonic())
        except PacktwinError as error:
            if not child.service.optional:
                raise
            child.problem = str(error)
            self._say(f"{child.service.name} is left out: {error}")

    def _tell_ready(self, child: Child) -> None:
        self._say(f"{child.service.name:<12} {child.service.address}")

    def _await(self, child: Child) -> None:
        deadline = time.monotonic() + child.service.start_s
        while not child.service.ready():
            code = child.exit_code()
            if code is not None:
                raise PacktwinError(
                    f"{child.service.name} did not start ({described(code)}): {last_words(child.log)} ({child.log})"
                )
            if time.monotonic() > deadline:
                waited_s = child.service.start_s
                raise PacktwinError(f"{child.service.name} does not answer after {waited_s:.0f} s; see {child.log}")
            if self._stop.wait(0.05):
                raise Stopped

    def keep(self) -> None:
        """Restarts what dies until a signal comes."""
        next_log_check_s = 0.0
        while not self._stop.wait(TICK_S):
            self._look_after()
            now_s = time.monotonic()
            if now_s >= next_log_check_s:
                next_log_check_s = now_s + LOG_CHECK_S
                for child in self._children:
                    child.bound_log()

    def _look_after(self) -> None:
        """Starts again what died; says of each optional service once that it is ready."""
        for child in self._children:
            said = child.step(time.monotonic())
            if said is not None:
                self._say(said)
                self._announce()
        for child in list(self._late):
            if child.problem or (child.identity and child.service.ready()):
                self._late.remove(child)
                if not child.problem:
                    self._tell_ready(child)

    def stop(self) -> None:
        """Ends all, the last started first; a second signal does not disturb it."""
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(self._children):
            child.stop()

    def _announce(self) -> None:
        self._publish(
            [
                state.Running(
                    name=child.service.name,
                    address=child.service.address,
                    process=child.identity,
                    health=child.service.health,
                    restarts=child.restarts,
                    problem=child.problem,
                )
                for child in self._children
            ]
        )


def end_leftovers(state_file: Path) -> None:
    """Ends what a killed supervisor left running; processes of others with the same numbers are not touched."""
    left = state.read(state_file)
    if left is not None and identify(os.getpid()) != left.supervisor:
        for running in reversed(left.services):
            if running.process is not None:
                end(running.process, signal.SIGINT if running.name == "database" else signal.SIGTERM)
    state_file.unlink(missing_ok=True)
