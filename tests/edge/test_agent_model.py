"""The agent with a model, as real processes: it answers, and whatever becomes of the model costs no frame."""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alive import alive
from fakes.bundles import make_bundle
from fakes.cloud import FakeCloud, served
from fakes.running import Bench, install, write_pasts
from free_ports import free_port

from shared.records import Estimate

pytestmark = pytest.mark.slow
BACK_S = 5.0
INTERVAL = "prediction_s = 1.0\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud(time.time_ns)


@pytest.fixture
def url(cloud: FakeCloud) -> Iterator[str]:
    with served(cloud) as url:
        yield url


def said(status: dict[str, Any]) -> dict[str, Any] | None:
    """The pack's Estimate, if it has an answer that is fresh."""
    estimate = status["packs"][0]["estimate"]
    return estimate if estimate and estimate["rul_cycles"] is not None and estimate["age_s"] < 2.5 else None


def process(status: dict[str, Any]) -> dict[str, Any]:
    return status["model"]["inference"]  # type: ignore[no-any-return]


def running(status: dict[str, Any]) -> int | None:
    return process(status)["pid"] if process(status)["state"] == "running" else None


def start(bench: Bench, url: str, *bodies: bytes, settings: str = INTERVAL) -> dict[str, Any]:
    """A car and an agent with a model and a past; waits for its first answer."""
    if bodies:
        install(bench.folder / "data", *bodies)
    bench.car()
    bench.agent(url, settings, past=write_pasts(bench.folder / "pasts", bench.packs))
    return bench.until("an answer", lambda status: said(status) and status)


def samples(cloud: FakeCloud) -> list[int]:
    """mono_ns of all Samples that arrived, in order of time."""
    return sorted(mono for rows in cloud.rows.values() for _, mono, _ in rows.values())


def test_an_installed_model_answers_and_its_answer_goes_up(bench: Bench, cloud: FakeCloud, url: str) -> None:
    status = start(bench, url, make_bundle())
    answer = said(status)
    assert answer is not None
    assert answer["rul_cycles"] == pytest.approx(800.0, rel=1e-5) and answer["model_id"] == "fake-1"
    model = bench.status()["model"]
    assert model["active"]["model_id"] == "fake-1" and model["inference"]["state"] == "running"

    def arrived() -> bool:
        found = [each for told in cloud.others.values() for each in told.values() if isinstance(each, Estimate)]
        return any(each.rul_cycles is not None and each.model_id == "fake-1" for each in found)

    bench.until("the Estimate in the cloud", lambda status: arrived())


def test_without_a_model_that_is_said(bench: Bench, url: str) -> None:
    bench.car()
    bench.agent(url, INTERVAL)
    reason = bench.until("a reason", lambda s: s["packs"][0]["estimate"] and s["packs"][0]["estimate"]["reason"])
    assert reason == "no_model"
    assert bench.status()["model"]["active"] is None


def test_a_pack_without_a_session_has_no_features(bench: Bench, url: str) -> None:
    install(bench.folder / "data", make_bundle())
    bench.car()
    bench.agent(url, INTERVAL)
    assert bench.until("the reason", lambda s: (s["packs"][0]["estimate"] or {}).get("reason") == "no_features")


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_a_model_process_that_dies_or_hangs_is_back_and_no_frame_is_lost(
    bench: Bench, cloud: FakeCloud, url: str, number: signal.Signals
) -> None:
    start(bench, url, make_bundle(), settings="")  # the documented interval of 5 s
    frame_rate_hz(bench, 2.0)  # what waited on the bus before the agent started is read
    before = bench.until("a process", lambda status: running(status) and status)
    pid, frames = running(before), before["packs"][0]["source"]["frames"]
    assert pid is not None
    since = time.monotonic()
    os.kill(pid, number)

    def back(status: dict[str, Any]) -> bool:
        answer = said(status)
        fresh = answer is not None and answer["age_s"] < time.monotonic() - since
        return fresh and running(status) not in (None, pid)

    bench.until("an answer", back)
    back_s = time.monotonic() - since
    print(f"{number.name}: an answer of a new process after {back_s:.2f} s")
    assert back_s <= BACK_S
    after = bench.until("six seconds", lambda status: time.monotonic() - since > 6 and status)
    read = after["packs"][0]["source"]["frames"] - frames
    rate_hz = frame_rate_hz(bench, 4.0)
    print(f"{read} frames in the 6 s since, {rate_hz:.0f} a second afterwards")
    assert read >= 0.95 * rate_hz * 6
    assert after["packs"][0]["source"]["errors"] == {}
    assert max(b - a for a, b in itertools.pairwise(samples(cloud))) < 0.4e9  # one each 0.2 s, throughout
    assert after["model"]["active"]["model_id"] == "fake-1"


def frame_rate_hz(bench: Bench, seconds: float) -> float:
    """How many frames come in."""
    marks = []
    for _ in range(2):
        status = bench.until("a status", lambda status: status)
        marks.append((time.monotonic(), status["packs"][0]["source"]["frames"]))
        time.sleep(seconds)  # it is a rate that is wanted
    (since, first), (until, last) = marks
    return float((last - first) / (until - since))


@pytest.mark.parametrize("live", ["crash", "timeout", "not_finite"])
def test_a_model_that_goes_bad_makes_room_for_the_one_before(bench: Bench, url: str, live: str) -> None:
    bad = make_bundle(counter=2, live=live, live_above=-1.0)  # for any pack that knows its cycles
    install(bench.folder / "data", bad, make_bundle())
    bench.car()
    bench.agent(url, INTERVAL, past=write_pasts(bench.folder / "pasts", bench.packs))
    status = bench.until("the one before", lambda s: said(s) and said(s)["model_id"] == "fake-1" and s)  # type: ignore[index]
    assert status["model"]["last"] | {"t_ns": 0} == {"step": "rolled_back", "reason": live, "t_ns": 0}
    assert status["model"]["previous"] is None
    assert status["samples"]["rejected"] == 0


@pytest.mark.e2e
def test_a_killed_agent_gives_the_same_answer_again_within_an_interval(bench: Bench, url: str) -> None:
    install(bench.folder / "data", make_bundle())
    bench.car()
    pasts = write_pasts(bench.folder / "pasts", bench.packs)
    answers = []
    for _ in range(2):
        agent = bench.agent(url, "", past=pasts)
        bench.until("it runs", lambda s: s["packs"][0]["sample"])
        since = time.monotonic()
        answers.append(bench.until("an answer", said))
        print(f"an answer {time.monotonic() - since:.2f} s after the first sample")
        assert time.monotonic() - since <= BACK_S
        child = running(bench.page() or {})
        agent.kill()
        agent.wait()
        (bench.folder / "hot" / "running.json").unlink()
        assert child is not None and not alive_within(child, 2.0)
    same = ("rul_cycles", "rul_cycles_lo", "rul_cycles_hi", "failure_probability", "in_domain", "model_id")
    assert [answers[0][name] for name in same] == [answers[1][name] for name in same]


def alive_within(pid: int, seconds: float) -> bool:
    """Whether the process is still alive after that time at most."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not alive(pid):
            return False
        time.sleep(0.02)  # a poll with a deadline, not a synchronisation
    return True


def test_metrics_carry_the_prediction(bench: Bench, url: str) -> None:
    port = free_port()
    install(bench.folder / "data", make_bundle())
    bench.car()
    bench.environment["METRICS_PORT"] = str(port)
    bench.agent(url, INTERVAL, past=write_pasts(bench.folder / "pasts", bench.packs))
    bench.until("an answer", said)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert re.search(r'battery_rul_cycles{battery_id="BATTERY_001"} (799\.9|800\.0)', text)
    assert 'battery_predictions_total{battery_id="BATTERY_001"} ' in text and "packtwin_inference_up 1.0" in text
