"""Nothing lost, nothing twice, from a gateway's messages on a broker: agent, API and database killed by a seed.

Each message has a number as its current, one more than the one before. A Sample tells the least and the greatest of the
currents in it, so that a message that is in no Sample would be seen.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.agents import Agent
from e2e.kills import kill_each, kill_seed
from e2e.stack import Stack
from e2e.whole import assert_an_agent_is_whole
from waiting import until

from edge.mqtt import Broker, Link

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLS = 10
PERIOD_S = 0.15
MAPPING = """[mqtt]
topic = "gate/state"
[fields]
pack_v = { from = "v" }
current_a = { from = "n", resolution = 1.0 }
"""


@dataclass(frozen=True, kw_only=True)
class BrokerAgent(Agent):
    """An agent whose pack is on the stack's broker."""

    def toml(self, folder: Path, urls: dict[str, str], model: bool) -> str:
        (folder / "gate.toml").write_text(MAPPING)
        broker = urls["mqtt"]
        return super().toml(folder, urls, model) + (
            f'[[source]]\npack_id = "GATE"\ntype = "mqtt"\nmapping = "gate.toml"\nurl = "{broker}"\n'
        )


class Publisher:
    """Publishes a number after the other with QoS 1, each known to be at the broker before the next."""

    def __init__(self, port: int) -> None:
        self._link = Link(Broker(host="127.0.0.1", port=port, tls=False), "gate", will=None, on_message=lambda _: None)
        self._link.open()
        self._over = threading.Event()
        self.published = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            number = self._link.publish("gate/state", json.dumps({"v": 52.0, "n": self.published + 1}).encode())
            assert self._link.wait(lambda number=number: self._link.outcome(number) is not None, 10)
            self.published += 1

    def finish(self) -> int:
        """How many were published."""
        self._over.set()
        self._thread.join(15)
        self._link.close()
        return self.published


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, agents=[BrokerAgent(cars=range(0))]) as stack:
        stack.start("database", "mosquitto", "api", "agent")
        yield stack


def test_every_message_is_in_a_sample_and_every_sample_is_there_once(stack: Stack) -> None:
    rng = random.Random(kill_seed())
    plan = ["agent"] * KILLS + ["api"] * 3 + ["database"] * 2
    rng.shuffle(plan)
    publisher = Publisher(stack.mqtt_port)
    until("rows arrive", lambda: stack.query("SELECT count(*) FROM samples")[0][0] > 3, 60)
    kill_each(stack, plan, rng, up_s=(0.3, 3.0), down_s=(0.0, 3.0))
    time.sleep(3)
    published = publisher.finish()
    until("the last message is in a Sample", lambda: _numbers(stack)[-1:] == [published], 60)
    assert_an_agent_is_whole(stack, "agent", least_rows=20, least_boots=KILLS // 2)  # older rows go up after newer ones
    numbers = _numbers(stack)
    first = numbers[0]
    assert numbers == list(range(first, published + 1)), f"lost: {sorted(set(range(first, published)) - set(numbers))}"
    assert first <= 20, "the session began with the agent's first start"
    print(f"{published} messages, {len(plan)} kills, none lost")


def _numbers(stack: Stack) -> list[int]:
    """The numbers of the messages that Samples have seen. Those between least and greatest have come between them."""
    rows = stack.query("SELECT current_a_min, current_a_max FROM samples WHERE current_a_min IS NOT NULL")
    return sorted({n for lo, hi in rows for n in range(round(lo), round(hi) + 1)})
