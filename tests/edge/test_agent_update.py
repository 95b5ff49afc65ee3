"""A real agent is killed at every step of an update and in recovery: the old model or the new one, and on it goes."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.bundles import make_bundle
from fakes.cloud import FakeCloud
from fakes.image_server import PREFIX, ImageServer, serving
from fakes.running import Bench
from fakes.tuf_repo import TufRepo

from edge.ota.state import State
from edge.ota.store import Folder
from shared.bundle import HARDWARE
from shared.features import schema_id
from shared.records import Report

pytestmark = pytest.mark.slow
STEPS = ["seen", "fetched", "verified", "probed", "activated", "proven"]


class Car:
    """A real agent, the cloud that it talks to, and its models as the disk has them."""

    def __init__(self, folder: Path, server: ImageServer, bench: Bench) -> None:
        self.folder, self.server, self.bench = folder, server, bench
        self.models = Folder(folder / "data" / "models")
        self.repo = TufRepo(server.folder, time.time_ns())
        (folder / "root.json").write_bytes(self.repo.root)
        self.cloud = server.cloud = FakeCloud(time.time_ns)
        self.kills = 0

    def publish(self, counter: int, pad_bytes: int = 0) -> str:
        """Signs a bundle and desires it."""
        body = make_bundle(counter, pad_bytes=pad_bytes)
        custom = {"counter": counter, "hardware": HARDWARE, "feature_schema": schema_id()}
        self.repo.add(f"fake-{counter}.bundle", body, custom)
        self.repo.publish()
        self.server.desired = f"fake-{counter}"
        return self.server.desired

    def start(self) -> subprocess.Popen[bytes]:
        """The agent."""
        return self.bench.agent(self.server.url, 'trust_root = "root.json"\nprediction_s = 0.5\n')

    def state(self) -> State:
        """What the disk says: what runs is whole, and is the old model or the new one."""
        state = self.models.load()
        for model in filter(None, (state.active, state.previous)):
            body = self.models.bundle(model.sha256).read_bytes()
            assert hashlib.sha256(body).hexdigest() == model.sha256
        return state

    def until(self, check: Callable[[State], bool], why: str) -> State:
        """Waits for the disk to say so."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = self.models.load()
            if check(state):
                return state
            time.sleep(0.002)  # a poll with a deadline: this is where the kill comes from
        raise AssertionError(f"{why}: {self.models.load()}")

    def kill(self, agent: subprocess.Popen[bytes]) -> None:
        """SIGKILL, and a look at what is left."""
        agent.kill()
        agent.wait()
        self.kills += 1
        active = self.state().active
        assert active is not None and active.model_id in ("fake-1", "fake-2")

    def reports(self) -> list[str]:
        """The steps that have arrived of fake-2, each once."""
        found = [each for told in self.cloud.others.values() for each in told.values() if isinstance(each, Report)]
        return list(dict.fromkeys(each.step for each in found if each.model_id == "fake-2"))


@pytest.fixture
def car(tmp_path: Path) -> Iterator[Car]:
    server, bench = ImageServer(tmp_path / "image"), Bench(tmp_path)
    with serving(server):
        yield Car(tmp_path, server, bench)
        bench.close()


def test_sigkill_at_each_request_and_each_step_of_an_update(car: Car) -> None:
    car.publish(1)
    agent = car.start()
    car.until(lambda state: state.active is not None, "the first model")
    car.kill(agent)
    car.publish(2, pad_bytes=1_000_000)
    car.server.cut_bytes = 64 << 10
    running: list[subprocess.Popen[bytes]] = []
    asked = 0

    def kill_on_request(path: str) -> None:
        nonlocal asked
        if path.startswith(PREFIX) and running:
            asked += 1
            if asked > 1 + (car.kills % 3):  # each life gets a little further, some hardly start
                running.pop().kill()

    car.server.on_request = kill_on_request
    while car.kills < 14:
        asked = 0
        agent = car.start()
        running[:] = [agent]
        agent.wait(60)
        car.kill(agent)
    car.server.on_request = lambda path: None
    assert 0 < car.models.part(car.state().candidate.sha256).stat().st_size < 1_000_000  # type: ignore[union-attr, arg-type]
    for step in ("fetched", "verified", "probed"):
        for _ in range(2):
            agent = car.start()
            car.until(lambda state, step=step: reached(state, step), step)  # type: ignore[misc]
            car.kill(agent)
    for _ in range(2):
        agent = car.start()
        car.until(lambda state: state.active is not None and state.active.counter == 2, "activated")
        car.kill(agent)
    print(f"{car.kills} kills")
    assert car.kills >= 20
    agent = car.start()
    car.until(lambda state: not state.unreported, "reported")
    state = car.state()
    assert state.active is not None and state.active.model_id == "fake-2"
    assert state.previous is not None and state.previous.model_id == "fake-1"
    deadline = time.monotonic() + 30
    while car.reports() != STEPS[:5]:
        assert time.monotonic() < deadline, car.reports()
        time.sleep(0.1)  # a poll with a deadline, not a synchronisation


def reached(state: State, step: str) -> bool:
    """At least as far as that."""
    if state.active is not None and state.active.counter == 2:
        return True
    return state.candidate is not None and STEPS.index(state.candidate.step) >= STEPS.index(step)
