"""Nothing lost, nothing twice, from cars that are asked over CAN: agent, cloud and the cars killed by a seed."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from e2e.agents import Agent
from e2e.kills import kill_each, kill_seed
from e2e.stack import ROOT, Part, Stack
from e2e.whole import assert_an_agent_is_whole
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLS = 10
CARS = {"kona": 0.25, "leaf": 0.75}
"""What each says of its state of charge."""


@dataclass(frozen=True, kw_only=True)
class AskingAgent(Agent):
    """An agent that asks cars, each behind an adapter of its own, by the mappings that ship."""

    def toml(self, folder: Path, urls: dict[str, str], model: bool) -> str:
        head = Agent(**{**self.__dict__, "cars": range(0)}).toml(folder, urls, model)
        return head + "".join(
            f'[[source]]\npack_id = "{vehicle}"\ninterface = "slcan"\nchannel = "{folder / vehicle}.port"\n'
            f'poll = true\nmapping = "{vehicle}.toml"\n'
            for vehicle in CARS
        )


def _car(folder: Path, vehicle: str, soc: float) -> list[str]:
    script = ROOT / "tests" / "fakes" / "slcan_car.py"
    return [sys.executable, str(script), f"{folder / vehicle}.port", vehicle, str(soc)]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, agents=[AskingAgent(cars=range(0))]) as stack:
        for vehicle, soc in CARS.items():
            port = Path(f"{tmp_path / vehicle}.port")
            stack.parts[vehicle] = Part(partial(_car, tmp_path, vehicle, soc), port.exists)
        stack.start("database", "api", *CARS, "agent")
        yield stack


def test_zero_lost_and_zero_twice_whatever_is_killed(stack: Stack) -> None:
    rng = random.Random(kill_seed())
    plan = ["agent"] * KILLS + ["api"] * 3 + ["database"] * 2 + [*CARS] * 2
    rng.shuffle(plan)
    counts = "SELECT pack_id, count(*) FROM samples GROUP BY pack_id"
    until("rows of every car arrive", lambda: len(stack.query(counts)) == len(CARS), 60)
    kill_each(stack, plan, rng, up_s=(0.5, 3.0), down_s=(0.0, 1.0))
    time.sleep(5)
    assert_an_agent_is_whole(stack, "agent", least_rows=len(CARS) * 20, least_boots=KILLS // 2)
    # What was asked of one car is never another's answer, and what is whole is right.
    told = "SELECT DISTINCT pack_id, soc_bms FROM samples WHERE soc_bms IS NOT NULL"
    assert set(stack.query(told)) == set(CARS.items())
    whole = stack.query(
        "SELECT pack_id, count(*) FROM samples WHERE array_position(cell_v, NULL) IS NULL AND cell_v <> '{}' GROUP BY 1"
    )
    assert {pack for pack, count in whole if count > 10} == set(CARS), whole
