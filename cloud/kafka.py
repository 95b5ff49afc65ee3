"""All that speaks Kafka: the topics, a sender that mends itself, readers. The one file that imports aiokafka.

Where a group's member reads on from is not Kafka's to say but the database's: see `cloud/consume.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, for_code

from cloud.config import Kafka
from shared.batch import MAX_BODY_BYTES
from shared.errors import PacktwinError

log = logging.getLogger(__name__)
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each try; we tell once that it is away, and back

BATCHES: Final = "packtwin.batch.v1"
DEAD: Final = "packtwin.dead.v1"
EARLIER: Final = "ev_battery_telemetry"
GROUP: Final = "packtwin-ingest"
PARTITIONS: Final = 12
_DAY_MS: Final = 86_400_000
KEPT_MS: Final = {BATCHES: 7 * _DAY_MS, DEAD: 90 * _DAY_MS, EARLIER: _DAY_MS}
"""How long Kafka keeps messages; a database that is away for longer than BATCHES says loses some."""
MESSAGE_BYTES: Final = MAX_BODY_BYTES + (1 << 20)
FETCH_BYTES: Final = 4 << 20
"""Most bytes in one answer of a broker (one message may be larger); about as many wait while these are written."""
_PARTITION_BYTES: Final = 1 << 20
_SEND_BYTES: Final = 256 << 10
_SESSION_MS: Final = 30_000  # so long a member may hang before its partitions go to others
_CONNECT_S: Final = 20.0
_PROBE_S: Final = 1.0
_DRAIN_LOOK_S: Final = 0.01
_ANSWER_S: Final = 3.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_TOPIC_EXISTS: Final = 36

Headers = Sequence[tuple[str, bytes]]


class KafkaAway(PacktwinError):
    """Kafka cannot be reached or does not take it now; later it may."""


class TooLarge(PacktwinError):
    """Kafka will never take this message."""


class Record(Protocol):
    """A message as it was read; timestamp: ms since 1970."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


async def prepare(kafka: Kafka) -> str:
    """Makes the topics that are missing; the cluster's id. KafkaAway when that cannot be."""
    topics = [BATCHES, DEAD, *([EARLIER] if kafka.earlier else [])]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap, request_timeout_ms=10_000)
    try:
        async with asyncio.timeout(_CONNECT_S):
            await admin.start()
            there = set(await admin.list_topics())
            missing = [_new_topic(name, kafka.replication) for name in topics if name not in there]
            if missing:
                answer = await admin.create_topics(missing)
                for name, code, text in answer.topic_errors:
                    if code not in (0, _TOPIC_EXISTS):
                        raise KafkaAway(f"topic {name} cannot be made: {text or for_code(code).__name__}")
            cluster = await admin.describe_cluster()
            return str(cluster["cluster_id"])
    except (KafkaError, OSError, TimeoutError, AttributeError) as error:  # AttributeError: no controller yet
        raise KafkaAway(f"no Kafka at {kafka.bootstrap}: {_words(error)}") from error
    finally:
        with suppress(Exception):
            await admin.close()


def _new_topic(name: str, replication: int) -> NewTopic:
    configs = {
        "min.insync.replicas": str(max(1, replication - 1)),
        "retention.ms": str(KEPT_MS[name]),
        "max.message.bytes": str(MESSAGE_BYTES),
        "message.timestamp.type": "CreateTime",
    }
    return NewTopic(name, PARTITIONS if name == BATCHES else 1, replication, topic_configs=configs)


class Sender:
    """Sends with acks=all, idempotent; connects in the background, and again for as long as it lives."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.away: str | None = "not connected yet"
        self.queued_bytes = 0
        """Of messages that are neither acknowledged nor given up, also of those that nobody waits for any more."""
        self._producer: Any = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._broken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to connect. Call it on the event loop."""
        self._task = asyncio.create_task(self._run(), name="kafka-sender")

    async def stop(self, timeout_s: float) -> None:
        """Waits for what is under way, at most so long; the rest fails with KafkaAway."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self.queued_bytes:  # also of what is still being handed over, which has no future yet
                    await asyncio.sleep(_DRAIN_LOOK_S)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def send(
        self, topic: str, key: bytes, value: bytes, headers: Headers = (), *, timeout_s: float = 30.0
    ) -> None:
        """Returns once all replicas in sync have the message. KafkaAway: not now (it may still get there); TooLarge."""
        future = await self.post(topic, key, value, headers)
        await asyncio.wait({future}, timeout=timeout_s)
        if not future.done():
            raise KafkaAway(f"Kafka did not answer within {timeout_s:g} s")
        if future.cancelled():
            raise KafkaAway(self.away or "the sender is stopping")
        error = future.exception()
        if isinstance(error, MessageSizeTooLargeError):
            raise TooLarge(_words(error)) from error
        if error is not None:
            raise KafkaAway(_words(error)) from error

    async def post(self, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> asyncio.Future[Any]:
        """Hands the message over; the future is done when it is acknowledged. KafkaAway, TooLarge."""
        producer = self._producer
        if self.away is not None or producer is None:
            raise KafkaAway(self.away or "not connected yet")
        self.queued_bytes += len(value)
        try:
            future: asyncio.Future[Any] = await producer.send(topic, value, key, headers=list(headers))
        except BaseException as error:
            self.queued_bytes -= len(value)
            if isinstance(error, MessageSizeTooLargeError):
                raise TooLarge(_words(error)) from error
            if isinstance(error, KafkaError):
                self._broken.set()
                raise KafkaAway(_words(error)) from error
            raise
        self._waiting.add(future)
        future.add_done_callback(lambda done: self._settled(done, len(value)))
        return future

    def _settled(self, future: asyncio.Future[Any], size: int) -> None:
        self._waiting.discard(future)
        self.queued_bytes -= size
        if not future.cancelled() and future.exception() is not None:
            # An idempotent producer that failed once must not go on: its numbers have a hole.
            self._broken.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._live()
                failures = 0
            except (KafkaAway, KafkaError, OSError, TimeoutError) as error:
                self._is_away(_words(error))
            except Exception as error:
                self._is_away(repr(error))
                log.exception("the Kafka sender failed; it starts again")
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    async def _live(self) -> None:
        """One producer's life: until it is broken."""
        await prepare(self._kafka)
        self._broken.clear()
        producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka.bootstrap,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_SEND_BYTES,
            max_request_size=MESSAGE_BYTES,
            request_timeout_ms=15_000,
            metadata_max_age_ms=30_000,
        )
        try:
            async with asyncio.timeout(_CONNECT_S):
                await producer.start()
            self._producer = producer
            while not self._broken.is_set():
                await self._probe(producer)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._broken.wait(), _PROBE_S)
            self._is_away("a message was not taken; connecting anew")
        finally:
            self._producer = None
            await self._abandon(producer)

    async def _probe(self, producer: AIOKafkaProducer) -> None:
        try:
            async with asyncio.timeout(_ANSWER_S):
                await producer.client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            self._is_away(_words(error))
        else:
            if self.away is not None:
                log.info("Kafka at %s answers", self._kafka.bootstrap)
            self.away = None

    def _is_away(self, why: str) -> None:
        if self.away != why:
            log.warning("Kafka away: %s", why)
        self.away = why

    async def _abandon(self, producer: AIOKafkaProducer) -> None:
        """Ends a producer that may be stuck; what it still had fails."""
        for future in list(self._waiting):
            future.cancel()
        with suppress(Exception):
            async with asyncio.timeout(_ANSWER_S):
                await producer.stop()
                return
        with suppress(Exception):
            await producer.client.close()


class GroupReader:
    """A member of the ingest's group. It reads nothing of a partition until it is told where to: `place`."""

    def __init__(self, kafka: Kafka, name: str | None = None) -> None:
        """name: a process that is started again under it has its partitions at once, also after a kill; None = after
        _SESSION_MS. No two that live may have the same."""
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap,
            group_id=GROUP,
            group_instance_id=name,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=_SESSION_MS,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=300_000,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=FETCH_BYTES,
            metadata_max_age_ms=30_000,
        )
        self.unplaced: set[int] = set()

    async def start(self) -> None:
        """Joins the group. KafkaAway."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(_words(error)) from error
        self._consumer.subscribe([BATCHES], listener=_Listener(self._assigned))

    async def stop(self) -> None:
        """Leaves the group; never raises."""
        with suppress(Exception):
            async with asyncio.timeout(_ANSWER_S):
                await self._consumer.stop()

    @property
    def partitions(self) -> set[int]:
        """Those that are ours now."""
        return {each.partition for each in self._consumer.assignment()}

    def _assigned(self, partitions: set[int]) -> None:
        self.unplaced = partitions
        self._consumer.pause(*map(_batches, partitions))

    def unplace(self) -> None:
        """Stops reading until every partition is placed again."""
        self._assigned(self.partitions)

    def place(self, offsets: Mapping[int, int]) -> None:
        """Reads on from here; partitions that were taken from us in the meantime are left out."""
        for partition in self.partitions & offsets.keys():
            self._consumer.seek(_batches(partition), offsets[partition])
            self._consumer.resume(_batches(partition))
            self.unplaced.discard(partition)

    async def read(self, timeout_s: float, most: int) -> list[Record]:
        """Messages of placed partitions, in order within each; [] when nothing came in time. KafkaAway."""
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=most)
        except (KafkaError, OSError) as error:
            raise KafkaAway(_words(error)) from error
        return [record for at, records in found.items() if at.partition not in self.unplaced for record in records]

    async def bounds(self, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
        """(first offset kept, the next one to be written) of each partition. KafkaAway."""
        wanted = [_batches(partition) for partition in sorted(partitions)]
        return {at.partition: bounds for at, bounds in (await _bounds(self._consumer, wanted)).items()}


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, assigned: Callable[[set[int]], None]) -> None:
        self._assigned = assigned

    def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """What is being written goes on: the database refuses it if somebody else was faster."""

    def on_partitions_assigned(self, assigned: set[Any]) -> None:
        self._assigned({each.partition for each in assigned})


class TopicReader:
    """Reads all partitions of a topic for itself alone, from the start or from the end."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._topic = topic
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=FETCH_BYTES,
        )
        self._ends: dict[int, int] = {}

    async def start(self, *, at_end: bool) -> None:
        """Connects; KafkaAway when the topic is not there."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                await self._consumer.start()
                cluster = await self._consumer._client.fetch_all_metadata()
                partitions = cluster.partitions_for_topic(self._topic) or ()
                if not partitions:
                    raise KafkaAway(f"Kafka has no topic {self._topic}")
                wanted = [TopicPartition(self._topic, each) for each in sorted(partitions)]
                self._consumer.assign(wanted)
                bounds = await _bounds(self._consumer, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(_words(error)) from error
        for at, (first, end) in bounds.items():
            self._consumer.seek(at, end if at_end else first)
        self._ends = {at.partition: end for at, (first, end) in bounds.items() if first < end}

    async def stop(self) -> None:
        """Never raises."""
        with suppress(Exception):
            async with asyncio.timeout(_ANSWER_S):
                await self._consumer.stop()

    async def read(self, timeout_s: float, most: int) -> list[Record]:
        """What came, [] after `timeout_s` of silence. KafkaAway."""
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=most)
        except (KafkaError, OSError) as error:
            raise KafkaAway(_words(error)) from error
        return [record for records in found.values() for record in records]

    async def read_all(self) -> list[Record]:
        """All that was there when it started, by partition and offset. KafkaAway."""
        found: list[Record] = []
        left = dict(self._ends)
        while left:
            records = await self.read(_CONNECT_S, 1000)
            if not records:
                raise KafkaAway("Kafka does not give what it has")
            found += [record for record in records if record.offset < left.get(record.partition, 0)]
            for record in records:
                if record.offset + 1 >= left.get(record.partition, record.offset + 2):
                    del left[record.partition]
        return sorted(found, key=lambda record: (record.partition, record.offset))


async def _bounds(consumer: AIOKafkaConsumer, wanted: Sequence[TopicPartition]) -> dict[Any, tuple[int, int]]:
    if not wanted:
        return {}
    try:
        async with asyncio.timeout(_ANSWER_S):
            firsts = await consumer.beginning_offsets(wanted)
            ends = await consumer.end_offsets(wanted)
    except (KafkaError, OSError, TimeoutError) as error:
        raise KafkaAway(_words(error)) from error
    return {at: (firsts[at], ends[at]) for at in wanted}


def _batches(partition: int) -> TopicPartition:
    return TopicPartition(BATCHES, partition)


def _words(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return " ".join(str(error).split()) or type(error).__name__
