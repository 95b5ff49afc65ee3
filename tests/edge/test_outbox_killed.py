"""SIGKILL at any moment: nothing acquired is lost, nothing is stored twice, the accounts agree. Seeds are printed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.cloud import FakeCloud, served
from fakes.doomed_agent import MS_NS

from edge.clock import Clock
from edge.outbox.box import Outbox
from shared.records import Event

TESTS = Path(__file__).parents[1]


def run_and_kill(flash: Path, memory: Path | None, url: str, alive_s: float) -> dict[int, dict[int, int]]:
    """One life of the agent; {boot: {seq: mono_ns}} of all that it was promised."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fakes.doomed_agent", str(flash), str(memory or ""), url],
        stdout=subprocess.PIPE,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )
    assert process.stdout is not None
    promised: dict[int, dict[int, int]] = {}
    lines = [process.stdout.readline()]  # it is up
    deadline = time.monotonic() + alive_s
    while time.monotonic() < deadline:
        lines.append(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    lines.extend(process.stdout.read().splitlines())
    process.wait()
    for line in lines:
        words = line.split()
        if len(words) == 4 and line != lines[-1]:  # the last may be cut
            boot, first, stop, mono = map(int, words)
            for i, seq in enumerate(range(first, stop)):
                promised.setdefault(boot, {})[seq] = mono + i * MS_NS
    return promised


def kill_again_and_again(folder: Path, seed: int, kills: int, *, tmpfs: bool) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    flash, memory = folder / "flash", folder / "memory" if tmpfs else None
    cloud = FakeCloud(time.time_ns)
    promised: dict[int, dict[int, int]] = {}
    cloud.refuse = lambda boot, seq: "too_old" if seq % 97 == 96 else None
    with served(cloud, seed=seed, trouble=0.2) as url:
        for _ in range(kills):
            promised.update(run_and_kill(flash, memory, url, chance.uniform(0.0, 0.35)))
    clock = Clock("system")
    outbox = Outbox(
        "device-1", flash, memory, max_bytes=64 << 20, flush_s=10, now=clock.mono_ns, kernel_boot_id="the same"
    )
    books = outbox.books()
    assert books.imbalance() == (0, 0)
    while (taken := outbox.take(1000, newest=False, undated=True)) is not None:
        outbox.settle(taken, cloud.receive(taken.batch))
    books = outbox.books()
    outbox.close()
    assert len(promised) == kills
    for boot, seqs in promised.items():
        stored, refused = cloud.rows[boot], cloud.refused[boot]
        lost = [seq for seq in seqs if seq not in stored and seq not in refused]
        assert not lost, f"{len(lost)} of {len(seqs)} lost"
        assert all(stored[seq][1] == mono for seq, mono in seqs.items() if seq in stored)
        assert not cloud.missing(boot), "no gap row arises"
    assert books.imbalance() == (0, 0)
    assert (books.pending, books.pending_other, books.lost, books.evicted) == (0, 0, 0, 0)
    assert books.acked == sum(map(len, cloud.rows.values())), "database rows = acked rows"
    events = [r.id for told in cloud.others.values() for r in told.values() if isinstance(r, Event)]
    assert len(events) == len(set(events))


@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_few_kills_lose_nothing_and_double_nothing(tmp_path: Path, tmpfs: bool) -> None:
    kill_again_and_again(tmp_path, seed=3, kills=4, tmpfs=tmpfs)


@pytest.mark.slow
@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_hundred_kills_lose_nothing_and_double_nothing(tmp_path: Path, tmpfs: bool) -> None:
    kill_again_and_again(tmp_path, seed=random.randrange(10**6), kills=60, tmpfs=tmpfs)
