"""Nothing lost, nothing twice: what a device got Receipts for, against what the database has of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from e2e.devices import Load
from e2e.stack import Stack, fetch
from waiting import until

ARRIVED_S = 60.0
"""What has a Receipt may wait on the bus so long."""

OPEN_TRANSACTION = """
    SELECT count(*) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND backend_xid IS NOT NULL"""


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


def assert_synthetic_devices_are_whole(stack: Stack, load: Load) -> None:
    """Every record that was acknowledged is there once, and nothing else."""
    wanted = {device.name: (device.acked, device.acked, device.acked - 1) for device in load.devices}
    acked = sum(device.acked for device in load.devices)
    until("what was acknowledged is in the database", lambda: _rows(stack, load) >= acked, ARRIVED_S)
    rows = stack.query("SELECT device, count(*), count(DISTINCT seq), max(seq) FROM samples GROUP BY device")
    found = {device: tuple(numbers) for device, *numbers in rows}
    wrong = {name: (found.get(name), one) for name, one in wanted.items() if found.get(name) != one}
    assert not wrong, f"(rows, distinct, highest) against acked: {dict(list(wrong.items())[:5])}"


def _rows(stack: Stack, load: Load) -> int:
    names = [device.name for device in load.devices]
    return int(stack.query("SELECT count(*) FROM samples WHERE device = ANY(%s)", names)[0][0])


def assert_an_agent_is_whole(stack: Stack, name: str, least_rows: int, least_boots: int) -> None:
    """Its books balance, and the database has what they say is acknowledged: every seq of every boot, once."""
    device = stack.agents[name].device
    with at_rest(stack, name) as books:
        print(f"books of {name} at rest: {books}")
        assert books["acquired"] == books["stored"] + books["filtered"] + books["rejected"]
        parts = ("acked", "refused", "pending", "evicted", "lost")
        assert books["stored"] == sum(books[part] for part in parts)
        assert (books["refused"], books["pending"], books["evicted"], books["lost"]) == (0, 0, 0, 0)
        counts = "SELECT count(*), count(DISTINCT (boot, seq)) FROM samples WHERE device = %s"
        until("the agent's rows arrive", lambda: stack.query(counts, device)[0][0] >= books["acked"], ARRIVED_S)
        ((rows, distinct),) = stack.query(counts, device)
        assert rows == distinct == books["acked"] > least_rows
        assert stack.query("SELECT * FROM gaps WHERE device = %s", device) == []
        received = stack.query(
            """SELECT boot, ranges::text, lower(ranges), upper(ranges) FROM received JOIN device USING (device_key)
               WHERE device = %s""",
            device,
        )
    assert len(received) > least_boots  # a boot that was killed before its first sample leaves nothing
    for boot, ranges, first, after in received:
        assert (ranges, first) == (f"{{[0,{after})}}", 0), f"boot {boot} has holes: {ranges}"


def _waits(status: dict[str, Any] | None) -> bool:
    """Whether anything is still to be sent: a Gap or an Event has its seq, too."""
    return status is None or bool(status["samples"]["pending"] or status["outbox"]["pending_other"])


@contextmanager
def at_rest(stack: Stack, name: str) -> Iterator[dict[str, Any]]:
    """The books of an agent at a moment when nothing is pending; until the end it stands still."""
    agent = stack.children[name]
    page = f"http://127.0.0.1:{stack.agents[name].page_port}/status.json"

    def frozen() -> dict[str, Any] | None:
        if _waits(fetch(page)):
            return None
        agent.send_signal(signal.SIGSTOP)
        status = stack.status(name)
        if _waits(status):
            agent.send_signal(signal.SIGCONT)
            return None
        return dict(status["samples"])

    try:
        yield until(f"{name} has nothing pending", frozen, 120)
    finally:
        agent.send_signal(signal.SIGCONT)
