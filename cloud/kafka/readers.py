"""What reads: a member of the ingest's group, and a reader of a whole topic for itself alone.

Where a group's member reads on from is not Kafka's to say but the database's: see `cloud/consume.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from cloud.config import Kafka
from cloud.kafka.topics import ANSWER_S, BATCHES, CONNECT_S, KafkaAway, Record, words

GROUP: Final = "packtwin-ingest"
FETCH_BYTES: Final = 4 << 20
"""Most bytes in one answer of a broker (one message may be larger); about as many wait while these are written."""
_PARTITION_BYTES: Final = 1 << 20
_SESSION_MS: Final = 30_000  # so long a member may hang before its partitions go to others


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
            async with asyncio.timeout(CONNECT_S):
                await self._consumer.start()
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(words(error)) from error
        self._consumer.subscribe([BATCHES], listener=_Listener(self._assigned))

    async def stop(self) -> None:
        """Leaves the group; never raises."""
        with suppress(Exception):
            async with asyncio.timeout(ANSWER_S):
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
            raise KafkaAway(words(error)) from error
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
            async with asyncio.timeout(CONNECT_S):
                await self._consumer.start()
                cluster = await self._consumer._client.fetch_all_metadata()
                partitions = cluster.partitions_for_topic(self._topic) or ()
                if not partitions:
                    raise KafkaAway(f"Kafka has no topic {self._topic}")
                wanted = [TopicPartition(self._topic, each) for each in sorted(partitions)]
                self._consumer.assign(wanted)
                bounds = await _bounds(self._consumer, wanted)
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(words(error)) from error
        for at, (first, end) in bounds.items():
            self._consumer.seek(at, end if at_end else first)
        self._ends = {at.partition: end for at, (first, end) in bounds.items() if first < end}

    async def stop(self) -> None:
        """Never raises."""
        with suppress(Exception):
            async with asyncio.timeout(ANSWER_S):
                await self._consumer.stop()

    async def read(self, timeout_s: float, most: int) -> list[Record]:
        """What came, [] after `timeout_s` of silence. KafkaAway."""
        try:
            found = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000), max_records=most)
        except (KafkaError, OSError) as error:
            raise KafkaAway(words(error)) from error
        return [record for records in found.values() for record in records]

    async def read_all(self) -> list[Record]:
        """All that was there when it started, by partition and offset. KafkaAway."""
        found: list[Record] = []
        left = dict(self._ends)
        while left:
            records = await self.read(CONNECT_S, 1000)
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
        async with asyncio.timeout(ANSWER_S):
            firsts = await consumer.beginning_offsets(wanted)
            ends = await consumer.end_offsets(wanted)
    except (KafkaError, OSError, TimeoutError) as error:
        raise KafkaAway(words(error)) from error
    return {at: (firsts[at], ends[at]) for at in wanted}


def _batches(partition: int) -> TopicPartition:
    return TopicPartition(BATCHES, partition)
