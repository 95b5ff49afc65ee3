"""What the bus holds, into the database: rows and how far the bus is written, in one transaction."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg

from cloud import db
from cloud.bus import Counters
from cloud.config import Config
from cloud.db import queries_bus, queries_earlier
from cloud.db.connect import DatabaseAway
from cloud.ingest import Ingest, Outcome
from cloud.kafka import BATCHES, Record
from shared.batch import Batch
from shared.errors import PacktwinError, WireError
from shared.fields import ID
from shared.wire import Decoded, decode_batches

T = TypeVar("T")
log = logging.getLogger(__name__)

MAX_TRANSACTION_ROWS: Final = 10_000
_DETAIL_CHARS: Final = 200
_TOGETHER_BYTES: Final = 256 << 10
"""Messages that are decoded at once; a Batch in memory is ten times its bytes."""


class Superseded(PacktwinError):
    """Another ingest has gone on from here; nothing was written."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that nobody can write, as it lay on the bus, and why."""

    key: bytes
    value: bytes
    reason: str
    detail: str
    origin: str


@dataclass(frozen=True, slots=True)
class _Item:
    """One message: moves its partition from `start` to `end`. Either a Batch or why it is none."""

    record: Record
    start: int
    end: int
    batch: Batch | None
    problem: WireError | None


class Writer:
    """The ingest's connection. All methods run on one thread, which is not the event loop's.

    Whatever fails with the database closes the connection; `ping` opens it again.
    """

    def __init__(self, config: Config, bury: Callable[[DeadLetter], None]) -> None:
        """bury: returns once the letter is durable, or raises PacktwinError."""
        self._config = config
        self._bury = bury
        self._conn: db.Connection | None = None
        self._ingest: Ingest | None = None
        self._cluster = ""
        self.next_offsets: dict[int, int] = {}
        """Of each partition that was placed: the offset of the next message to be written."""
        self.counters = Counters()
        self.dead_letters = 0
        self.expired = 0
        """Messages that Kafka gave up before they were written."""
        self.away: str | None = "not connected yet"
        self.answered_s = float("-inf")
        """When (monotonic) the database last did what we asked."""

    @property
    def ready(self) -> bool:
        """Whether there is a connection."""
        return self._conn is not None

    def ping(self) -> None:
        """Asks the database for a sign of life, over a new connection if need be; never raises."""
        try:
            if self._conn is None:
                conn = db.connect(self._config.database, "packtwin-ingest")
                try:
                    self._ingest = Ingest(conn, self._config, time.time_ns)
                except BaseException:
                    conn.close()
                    raise
                self._conn = conn
                log.info("the database answers")
            self._conn.execute("SELECT 1")
        except (DatabaseAway, psycopg.Error) as error:
            self._lost(error)
        else:
            self._answered()

    def close(self) -> None:
        """Closes the connection."""
        if self._conn is not None:
            self._conn.close()
        self._conn = self._ingest = None

    def rewind(self, cluster: str) -> None:
        """All that the bus still holds will be read again. DatabaseAway."""
        self._do(lambda conn: queries_bus.rewind(conn, cluster, BATCHES))

    def place(self, cluster: str, bounds: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        """From which offset to read each partition; bounds: (first kept, next to be written). DatabaseAway."""
        return self._do(lambda conn: self._place(conn, cluster, bounds))

    def write(self, records: Iterable[Record]) -> list[Outcome]:
        """Writes messages of placed partitions; what of them became what. Superseded, DatabaseAway, PacktwinError."""
        return self._do(lambda _: self._write(records))

    def statuses(self, pack_ids: set[str]) -> list[dict[str, Any]]:
        """Rows of the view latest_battery_status. DatabaseAway."""
        return self._do(lambda conn: queries_earlier.statuses_of(conn, sorted(pack_ids)))

    # --- how far ---

    def _place(self, conn: db.Connection, cluster: str, bounds: Mapping[int, tuple[int, int]]) -> dict[int, int]:
        self._cluster = cluster
        places = {}
        for partition, known in queries_bus.positions(conn, cluster, BATCHES, bounds).items():
            first, end = bounds[partition]
            offset = known or 0
            if offset > end:  # the topic was made anew: all in it is new to us, or a repetition that changes nothing
                log.warning("partition %d is written to %d but ends at %d; reading it again", partition, offset, end)
                queries_bus.rewind(conn, cluster, BATCHES, [partition])
                offset = 0
            elif known and offset < first:
                self.expired += first - offset
                log.error("partition %d lost %d messages: Kafka kept them no longer", partition, first - offset)
            self.next_offsets[partition] = offset
            places[partition] = max(offset, first)
        return places

    # --- rows ---

    def _write(self, records: Iterable[Record]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        group: list[_Item] = []
        rows = 0
        for record, decoded in _decoded(record for record in records if not self._is_written(record)):
            group.append(self._item(record, decoded))
            batch = group[-1].batch
            rows += len(batch) if batch is not None else 1
            if rows >= MAX_TRANSACTION_ROWS:
                outcomes += self._commit(group)
                group, rows = [], 0
        return outcomes + self._commit(group)

    def _is_written(self, record: Record) -> bool:
        return record.offset < self.next_offsets[record.partition]

    def _item(self, record: Record, decoded: Decoded) -> _Item:
        start, end = self.next_offsets[record.partition], record.offset + 1
        self.next_offsets[record.partition] = end
        if isinstance(decoded, WireError):
            return _Item(record, start, end, None, decoded)
        return _Item(record, start, end, decoded, None)

    def _commit(self, group: Sequence[_Item]) -> list[Outcome]:
        if not group:
            return []
        assert self._conn is not None and self._ingest is not None
        began_s = time.perf_counter()
        batches = [item.batch for item in group if item.batch is not None]
        beside = _Offsets(self, self._conn, group)
        if batches:
            outcomes = self._ingest.write_each(batches, beside)
        else:
            outcomes = []
            with self._conn.transaction():
                beside.move(group)
        self.counters.count(outcomes, time.perf_counter() - began_s)
        self.counters.rejected += len(group) - len(batches)
        self._answered()
        return outcomes

    def advance(self, conn: db.Connection, moves: Mapping[int, queries_bus.Move]) -> None:
        """Moves the partitions on in the database. Superseded."""
        if not queries_bus.advance(conn, self._cluster, BATCHES, moves):
            raise Superseded("another ingest writes these partitions now")

    def origin(self, record: Record) -> str:
        """Where a message lies, for ever."""
        return f"{self._cluster}/{BATCHES}/{record.partition}/{record.offset}"

    def bury(self, record: Record, reason: str, detail: str) -> None:
        """Makes a dead letter of a message."""
        self._bury(DeadLetter(record.key or b"", record.value or b"", reason, detail, self.origin(record)))
        self.dead_letters += 1

    # --- the connection ---

    def _do(self, work: Callable[[db.Connection], T]) -> T:
        if self._conn is None:
            raise DatabaseAway(f"the database is away: {self.away}")
        try:
            done = work(self._conn)
        except psycopg.Error as error:
            self._lost(error)
            raise DatabaseAway(f"the database is away: {self.away}") from error
        self._answered()
        return done

    def _answered(self) -> None:
        self.answered_s = time.monotonic()
        self.away = None

    def _lost(self, error: Exception) -> None:
        self.counters.failures += 1
        words = " ".join(str(error).split()) or repr(error)
        if self.away != words:
            log.warning("database away: %s", words)
        self.away = words
        self.close()


class _Offsets:
    """`cloud.ingest.Beside`: the messages' offsets move with the rows of their Batches."""

    def __init__(self, writer: Writer, conn: db.Connection, group: Sequence[_Item]) -> None:
        self._writer, self._conn, self._group = writer, conn, group
        self._at = [i for i, item in enumerate(group) if item.batch is not None]
        self._buried: set[str] = set()

    def begin(self, first: int, end: int) -> None:
        """Messages that are no Batch go with the Batch after them, the last ones with the last."""
        self.move(self._group[self._bound(first) : self._bound(end)])

    def bury(self, index: int, detail: str) -> str:
        record = self._group[self._at[index]].record
        self._bury(record, "malformed", detail)
        return self._writer.origin(record)

    def move(self, items: Sequence[_Item]) -> None:
        moves: dict[int, queries_bus.Move] = {}
        for item in items:
            begins = moves.get(item.record.partition, (item.start, 0))[0]
            moves[item.record.partition] = (begins, item.end)
        self._writer.advance(self._conn, moves)
        for item in items:
            if item.problem is not None:
                self._reject(item.record, item.problem)

    def _bound(self, index: int) -> int:
        if index == len(self._at):
            return len(self._group)
        return self._at[index - 1] + 1 if index else 0

    def _reject(self, record: Record, problem: WireError) -> None:
        origin = self._writer.origin(record)
        if queries_bus.is_buried(self._conn, origin):  # read again from the start
            return
        key = (record.key or b"").decode("utf-8", "replace")
        detail = _printable(f"{problem} (key {key[:80]!r})")
        self._bury(record, problem.reason, detail)
        queries_bus.bury(self._conn, key if ID.fullmatch(key) else None, problem.reason, detail, origin)

    def _bury(self, record: Record, reason: str, detail: str) -> None:
        """Once, however often the transaction is tried."""
        origin = self._writer.origin(record)
        if origin not in self._buried:
            self._writer.bury(record, reason, detail)
            self._buried.add(origin)
            log.warning("message %s cannot be written, rejected reason=%s: %s", origin, reason, detail)


def _decoded(records: Iterable[Record]) -> Iterator[tuple[Record, Decoded]]:
    """Each message with what it holds."""
    together: list[Record] = []
    size = 0
    for record in records:
        together.append(record)
        size += len(record.value or b"")
        if size >= _TOGETHER_BYTES:
            yield from zip(together, decode_batches([one.value or b"" for one in together]), strict=True)
            together, size = [], 0
    yield from zip(together, decode_batches([one.value or b"" for one in together]), strict=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_DETAIL_CHARS]
