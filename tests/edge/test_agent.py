"""The agent as a real process with a real simulated car: it measures, stores, tells, and ends when asked."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.cloud import FakeCloud, served
from fakes.running import ROOT, Bench

HEAVY = ("pandas", "pyarrow", "scipy", "asammdf", "sklearn", "xgboost", "fastapi", "psycopg", "onnxruntime", "tuf")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def assert_balanced(samples: dict[str, int]) -> None:
    assert samples["acquired"] == samples["stored"] + samples["filtered"] + samples["rejected"]
    parts = ("acked", "refused", "pending", "evicted", "lost")
    assert samples["stored"] == sum(samples[part] for part in parts)


def test_without_a_cloud_every_sample_is_kept_and_the_books_balance_running_killed_and_stopped(bench: Bench) -> None:
    bench.car()
    agent = bench.agent("http://127.0.0.1:9")
    bench.until("ten samples", lambda status: status["samples"]["stored"] >= 10)
    running = bench.status()
    assert running["running"] and running["packtwin_samples_acquired"] == running["samples"]["acquired"]
    assert_balanced(running["samples"])
    agent.kill()
    agent.wait()
    killed = bench.status()
    assert not killed["running"] and killed["samples"]["pending"] >= running["samples"]["pending"]
    assert_balanced(killed["samples"])
    again = bench.agent("http://127.0.0.1:9")
    more = killed["samples"]["stored"] + 3
    bench.until("three more", lambda status: status["samples"]["stored"] >= more)
    again.send_signal(signal.SIGTERM)
    assert again.wait(60) == 0  # its last words wait for the disk
    stopped = bench.status()
    assert stopped["samples"]["lost"] == 0 and stopped["samples"]["pending"] >= more
    assert_balanced(stopped["samples"])
    assert not (bench.folder / "hot" / "running.json").exists()


@pytest.mark.slow
def test_with_a_cloud_samples_arrive_and_a_dead_bus_turns_stale_until_it_is_back(bench: Bench) -> None:
    cloud = FakeCloud(time.time_ns)
    with served(cloud) as url:
        car = bench.car()
        bench.agent(url)
        bench.until("an acknowledged sample", lambda status: status["samples"]["acked"])
        whole = bench.until("a whole scan", lambda s: s["packs"][0]["sample"]["cell_v"][0] and s["packs"][0]["sample"])
        assert whole["quality"] == {} and len(whole["cell_v"]) == 96
        car.kill()
        bench.until("stale cells", lambda s: s["packs"][0]["sample"]["quality"].get("cell_v[0]") == "stale")
        assert bench.until("the word", lambda s: s["packs"][0]["source"]["state"] == "down")
        bench.car()
        bench.until("fresh cells", lambda s: s["packs"][0]["sample"]["quality"] == {})
    assert len(cloud.rows) == 1


def test_a_second_agent_on_the_same_outbox_is_refused_in_one_sentence(bench: Bench) -> None:
    bench.agent("")
    bench.until("an agent", lambda status: True)
    second = subprocess.run(
        [sys.executable, "-m", "edge", "run", "--config", str(bench.folder / "edge.toml")],
        cwd=ROOT,
        env=bench.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2 and "in use by another agent" in second.stderr


def test_the_agent_stays_light() -> None:
    """RSS counts on a small box: what only the cloud or training needs must not be imported."""
    heard = f"print([m for m in {HEAVY!r} if m in sys.modules], 'can' in sys.modules)"
    code = f"import sys, edge.agent, edge.commands, edge.replay; {heard}"
    code += f"; from firmware_bridge import python_can; python_can.load(); {heard}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[] False", "[] True"]  # python-can only for who needs it
