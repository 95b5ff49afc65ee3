"""The live stream of the kafka bus: the API reads along at the topic's end, but only while somebody watches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cloud.config import Kafka
from cloud.ingest import Outcome
from cloud.kafka import BATCHES, Record, TopicReader
from cloud.live import Hub
from shared.batch import Batch
from shared.errors import PacktwinError, WireError
from shared.records import Event, Receipt, Session
from shared.wire import decode_batch

log = logging.getLogger(__name__)

Owners = Mapping[str, str]
"""pack_id -> the device whose records of it are taken."""

_LOOK_S: Final = 0.2
_LINGER_S: Final = 10.0
_OWNERS_S: Final = 2.0
_PAUSE_S: Final = 1.0
_READ_S: Final = 0.5
_READ_MESSAGES: Final = 2_000
_REMEMBERED: Final = 4_096


class Tail:
    """Publishes what arrives on the bus. It shows nothing of a pack that the database does not give to its sender."""

    def __init__(self, kafka: Kafka, hub: Hub, owners: Callable[[], Owners]) -> None:
        """owners: asks the database, from a thread; PacktwinError when it is away."""
        self._kafka, self._hub, self._ask_owners = kafka, hub, owners
        self._news = News()
        self._owners_due_s = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look for watchers. Call it on the event loop."""
        self._task = asyncio.create_task(self._run(), name="live-tail")

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        told = ""
        while True:
            try:
                await self._follow()
                told = ""
            except PacktwinError as error:
                if str(error) != told:
                    log.warning("the live stream waits: %s", error)
                told = str(error)
            except Exception:
                log.exception("the live stream failed; it starts again")
            await asyncio.sleep(_PAUSE_S if told else _LOOK_S)

    async def _follow(self) -> None:
        """Reads from the first watcher until a while after the last."""
        if not self._hub.readers:
            return
        reader = TopicReader(self._kafka, BATCHES)
        try:
            await reader.start(at_end=True)
            alone_since_s: float | None = None
            while alone_since_s is None or time.monotonic() - alone_since_s < _LINGER_S:
                records = await reader.read(_READ_S, _READ_MESSAGES)
                if self._hub.readers:
                    alone_since_s = None
                    await self._show(records)
                elif alone_since_s is None:
                    alone_since_s = time.monotonic()
        finally:
            await reader.stop()

    async def _show(self, records: Sequence[Record]) -> None:
        if time.monotonic() >= self._owners_due_s:
            self._news.owners = await asyncio.to_thread(self._ask_owners)
            self._owners_due_s = time.monotonic() + _OWNERS_S
        if records:
            outcomes = await asyncio.to_thread(self._news.outcomes, records, self._hub.watched_packs)
            self._hub.publish(outcomes)


@dataclass(slots=True)
class News:
    """What messages say that is new, as if it had been committed here."""

    owners: Owners = field(default_factory=dict)
    _seen: OrderedDict[tuple[str, int, int], None] = field(default_factory=OrderedDict)

    def outcomes(self, records: Iterable[Record], watched: Collection[str | None]) -> list[Outcome]:
        """Of the devices of these packs (None among them = of all); others are not even decoded."""
        owners = {self.owners.get(pack) for pack in watched if pack is not None} - {None}
        devices = None if None in watched else {str(owner).encode() for owner in owners}
        found = []
        for record in records:
            if devices is None or record.key in devices:
                try:
                    batch = decode_batch(record.value or b"")
                except WireError:  # the ingest makes a dead letter of it
                    continue
                found.append(self._outcome(batch))
        return found

    def _outcome(self, batch: Batch) -> Outcome:
        def ours(pack_id: str) -> bool:
            return self.owners.get(pack_id) == batch.device

        blocks = tuple(block for block in batch.blocks if ours(block.pack_id))
        estimates = tuple(estimate for estimate in batch.estimates if ours(estimate.pack_id))
        events = tuple(one for one in batch.events if ours(one.pack_id) and self._is_first(batch, one))
        sessions = tuple(one for one in batch.sessions if ours(one.pack_id) and self._is_first(batch, one))
        shown = sum(map(len, blocks)) + len(estimates) + len(events) + len(sessions)
        receipt = Receipt(accepted=(), t_ns=0)
        return Outcome(batch.device, batch.boot, receipt, blocks, estimates, events, sessions, shown, 0, 0)

    def _is_first(self, batch: Batch, record: Event | Session) -> bool:
        """A Batch whose receipt was lost comes again; the hub sorts out all that has a time, but not these."""
        key = (batch.device, batch.boot, record.seq)
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True
