"""The `direct` bus: Batches of many requests meet here, go to the database in one transaction, and get their Receipts.

One writer thread owns one connection. While it commits, requests queue up; then it takes all that waits. So one request
alone waits for one commit, and a thousand at once share one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg

from cloud import db
from cloud.bus import BusAway, Counters, OnCommitted
from cloud.config import Config
from cloud.db.connect import DatabaseAway
from cloud.ingest import Ingest, Outcome
from shared.batch import Batch
from shared.records import Receipt

log = logging.getLogger(__name__)

MAX_TRANSACTION_ROWS: Final = 20_000
MAX_QUEUED_ROWS: Final = 200_000
ANSWER_TIMEOUT_S: Final = 30.0
_PING_S: Final = 2.0
_BACKOFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(slots=True, eq=False)
class _Waiting:
    batch: Batch
    answer: asyncio.Future[Receipt]


class DirectBus:
    """Takes Batches on the event loop, writes them in a thread; after a commit calls `on_committed` on the loop."""

    def __init__(self, config: Config, on_committed: OnCommitted | None = None) -> None:
        self._config = config
        self._on_committed = on_committed
        self._queue: deque[_Waiting] = deque()
        self._queued_rows = 0
        self._wake = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._away: str | None = "the database is not connected yet"
        self.counters = Counters()

    @property
    def healthy(self) -> bool:
        """Whether the database took or would take the last thing we tried."""
        return self._away is None

    @property
    def queued_rows(self) -> int:
        """Records that wait for the writer."""
        return self._queued_rows

    async def start(self) -> None:
        """Starts the writer; returns at once, also when the database is away."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="bus-writer", daemon=True)
        self._thread.start()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Finishes what is queued, if the database takes it in time; the rest is answered with BusAway."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
        self._fail(self._take_all(), "the server is stopping")
        await asyncio.sleep(0)  # lets the answers above reach those who wait

    async def submit(self, batch: Batch, body: bytes | None = None) -> Receipt:
        """The Receipt of a Batch, once it is durable. BusAway when the database is away or too much waits already."""
        if self._loop is None or self._stopping:
            raise BusAway("the server is stopping")
        rows = len(batch)
        waiting = _Waiting(batch, self._loop.create_future())
        with self._wake:
            if self._away is not None:
                raise BusAway(f"the database is away: {self._away}")
            if self._queued_rows and self._queued_rows + rows > MAX_QUEUED_ROWS:
                raise BusAway(f"{self._queued_rows} records wait for the database already", retry_after_s=5)
            self._queue.append(waiting)
            self._queued_rows += rows
            self._wake.notify()
        try:
            return await asyncio.wait_for(waiting.answer, ANSWER_TIMEOUT_S)
        except TimeoutError as error:  # it may still become durable; the same Batch again changes nothing then
            raise BusAway(f"the database did not answer within {ANSWER_TIMEOUT_S:g} s") from error

    # --- the writer thread ---

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                with db.connect(self._config.database, "packtwin-ingest") as conn:
                    ingest = Ingest(conn, self._config, time.time_ns)
                    self._away, failures = None, 0
                    self._serve(conn, ingest)
            except (DatabaseAway, psycopg.Error) as error:
                self._away = " ".join(str(error).split())
                log.warning("database away: %s", self._away)
            except Exception as error:
                self._away = f"the writer failed: {error!r}"
                log.exception("the writer failed; it starts again")
            self._fail(self._take_all(), self._away or "the server is stopping")
            with self._wake:
                self.counters.failures += bool(self._away)
                self._wake.wait_for(lambda: self._stopping, _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    def _serve(self, conn: db.Connection, ingest: Ingest) -> None:
        while not self._stopping or self._queue:
            group = self._take()
            try:
                if group:
                    self._write(ingest, group)
                else:  # nobody came: is it still there?
                    conn.execute("SELECT 1")
            except BaseException as error:
                self._away = " ".join(str(error).split()) or repr(error)
                self._fail(group, self._away)
                raise

    def _write(self, ingest: Ingest, group: list[_Waiting]) -> None:
        started = time.perf_counter()
        outcomes = ingest.write_each([waiting.batch for waiting in group])
        self.counters.count(outcomes, time.perf_counter() - started)
        self._call(self._answer, group, outcomes)

    def _take(self) -> list[_Waiting]:
        """All that waits, up to one transaction's worth; [] when stopping, or when nothing came for a while."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._stopping, _PING_S)
            group: list[_Waiting] = []
            rows = 0
            while self._queue and (not group or rows + len(self._queue[0].batch) <= MAX_TRANSACTION_ROWS):
                group.append(self._queue.popleft())
                rows += len(group[-1].batch)
            self._queued_rows -= rows
            return group

    def _take_all(self) -> list[_Waiting]:
        with self._wake:
            group = list(self._queue)
            self._queue.clear()
            self._queued_rows = 0
            return group

    def _answer(self, group: list[_Waiting], outcomes: list[Outcome]) -> None:
        for waiting, outcome in zip(group, outcomes, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(outcome.receipt)
        if self._on_committed is not None:
            try:
                self._on_committed(outcomes)
            except Exception:
                log.exception("a reader of committed rows failed")

    def _fail(self, group: list[_Waiting], why: str) -> None:
        def answer() -> None:
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(BusAway(f"the database is away: {why}"))

        if group:
            self._call(answer)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
