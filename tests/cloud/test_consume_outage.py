"""Row 7: the database is down for a minute while 1,000 messages arrive each second; memory, loss, drain, health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from bus_roads import over_kafka, stored, until_taken
from fake_batches import SECOND_NS, batch, block, layout
from ingest_process import IngestProcess

from cloud import db
from cloud.config import Kafka
from cloud.kafka import BATCHES, KafkaAway, Sender
from shared.wire import encode_batch

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

DEVICES = 2_000
PER_SECOND = 1_000
DOWN_S = 60
RSS_LIMIT = 300 << 20
DRAIN_ROWS_PER_S = 5_000


@dataclass
class Load:
    """One 96-cell Sample per message, of so many devices in turn; sent as fast as asked, encoded beforehand."""

    messages: Sequence[tuple[bytes, bytes]]
    sent: int = 0
    late_s: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, sender: Sender) -> None:
        """PER_SECOND messages a second in 20 portions."""
        began = time.monotonic()
        for at in range(0, len(self.messages), PER_SECOND // 20):
            wait_s = began + at / PER_SECOND - time.monotonic()
            self.late_s = max(self.late_s, -wait_s)
            await asyncio.sleep(max(0.0, wait_s))
            portion = self.messages[at : at + PER_SECOND // 20]
            sends = [partial(sender.send, BATCHES, key, value) for key, value in portion]
            await asyncio.gather(*(until_taken(send, KafkaAway) for send in sends))
            self.sent += len(portion)
        self.ended.set()


def messages(count: int) -> list[tuple[bytes, bytes]]:
    of, now_ns = layout(cells=96, temps=16), time.time_ns()
    parts = [block(f"P{i}", 1, t_ns=now_ns, of=of, seed=i) for i in range(50)]
    found = []
    for n in range(count):
        device, seq = n % DEVICES, n // DEVICES
        one = parts[n % len(parts)]
        sample = type(one)(
            f"P{device}", of, one.seq + seq, one.mono_ns, one.t_ns + seq * SECOND_NS, one.rows, one.quality_index,
            one.alarm_index,
        )  # fmt: skip
        found.append((f"dev{device}".encode(), encode_batch(batch(f"dev{device}", sample))))
    return found


async def until(what: str, check: Any, timeout_s: float) -> float:
    """Seconds until `check` is true."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while not await asyncio.to_thread(check):
            await asyncio.sleep(0.05)
    return time.monotonic() - began


def test_a_minute_without_database_costs_no_row_and_no_memory(
    kafka: Kafka, own_pg_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = own_pg_server
    with db.connect(server.login) as conn:
        db.migrate(conn)
    load = Load(messages((DOWN_S + 10) * PER_SECOND))
    told: dict[str, float] = {}

    async def work(ingest: IngestProcess) -> None:
        sender = Sender(kafka)
        sender.start()
        async with asyncio.timeout(30):
            while sender.away is not None:
                await asyncio.sleep(0.01)
        peak = asyncio.create_task(watch_memory(ingest.pid, told))
        sending = asyncio.create_task(load.run(sender))
        while load.sent < 5 * PER_SECOND:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(server.stop)
        told["health_s"] = await until("health tells", lambda: ingest.health()[0] == 503, 10)
        assert ingest.health()[1]["database"] == "down" and ingest.health()[1]["bus"] == "ok"
        while load.sent < (5 + DOWN_S) * PER_SECOND:
            await asyncio.sleep(0.05)
        assert load.sent - rows(ingest) > DOWN_S * PER_SECOND * 0.8
        server.start()
        await until("it writes again", lambda: rows(ingest) > 0 and ingest.health()[0] == 200, 20)
        before, began = rows(ingest), time.monotonic()
        await until("the backlog is gone", lambda: load.sent - rows(ingest) < PER_SECOND, 60)
        told["drain_rows_s"] = (rows(ingest) - before) / (time.monotonic() - began)
        await sending
        await until("all is written", lambda: rows(ingest) >= load.sent, 30)
        peak.cancel()
        await sender.stop(5)

    with IngestProcess(over_kafka(server.login, kafka), tmp_path) as ingest:
        asyncio.run(asyncio.wait_for(work(ingest), 200))
    with capsys.disabled():
        print(
            f"\n  database down {DOWN_S} s at {PER_SECOND} msg/s: ingest RSS {told['rss'] / 2**20:.0f} MiB at most, "
            f"health after {told['health_s']:.1f} s, drained {told['drain_rows_s']:,.0f} rows/s"
        )
    assert stored(server.login) == (load.sent, load.sent)
    assert told["rss"] <= RSS_LIMIT
    assert told["health_s"] <= 5
    assert told["drain_rows_s"] >= DRAIN_ROWS_PER_S


def rows(ingest: IngestProcess) -> float:
    return ingest.metrics()["packtwin_ingest_rows_total"]


async def watch_memory(pid: int, told: dict[str, float]) -> None:
    process = psutil.Process(pid)
    while True:
        told["rss"] = max(told.get("rss", 0.0), process.memory_info().rss)
        await asyncio.sleep(0.2)
