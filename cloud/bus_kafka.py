"""The `kafka` bus: a Batch has its Receipt once all replicas in sync have it; `cloud ingest` writes it later."""

from __future__ import annotations

import logging
import time
from typing import Final

from cloud.bus import BusAway, Counters
from cloud.config import Config
from cloud.kafka import BATCHES, KafkaAway, Sender, TooLarge
from shared.batch import Batch, ranges
from shared.records import Receipt, Rejected
from shared.wire import encode_batch

log = logging.getLogger(__name__)

MAX_QUEUED_BYTES: Final = 32 << 20
ANSWER_TIMEOUT_S: Final = 20.0


class KafkaBus:
    """Takes Batches on the event loop. What the ingest refuses later stands in the view `rejects`, in no Receipt."""

    def __init__(self, config: Config) -> None:
        self._sender = Sender(config.kafka)
        self._queued_rows = 0
        self._stopping = False
        self.counters = Counters()

    @property
    def healthy(self) -> bool:
        """Whether Kafka answers."""
        return self._sender.away is None

    @property
    def queued_rows(self) -> int:
        """Records that Kafka has not acknowledged yet."""
        return self._queued_rows

    async def start(self) -> None:
        """Begins to connect; returns at once, also when Kafka is away."""
        self._sender.start()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Lets Kafka acknowledge what is under way; the rest is answered with BusAway."""
        self._stopping = True
        await self._sender.stop(timeout_s)

    async def submit(self, batch: Batch, body: bytes | None = None) -> Receipt:
        """The Receipt of a Batch, once Kafka has it. BusAway when Kafka is away or too much waits already."""
        if self._stopping:
            raise BusAway("the server is stopping")
        if self._sender.away is not None:
            raise BusAway(f"Kafka is away: {self._sender.away}")
        rows, value = len(batch), encode_batch(batch) if body is None else body
        if self._sender.queued_bytes and self._sender.queued_bytes + len(value) > MAX_QUEUED_BYTES:
            raise BusAway(f"{self._queued_rows} records wait for Kafka already", retry_after_s=5)
        self._queued_rows += rows
        try:
            await self._sender.send(BATCHES, batch.device.encode(), value, timeout_s=ANSWER_TIMEOUT_S)
        except TooLarge as error:  # the topic was made by others, with a smaller limit
            log.warning("batch of %s refused by Kafka bytes=%d: %s", batch.device, len(value), error)
            spans = ranges(batch.seqs())
            refused = tuple(Rejected(*span, "too_large") for span in spans)
            return Receipt(accepted=(), rejected=refused, t_ns=time.time_ns())
        except KafkaAway as error:
            self.counters.failures += 1
            raise BusAway(f"Kafka is away: {error}") from error
        finally:
            self._queued_rows -= rows
        self.counters.batches += 1
        self.counters.rows += rows
        return Receipt(accepted=tuple(ranges(batch.seqs())), t_ns=time.time_ns())
