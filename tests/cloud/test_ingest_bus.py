"""Both buses answer only for what is durable, through restarts and kills of the real database; the ingest is one."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from bus_roads import Road, direct, insist, over_kafka, stored, until_healthy
from fake_batches import SECOND_NS, batch, block, layout

from cloud import bus_direct, db
from cloud.bus import BusAway
from cloud.bus_direct import DirectBus
from cloud.config import Config, Database
from shared.batch import Batch
from shared.records import Receipt, Rejected, Report

SMALL = layout(cells=4, temps=2)


def a_batch(device: int, seq: int, n: int = 5) -> Batch:
    """Dated now, because the bus reads the real clock."""
    now_ns = time.time_ns()
    return batch(f"dev{device}", block(f"P{device}", n, seq=seq, t_ns=now_ns - n * SECOND_NS, of=SMALL))


def run(work: Coroutine[Any, Any, None], timeout_s: float = 60.0) -> None:
    asyncio.run(asyncio.wait_for(work, timeout_s))


ROADS = ["direct", pytest.param("kafka", marks=pytest.mark.slow)]


@pytest.fixture(params=ROADS)
def settings(request: pytest.FixtureRequest, database: Database) -> Config:
    """A fresh database behind either bus."""
    if request.param == "direct":
        return direct(database)
    return over_kafka(database, request.getfixturevalue("kafka"))


@pytest.fixture(params=ROADS)
def mortal(request: pytest.FixtureRequest, own_pg_server: Any) -> Config:
    """A database that the test may kill, behind either bus."""
    with db.connect(own_pg_server.login) as conn:
        db.migrate(conn)
    if request.param == "direct":
        return direct(own_pg_server.login)
    return over_kafka(own_pg_server.login, request.getfixturevalue("kafka"))


def test_many_at_once_share_transactions_and_each_gets_its_receipt(settings: Config) -> None:
    async def work() -> None:
        async with Road(settings) as road:
            receipts = await asyncio.gather(*(road.bus.submit(a_batch(i, 0)) for i in range(200)))
            assert {receipt.accepted for receipt in receipts} == {((0, 4),)}
            await road.all_written(1000)
            assert road.written.transactions < 20
            assert (road.written.batches, road.written.rows, road.bus.queued_rows) == (200, 1000, 0)
            if settings.bus == "direct":
                assert sum(len(one) for outcome in road.outcomes for one in outcome.blocks) == 1000

    run(work())
    assert stored(settings.database) == (1000, 1000)


def test_a_poisoned_batch_is_rejected_and_its_neighbours_are_written(settings: Config) -> None:
    report = Report(seq=0, mono_ns=1, model_id="m", counter=1, step="seen", numbers={"x": math.nan})

    async def work() -> None:
        async with Road(settings) as road:
            answers = await asyncio.gather(
                road.bus.submit(a_batch(1, 0)),
                road.bus.submit(batch("bad", reports=(report,))),
                road.bus.submit(a_batch(2, 0)),
            )
            if settings.bus == "direct":
                assert [answer.rejected for answer in answers] == [(), (Rejected(0, 0, "malformed"),), ()]
            await road.all_written(11)

    run(work())
    assert stored(settings.database) == (10, 10)
    with db.connect(settings.database) as conn:
        found = conn.execute("SELECT device, first_seq, last_seq, reason FROM rejects").fetchall()
    assert found == [("bad", 0, 0, "malformed")]


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
def test_restarts_and_kills_of_the_database_lose_and_repeat_nothing(
    mortal: Config, own_pg_server: Any, kill: bool
) -> None:
    async def work() -> None:
        async with Road(mortal) as road:

            async def device(number: int) -> None:
                for seq in range(0, 100, 5):
                    assert (await insist(road.bus, a_batch(number, seq))).accepted == ((seq, seq + 4),)
                    if mortal.bus == "kafka":  # it takes all at once, and there would be nothing to disturb
                        await asyncio.sleep(0.05)

            async def trouble() -> None:
                for _ in range(3):
                    before = road.written.rows
                    while road.written.rows < min(before + 100, 2000):
                        await asyncio.sleep(0.005)
                    await asyncio.to_thread(own_pg_server.stop, kill=kill)
                    own_pg_server.start()  # not in a thread: the kernel ends the server with the thread that started it

            await asyncio.gather(trouble(), *(device(i) for i in range(20)))
            await road.all_written(2000)

    run(work())
    assert stored(mortal.database) == (2000, 2000)


def test_a_killed_connection_is_replaced(settings: Config) -> None:
    async def work() -> None:
        async with Road(settings) as road:
            await insist(road.bus, a_batch(1, 0))
            await road.all_written(5)
            with db.connect(settings.database) as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'packtwin-ingest' AND datname = current_database()"
                )
            assert (await insist(road.bus, a_batch(1, 5))).accepted == ((5, 9),)
            await road.all_written(10)

    run(work())
    assert stored(settings.database) == (10, 10)


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


def test_stop_finishes_what_waits_and_then_takes_nothing(settings: Config) -> None:
    async def work() -> None:
        async with Road(settings) as road:
            waiting = [asyncio.create_task(road.bus.submit(a_batch(i, 0))) for i in range(20)]
            await asyncio.sleep(0)
            await road.bus.stop()
            answers: Sequence[Receipt] = await asyncio.gather(*waiting)
            assert len(answers) == 20
            with pytest.raises(BusAway, match="stopping"):
                await road.bus.submit(a_batch(99, 0))
            await road.all_written(100)

    run(work())
    assert stored(settings.database) == (100, 100)
