"""Nothing lost, nothing twice, over Kafka and by both roads: every process killed again and again, by a printed seed.

Kafka, Mosquitto, database, ingest, gateway, API and two agents; a supervisor starts again what has ended, and that is
all that anybody does. Some kills wait until all works again, others meet a stack that is still down in part.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.agents import Agent
from e2e.devices import Load
from e2e.kills import kill_seed
from e2e.stack import START_S, Stack
from e2e.whole import assert_an_agent_is_whole, assert_synthetic_devices_are_whole, sees_open_transaction
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1800)]  # minutes, more on a busy machine

CARS = 4
KILLS = int(os.environ.get("KILLS", "10"))  # of each
DEVICES, BATCHES_PER_S = 100, 100.0  # of each road
AGENTS = (
    Agent(name="agent-http", device="e2e-http", cars=range(1, 3)),
    Agent(name="agent-mqtt", device="e2e-mqtt", cars=range(3, 5), road="mqtt"),
)
SERVERS = ("database", "mosquitto", "kafka", "ingest", "gateway", "api")
VICTIMS = (*SERVERS, *(agent.name for agent in AGENTS))
CALM = 0.5
"""So many of the kills wait until everything works."""
RECOVERED_S = START_S


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, cars=CARS, brokers=1, agents=AGENTS) as stack:
        stack.start(*SERVERS, "sim", "agent")
        yield stack


class Supervisor:
    """Starts again what has ended, and does nothing else."""

    def __init__(self, stack: Stack, loads: tuple[Load, ...]) -> None:
        self.stack, self.loads = stack, loads
        self.ended: Counter[str] = Counter()
        """Which parts ended without having been killed."""

    def tend(self) -> None:
        """One look at everything."""
        for name in VICTIMS:
            child = self.stack.children[name]
            if child.poll() is not None:
                self.ended[f"{name} exit {child.returncode}"] += 1
                self.stack.spawn(name)
        for load in self.loads:
            if load.error is not None:
                raise load.error

    def wait(self, what: str, *names: str) -> None:
        """Until these parts answer."""

        def answer() -> bool:
            self.tend()
            return all(self.stack.parts[name].answers() for name in names)

        until(what, answer, RECOVERED_S)

    def calm(self) -> None:
        """Until everything answers and each road has brought Receipts anew."""
        self.wait("everything answers", *VICTIMS)
        before = [load.receipts for load in self.loads]

        def flows() -> bool:
            self.tend()
            return all(load.receipts > count + 20 for load, count in zip(self.loads, before, strict=True))

        until("both roads are open", flows, RECOVERED_S)


def test_zero_lost_and_zero_twice_whatever_is_killed(stack: Stack) -> None:
    seed = kill_seed()
    rng = random.Random(seed)
    plan = list(VICTIMS) * KILLS
    rng.shuffle(plan)
    in_transaction = {"ingest": 0, "database": 0}
    began_s = time.monotonic()
    by_http = Load(stack.api, DEVICES, BATCHES_PER_S, seed, name="http")
    by_mqtt = Load(stack.mqtt, DEVICES, BATCHES_PER_S, seed, name="mqtt")
    supervisor = Supervisor(stack, (by_http, by_mqtt))
    with by_http, by_mqtt:
        until("first rows arrive", lambda: stack.query("SELECT count(*) FROM samples")[0][0] > 500, 60)
        for victim in plan:
            time.sleep(rng.uniform(0.1, 1.0))
            if rng.random() < CALM:
                supervisor.calm()
            else:
                supervisor.wait(f"{victim} answers", victim)
            if victim in in_transaction and sees_open_transaction(stack, patience_s=2.0):
                in_transaction[victim] += 1
            stack.kill(victim)
            time.sleep(rng.uniform(0.0, 0.6))
            stack.spawn(victim)
        supervisor.calm()
        for load in supervisor.loads:
            load.finish()
    print(
        f"{len(plan)} kills in {time.monotonic() - began_s:.0f} s; in an open transaction: {in_transaction}; "
        f"ended by themselves: {dict(supervisor.ended)}"
    )
    for load in supervisor.loads:
        print(
            f"{load.url}: {load.receipts} batches, {load.resent} sent again, longest wait of a device "
            f"{load.longest_wait_s:.1f} s, longest time without any Receipt {load.longest_pause_s:.1f} s"
        )
        assert_synthetic_devices_are_whole(stack, load)
    for agent in AGENTS:
        assert_an_agent_is_whole(stack, agent.name, least_rows=20 * len(agent.cars), least_boots=KILLS // 2)
    assert stack.query("SELECT count(*) FROM rejects") == [(0,)]
    assert all(count >= 3 for count in in_transaction.values()), in_transaction
