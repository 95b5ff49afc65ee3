"""The kafka bus against a real Kafka: topics, receipts, outages of Kafka itself, and several ingests at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import kafka_server as kafka_servers
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from bus_roads import Road, insist, over_kafka, stored, until_healthy
from fake_batches import SECOND_NS, batch, block, layout
from kafka_server import KafkaServer

from cloud import bus_kafka, db
from cloud.bus import BusAway
from cloud.bus_kafka import KafkaBus
from cloud.config import Config, Database, Kafka
from cloud.consume import Consume
from cloud.kafka import BATCHES, DEAD, EARLIER, TopicReader, prepare
from shared.batch import Batch
from shared.wire import decode_batch

pytestmark = pytest.mark.slow
SMALL = layout(cells=4, temps=2)


def a_batch(device: int, seq: int, n: int = 5) -> Batch:
    now_ns = time.time_ns()
    return batch(f"dev{device}", block(f"P{device}", n, seq=seq, t_ns=now_ns - n * SECOND_NS, of=SMALL))


def run(work: Coroutine[Any, Any, None], timeout_s: float = 90.0) -> None:
    asyncio.run(asyncio.wait_for(work, timeout_s))


@pytest.fixture
def own_kafka() -> Iterator[KafkaServer]:
    """One that the test may kill."""
    with kafka_servers.served() as server:
        yield server


async def configs_of(kafka: Kafka, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answer.resources[0][4]}
    finally:
        await admin.close()


async def partitions_of(kafka: Kafka) -> dict[str, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        return {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics()}
    finally:
        await admin.close()


def test_topics_are_made_once_and_as_the_contract_says(kafka: Kafka) -> None:
    async def work() -> None:
        cluster = await prepare(kafka)
        assert await prepare(kafka) == cluster
        found = await partitions_of(kafka)
        assert (found[BATCHES], found[DEAD], EARLIER in found) == (12, 1, False)
        configs = await configs_of(kafka, BATCHES)
        assert (configs["min.insync.replicas"], configs["retention.ms"]) == ("1", str(7 * 86_400_000))
        assert int(configs["max.message.bytes"]) > 8 << 20

    run(work())


def test_a_receipt_comes_when_kafka_has_the_batch_as_it_was_sent(kafka: Kafka) -> None:
    async def work() -> None:
        bus = KafkaBus(Config(bus="kafka", kafka=kafka))
        await bus.start()
        await until_healthy(bus)
        sent = [a_batch(i, 0) for i in range(3)]
        receipts = await asyncio.gather(*map(bus.submit, sent))
        assert {receipt.accepted for receipt in receipts} == {((0, 4),)}
        reader = TopicReader(kafka, BATCHES)
        await reader.start(at_end=False)
        found = {record.key: decode_batch(record.value or b"") for record in await reader.read_all()}
        await reader.stop()
        assert found.keys() == {b"dev0", b"dev1", b"dev2"}
        assert [found[one.device.encode()].blocks[0].t_ns.tolist() for one in sent] == [
            one.blocks[0].t_ns.tolist() for one in sent
        ]
        await bus.stop()

    run(work())


def test_a_batch_of_the_largest_body_goes_through(kafka: Kafka, database: Database) -> None:
    async def work() -> None:
        async with Road(over_kafka(database, kafka)) as road:
            big = batch("dev1", block("P1", 20_000, t_ns=time.time_ns() - 30_000 * SECOND_NS))
            await road.bus.submit(big)
            await road.all_written(20_000)

    run(work())
    assert stored(database) == (20_000, 20_000)


def test_without_kafka_it_says_so_at_once_and_recovers_by_itself(own_kafka: KafkaServer) -> None:
    own_kafka.kill()

    async def work() -> None:
        bus = KafkaBus(Config(bus="kafka", kafka=own_kafka.settings))
        await bus.start()
        with pytest.raises(BusAway, match="Kafka is away"):
            await bus.submit(a_batch(1, 0))
        assert not bus.healthy
        own_kafka.start()
        assert (await insist(bus, a_batch(1, 0))).accepted == ((0, 4),)
        await bus.stop()

    run(work())


def test_kills_of_kafka_under_load_lose_and_repeat_nothing(own_kafka: KafkaServer, database: Database) -> None:
    async def work() -> None:
        async with Road(over_kafka(database, own_kafka.settings)) as road:

            async def device(number: int) -> None:
                for seq in range(0, 300, 5):
                    await insist(road.bus, a_batch(number, seq))
                    await asyncio.sleep(0.05)

            async def trouble() -> None:
                for _ in range(3):
                    before = road.written.rows
                    while road.written.rows < before + 200:
                        await asyncio.sleep(0.01)
                    own_kafka.kill()
                    await asyncio.sleep(0)
                    own_kafka.start()

            await asyncio.gather(trouble(), *(device(i) for i in range(10)))
            await road.all_written(3000, timeout_s=60)

    run(work(), 180)
    assert stored(database) == (3000, 3000)


def test_more_than_can_wait_is_turned_away(own_kafka: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_kafka, "MAX_QUEUED_BYTES", 1)

    async def work() -> None:
        bus = KafkaBus(Config(bus="kafka", kafka=own_kafka.settings))
        await bus.start()
        await until_healthy(bus)
        answers = await asyncio.gather(*(bus.submit(a_batch(i, 0)) for i in range(5)), return_exceptions=True)
        away = [answer for answer in answers if isinstance(answer, BusAway)]
        assert len(away) == 4 and away[0].retry_after_s == 5
        await bus.stop()

    run(work())


def test_ingests_that_come_and_go_lose_and_repeat_nothing(kafka: Kafka, database: Database) -> None:
    """Rebalances under load: partitions change hands while their rows are being written."""
    config = over_kafka(database, kafka)

    async def work() -> None:
        bus = KafkaBus(config)
        await bus.start()
        await until_healthy(bus)
        ingests: list[Consume] = []
        done = asyncio.Event()

        async def devices(first: int) -> None:
            for seq in range(0, 400, 5):
                await asyncio.gather(*(insist(bus, a_batch(first + i, seq)) for i in range(10)))
                await asyncio.sleep(0.05)

        async def member(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            while not done.is_set():
                stop = asyncio.Event()
                ingest = Consume(config)
                ingests.append(ingest)
                life = asyncio.create_task(ingest.run(stop))
                await asyncio.wait({asyncio.create_task(done.wait())}, timeout=3.0 + delay_s)
                stop.set()
                await life

        async def until_written() -> None:
            while sum(ingest.writer.counters.rows for ingest in ingests) < 8000:
                await asyncio.sleep(0.05)
            done.set()

        await asyncio.gather(devices(0), devices(10), member(0), member(1.0), until_written())
        await bus.stop()

    run(work(), 150)
    assert stored(database) == (8000, 8000)


def test_the_earlier_topic_tells_what_battery_latest_tells(kafka: Kafka, database: Database) -> None:
    import orjson

    earlier = Kafka(kafka.bootstrap, kafka.replication, earlier=True)

    async def work() -> None:
        async with Road(over_kafka(database, earlier)) as road:
            reader = TopicReader(earlier, EARLIER)
            await reader.start(at_end=True)
            await road.bus.submit(a_batch(1, 0))
            records = await reader.read(20.0, 10)
            await reader.stop()
            told = orjson.loads(records[0].value or b"")
            assert records[0].key == b"P1" and told["battery_id"] == "P1" and told["timestamp"].endswith("Z")
            assert {"soc", "soh", "voltage", "current", "temperature", "rul_prediction", "status"} <= told.keys()

    run(work())


def test_the_ingest_says_in_seconds_what_is_away(own_kafka: KafkaServer, own_pg_server: Any) -> None:
    with db.connect(own_pg_server.login) as conn:
        db.migrate(conn)

    async def work() -> None:
        async with Road(over_kafka(own_pg_server.login, own_kafka.settings)) as road:
            assert road.consume is not None
            answers = road.consume.answers

            async def until(wanted: dict[str, bool], timeout_s: float) -> None:
                async with asyncio.timeout(timeout_s):
                    while answers() != wanted:
                        await asyncio.sleep(0.02)

            await until({"database": True, "bus": True}, 20)
            await asyncio.to_thread(own_pg_server.stop, kill=True)
            await until({"database": False, "bus": True}, 5)
            own_pg_server.start()
            await until({"database": True, "bus": True}, 10)
            own_kafka.kill()
            await until({"database": True, "bus": False}, 5)
            own_kafka.start()
            await until({"database": True, "bus": True}, 15)

    run(work())
