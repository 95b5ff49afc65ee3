"""The model's process: right answers, its limits, and what becomes of it when it dies, hangs or is hostile."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from alive import alive, status
from fakes.bundles import DEFECTS, LIVE, expected, make_bundle

from edge.inference import Runner, RunnerError, probe
from shared import bundle as bundles
from shared.bundle import OUTPUTS, BundleError
from shared.features import NAMES

ROOT = Path(__file__).parents[2]
ONLY_BY_RUNNING = sorted(name for name, reason in DEFECTS.items() if reason in LIVE or name == "golden")
WIDTH = len(NAMES)


def written(folder: Path, body: bytes) -> Path:
    path = folder / "a.bundle"
    path.write_bytes(body)
    return path


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(written(tmp_path, make_bundle()), start_s=60.0)
    yield runner
    runner.close()


def rows(*first: float) -> np.ndarray:
    made = np.full((len(first), WIDTH), np.nan)
    made[:, 0] = first
    return made


def test_the_process_answers_what_the_graphs_say(runner: Runner, tmp_path: Path) -> None:
    asked = rows(500.0, 1500.0, np.nan)
    raw = runner.predict(asked)
    assert set(raw) == set(OUTPUTS) and raw["rul_cycles"].shape == (3,)
    for said, right in zip(bundles.answer(runner.manifest, raw, asked), expected(make_bundle(), asked), strict=True):
        assert astuple(said) == pytest.approx(astuple(right), rel=1e-5)
    runner.check()


def test_many_rows_of_a_wide_table_pass_the_pipes(runner: Runner) -> None:
    many = rows(*np.linspace(0, 2000, 5000))
    assert runner.predict(many)["p_eol_100"].shape == (5000,)


def test_the_process_holds_nothing_but_its_pipes_and_cannot_open_more(tmp_path: Path) -> None:
    """It used to keep a data base of the runtime's maker in the home folder, with what it wanted to tell him."""
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(server.fileno(), True)
        os.set_inheritable(lock.fileno(), True)
        runner = Runner(written(tmp_path, make_bundle()))
    try:
        folder = Path(f"/proc/{runner.pid}/fd")
        held = [os.readlink(each) for each in folder.iterdir()]
        assert all(name.startswith("pipe:") or name == "/dev/null" for name in held), held
        limits = Path(f"/proc/{runner.pid}/limits").read_text()
        assert "Max open files            0 " in limits
        assert Path(f"/proc/{runner.pid}/oom_score_adj").read_text().strip() == "1000"
        environment = Path(f"/proc/{runner.pid}/environ").read_bytes()
        assert b"HOME=" not in environment and b"PYTEST" not in environment
    finally:
        runner.close()
    assert not alive(runner.pid)


def test_it_stays_small(runner: Runner) -> None:
    for _ in range(200):
        runner.predict(rows(1.0))
    assert int(status(runner.pid, "VmHWM").split()[0]) * 1024 <= 128e6
    assert status(runner.pid, "Threads") == "1"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGKILL, "killed"), (signal.SIGSEGV, "crash"), (signal.SIGSTOP, "timeout")]
)
def test_a_process_that_is_gone_or_hangs_is_told_in_time(runner: Runner, number: signal.Signals, kind: str) -> None:
    os.kill(runner.pid, number)
    began = time.monotonic()
    with pytest.raises(RunnerError) as raised:
        runner.check()
    assert raised.value.kind == kind and time.monotonic() - began < 3.0
    assert not alive(runner.pid)
    with pytest.raises(RunnerError):
        runner.predict(rows(1.0))


def test_it_ends_with_its_parent_even_while_it_hangs(tmp_path: Path) -> None:
    path = written(tmp_path, make_bundle(live="timeout", live_above=5.0))
    code = (
        "import sys; import numpy as np; from pathlib import Path; from edge.inference import Runner\n"
        f"runner = Runner(Path({str(path)!r}), answer_s=60); print(runner.pid, flush=True)\n"
        f"runner.predict(np.full((1, {WIDTH}), 6.0))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)  # a poll with a deadline, not a synchronisation
    assert not alive(pid)


@pytest.mark.parametrize(("live", "kind"), [("crash", "crash"), ("timeout", "timeout")])
def test_a_model_that_goes_bad_costs_only_its_process(tmp_path: Path, live: str, kind: str) -> None:
    runner = Runner(written(tmp_path, make_bundle(live=live, live_above=5.0)), start_s=60.0, answer_s=2.0)
    assert runner.predict(rows(4.0))["rul_cycles"].size == 1
    with pytest.raises(RunnerError) as raised:
        runner.predict(rows(6.0))
    assert raised.value.kind == kind


def test_what_is_not_a_number_comes_through_for_who_judges_it(tmp_path: Path) -> None:
    runner = Runner(written(tmp_path, make_bundle(live="not_finite", live_above=5.0)))
    raw = runner.predict(rows(4.0, 6.0))
    runner.close()
    assert np.isfinite(raw["rul_cycles"]).tolist() == [True, False]


def test_a_model_that_wants_more_than_its_memory_is_refused_it(tmp_path: Path) -> None:
    path = written(tmp_path, make_bundle(live="crash", live_above=5.0))
    runner = Runner(path, memory_mb=100)
    with pytest.raises(RunnerError, match="out of memory"):
        runner.predict(rows(6.0))


def test_a_good_bundle_passes_its_probe(tmp_path: Path) -> None:
    body = make_bundle(pad_bytes=2_000_000)
    probe(written(tmp_path, body), bundles.read(body))


@pytest.mark.parametrize("defect", ONLY_BY_RUNNING)
def test_the_probe_finds_what_only_running_shows(tmp_path: Path, defect: str) -> None:
    body = make_bundle(defect=defect)
    with pytest.raises(BundleError) as raised:
        probe(written(tmp_path, body), bundles.read(body), limit_s=3.0 if defect == "timeout" else 10.0)
    assert raised.value.reason == DEFECTS[defect]


def test_an_old_runtime_is_refused_and_no_model_is_blamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime.py").write_text('__version__ = "1.26.0"\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    body = make_bundle()
    with pytest.raises(RunnerError, match=r"1\.26\.0") as raised:
        Runner(written(tmp_path, body))
    assert raised.value.kind == "runtime"
    with pytest.raises(OSError, match=r"1\.27"):
        probe(tmp_path / "a.bundle", bundles.read(body))


def test_the_agent_itself_never_holds_the_runtime() -> None:
    code = "import sys, edge.agent; print([m for m in ('onnxruntime', 'tuf', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
