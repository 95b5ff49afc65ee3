"""From broker to bus: each message of a device becomes durable or is refused, gets its answer, and is then forgotten.

In this order, so that a kill at any point costs a repetition and nothing else: bus, answer, acknowledgement.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from cloud.bus import Bus, BusAway
from cloud.gateway_wishes import Wishes
from cloud.mqtt import Message
from shared.batch import Batch
from shared.errors import WireError
from shared.fields import ID
from shared.records import Receipt, boot_hex
from shared.wire import Decoded, decode_batch, decode_batches, encode_receipt
from shared.wire_json import decode_batch_json, receipt_json

log = logging.getLogger(__name__)

UP: Final = "packtwin/v1/+/up"
STATUS: Final = "packtwin/v1/+/status"
_JSON: Final = "application/json"
_INLINE_BYTES: Final = 16 << 10
"""Messages up to this size are read on the event loop: a thread costs more than they do."""
_AT_WORK_BYTES: Final = 4 << 20
"""Messages of so many bytes are at work at a time (or one that is larger); a Batch in memory is ten times its bytes."""
_HOLD_S: Final = 10.0
"""So long a bus may be away before devices are told to keep their records; they wait for 20 s."""
_RETRY_S: Final = 0.5
_RECEIPT_EXPIRY_S: Final = 60
"""A device that has not fetched its Receipt by then has sent its records again, or will."""


class Refusal(Exception):
    """A message that is not taken: one sentence, and the reason of the closed list, if any."""

    def __init__(self, sentence: str, reason: str | None, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.reason, self.retry_after_s = reason, retry_after_s

    @property
    def body(self) -> bytes:
        """As a device reads it."""
        return json.dumps({"error": str(self), "reason": self.reason, "retry_after_s": self.retry_after_s}).encode()


class Numbers:
    """What the gateway counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter("packtwin_gateway_messages", "Messages from devices", registry=self.registry)
        self.receipts = Counter("packtwin_gateway_receipts", "Batches answered by a Receipt", registry=self.registry)
        self.refused = Counter(
            "packtwin_gateway_refused", "Messages that were not taken", ["reason"], registry=self.registry
        )
        self.connected = Gauge("packtwin_gateway_connected", "1 = the broker is there", registry=self.registry)
        self.inflight = Gauge("packtwin_gateway_inflight", "Messages that are not answered yet", registry=self.registry)


class Gateway:
    """Lives on the event loop. `take` is called with each message of the session's."""

    def __init__(self, bus: Bus, wishes: Wishes, now_ns: Callable[[], int]) -> None:
        self._bus, self._wishes, self._now_ns = bus, wishes, now_ns
        self._waiting: deque[Message] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._at_work_bytes = 0
        self._begins = False
        self._away_since_s: float | None = None
        self._ending = False
        self.numbers = Numbers()
        self.numbers.inflight.set_function(lambda: len(self._waiting) + len(self._tasks))

    def take(self, message: Message) -> None:
        """Takes a message in; it is answered and acknowledged later, or comes again with the next connection."""
        if self._ending:
            return
        _, _, device, kind = message.topic.split("/", 3)
        if not ID.fullmatch(device):
            log.info("ignored: %s is no topic of a device", message.topic[:200])
            message.link.acknowledge(message)
            return
        self._wishes.meet(device)
        if kind == "status":
            message.link.acknowledge(message)
            return
        self.numbers.messages.inc()
        self._waiting.append(message)
        self._work_soon()

    async def drain(self, timeout_s: float) -> None:
        """Forgets what waits (the broker keeps it) and finishes what is at work, if that goes in time."""
        self._ending = True
        self._waiting.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()

    def _work_soon(self) -> None:
        """Not at once: what else comes in this turn of the loop is read together with it."""
        if self._waiting and not self._begins:
            self._begins = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._begins = False
        begun: list[Message] = []
        while self._waiting and (
            not self._at_work_bytes or self._at_work_bytes + len(self._waiting[0].payload) <= _AT_WORK_BYTES
        ):
            message = self._waiting.popleft()
            if message.link.ended.done():  # its broker has it still, and gives it to us again
                continue
            self._at_work_bytes += len(message.payload)
            begun.append(message)
        for message, decoded in zip(begun, _read_together(begun), strict=True):
            task = asyncio.create_task(self._serve(message, decoded), name="gateway message")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, message: Message, decoded: Decoded | None) -> None:
        device = message.topic.split("/")[2]
        try:
            content_type, body = await self._answer(device, message, decoded)
        except Refusal as refusal:
            self.numbers.refused.labels(refusal.reason or "away").inc()
            content_type, body = _JSON, refusal.body
        except Exception:
            log.exception("a message of %s failed; its records stay with the device", device)
            self.numbers.refused.labels("failed").inc()
            content_type, body = _JSON, Refusal("The gateway failed; send it again later.", None, 30).body
        finally:
            self._at_work_bytes -= len(message.payload)
            self._work_soon()
        message.link.publish(
            f"packtwin/v1/{device}/receipt",
            body,
            correlation_data=message.correlation,
            content_type=content_type,
            message_expiry_interval=_RECEIPT_EXPIRY_S,
        )
        message.link.acknowledge(message)

    async def _answer(self, device: str, message: Message, decoded: Decoded | None) -> tuple[str, bytes]:
        """(content type, body) of the Receipt. Raises Refusal."""
        if not message.payload:  # a device asks whether we are there, and what time it is
            return "", encode_receipt(Receipt(accepted=(), t_ns=self._now_ns()))
        as_json = _is_json(message)
        if decoded is None:
            decoded = await _read(message, decode_batch_json if as_json else decode_batch)
        batch = _batch(message, decoded)
        if batch.device != device:
            log.warning("refused: a batch of %s came on the topic of %s", batch.device, device)
            raise Refusal(f"A batch of {batch.device} may not come on the topic of {device}.", "not_yours")
        receipt = await self._submit(batch, None if as_json else message.payload)
        if self._wishes.watched(device):
            receipt = dataclasses.replace(receipt, mode="live")
        self.numbers.receipts.inc()
        return (_JSON, receipt_json(receipt)) if as_json else ("", encode_receipt(receipt))

    async def _submit(self, batch: Batch, body: bytes | None) -> Receipt:
        """The bus's Receipt. A bus that has not been away for long is tried again; else Refusal."""
        while True:
            try:
                receipt = await self._bus.submit(batch, body)
            except BusAway as error:
                now_s = asyncio.get_running_loop().time()
                if self._away_since_s is None:
                    self._away_since_s = now_s
                    log.warning("the bus is away: %s", error)
                if now_s - self._away_since_s >= _HOLD_S:
                    log.info("told to keep it: device=%s boot=%s", batch.device, boot_hex(batch.boot))
                    sentence = "The cloud cannot store anything now; nothing was taken, send it again later."
                    raise Refusal(sentence, None, error.retry_after_s) from error
                await asyncio.sleep(_RETRY_S)
            else:
                self._away_since_s = None
                return receipt


def _is_json(message: Message) -> bool:
    return message.content_type.startswith(_JSON) or message.payload[:1] == b"{"


def _read_together(messages: Sequence[Message]) -> list[Decoded | None]:
    """What is in each message; None = it must be read alone."""
    plain = [i for i, m in enumerate(messages) if 0 < len(m.payload) <= _INLINE_BYTES and not _is_json(m)]
    found: list[Decoded | None] = [None] * len(messages)
    for i, decoded in zip(plain, decode_batches([messages[i].payload for i in plain]), strict=True):
        found[i] = decoded
    return found


async def _read(message: Message, decode: Callable[[bytes], Batch]) -> Decoded:
    try:
        body = message.payload
        return decode(body) if len(body) <= _INLINE_BYTES else await asyncio.to_thread(decode, body)
    except WireError as error:
        return error


def _batch(message: Message, decoded: Decoded) -> Batch:
    """The Batch; Refusal where it is none."""
    if isinstance(decoded, Batch):
        return decoded
    size, topic = len(message.payload), message.topic
    log.info("message refused topic=%s bytes=%d reason=%s: %s", topic, size, decoded.reason, decoded)
    raise Refusal(f"{decoded}.", decoded.reason) from decoded
