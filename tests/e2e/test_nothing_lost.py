"""Nothing lost, nothing twice: agent, API and database killed again and again under load, by a printed seed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from e2e.devices import Load
from e2e.stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CARS = 4
KILLS = 10
OPEN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND backend_xid IS NOT NULL"""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, cars=CARS) as stack:
        stack.start("database", "api", "sim", "agent")
        yield stack


def sees_open_transaction(stack: Stack, patience_s: float = 3.0) -> bool:
    """Watches until some other backend has written in a transaction that is still open."""
    try:
        with psycopg.connect(
            host=stack.login.host,
            port=stack.login.port,
            dbname=stack.login.name,
            user=stack.login.user,
            password=stack.login.password,
            autocommit=True,
        ) as watcher:
            deadline = time.monotonic() + patience_s
            while time.monotonic() < deadline:
                row = watcher.execute(OPEN_TRANSACTION).fetchone()
                if row is not None and row[0]:
                    return True
    except psycopg.Error:
        pass
    return False


def test_zero_lost_and_zero_twice_after_thirty_kills(stack: Stack) -> None:
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"KILL_SEED={seed}")
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
        print(f"kills that hit an open transaction: {in_transaction}, batches sent again: "
              f"{sum(device.resent for device in load.devices)}")  # fmt: skip
    assert all(count >= 3 for count in in_transaction.values()), in_transaction
    assert_synthetic_devices_are_whole(stack, load)
    assert_the_agent_is_whole(stack)


def assert_synthetic_devices_are_whole(stack: Stack, load: Load) -> None:
    rows = stack.query("SELECT device, count(*), count(DISTINCT seq), max(seq) FROM samples GROUP BY device")
    found = {device: tuple(numbers) for device, *numbers in rows}
    wrong = {
        device.name: (found.get(device.name), device.acked)
        for device in load.devices
        if found.get(device.name) != (device.acked, device.acked, device.acked - 1)
    }
    assert not wrong, f"(rows, distinct, highest) against acked: {dict(list(wrong.items())[:5])}"


def assert_the_agent_is_whole(stack: Stack) -> None:
    books = at_rest(stack)
    print(f"books at rest: {books}")
    assert books["acquired"] == books["stored"] + books["filtered"] + books["rejected"]
    parts = ("acked", "refused", "pending", "evicted", "lost")
    assert books["stored"] == sum(books[part] for part in parts)
    assert (books["refused"], books["pending"], books["evicted"], books["lost"]) == (0, 0, 0, 0)
    ((rows, distinct),) = stack.query(
        "SELECT count(*), count(DISTINCT (boot, seq)) FROM samples WHERE device = 'e2e-agent'"
    )
    assert rows == distinct == books["acked"] > 20 * CARS
    assert stack.query("SELECT * FROM gaps WHERE device = 'e2e-agent'") == []
    received = stack.query(
        """SELECT boot, ranges::text, lower(ranges), upper(ranges) FROM received JOIN device USING (device_key)
           WHERE device = 'e2e-agent'"""
    )
    assert len(received) > KILLS // 2  # a boot that was killed before its first sample leaves nothing
    for boot, ranges, first, after in received:
        assert (ranges, first) == (f"{{[0,{after})}}", 0), f"boot {boot} has holes: {ranges}"


def at_rest(stack: Stack) -> dict[str, Any]:
    """The books of the agent, frozen at a moment when nothing is pending."""
    agent = stack.children["agent"]

    def frozen() -> dict[str, Any] | None:
        if stack.books()["pending"]:
            return None
        agent.send_signal(signal.SIGSTOP)
        books = stack.books()
        if books["pending"]:
            agent.send_signal(signal.SIGCONT)
            return None
        return books

    try:
        return until("the agent has nothing pending", frozen, 60)
    finally:
        agent.send_signal(signal.SIGCONT)
