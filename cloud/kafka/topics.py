"""The topics, made where they are missing; what all of this package is built on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Protocol

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from cloud.config import Kafka
from shared.batch import MAX_BODY_BYTES
from shared.errors import PacktwinError

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of each try; we tell once that it is away, and back

BATCHES: Final = "packtwin.batch.v1"
DEAD: Final = "packtwin.dead.v1"
EARLIER: Final = "ev_battery_telemetry"
PARTITIONS: Final = 12
_DAY_MS: Final = 86_400_000
KEPT_MS: Final = {BATCHES: 7 * _DAY_MS, DEAD: 90 * _DAY_MS, EARLIER: _DAY_MS}
"""How long Kafka keeps messages; a database that is away for longer than BATCHES says loses some."""
MESSAGE_BYTES: Final = MAX_BODY_BYTES + (1 << 20)
CONNECT_S: Final = 20.0
ANSWER_S: Final = 3.0
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
        async with asyncio.timeout(CONNECT_S):
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
        raise KafkaAway(f"no Kafka at {kafka.bootstrap}: {words(error)}") from error
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


def words(error: BaseException | None) -> str:
    """What an error says, in one line."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return " ".join(str(error).split()) or type(error).__name__
