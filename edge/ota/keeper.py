"""Keeps the State of a device's models: it holds at once, is on flash before it is told, is told at least once."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.ota import decide
from edge.ota.state import OPERATOR, State, Told
from edge.ota.store import Folder, StoreError
from shared.errors import PacktwinError

log = logging.getLogger(__name__)

_WATCH_S: Final = 0.25
_LOCK_TRIES: Final = 30
_LOCK_WAIT_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Active:
    """The bundle to run. path: its file; it stays where it is at least until the next `Updates.step`."""

    path: Path
    model_id: str
    counter: int
    sha256: str


class Keeper:
    """Holds the folder until `close`. Every method may be called from any thread.

    report(told): puts a step into the outbox, raises PacktwinError where it cannot now.
    Raises StoreError where the folder cannot be used or another agent holds it.
    """

    def __init__(self, folder: Folder, now_t_ns: Callable[[], int | None], report: Callable[[Told], None]) -> None:
        self._folder, self._now_t_ns, self._report = folder, now_t_ns, report
        self._lock = threading.RLock()
        self._handle: int | None = _held(folder)
        self._unsaved = False
        self.problem: str | None = None
        self.state = folder.load()
        self.advance(lambda state: decide.damaged(state, self._sound(), now_t_ns()))

    @property
    def active(self) -> Active | None:
        """What is to run now; None = no model."""
        model = self.state.active
        if model is None:
            return None
        path = self._folder.bundle(model.sha256)
        return Active(path=path, model_id=model.model_id, counter=model.counter, sha256=model.sha256)

    @property
    def running(self) -> str:
        """The name of what is to run, for logs."""
        return self.state.active.model_id if self.state.active is not None else "none"

    def close(self) -> None:
        """Lets go of the folder."""
        with self._lock:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None

    def good_answer(self, sha256: str | None) -> None:
        """See `Updates.good_answer`."""
        with self._lock:
            if sha256 is None or self.runs(sha256):
                self.advance(lambda state: decide.good(state, self._now_t_ns()))

    def bad(self, reason: str, sha256: str | None) -> None:
        """See `Updates.bad`."""
        with self._lock:
            before = self.running
            if self.state.active is None or not (sha256 is None or self.runs(sha256)):
                return
            if reason == "target_hash":  # where the file is whole, the trouble was another one
                self.advance(lambda state: decide.damaged(state, self._sound(), self._now_t_ns()))
            else:
                self.advance(lambda state: decide.bad(state, reason, self._now_t_ns()))
            if self.running != before:
                log.error("model rolled back: %s, reason=%s, now %s", before, reason, self.running)

    def rollback(self, reason: str) -> bool:
        """A person wants the model before; False = there is none."""
        with self._lock:
            before = self.running
            if self.state.active is None or self.state.previous is None:
                return False
            self.advance(lambda state: decide.rolled_back(state, reason, self._now_t_ns()))
            log.warning("model rolled back: %s, reason=%s, now %s", before, reason, self.running)
            return True

    def runs(self, sha256: str) -> bool:
        """Whether it is what is to run."""
        return self.state.active is not None and self.state.active.sha256 == sha256

    def advance(self, decision: Callable[[State], State], on: Callable[[State], bool] | None = None) -> bool:
        """Applies a decision; False = meanwhile the state is not one that it is about (`on`).

        The new state holds at once. Where it cannot be saved now, `settle` saves it later and only then tells it.
        """
        with self._lock:
            if on is not None and not on(self.state):
                return False
            state = decision(self.state)
            if state is not self.state:
                self.state, self._unsaved = state, True
                try:
                    self.settle()
                except StoreError as error:
                    self.note(str(error))
            return True

    def settle(self) -> None:
        """Saves what is not saved and tells what is not told. Raises StoreError."""
        with self._lock:
            self._save()
            count = 0
            for told in self.state.unreported:
                try:
                    self._report(told)
                except PacktwinError as error:
                    log.warning("a step of a model cannot be reported now: %s", error)
                    break
                log.info("model %s: %s%s", told.model_id, told.step, f" ({told.reason})" if told.reason else "")
                count += 1
            if count:
                self.state, self._unsaved = decide.reported(self.state, count), True
                self._save()

    def _save(self) -> None:
        if self._unsaved:
            if self._handle is None:
                raise StoreError(f"{self._folder.path} was let go of")
            self._folder.save(self.state)
            self._unsaved = False

    def take_request(self) -> None:
        """Does what `edge model rollback` asked for. Raises StoreError."""
        sha256 = self._folder.requested()
        if sha256 is None:
            return
        with self._lock:
            if self.runs(sha256):  # else it was taken before, and the agent killed then
                self.rollback(OPERATOR)
            self.settle()
            self._folder.answered()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Looks for people's requests meanwhile, in a thread: what is done inside may wait for minutes."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_WATCH_S):
                with contextlib.suppress(StoreError):
                    self.take_request()

        thread = threading.Thread(target=watch, name="model requests", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def kept(self) -> set[str]:
        """The hashes of the bundles that must not go."""
        return {model.sha256 for model in (self.state.active, self.state.previous) if model is not None}

    def note(self, problem: str | None) -> None:
        """Why nothing moves; said once."""
        if problem is not None and problem != self.problem:
            log.warning("models: %s", problem)
        self.problem = problem

    def _sound(self) -> set[str]:
        return {sha256 for sha256 in self.kept() if self._folder.sound(sha256)}


def _held(folder: Folder) -> int:
    """The lock of the folder; a command that has it will be done in a moment."""
    folder.prepare()
    for _ in range(_LOCK_TRIES):
        handle = folder.lock()
        if handle is not None:
            return handle
        threading.Event().wait(_LOCK_WAIT_S)
    raise StoreError(f"{folder.path} is in use by another agent: stop that one first")
