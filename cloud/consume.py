"""`python -m cloud ingest`: from Kafka into the database, exactly once, until SIGTERM.

How far a partition is written stands in the database and moves with the rows; Kafka's group only says whose turn it is.
So it does not matter when a process dies, or that two believe for a moment that a partition is theirs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC
from typing import Any, Final, TypeVar

import orjson
from prometheus_client import CollectorRegistry, ProcessCollector

from cloud.config import Config
from cloud.consume_metrics import Gauges, IngestMetrics, PredictionMetrics, database_up
from cloud.consume_write import DeadLetter, Superseded, Writer
from cloud.db.connect import DatabaseAway
from cloud.deadletter import headers_of
from cloud.health import HealthServer
from cloud.housekeeping import Housekeeping
from cloud.ingest import Outcome
from cloud.kafka import DEAD, EARLIER, GroupReader, KafkaAway, Record, Sender, prepare
from shared.errors import PacktwinError

log = logging.getLogger(__name__)
T = TypeVar("T")

READ_MESSAGES: Final = 2_000
"""Most messages that are read at once; Kafka's answers are bounded in bytes, too."""
DEAF_S: Final = 4.0
"""A database that did not do anything for so long is called down."""
_GC_OBJECTS: Final = 200_000
_PING_S: Final = 1.0
_PAUSE_S: Final = 0.5
_EARLIER_S: Final = 1.0
_BURY_S: Final = 20.0
_ISO: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class Consume:
    """One ingest. `run` it once."""

    def __init__(self, config: Config, *, from_start: bool = False, name: str | None = None) -> None:
        """name: see `GroupReader`."""
        self._config, self._name = config, name
        self._from_start = from_start
        self._sender = Sender(config.kafka)
        self._reader: GroupReader | None = None
        self._thread = ThreadPoolExecutor(1, "ingest")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._predictions = PredictionMetrics()
        self._changed: set[str] = set()
        self._lag_messages = 0
        self._began_s = self._current_s = time.time()
        """Unix time; current: all that arrived until then is written."""
        self.writer = Writer(config, self._bury)
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.registry.register(IngestMetrics(self.writer.counters, self._gauges, self._counts))
        self.registry.register(self._predictions)

    def answers(self) -> dict[str, bool]:
        """Whether database and bus answer now."""
        return {
            "database": time.monotonic() - self.writer.answered_s < DEAF_S and self.writer.away is None,
            "bus": self._sender.away is None,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; what is being written then is finished."""
        self._loop = asyncio.get_running_loop()
        self._sender.start()
        jobs = {
            "database": self._keep_database(),
            "messages": self._work(),
            "lag": self._watch_lag(),
            "earlier topic": self._tell_earlier(),
        }
        tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
        ended = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait({*tasks, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, ended):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._thread.shutdown)
            self.writer.close()
            await self._sender.stop(2.0)
        for result in results:
            if isinstance(result, Exception):
                raise result

    # --- messages ---

    async def _work(self) -> None:
        told = ""
        while True:
            try:
                await self._session()
            except PacktwinError as error:
                if str(error) != told:
                    log.warning("%s", error)
                told = str(error)
            except Exception:
                log.exception("the ingest failed; it starts again")
            await asyncio.sleep(_PAUSE_S)

    async def _session(self) -> None:
        """One membership in the group, until something is wrong with it."""
        cluster = await prepare(self._config.kafka)
        while self._from_start:
            with suppress(DatabaseAway):
                await self._in_thread(self.writer.rewind, cluster)
                self._from_start = False
                break
            await asyncio.sleep(_PAUSE_S)
        reader = GroupReader(self._config.kafka, self._name)
        try:
            await reader.start()
            self._reader = reader
            log.info("reading from Kafka at %s", self._config.kafka.bootstrap)
            while True:
                await self._step(reader, cluster)
        finally:
            self._reader = None
            await reader.stop()

    async def _step(self, reader: GroupReader, cluster: str) -> None:
        if not self.writer.ready:
            reader.unplace()
            await reader.read(_PAUSE_S, 1)  # nothing comes, but the group sees us alive
            return
        try:
            if reader.unplaced:
                await self._place(reader, cluster)
            records = await reader.read(_PING_S, READ_MESSAGES)
            if records:
                self._committed(await self._in_thread(self.writer.write, records), records)
        except Superseded as error:
            log.info("%s; reading on from where it stands", error)
            reader.unplace()
        except DatabaseAway:  # the writer has said so
            reader.unplace()

    async def _place(self, reader: GroupReader, cluster: str) -> None:
        bounds = await reader.bounds(reader.unplaced)
        reader.place(await self._in_thread(self.writer.place, cluster, bounds))

    def _committed(self, outcomes: Sequence[Outcome], records: Sequence[Record]) -> None:
        oldest_s = min(record.timestamp for record in records) / 1000
        self._current_s = oldest_s if self._current_s == self._began_s else max(self._current_s, oldest_s)
        self._predictions.count(outcomes)
        if self._config.kafka.earlier:
            self._changed.update(block.pack_id for outcome in outcomes for block in outcome.blocks)

    def _bury(self, letter: DeadLetter) -> None:
        """Called in the writer's thread, within its transaction."""
        assert self._loop is not None
        sending = self._sender.send(DEAD, letter.key, letter.value, headers_of(letter), timeout_s=_BURY_S)
        asyncio.run_coroutine_threadsafe(sending, self._loop).result(_BURY_S + 5)

    # --- beside it ---

    async def _keep_database(self) -> None:
        """Asks a database that is not busy with us whether it is there, and connects again."""
        while True:
            if time.monotonic() - self.writer.answered_s >= _PING_S:
                await self._in_thread(self.writer.ping)
            await asyncio.sleep(_PAUSE_S)

    async def _watch_lag(self) -> None:
        while True:
            await asyncio.sleep(_PING_S)
            reader = self._reader
            if reader is None:
                continue
            with suppress(KafkaAway):
                bounds = await reader.bounds(reader.partitions)
                written = self.writer.next_offsets
                behind = (end - max(first, written.get(each, 0)) for each, (first, end) in bounds.items())
                self._lag_messages = sum(max(0, count) for count in behind)
                if not self._lag_messages:
                    self._current_s = time.time()

    async def _tell_earlier(self) -> None:
        """The earlier system's topic: what /api/battery/latest says of the packs that have news."""
        while True:
            await asyncio.sleep(_EARLIER_S)
            packs, self._changed = self._changed, set()
            if not packs:
                continue
            try:
                for row in await self._in_thread(self.writer.statuses, packs):
                    body = orjson.dumps(row | {"timestamp": f"{row['timestamp'].astimezone(UTC):{_ISO}}"})
                    await self._sender.post(EARLIER, row["battery_id"].encode(), body)
            except PacktwinError:  # the next sample tells it again
                log.debug("the earlier topic misses %d packs", len(packs))

    async def _in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._thread, work, *arguments)

    def _gauges(self) -> Gauges:
        lag_s = time.time() - self._current_s if self._lag_messages else 0.0
        return database_up(self.answers()["database"]) | {
            "packtwin_ingest_lag_messages": ("Messages that wait in this process's partitions", self._lag_messages),
            "packtwin_ingest_lag_seconds": ("How old the oldest of them is [s], about", max(0.0, lag_s)),
        }

    def _counts(self) -> Gauges:
        return {
            "packtwin_dead_letters": ("Messages that nobody can write", self.writer.dead_letters),
            "packtwin_ingest_expired_messages": ("Messages that Kafka gave up unwritten", self.writer.expired),
        }


def run(config: Config, *, from_start: bool = False) -> None:
    """Ingests until SIGTERM or SIGINT. ConfigError when its metrics cannot listen."""
    # The metrics' port is one process's alone on this machine, and the same after a restart.
    name = f"{socket.gethostname()}-{config.ingest_metrics_port}" if config.ingest_metrics_port else None
    consume = Consume(config, from_start=from_start, name=name)
    setting = "INGEST_METRICS_PORT"
    server = HealthServer(config.metrics_host, config.ingest_metrics_port, consume.registry, consume.answers, setting)
    housekeeping = Housekeeping(config)
    server.start()
    housekeeping.start()
    log.info("packtwin ingest, metrics on http://%s:%d/metrics", config.metrics_host, server.port)
    try:
        asyncio.run(_until_signal(consume))
    finally:
        housekeeping.stop()
        server.stop()


async def _until_signal(consume: Consume) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # What ten thousand Batches are made of makes no cycles; looking for some took a fifth of the time.
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS)
    await consume.run(stop)
