"""The Estimator: who is asked when, what is said when there is no answer, and how it comes back."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fakes.bundles import make_bundle
from fakes.clock import FakeClock

from edge.estimate import Estimator, Question
from edge.inference import Runner, RunnerError
from shared.features import NAMES, schema_id
from shared.records import Estimate


@dataclass(frozen=True)
class Bundled:
    path: Path
    model_id: str
    sha256: str


@dataclass
class Choice:
    """Stands for `edge.ota`: the first of `models` is active, a bad one makes room for the next."""

    models: list[Bundled]
    good: int = 0
    told: list[str] = field(default_factory=list)
    keeps: bool = False  # as a proven model does that has none before it
    patience: int = 0

    @property
    def active(self) -> Bundled | None:
        return self.models[0] if self.models else None

    def good_answer(self) -> None:
        self.good += 1

    def bad(self, reason: str) -> None:
        self.told.append(reason)
        if not self.keeps and len(self.told) > self.patience:
            self.models.pop(0)


class Rig:
    """An Estimator, its clock and what it says."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.made: list[Estimator] = []
        self.started: list[Runner] = []

    def bundled(self, counter: int, body: bytes) -> Bundled:
        path = self.folder / f"{counter}.bundle"
        path.write_bytes(body)
        return Bundled(path, f"fake-{counter}", hashlib.sha256(body).hexdigest())

    def estimator(self, choice: Choice | None, start: Callable[[Path], Runner] = Runner) -> Estimator:
        def started(path: Path) -> Runner:
            self.started.append(start(path))
            return self.started[-1]

        made = Estimator(choice, feature_schema=schema_id(), interval_s=5.0, now=self.clock.mono_ns, start=started)
        self.made.append(made)
        return made

    def ask(self, estimator: Estimator, *questions: Question) -> list[Estimate]:
        estimator.offer(questions or (question(500.0),))
        return estimator.step(0.0)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    for estimator in rig.made:
        estimator.close()


def question(first: float | None, pack_id: str = "P", chemistry: str | None = "nmc") -> Question:
    features = None if first is None else np.array([first] + [np.nan] * (len(NAMES) - 1))
    reason = "no_features" if first is None else None
    return Question(pack_id=pack_id, chemistry=chemistry, mono_ns=7, t_ns=8, features=features, reason=reason)


def test_an_estimate_says_everything_that_the_model_does(rig: Rig) -> None:
    model = rig.bundled(1, make_bundle())
    choice = Choice([model])
    (said,) = rig.ask(rig.estimator(choice))
    assert said.rul_cycles == pytest.approx(800.0, rel=1e-5)
    assert (said.rul_cycles_lo, said.rul_cycles_hi) == pytest.approx((640.0, 960.0), rel=1e-5)
    assert said.p_eol_100 == said.failure_probability == pytest.approx(0.1, abs=1e-6)
    assert (said.pack_id, said.mono_ns, said.t_ns, said.reason) == ("P", 7, 8, None)
    assert (said.model_id, said.model_sha256, said.in_domain) == ("fake-1", model.sha256, True)
    assert choice.good == 1


def test_why_there_is_no_answer_is_said_pack_by_pack(rig: Rig) -> None:
    estimator = rig.estimator(Choice([rig.bundled(1, make_bundle(chemistry=["lfp"]))]))
    said = rig.ask(estimator, question(1.0, "A"), question(1.0, "B", "lfp"), question(None, "C", "lfp"))
    assert [each.reason for each in said] == ["chemistry", None, "no_features"]
    assert [each.rul_cycles is None for each in said] == [True, False, True]


def test_without_a_model_that_is_the_reason(rig: Rig) -> None:
    for choice in (None, Choice([])):
        (said,) = rig.ask(rig.estimator(choice))
        assert (said.reason, said.model_id, said.rul_cycles) == ("no_model", None, None)


def test_a_model_for_other_features_is_not_run_and_not_blamed(rig: Rig) -> None:
    choice = Choice([rig.bundled(1, make_bundle(defect="feature_schema"))])
    (said,) = rig.ask(rig.estimator(choice))
    assert said.reason == "feature_schema" and choice.told == []


def test_a_file_that_has_changed_is_never_run(rig: Rig) -> None:
    model = rig.bundled(1, make_bundle())
    model.path.write_bytes(make_bundle(rul_cycles=1.0))
    choice = Choice([model])
    (said,) = rig.ask(rig.estimator(choice))
    assert said.rul_cycles is None and choice.told == ["target_hash"]


def test_questions_are_wanted_each_interval_and_none_is_made_up_for(rig: Rig) -> None:
    estimator = rig.estimator(Choice([]))
    asked = [second for second in range(31) if estimator.due(second * 10**9 + 3_000_000 * (second % 3))]
    assert asked == [0, 5, 10, 15, 20, 25, 30]
    assert [estimator.due(second * 10**9) for second in (100, 101, 104, 105)] == [True, False, False, True]


def test_only_the_newest_questions_are_answered(rig: Rig) -> None:
    estimator = rig.estimator(None)
    estimator.offer([question(1.0, "old")])
    estimator.offer([question(1.0, "new")])
    assert [said.pack_id for said in estimator.step(0.0)] == ["new"]
    assert estimator.step(0.0) == []


def test_another_active_model_answers_the_next_question(rig: Rig) -> None:
    choice = Choice([rig.bundled(1, make_bundle())])
    estimator = rig.estimator(choice)
    rig.ask(estimator)
    choice.models.insert(0, rig.bundled(2, make_bundle(counter=2, rul_cycles=300.0)))
    (said,) = rig.ask(estimator)
    assert said.model_id == "fake-2" and said.rul_cycles == pytest.approx(300.0, rel=1e-5)
    assert len(rig.started) == 2 and not Path(f"/proc/{rig.started[0].pid}").exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_replaced_within_the_same_step(rig: Rig, number: signal.Signals) -> None:
    choice = Choice([rig.bundled(1, make_bundle())], keeps=True)
    estimator = rig.estimator(choice)
    before = [rig.ask(estimator) for _ in range(4)][-1]
    os.kill(rig.started[-1].pid, number)
    assert rig.ask(estimator) == before
    assert estimator.restarts == 1 and len(rig.started) == 2
    assert choice.told == {signal.SIGKILL: [], signal.SIGSEGV: ["crash"], signal.SIGSTOP: ["timeout"]}[number]


def test_a_process_that_hangs_is_found_and_questions_wanted_before_their_time(rig: Rig) -> None:
    estimator = rig.estimator(Choice([rig.bundled(1, make_bundle())], keeps=True))
    estimator.step(0.0)
    assert estimator.due(rig.clock.now_ns) and not estimator.due(rig.clock.now_ns)
    os.kill(rig.started[-1].pid, signal.SIGSTOP)
    rig.clock.forward(1.0)
    estimator.step(0.0)
    assert estimator.due(rig.clock.now_ns)
    estimator.step(0.0)
    assert estimator.status["state"] == "running" and estimator.status["pid"] == rig.started[-1].pid


def test_a_young_model_that_is_killed_is_blamed_for_it(rig: Rig) -> None:
    """The kernel kills whoever takes the memory: a model that never answered may be why there is none."""
    choice = Choice([rig.bundled(1, make_bundle())], keeps=True)
    estimator = rig.estimator(choice)
    rig.ask(estimator)
    os.kill(rig.started[-1].pid, signal.SIGKILL)
    rig.ask(estimator)
    assert choice.told == ["crash"]


@pytest.mark.parametrize("live", ["crash", "timeout", "not_finite", "out_of_range"])
def test_a_model_that_goes_bad_makes_room_for_the_one_before(rig: Rig, live: str) -> None:
    bad = rig.bundled(2, make_bundle(counter=2, live=live, live_above=5.0))
    choice = Choice([bad, rig.bundled(1, make_bundle())], patience=int(live in ("crash", "timeout")))
    estimator = rig.estimator(choice, lambda path: Runner(path, start_s=60.0, answer_s=2.0))
    assert rig.ask(estimator, question(4.0))[0].model_id == "fake-2"
    for _ in range(3):
        (said,) = rig.ask(estimator, question(6.0))
    assert said.model_id == "fake-1" and said.reason is None
    assert choice.told == [live] * (1 + choice.patience)


def test_answers_that_cannot_be_are_withheld_and_the_others_given(rig: Rig) -> None:
    choice = Choice([rig.bundled(1, make_bundle(live="not_finite", live_above=5.0))], keeps=True)
    said = rig.ask(rig.estimator(choice), question(4.0, "A"), question(6.0, "B"))
    assert [each.reason for each in said] == [None, "not_finite"]
    assert said[1].rul_cycles is None and choice.told == ["not_finite"] and len(rig.started) == 1


def test_a_process_that_cannot_be_started_is_tried_with_pauses_and_costs_the_model_nothing(rig: Rig) -> None:
    tried: list[int] = []

    def fail(path: Path) -> Runner:
        tried.append(rig.clock.now_ns)
        raise RunnerError("runtime", "onnxruntime is not here")

    choice = Choice([rig.bundled(1, make_bundle())])
    estimator = rig.estimator(choice, fail)
    for _ in range(61):
        (said,) = rig.ask(estimator)
        rig.clock.forward(1.0)
    assert said.reason == "model_restarting" and choice.told == []
    assert 5 <= len(tried) <= 9
    assert estimator.status["problem"] == "onnxruntime is not here" and estimator.status["state"] == "down"


def test_who_measures_never_waits_for_a_process_that_hangs(rig: Rig) -> None:
    stuck, go_on = threading.Event(), threading.Event()

    def slow(path: Path) -> Runner:
        stuck.set()
        go_on.wait(10)
        raise RunnerError("timeout", "")

    estimator = rig.estimator(Choice([rig.bundled(1, make_bundle())], keeps=True), slow)
    thread = threading.Thread(target=estimator.step, args=(0.0,))
    thread.start()
    assert stuck.wait(10)
    for second in range(100):
        estimator.due(second * 10**9)
        estimator.offer([question(1.0)])
    assert estimator.status["state"] == "down"
    go_on.set()
    thread.join(10)
