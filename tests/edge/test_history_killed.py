"""SIGKILL at any moment: every Reading whose step returned is kept, no Session is lost. Seeds are printed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.readings import EVERY_S, PACK, SECOND_NS, reading

from edge.history import FeatureStore
from shared.features import History, Meter
from shared.record_lines import from_line
from shared.records import Session

TESTS = Path(__file__).parents[1]


def run_and_kill(folder: Path, memory: Path | None, alive_s: float) -> tuple[int, int]:
    """One life; (the first Reading that it took, the last that it promised to keep)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fakes.doomed_history", str(folder), str(memory or ""), str(folder / "sessions.jsonl")],
        stdout=subprocess.PIPE,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )
    assert process.stdout is not None
    begin = process.stdout.readline()
    lines = []
    deadline = time.monotonic() + alive_s
    while time.monotonic() < deadline:
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.read().splitlines(keepends=True)
    process.wait()
    whole = [line for line in lines if line.endswith(b"\n")]
    first = int(begin.split()[1])
    return first, int(whole[-1].split()[1]) if whole else first - 1


def kept_reading(folder: Path, memory: Path | None) -> tuple[FeatureStore, int]:
    """What is kept now, and the number of the newest Reading in it."""
    store = FeatureStore(memory, folder)
    store.open(PACK)
    last_t_ns = store.meter(PACK.pack_id).last_t_ns
    return store, -1 if last_t_ns is None else (last_t_ns - 10**18) // SECOND_NS // EVERY_S


def kill_again_and_again(folder: Path, seed: int, kills: int, *, tmpfs: bool) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    folder.mkdir(exist_ok=True)
    memory = folder / "memory" if tmpfs else None
    meter, history, ended = Meter(PACK), History(), []
    for _ in range(kills):
        first, promised = run_and_kill(folder, memory, chance.uniform(0.0, 0.3))
        store, last = kept_reading(folder, memory)
        assert promised <= last <= promised + 1, "what was promised is kept, and at most the step in flight beyond"
        meter = Meter(PACK, meter.to_bytes())
        for k in range(first, last + 1):
            if session := meter.feed(reading(k)):
                history.add(session)
                ended.append(session)
        assert store.meter(PACK.pack_id).to_bytes() == meter.to_bytes()
        assert store.history(PACK.pack_id).to_bytes() == history.to_bytes()
    told = [from_line(line, "") for line in (folder / "sessions.jsonl").read_text().splitlines()]
    told += store.step(PACK.pack_id, reading(last + 1))
    assert ended and all(isinstance(record, Session) for record in told)
    assert {record.t_ns for record in told} >= {session.t_ns for session in ended}
    assert len(told) - len(ended) <= kills, "one goes up twice only when it was killed in between"


@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_few_kills_lose_no_step(tmp_path: Path, tmpfs: bool) -> None:
    kill_again_and_again(tmp_path / "f", seed=5, kills=5, tmpfs=tmpfs)


@pytest.mark.slow
@pytest.mark.parametrize("tmpfs", [True, False])
def test_sixty_kills_lose_no_step(tmp_path: Path, tmpfs: bool) -> None:
    kill_again_and_again(tmp_path / "f", seed=random.randrange(10**6), kills=60, tmpfs=tmpfs)
