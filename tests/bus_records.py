"""Messages of the bus as values, without a Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shared.batch import Batch
from shared.wire import encode_batch


@dataclass(frozen=True)
class Message:
    """`cloud.kafka.Record`."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int = 1_780_000_000_000
    headers: Any = ()


def message(batch: Batch, offset: int, partition: int = 0) -> Message:
    """The Batch as the bus holds it."""
    return Message(partition, offset, batch.device.encode(), encode_batch(batch))
