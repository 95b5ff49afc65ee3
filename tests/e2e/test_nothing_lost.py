"""Nothing lost, nothing twice: agent, API and database killed again and again under load, by a printed seed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.devices import Load
from e2e.kills import kill_seed
from e2e.stack import Stack
from e2e.whole import assert_an_agent_is_whole, assert_synthetic_devices_are_whole, sees_open_transaction
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CARS = 4
KILLS = 10


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, cars=CARS) as stack:
        stack.start("database", "api", "sim", "agent")
        yield stack


def test_zero_lost_and_zero_twice_after_thirty_kills(stack: Stack) -> None:
    seed = kill_seed()
    rng = random.Random(seed)
    plan = ["agent", "api", "database"] * KILLS
    rng.shuffle(plan)
    in_transaction = {"api": 0, "database": 0}
    with Load(stack.api, count=200, per_s=200, seed=seed) as load:
        until("first rows arrive", lambda: stack.query("SELECT count(*) FROM samples")[0][0] > 500, 60)
        for victim in plan:
            time.sleep(rng.uniform(0.2, 2.0))
            if victim in in_transaction and sees_open_transaction(stack):
                in_transaction[victim] += 1
            stack.kill(victim)
            time.sleep(rng.uniform(0.0, 1.0))
            stack.start(victim)
        time.sleep(3)
        load.finish()
        print(f"kills that hit an open transaction: {in_transaction}, batches sent again: {load.resent}")
    assert all(count >= 3 for count in in_transaction.values()), in_transaction
    assert_synthetic_devices_are_whole(stack, load)
    assert_an_agent_is_whole(stack, "agent", least_rows=20 * CARS, least_boots=KILLS // 2)
