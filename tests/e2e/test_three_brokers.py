"""Three real Kafka brokers, replication 3, two in sync: each is killed once under load, and nobody waits for long."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from e2e.devices import Load
from e2e.kills import kill_seed
from e2e.stack import Stack
from e2e.whole import assert_synthetic_devices_are_whole
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BROKERS = 3
DEVICES, BATCHES_PER_S = 100, 100.0  # of each road
TOPIC = "packtwin.batch.v1"
PAUSE_S = 20.0
REJOINED_S = 90.0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, brokers=BROKERS) as stack:
        stack.start("database", "mosquitto", "kafka", "ingest", "gateway", "api")
        yield stack


class Commits:
    """Watches the database: the longest time in which nothing of the bus was written."""

    def __init__(self, stack: Stack) -> None:
        self.longest_pause_s = 0.0
        self._stack, self._stop = stack, threading.Event()
        self._thread = threading.Thread(target=self._run, name="commits")

    def __enter__(self) -> Commits:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        login = self._stack.login
        at, since_s = -1, time.monotonic()
        with psycopg.connect(
            host=login.host, port=login.port, dbname=login.name, user=login.user, password=login.password,
            autocommit=True,
        ) as conn:  # fmt: skip
            while not self._stop.wait(0.1):
                ((now_at,),) = conn.execute("SELECT sum(next_offset) FROM bus_offset").fetchall()
                if now_at != at:
                    at, since_s = now_at, time.monotonic()
                self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - since_s)


async def copies(bootstrap: str) -> list[tuple[int, int]]:
    """(replicas, of these in sync) of each partition of our topic; [] when nobody tells."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=5000)
    try:
        await admin.start()
        (topic,) = await admin.describe_topics([TOPIC])
        return [(len(each["replicas"]), len(each["isr"])) for each in topic["partitions"]]
    except (KafkaError, OSError):
        return []
    finally:
        await admin.close()


def all_in_sync(stack: Stack) -> bool:
    assert stack.kafka is not None
    found = asyncio.run(copies(stack.kafka.bootstrap))
    return bool(found) and all(each == (BROKERS, BROKERS) for each in found)


def test_each_broker_killed_once_loses_nothing_and_nobody_waits_long(stack: Stack) -> None:
    seed = kill_seed()
    rng = random.Random(seed)
    until("every partition has three copies in sync", lambda: all_in_sync(stack), REJOINED_S)
    brokers = [f"kafka-{node}" for node in range(1, BROKERS + 1)]
    rng.shuffle(brokers)
    by_http = Load(stack.api, DEVICES, BATCHES_PER_S, seed, name="http")
    by_mqtt = Load(stack.mqtt, DEVICES, BATCHES_PER_S, seed, name="mqtt")
    with by_http, by_mqtt:
        until("rows arrive", lambda: stack.query("SELECT count(*) FROM samples")[0][0] > 500, 60)
        with Commits(stack) as commits:
            for broker in brokers:
                time.sleep(rng.uniform(1.0, 3.0))
                stack.kill(broker)
                time.sleep(rng.uniform(0.5, 15.0))  # it may be missed, or be back before anybody has noticed
                stack.start(broker)
                until(f"{broker} has everything again", lambda: all_in_sync(stack), REJOINED_S)
            time.sleep(2.0)
        for load in (by_http, by_mqtt):
            load.finish()
    print(f"longest time without a commit {commits.longest_pause_s:.1f} s")
    for load in (by_http, by_mqtt):
        print(
            f"{load.url}: {load.receipts} batches, {load.resent} sent again, longest wait of a device "
            f"{load.longest_wait_s:.1f} s, longest time without any Receipt {load.longest_pause_s:.1f} s"
        )
        assert_synthetic_devices_are_whole(stack, load)
        assert load.longest_wait_s <= PAUSE_S
    assert commits.longest_pause_s <= PAUSE_S
    assert stack.query("SELECT count(*) FROM rejects") == [(0,)]
