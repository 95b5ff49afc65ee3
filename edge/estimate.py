"""Features -> Estimates, by the active model in its own process. Never in the way of who measures.

The measuring thread asks `due` and `offer`s a Question per pack, which costs it nothing; the Estimator's own thread
calls `step` again and again: it watches over the process, starts it anew, changes models, and answers.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from edge.inference import Floats, Runner, RunnerError
from shared import bundle as bundles
from shared.bundle import Answer, BundleError
from shared.records import Estimate

log = logging.getLogger(__name__)

CHECK_S: Final = 1.0
"""How often the process is asked whether it is there: one that hangs is found before its next question."""
_TRUSTED_ANSWERS: Final = 3
_LONGEST_PAUSE_S: Final = 30.0
_SLACK_S: Final = 0.25
_SECOND_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One pack at one instant. features: float64[F] in the table's order, NaN = unknown; None: `reason` says why."""

    pack_id: str
    chemistry: str | None
    mono_ns: int
    t_ns: int | None
    features: Floats | None
    reason: str | None = None


class ActiveModel(Protocol):
    """The bundle that shall run."""

    @property
    def path(self) -> Path:
        """Its file."""

    @property
    def model_id(self) -> str:
        """NAME-COUNTER."""

    @property
    def sha256(self) -> str:
        """Of the file."""


class ModelChoice(Protocol):
    """Who decides which model runs, and is told how it does."""

    @property
    def active(self) -> ActiveModel | None:
        """What shall run now; None = no model."""

    def good_answer(self) -> None:
        """The active model has answered well."""

    def bad(self, reason: str) -> None:
        """It has not (crash, timeout, not_finite, out_of_range, target_hash ...); `active` may be another one then."""


class Estimator:
    """See the module. feature_schema: of the Questions. now: monotonic ns. start: makes a Runner of a bundle file."""

    def __init__(
        self,
        models: ModelChoice | None,
        *,
        feature_schema: str,
        interval_s: float,
        now: Callable[[], int],
        start: Callable[[Path], Runner] = Runner,
    ) -> None:
        self._models, self._schema, self._now, self._start = models, feature_schema, now, start
        self._interval_ns = int(interval_s * _SECOND_NS)
        self._due_ns, self._wanted = 0, False
        self._asked: Sequence[Question] = ()
        self._some_asked = threading.Condition()
        self._runner: Runner | None = None
        self._running: ActiveModel | None = None
        self._unfit: str | None = None
        self._good = self._failures = 0
        self._not_before_ns = self._check_ns = 0
        self.restarts = 0
        self.problem: str | None = None
        self.answer_s: float | None = None
        """How long the last answers took."""

    # --- the measuring thread ---

    def due(self, mono_ns: int) -> bool:
        """Whether Questions are wanted now: each interval, and at once after the process had to be started anew."""
        late_ns = mono_ns + int(_SLACK_S * _SECOND_NS) - self._due_ns
        if late_ns < 0 and not self._wanted:
            return False
        self._wanted = False
        # After a stall the times that have passed are skipped, not made up for.
        self._due_ns += self._interval_ns * (1 + late_ns // self._interval_ns)
        return True

    def offer(self, questions: Sequence[Question]) -> None:
        """Leaves the Questions for the next `step`; it takes the newest and knows nothing of those that it missed."""
        with self._some_asked:
            self._asked = questions
            self._some_asked.notify()

    # --- the own thread ---

    def step(self, wait_s: float) -> list[Estimate]:
        """Cares for the process, waits for Questions at most `wait_s`, and answers them: an Estimate for each."""
        self._supervise()
        with self._some_asked:
            if not self._asked:
                self._some_asked.wait(wait_s)
            questions, self._asked = self._asked, ()
        return self._estimates(questions) if questions else []

    def close(self) -> None:
        """Ends the process."""
        if self._runner is not None:
            self._runner.close()
        self._runner = None

    @property
    def status(self) -> dict[str, Any]:
        """For the page and `edge status`."""
        runner, running = self._runner, self._running
        return {
            "state": "running" if runner else "down" if running else "none",
            "pid": runner.pid if runner else None,
            "model_id": running.model_id if running else None,
            "simulated": runner.manifest.data["simulated"] if runner else None,
            "problem": self.problem or self._unfit,
            "restarts": self.restarts,
            "answer_s": self.answer_s,
        }

    def _supervise(self) -> None:
        """Makes the active model the one that runs; finds a process that has died or hangs."""
        active = self._models.active if self._models else None
        if (active and active.sha256) != (self._running and self._running.sha256):
            self.close()
            self._running, self._unfit, self.problem = active, None, None
            self._good = self._failures = self._not_before_ns = 0
        now_ns = self._now()
        try:
            if self._runner is not None and now_ns >= self._check_ns:
                self._check_ns = now_ns + int(CHECK_S * _SECOND_NS)
                self._runner.check()
            elif self._runner is None and active is not None and not self._unfit and now_ns >= self._not_before_ns:
                self._load(active)
        except (RunnerError, BundleError, OSError) as error:
            self._failed(error)

    def _load(self, active: ActiveModel) -> None:
        runner = self._start(active.path)
        manifest = runner.manifest
        if manifest.feature_schema == self._schema and runner.sha256 == active.sha256:
            self._runner, self._check_ns = runner, self._now() + int(CHECK_S * _SECOND_NS)
            self._wanted = True
            log.info("model %s runs in process %d", active.model_id, runner.pid)
            return
        runner.close()
        if runner.sha256 != active.sha256:
            raise BundleError("target_hash", f"{active.path.name} is not what was signed")
        self._unfit = "feature_schema"
        log.warning("model %s was made for other features than this version measures", active.model_id)

    def _failed(self, error: RunnerError | BundleError | OSError) -> None:
        """The process is gone or cannot be started: at once again, then with pauses, or another model."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
            self.restarts += 1
        self._failures += 1
        self._wanted |= self._failures == 1
        pause_s = 0.0 if self._failures == 1 else min(2.0 ** (self._failures - 2), _LONGEST_PAUSE_S)
        self._not_before_ns = self._now() + int(pause_s * _SECOND_NS)
        reason = self._blame(error)
        log.warning("inference failed: %s (%s), again in %.0f s", error, reason or "not the model's fault", pause_s)
        self.problem = str(error)
        if reason is not None and self._models is not None:
            self._models.bad(reason)

    def _blame(self, error: RunnerError | BundleError | OSError) -> str | None:
        """What to tell of the model; None = this machine's trouble.

        The kernel kills the process first when memory ends: one that has answered well is not to blame for that.
        """
        if isinstance(error, BundleError):
            return error.reason
        if isinstance(error, OSError):
            return "target_hash"
        if error.kind == "runtime" or (error.kind == "killed" and self._good >= _TRUSTED_ANSWERS):
            return None
        return "crash" if error.kind == "killed" else error.kind

    # --- answers ---

    def _estimates(self, questions: Sequence[Question]) -> list[Estimate]:
        """Tries again once: with a new process, or with the model before a bad one."""
        for _ in range(2):
            self._supervise()
            running = self._running
            answers = self._answers(questions)
            if answers is not None and running is self._running and not self._to_be_changed():
                return [_estimate(question, running, answers[question.pack_id]) for question in questions]
        why = "model_restarting" if self._running else "no_model"
        return [_estimate(question, self._running, question.reason or why) for question in questions]

    def _to_be_changed(self) -> bool:
        active = self._models.active if self._models else None
        return (active and active.sha256) != (self._running and self._running.sha256)

    def _answers(self, questions: Sequence[Question]) -> Mapping[str, Answer | str] | None:
        """pack_id -> its Answer, or why there is none; None when the process has failed."""
        runner = self._runner
        common = None if runner else (self._unfit or "model_restarting") if self._running else "no_model"
        said: dict[str, Answer | str] = {}
        asked: list[tuple[str, Floats]] = []
        for question in questions:
            if question.features is None or runner is None:
                said[question.pack_id] = common or question.reason or "no_features"
            elif question.chemistry not in runner.manifest.chemistry:
                said[question.pack_id] = "chemistry"
            else:
                asked.append((question.pack_id, question.features))
        if runner is None or not asked:
            return said
        began_ns = self._now()
        try:
            raw = runner.predict(np.stack([features for _, features in asked]))
        except RunnerError as error:
            self._failed(error)
            return None
        self.answer_s = (self._now() - began_ns) / _SECOND_NS
        wrong: str | None = None
        for i, (pack_id, features) in enumerate(asked):
            one = {name: values[i : i + 1] for name, values in raw.items()}
            try:
                said[pack_id] = bundles.answer(runner.manifest, one, features[None, :])[0]
            except BundleError as error:
                said[pack_id] = wrong = error.reason
        self._judge(wrong)
        return said

    def _judge(self, wrong: str | None) -> None:
        """Tells whether the answers were good."""
        assert self._models is not None
        if wrong is None:
            self._good, self._failures, self.problem = self._good + 1, 0, None
            self._models.good_answer()
            return
        if self.problem != wrong:
            log.warning("the model's answer cannot be: %s", wrong)
        self.problem = wrong
        self._models.bad(wrong)


def _estimate(question: Question, model: ActiveModel | None, said: Answer | str) -> Estimate:
    about: dict[str, Any] = {
        "pack_id": question.pack_id,
        "seq": 0,
        "mono_ns": question.mono_ns,
        "t_ns": question.t_ns,
        "model_id": model.model_id if model else None,
        "model_sha256": model.sha256 if model else None,
    }
    if isinstance(said, str):
        return Estimate(**about, reason=said)
    return Estimate(
        **about,
        rul_cycles=said.rul_cycles,
        rul_cycles_lo=said.rul_cycles_lo,
        rul_cycles_hi=said.rul_cycles_hi,
        p_eol_100=said.p_eol_100,
        failure_probability=said.p_eol_100,
        in_domain=said.in_domain,
    )
