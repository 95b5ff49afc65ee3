"""SIGKILL before every touch of disk and network of an update, and again in recovery: the old model or the new one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes.updates import SCHEMA, T_NS, World, world

from edge.ota.state import State
from edge.ota.store import Folder

TESTS = Path(__file__).parents[1]
STEPS = ["seen", "fetched", "verified", "probed", "activated", "proven"]


@dataclass
class Doomed:
    """The process that forks lives, and one device's folder."""

    world: World
    process: subprocess.Popen[str]
    folder: Path
    reports: Path
    base: Path
    life: dict[str, Any] = field(default_factory=dict)

    def run(self, kill_at: int | None, **more: Any) -> list[str]:
        """One life; its touches if it was not killed."""
        told = {
            "folder": str(self.folder),
            "reports": str(self.reports),
            "root": str(self.world.server.folder / "metadata" / "1.root.json"),
            "url": self.world.server.url,
            "t_ns": T_NS,
            "settings": {"feature_schema": SCHEMA, "hardware": "cpu-onnx"},
            "kill_at": kill_at,
            **self.life,
            **more,
        }
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["killed"] or answer["code"] == 0, (self.base.parent / "stderr").read_text()
        assert answer["killed"] == (kill_at is not None and not answer["names"])
        return list(answer["names"])

    def renew(self) -> None:
        """The device as it was before the update."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base, self.folder, symlinks=True)
        self.reports.unlink(missing_ok=True)

    def state(self) -> State:
        """What the disk says; what runs is whole, and no other file claims to be a bundle."""
        folder = Folder(self.folder)
        state = folder.load()
        assert state.active is not None, "never none"
        for model in filter(None, (state.active, state.previous)):
            assert folder.sound(model.sha256), f"{model.model_id} is torn"
        for file in (self.folder / "bundles").iterdir():
            assert hashlib.sha256(file.read_bytes()).hexdigest() == file.stem
        return state

    def told(self) -> list[str]:
        """What was reported, repetitions left out."""
        lines = self.reports.read_text().splitlines() if self.reports.exists() else []
        return list(dict.fromkeys(lines))


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Doomed]:
    process = subprocess.Popen(
        [sys.executable, "-m", "fakes.doomed_updates"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )
    assert process.stdout is not None and process.stdin is not None
    with world(tmp_path) as w:
        made = Doomed(w, process, tmp_path / "models", tmp_path / "reports", tmp_path / "base")
        w.updates.close()
        shutil.rmtree(tmp_path / "models")
        assert process.stdout.readline() == "ready\n"
        w.publish(1)
        made.run(None, desired="rul-1")
        assert made.state().active is not None
        shutil.copytree(made.folder, made.base, symlinks=True)
        yield made
    process.stdin.close()
    process.wait(10)


def kill_everywhere(doomed: Doomed, stride: int, again: int, seed: int) -> int:
    """An update from rul-1 to rul-2, killed at each `stride`-th point, `again` times more in recovery, then let go on.

    Returns at how many points it was killed.
    """
    chance = random.Random(seed)
    doomed.world.publish(2, size=30_000)
    doomed.life = {"desired": "rul-2"}
    doomed.renew()
    names = doomed.run(None)
    assert [told.split()[1] for told in doomed.told()] == STEPS
    points = range(1 + seed % stride, len(names) + 1, stride)
    print(f"seed {seed}: {len(points)} of {len(names)} points: {', '.join(dict.fromkeys(names))}")
    for point in points:
        doomed.renew()
        doomed.run(point)
        state = doomed.state()
        assert state.active is not None and state.active.model_id in ("rul-1", "rul-2")
        for _ in range(again):
            doomed.run(chance.randint(1, len(names)))
            state = doomed.state()
        doomed.run(None)
        state = doomed.state()
        assert state.active is not None and state.active.model_id == "rul-2" and state.active.proven
        assert state.previous is not None and state.previous.model_id == "rul-1"
        assert state.floor.counter == 2 and not state.unreported
        steps = [told.split()[1] for told in doomed.told()]
        assert sorted(steps) == sorted(STEPS), f"point {point} ({names[point - 1]}): {steps}"
        assert list((doomed.folder / "staging").iterdir()) == []
    return len(points)


def test_killed_at_some_points_and_once_more_in_recovery(doomed: Doomed) -> None:
    assert kill_everywhere(doomed, stride=8, again=1, seed=3) >= 20


@pytest.mark.slow
def test_killed_at_every_point_and_twice_more_in_recovery(doomed: Doomed) -> None:
    assert kill_everywhere(doomed, stride=1, again=2, seed=random.randrange(10**6)) >= 100


@pytest.mark.parametrize("how", [{"bad": ["not_finite"]}, {"bad": ["crash", "crash"]}, {"rollback": True}])
@pytest.mark.parametrize("good", [0, 3])
def test_killed_on_the_way_back(doomed: Doomed, how: dict[str, Any], good: int) -> None:
    doomed.world.publish(2)
    doomed.renew()
    doomed.run(None, desired="rul-2", good=good)
    shutil.rmtree(doomed.base)
    shutil.copytree(doomed.folder, doomed.base, symlinks=True)
    doomed.life = {"desired": "rul-2", "good": 0, **how}
    doomed.renew()
    names = doomed.run(None)
    for point in range(1, len(names) + 1):
        doomed.renew()
        doomed.run(point)
        killed = doomed.state().active
        assert killed is not None and killed.counter in (1, 2)
        doomed.run(None, **(how if killed.counter == 2 else {"bad": (), "rollback": False}))
        state = doomed.state()
        if state.active is not None and state.active.counter == 2:  # a crash was counted, one was not
            doomed.run(None, bad=["crash"])
            state = doomed.state()
        assert state.active is not None and state.active.counter == 1, f"point {point}: {names[point - 1]}"
        assert [told.split()[1] for told in doomed.told()] == ["rolled_back"]
