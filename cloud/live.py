"""What was just committed, on its way to whoever watches: bounded, never backwards in time, in nobody's way."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import orjson

from cloud.ingest import Outcome
from shared.block import NO_TIME, SampleBlock
from shared.records import Estimate, Event, Session, boot_hex
from shared.wire_json import plain, record_dict

log = logging.getLogger(__name__)

QUEUE_MESSAGES: Final = 256
"""How many messages wait for one slow reader before older ones are dropped; the newest of each pack and kind stays."""
PENDING_COMMITS: Final = 16
"""How many commits wait to be turned into messages before whole commits are dropped."""

ANSWER_NS: Final = 10_000_000_000
"""How much older than its pack's newest row an Estimate may be; one that is older belongs to a backlog."""


def iso(t_ns: int | None) -> str | None:
    """UTC nanoseconds as ISO 8601 with microseconds, `Z` at the end; None stays None."""
    if t_ns is None:
        return None
    seconds, rest_ns = divmod(t_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


@dataclass(frozen=True, slots=True)
class Message:
    """One record for the stream: kind is sample, estimate, event or session; body is its JSON."""

    pack_id: str
    kind: str
    body: bytes


class Subscriber:
    """One reader's queue, bounded by the number of packs. Lives on the event loop; `pack_id` None = all packs."""

    def __init__(self, pack_id: str | None, limit: int = QUEUE_MESSAGES) -> None:
        self.pack_id = pack_id
        self.ended = False
        self._limit = limit
        self._waiting: list[Message] = []
        self._thin_above = limit
        self._dropped = 0
        self._ready = asyncio.Event()

    def skip(self, count: int) -> None:
        """Counts what this reader will never see."""
        self._dropped += count

    def offer(self, messages: Iterable[Message]) -> None:
        """Queues messages; a reader that is too slow loses older ones, but of no pack the newest."""
        self._waiting.extend(messages)
        if len(self._waiting) > self._thin_above:
            self._thin()
        if self._waiting:
            self._ready.set()

    def _thin(self) -> None:
        newest = {(message.pack_id, message.kind): i for i, message in enumerate(self._waiting)}
        recent = len(self._waiting) - self._limit
        kept = [m for i, m in enumerate(self._waiting) if i >= recent or newest[m.pack_id, m.kind] == i]
        self.skip(len(self._waiting) - len(kept))
        self._waiting = kept
        self._thin_above = len(kept) + self._limit  # not at every commit: it goes through the whole queue

    def end(self) -> None:
        """Wakes the reader and lets it go."""
        self.ended = True
        self._ready.set()

    async def take(self, timeout_s: float) -> tuple[int, list[Message]]:
        """(number of messages dropped since the last call, what is queued); (0, []) after `timeout_s` of silence."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            return 0, []
        if not self.ended:
            self._ready.clear()
        dropped, self._dropped = self._dropped, 0
        messages, self._waiting, self._thin_above = self._waiting, [], self._limit
        return dropped, messages


class Hub:
    """Hands committed records to subscribers. Lives on the event loop; one thread of its own writes the JSON."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscribers: set[Subscriber] = set()
        self._watched: frozenset[str | None] = frozenset()
        self._thread = ThreadPoolExecutor(1, "live")
        self._pending = 0
        self._lock = threading.Lock()  # guards the three below, which the thread and seed() write
        self._shown_ns: dict[str, int] = {}
        self._said_ns: dict[str, int] = {}
        self._device_of: dict[str, str] = {}
        self._closed = False

    def start(self) -> None:
        """Binds the hub to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Ends every stream; later subscribers end at once."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.end()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def subscribe(self, pack_id: str | None) -> Subscriber:
        """A new reader of one pack's records, or of all packs' (None)."""
        subscriber = Subscriber(pack_id)
        self._subscribers.add(subscriber)
        self._watch()
        if self._closed:
            subscriber.end()
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """Forgets a reader; may be called twice."""
        self._subscribers.discard(subscriber)
        self._watch()

    def seed(self, pack_id: str, device: str | None, t_ns: int | None) -> None:
        """Says what is known of a pack before anything of it came by: its device and its newest row."""
        with self._lock:
            if device is not None:
                self._device_of.setdefault(pack_id, device)
            if t_ns is not None:
                self._show(pack_id, t_ns)

    def watches(self, device: str | None) -> bool:
        """Whether someone looks at one of the device's packs right now (None: of any device's).

        A list of all packs does not count: it would make the whole fleet talk every second.
        """
        return any(device in (None, self._device_of.get(pack)) for pack in self._watched if pack is not None)

    def watched_devices(self) -> frozenset[str]:
        """All devices of which that is so. May be called from any thread."""
        with self._lock:
            return frozenset(self._device_of[pack] for pack in self._watched if pack in self._device_of)

    @property
    def watched_packs(self) -> frozenset[str | None]:
        """What is looked at now; None among them = all packs."""
        return self._watched

    @property
    def readers(self) -> int:
        """The number of open streams."""
        return len(self._subscribers)

    def publish(self, outcomes: Sequence[Outcome]) -> None:
        """Takes what one transaction committed."""
        if self._closed or not any(outcome.written for outcome in outcomes):
            return
        if self._pending >= PENDING_COMMITS:
            for subscriber in self._subscribers:
                subscriber.skip(sum(outcome.written for outcome in outcomes))
            return
        self._pending += 1
        self._thread.submit(self._write, outcomes, self._watched)

    def _write(self, outcomes: Sequence[Outcome], watched: frozenset[str | None]) -> None:
        messages: dict[str, list[Message]] = {}
        try:
            with self._lock:
                for outcome in outcomes:
                    for message in self._news(outcome, watched):
                        messages.setdefault(message.pack_id, []).append(message)
        except Exception:
            log.exception("the live stream lost a commit of %d batches", len(outcomes))
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, messages)

    def _news(self, batch: Outcome, watched: frozenset[str | None]) -> Iterable[Message]:
        head = {"device": batch.device, "boot": boot_hex(batch.boot)}
        said = [estimate for estimate in batch.estimates if self._is_news(estimate)]
        for block in batch.blocks:
            self._device_of[block.pack_id] = batch.device
            news = self._newer(block)
            if news is not None and not watched.isdisjoint((None, block.pack_id)):
                for row in news.dicts():
                    yield Message(block.pack_id, "sample", _json(head | plain(row)))
        for kind, records in (("estimate", said), ("event", batch.events), ("session", batch.sessions)):
            for record in records:
                if not watched.isdisjoint((None, record.pack_id)):
                    yield Message(record.pack_id, kind, _json(head | _single(record)))

    def _newer(self, block: SampleBlock) -> SampleBlock | None:
        """The rows that are newer than the last one shown of the pack: a backlog never makes a chart jump back."""
        news = block.t_ns > self._shown_ns.get(block.pack_id, NO_TIME)
        if not news.any():
            return None
        self._show(block.pack_id, int(block.t_ns.max()))
        return block if news.all() else block.take(news)

    def _is_news(self, estimate: Estimate) -> bool:
        """Whether nothing newer was said or, but for the time that an answer takes, measured of its pack before."""
        shown_ns = self._shown_ns.get(estimate.pack_id, NO_TIME)
        before_ns = max(self._said_ns.get(estimate.pack_id, NO_TIME), shown_ns - ANSWER_NS)
        if estimate.t_ns is None or estimate.t_ns <= before_ns:
            return False
        self._said_ns[estimate.pack_id] = min(estimate.t_ns, self._now_ns())
        return True

    def _show(self, pack_id: str, t_ns: int) -> None:
        """Nothing up to `t_ns` shows again; but a clock that ran ahead must not silence what comes before that time."""
        t_ns = min(t_ns, self._now_ns())
        self._shown_ns[pack_id] = max(t_ns, self._shown_ns.get(pack_id, t_ns))

    def _deliver(self, messages: Mapping[str, Sequence[Message]]) -> None:
        self._pending -= 1
        for subscriber in self._subscribers:
            if subscriber.pack_id is None:
                subscriber.offer(chain.from_iterable(messages.values()))
            else:
                subscriber.offer(messages.get(subscriber.pack_id, ()))

    def _watch(self) -> None:
        self._watched = frozenset(subscriber.pack_id for subscriber in self._subscribers)


def _single(record: Estimate | Event | Session) -> dict[str, Any]:
    values = record_dict(record)
    if isinstance(record, Event):
        values |= {"since": iso(record.since_t_ns), "cleared": iso(record.cleared_t_ns)}
    return values


def _json(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record | {"t": iso(record["t_ns"])})
