"""From a submitted Batch to its rows, over either bus, with the same ingest behind it; all in the test's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cloud import db
from cloud.bus import Bus, BusAway, Counters
from cloud.buses import open_bus
from cloud.config import Config, Database, Kafka
from cloud.consume import Consume
from cloud.ingest import Outcome
from shared.batch import Batch
from shared.records import Receipt

T = TypeVar("T")


@dataclass
class Road:
    """A started bus, and what writes its Batches."""

    config: Config
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bus: Bus = open_bus(self.config, self.outcomes.extend)
        self._stop = asyncio.Event()
        self._ingest: asyncio.Task[None] | None = None
        self.consume = None if self.config.bus == "direct" else Consume(self.config)

    async def __aenter__(self) -> Road:
        await self.bus.start()
        if self.consume is not None:
            self._ingest = asyncio.create_task(self.consume.run(self._stop))
        await until_healthy(self.bus)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.bus.stop()
        self._stop.set()
        if self._ingest is not None:
            await self._ingest

    @property
    def written(self) -> Counters:
        """What the ingest did."""
        return self.bus.counters if self.consume is None else self.consume.writer.counters

    async def all_written(self, records: int, timeout_s: float = 40.0) -> None:
        """Waits until so many records are new in the database, or refused."""
        async with asyncio.timeout(timeout_s):
            while self.written.rows + self.written.rejected < records:
                await asyncio.sleep(0.01)


def direct(database: Database) -> Config:
    return Config(database=database)


def over_kafka(database: Database, kafka: Kafka) -> Config:
    return Config(database=database, bus="kafka", kafka=kafka)


async def until_healthy(bus: Bus) -> None:
    async with asyncio.timeout(30):
        while not bus.healthy:
            await asyncio.sleep(0.01)


async def until_taken(send: Callable[[], Awaitable[T]], away: type[Exception]) -> T:
    """Sends until it is taken, as a device does: the same twice is one row."""
    while True:
        try:
            return await send()
        except away:
            await asyncio.sleep(0.02)


async def insist(bus: Bus, one: Batch) -> Receipt:
    """Sends until there is a Receipt."""
    return await until_taken(lambda: bus.submit(one), BusAway)


def stored(database: Database) -> tuple[int, int]:
    """(samples, different ones of them)."""
    with db.connect(database) as conn:
        row = conn.execute("SELECT count(*), count(DISTINCT (device, boot, seq)) FROM samples").fetchone()
    assert row is not None
    return row[0], row[1]
