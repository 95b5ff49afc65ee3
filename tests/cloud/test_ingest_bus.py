"""The direct bus answers only for what is durable, through restarts and kills of the real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from fake_batches import SECOND_NS, batch, block, layout

from cloud import bus_direct, db
from cloud.bus import BusAway
from cloud.bus_direct import DirectBus
from cloud.config import Config, Database
from cloud.ingest import Outcome
from shared.batch import Batch
from shared.records import Event, Receipt, Rejected

SMALL = layout(cells=4, temps=2)


def a_batch(device: int, seq: int, n: int = 5) -> Batch:
    """Dated now, because the bus reads the real clock."""
    now_ns = time.time_ns()
    return batch(f"dev{device}", block(f"P{device}", n, seq=seq, t_ns=now_ns - n * SECOND_NS, of=SMALL))


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def until_healthy(bus: DirectBus) -> None:
    while not bus.healthy:
        await asyncio.sleep(0.01)


async def insist(bus: DirectBus, one: Batch) -> Receipt:
    """Sends until there is a Receipt, as a device does."""
    while True:
        try:
            return await bus.submit(one)
        except BusAway:
            await asyncio.sleep(0.02)


def stored(database: Database) -> tuple[int, int]:
    with db.connect(database) as conn:
        row = conn.execute("SELECT count(*), count(DISTINCT (device, boot, seq)) FROM samples").fetchone()
    assert row is not None
    return row[0], row[1]


def test_many_at_once_share_transactions_and_each_gets_its_receipt(database: Database) -> None:
    seen: list[Outcome] = []

    async def work() -> None:
        bus = DirectBus(Config(database=database), seen.extend)
        await bus.start()
        await until_healthy(bus)
        receipts = await asyncio.gather(*(bus.submit(a_batch(i, 0)) for i in range(200)))
        assert {receipt.accepted for receipt in receipts} == {((0, 4),)}
        assert bus.counters.transactions < 20
        assert (bus.counters.batches, bus.counters.rows, bus.queued_rows) == (200, 1000, 0)
        await bus.stop()

    run(work())
    assert stored(database) == (1000, 1000)
    assert sum(len(one) for outcome in seen for one in outcome.blocks) == 1000


def test_a_poisoned_batch_is_answered_and_its_neighbours_too(database: Database) -> None:
    async def work() -> None:
        bus = DirectBus(Config(database=database))
        await bus.start()
        await until_healthy(bus)
        event = Event(seq=0, mono_ns=1, id="\0", code="other", severity="info", pack_id="X")
        answers = await asyncio.gather(
            bus.submit(a_batch(1, 0)), bus.submit(batch("bad", events=(event,))), bus.submit(a_batch(2, 0))
        )
        assert [answer.rejected for answer in answers] == [(), (Rejected(0, 0, "malformed"),), ()]
        await bus.stop()

    run(work())
    assert stored(database) == (10, 10)


def test_without_a_database_it_says_so_at_once_and_recovers_by_itself(own_pg_server: Any) -> None:
    server = own_pg_server
    with db.connect(server.login) as conn:
        db.migrate(conn)
    server.stop()

    async def work() -> None:
        bus = DirectBus(Config(database=server.login))
        await bus.start()
        with pytest.raises(BusAway, match="database is away"):
            await bus.submit(a_batch(1, 0))
        assert not bus.healthy
        server.start()
        assert (await insist(bus, a_batch(1, 0))).accepted == ((0, 4),)
        await bus.stop()

    run(work())
    assert stored(server.login) == (5, 5)


@pytest.mark.parametrize("kill", [False, True])
def test_restarts_and_kills_under_load_lose_and_repeat_nothing(own_pg_server: Any, kill: bool) -> None:
    server = own_pg_server
    with db.connect(server.login) as conn:
        db.migrate(conn)

    async def work() -> None:
        bus = DirectBus(Config(database=server.login))
        await bus.start()

        async def device(number: int) -> None:
            for seq in range(0, 100, 5):
                assert (await insist(bus, a_batch(number, seq))).accepted == ((seq, seq + 4),)

        async def trouble() -> None:
            for _ in range(3):
                before = bus.counters.rows
                while bus.counters.rows < before + 100:
                    await asyncio.sleep(0.005)
                await asyncio.to_thread(server.stop, kill=kill)
                server.start()  # not in a thread: the kernel ends the server with the thread that started it

        await asyncio.gather(trouble(), *(device(i) for i in range(20)))
        await bus.stop()

    run(work())
    assert stored(server.login) == (2000, 2000)


def test_a_killed_connection_is_answered_as_away_and_replaced(database: Database) -> None:
    async def work() -> None:
        bus = DirectBus(Config(database=database))
        await bus.start()
        await insist(bus, a_batch(1, 0))
        with db.connect(database) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'packtwin-ingest'"
            )
        assert (await insist(bus, a_batch(1, 5))).accepted == ((5, 9),)
        await bus.stop()

    run(work())
    assert stored(database) == (10, 10)


def test_more_than_can_wait_is_turned_away(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_direct, "MAX_QUEUED_ROWS", 10)

    async def work() -> None:
        bus = DirectBus(Config(database=database))
        await bus.start()
        await until_healthy(bus)
        with db.connect(database, autocommit=False) as conn:
            conn.execute("LOCK TABLE received")
            sent = [asyncio.create_task(bus.submit(a_batch(0, 0)))]
            await asyncio.sleep(0)
            while bus.queued_rows:
                await asyncio.sleep(0.005)  # the writer has taken the first, and waits for the lock
            sent += [asyncio.create_task(bus.submit(a_batch(i, 0))) for i in range(1, 5)]
            turned_away = await asyncio.gather(*sent[3:], return_exceptions=True)
            assert [type(answer) for answer in turned_away] == [BusAway, BusAway]
            conn.rollback()
        assert [r.accepted for r in await asyncio.gather(*sent[:3])] == [((0, 4),)] * 3
        await bus.stop()

    run(work())


def test_stop_finishes_what_waits_and_then_takes_nothing(database: Database) -> None:
    async def work() -> None:
        bus = DirectBus(Config(database=database))
        await bus.start()
        await until_healthy(bus)
        waiting = [asyncio.create_task(bus.submit(a_batch(i, 0))) for i in range(20)]
        await asyncio.sleep(0)
        await bus.stop()
        answers: Sequence[Receipt] = await asyncio.gather(*waiting)
        assert len(answers) == 20
        with pytest.raises(BusAway, match="stopping"):
            await bus.submit(a_batch(99, 0))

    run(work())
    assert stored(database) == (100, 100)
