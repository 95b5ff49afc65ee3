"""A producer that mends itself."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from cloud.config import Kafka
from cloud.kafka.topics import ANSWER_S, CONNECT_S, MESSAGE_BYTES, Headers, KafkaAway, TooLarge, prepare, words

log = logging.getLogger(__name__)

_SEND_BYTES: Final = 256 << 10
_PROBE_S: Final = 1.0
_DRAIN_LOOK_S: Final = 0.01
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


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
            raise TooLarge(words(error)) from error
        if error is not None:
            raise KafkaAway(words(error)) from error

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
                raise TooLarge(words(error)) from error
            if isinstance(error, KafkaError):
                self._broken.set()
                raise KafkaAway(words(error)) from error
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
                self._is_away(words(error))
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
            async with asyncio.timeout(CONNECT_S):
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
            async with asyncio.timeout(ANSWER_S):
                await producer.client.fetch_all_metadata()
        except (KafkaError, OSError, TimeoutError) as error:
            self._is_away(words(error))
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
            async with asyncio.timeout(ANSWER_S):
                await producer.stop()
                return
        with suppress(Exception):
            await producer.client.close()
