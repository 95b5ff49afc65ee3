"""The outbox: what was measured stays here until the cloud says that it has it.

Two SQLite files with the same tables. `put` writes to the hot one, on tmpfs: no flash, and a killed process loses
nothing. What the cloud has not acknowledged within `flush_s` moves, as one compact block, to the cold one on flash,
where a power cut does not reach it. Without tmpfs there is one file, which is both.

Threads: any of them may call anything. `_lock` orders all that touches the cold file (flush, take, settle ...); a put
waits for `_put_lock` and the hot file only, so never for flash. Whoever needs both takes `_lock` first.

Accounts: each file counts, in the transaction that does it, what came into it or left it for good; moving a row from
hot to cold counts nothing. Their sum and the rows and blocks that are there agree after a kill at any point.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.books import Books, Tally
from edge.outbox.boots import Boots
from edge.outbox.cold import Cold
from edge.outbox.flights import Flights
from edge.outbox.flush import BLOCK_BYTES, blocks_of, gap_of, overflow_gaps
from edge.outbox.note import Note
from edge.outbox.records import (
    Measured,
    OutboxError,
    OutboxFull,
    Record,
    Row,
    Settled,
    Taken,
    priority,
    row_of,
)
from edge.outbox.recovery import (
    Opened,
    forget_doubles,
    imbalance,
    lock_folder,
    losses,
    open_store,
    open_stores,
    room_bytes,
)
from edge.outbox.tables import Corrupt
from shared.batch import Ints
from shared.records import Receipt

log = logging.getLogger(__name__)

_HOT_BYTES: Final = 64 << 20
_ROW_BYTES: Final = 120
_EARLY_S: Final = 1.5
"""Flush so long before a row's time is up: flush is called once a second and takes its own time."""


class Outbox:
    """One process at a time has it open; starting is a new boot, or `boot` again for the replay of a file.

    device: who sends. cold_dir: on flash. hot_dir: on tmpfs, None = there is none. now: the clock's mono_ns.
    max_bytes: of both files together. flush_s may be changed while it runs.
    Raises ConfigError when another process has it or a folder is of no use, OutboxError when a file cannot be opened.
    """

    def __init__(  # noqa: PLR0913 - each is a promise of its own
        self,
        device: str,
        cold_dir: Path,
        hot_dir: Path | None,
        *,
        max_bytes: int,
        flush_s: float,
        now: Callable[[], int],
        kernel_boot_id: str,
        boot: int | None = None,
    ) -> None:
        self.device, self.flush_s = device, flush_s
        self._now, self._kernel = now, kernel_boot_id
        self._lock = threading.RLock()
        self._put_lock = threading.RLock() if hot_dir else self._lock
        self._unready: set[int] = set()  # blocks whose rows are still in the hot file too
        self._unbooked = Tally()
        self._next = 0
        self.last_acked = self.last_refused = 0
        """What became of records that can wait, since the start."""
        self._rate_hz, self._window_ns, self._window_rows = 0.0, now(), 0
        self._hot_bytes = min(_HOT_BYTES, max_bytes // 4) if hot_dir else max_bytes
        self._folder_lock = lock_folder(cold_dir)
        try:
            self._cold_bytes = room_bytes(cold_dir, max_bytes - (self._hot_bytes if hot_dir else 0))
            opened = open_stores(
                cold_dir, hot_dir, cold_bytes=self._cold_bytes, hot_bytes=self._hot_bytes, kernel=kernel_boot_id
            )
            self._hot = opened.hot
            self._boots = Boots(opened, cold_dir, kernel=kernel_boot_id, boot=boot)
            self._cold = Cold(opened.cold, device, self._cold_bytes * 95 // 100, self._give_seq)
            self._flights = Flights(device, self._hot, self._cold, self._boots)
            self._begin(opened)
        except BaseException:
            self._folder_lock.close()
            raise

    @property
    def boot(self) -> int:
        """The running start."""
        return self._boots.running.boot

    def dating_ns(self) -> int | None:
        """What is added to the mono_ns of this start's records that came without a t_ns; None = not known yet."""
        return self._boots.running.offset_ns

    @property
    def _one_file(self) -> bool:
        return self._hot is self._cold.store

    def _begin(self, opened: Opened) -> None:
        """Makes this start known in both files and tells what earlier ones lost, durably, before anything else."""
        own, mono_ns = self._boots.running, self._now()
        with self._hot.transaction():
            self._hot.put_boot(own)
        with self._cold.changes():
            if not self._one_file:  # rows of a time without tmpfs
                self._to_blocks(self._cold.store.rows_to_flush())
                for no in self._cold.store.row_boots():
                    self._cold.store.drop_rows(no, [(0, 2**62)])
            if not own.replay:  # a replay's seqs belong to its file; losses stay untold until the agent itself starts
                self._cold.tell(opened.lost, own, mono_ns)
                self._boots.retire()
            self._boots.to_cold()
        self._boots.note()
        if not own.replay:
            with self._hot.transaction():
                self._boots.retired()
                self._hot.advance(own.no, self._next)
            self.put([gap_of(loss, 0, mono_ns) for loss in opened.killed])

    def close(self) -> None:
        """Writes what is pending to flash, so that a power-off loses nothing, and closes both files."""
        with self._lock, self._put_lock:
            try:
                self._flush_rows()
                self._boots.end(max(self._next, self._boots.had))
                with self._hot.transaction():
                    self._hot.put_boot(self._boots.running)
                    self._hot.add_tally(self._unbooked)
                with self._cold.changes():
                    self._boots.to_cold()
                self._boots.note()
            except OutboxError as error:
                log.error("the outbox could not be closed cleanly, nothing is lost but by a power cut: %s", error)
            finally:
                self._hot.close()
                self._cold.store.close()
                self._boots.close()
                self._folder_lock.close()

    # --- in ---

    def put(self, records: Sequence[Record], lossy: Collection[str] = ()) -> range:
        """Stores all of the records or none, and returns their seqs; call it with the records of one tick.

        lossy: packs of which frames were lost before they could be read; a Gap beside it says so of their Samples.
        A replayed boot skips (counts as filtered) the seqs that it already had. Raises OutboxFull or OutboxError:
        nothing is stored then, the Samples are counted as rejected and the seqs are given to the next records.
        """
        samples = _samples(records)
        with self._put_lock:
            records = [*records, *overflow_gaps(records, lossy, self._next, self.boot)] if lossy else records
            seqs = range(self._next, self._next + len(records))
            fresh = [(record, seq) for record, seq in zip(records, seqs, strict=True) if seq >= self._boots.had]
            stored = _samples([record for record, _ in fresh])
            booked = self._unbooked + Tally(acquired=samples, filtered=samples - stored, stored=stored)
            try:
                self._store(fresh, booked, max(seqs.stop, self._boots.had))
            except OutboxError as error:
                if self._one_file and isinstance(error, Corrupt):
                    self._mend()
                self._unbooked += Tally(acquired=samples, rejected=samples)
                raise
            self._unbooked = Tally()
            self._next = seqs.stop
            self._window_rows += len(fresh)
            return seqs

    def _store(self, fresh: list[tuple[Record, int]], booked: Tally, next_seq: int) -> None:
        rows = [(row_of(record, seq, self.device, self.boot), priority(record)) for record, seq in fresh]
        need = sum(len(row.body) + _ROW_BYTES for row, _ in rows)
        if rows and self._hot.used_bytes() + need > self._hot_bytes:
            self._hot.fold()
        if rows and self._hot.used_bytes() + need > self._hot_bytes:
            raise OutboxFull(f"{self._hot.path} is full ({self._hot_bytes >> 20} MiB): nothing was sent or flushed")
        self._hot.learn_layouts({row.layout for row, _ in rows if row.layout is not None})
        with self._hot.transaction():
            self._hot.add_rows(self._boots.running.no, rows, self._now())
            self._hot.add_tally(booked)
            self._hot.advance(self._boots.running.no, next_seq)

    def last_pending(self) -> int:
        """How many records that can wait are stored here."""
        with self._lock:
            return self._hot.last_rows()[0] + len(self._cold.last)

    def filtered(self, samples: int) -> None:
        """Counts Samples that were left out on purpose; booked with the next put."""
        with self._put_lock:
            self._unbooked += Tally(acquired=samples, filtered=samples)

    def _give_seq(self) -> int:
        with self._put_lock:
            self._next = max(self._next, self._boots.had) + 1
            return self._next - 1

    # --- hot to cold ---

    def flush(self, now_mono_ns: int) -> bool:
        """Moves all rows to flash if the oldest has waited for nearly flush_s, or the hot file is half full.

        Call it once a second from a thread of its own: it waits for flash. True = it wrote. Raises OutboxError when
        flash does not take it: the rows stay where they are.
        """
        with self._cold_work():
            self._watch_rate(now_mono_ns)
            _, _, oldest_ns = self._hot.row_counts()
            if oldest_ns is None:
                return False
            patience_s = max(self.flush_s / 2, self.flush_s - _EARLY_S)
            young = 0 <= now_mono_ns - oldest_ns < patience_s * 1e9
            if young and (self._one_file or self._hot.used_bytes() < self._hot_bytes // 2):
                return False
            self._flush_rows()
            return True

    def _flush_rows(self) -> None:
        if self._unready:
            forget_doubles(self._hot, self._cold.store)
            self._unready.clear()
        rows = self._hot.rows_to_flush()
        if not rows:
            return
        with self._cold.changes():
            moved = self._to_blocks(rows)
        for id_, seqs, token in moved:
            self._unready.add(id_)
            if token is not None:
                self._flights.moved(token, id_, seqs)
        tops = {no: row.seq for no, _, _, row in rows}
        for no, top in tops.items():
            self._boots.flushed(no, top)
        self._boots.note()
        with self._hot.transaction():
            for no, top in tops.items():
                self._hot.drop_rows(no, [(0, top)])
        self._unready.clear()

    def _to_blocks(self, rows: list[tuple[int, int, int, Row]]) -> list[tuple[int, Ints, int | None]]:
        """Adds rows to the cold file as blocks: (block id, its seqs, the flight that has them)."""
        blocks = list(blocks_of(self.device, self._boots.known, rows, self._flights.of_rows()))
        need = sum(len(block.body) + BLOCK_BYTES for block, _, _ in blocks)
        busy = self._flights.busy() | self._unready
        self._cold.make_room(need, busy, self._boots.known, self._boots.running, self._now())
        return [(self._cold.add(block), seqs, token) for block, seqs, token in blocks]

    def _watch_rate(self, now_mono_ns: int) -> None:
        elapsed_s = (now_mono_ns - self._window_ns) / 1e9
        if elapsed_s < self.flush_s:
            return
        with self._put_lock:
            self._rate_hz = max(self._rate_hz, self._window_rows / elapsed_s)
            self._window_ns, self._window_rows = now_mono_ns, 0
        if self._boots.expect(self._rate_hz, self.flush_s):
            with self._cold.changes():
                self._boots.to_cold()
            self._boots.note()

    # --- out ---

    def take(
        self, limit_rows: int, *, newest: bool, undated: bool = False, fresh: bool = True, since_ns: int = 0
    ) -> Taken | None:
        """The next records to send, all of one boot, about `limit_rows` at most; None = nothing to send.

        newest: the newest of the running boot that are not on flash and were put since `since_ns` (mono). Else the
        oldest, in order; fresh: at last also those of the running boot that are not on flash. What can wait (LAST)
        comes alone, when nothing is left that was put before it. Records of this kernel boot without t_ns wait for
        `date` unless `undated`. What is taken is not handed out again until it is settled or released.
        """
        with self._cold_work():
            own = self._boots.running.no
            if newest:
                boot_nos = [own]
            else:
                now_ns = self._now()
                found = self._flights.take_blocks(limit_rows, undated=undated, unready=self._unready, mono_ns=now_ns)
                if found is not None:
                    return found
                boot_nos = [no for no in self._hot.row_boots() if fresh or no != own]
            if self._unready:  # some rows are blocks already
                return None
            since_ns = since_ns if newest else 0
            found = self._flights.take_rows(boot_nos, limit_rows, newest=newest, undated=undated, since_ns=since_ns)
            return found if found or newest else self._take_last(undated)

    def _take_last(self, undated: bool) -> Taken | None:
        """One record of those that can wait, unless something waits that was put before it."""
        if self._hot.waits_before(self._last_put_ns()):
            return None
        found = self._flights.take_blocks(1, undated=undated, unready=set(), mono_ns=self._now(), last=True)
        return found or self._flights.take_rows(self._hot.row_boots(), 1, newest=False, undated=undated, last=True)

    def _last_put_ns(self) -> int:
        """When the oldest of those that can wait was put; 0 = in an earlier life of this machine."""
        block = self._cold.store.block(self._cold.last[0]) if self._cold.last else None
        if block is None:
            return self._hot.last_rows()[1] or 0
        known = self._boots.known.get(block.boot_no)
        return block.put_ns if known is not None and known.kernel == self._kernel else 0

    def settle(self, taken: Taken, receipt: Receipt) -> Settled:
        """Deletes what the receipt accepts, moves what it rejects to table `reject`; the rest can be taken again.

        Each file's part is one transaction; killed between the two, the second part is sent again and the cloud knows
        it already. Raises OutboxError: what is not settled can be taken again.
        """
        with self._cold_work():
            settled = self._flights.settle(taken, receipt)
            if taken.batch.captures:  # alone in its Batch
                self.last_acked += settled.acked
                self.last_refused += settled.refused
            return settled

    def release(self, taken: Taken) -> None:
        """The records were not sent, or no one knows: they can be taken again."""
        with self._lock:
            self._flights.release(taken)

    def date(self, offset_ns: int) -> None:
        """t_ns = mono_ns + offset_ns for all undated records of this kernel boot. The first call counts."""
        with self._cold_work():
            if self._boots.waiting():
                self._boots.date(offset_ns)

    # --- accounts, repair ---

    def books(self) -> Books:
        """The accounts now."""
        with self._lock, self._put_lock:
            cold = self._cold
            tally = self._hot.tally() + self._unbooked + (Tally() if self._one_file else cold.store.tally())
            samples, others, put_ns = self._hot.row_counts()
            block = cold.store.next_block(0)
            if block is not None:
                known = self._boots.known.get(block.boot_no)
                put_ns = block.put_ns if known is not None and known.kernel == self._kernel else None
            return Books.of(
                tally,
                samples + cold.samples,
                pending_other=others + cold.others,
                hot_bytes=0 if self._one_file else self._hot.used_bytes(),
                cold_bytes=cold.store.used_bytes(),
                oldest_age_s=None if put_ns is None else max(0.0, (self._now() - put_ns) / 1e9),
                boot=self.boot,
                last_seq=max(self._next, self._boots.had) - 1,
            )

    @contextmanager
    def _cold_work(self) -> Iterator[None]:
        """Alone with the cold file; when that turns out to be damaged it is mended and the caller may try again."""
        with self._lock:
            try:
                yield
            except Corrupt:
                self._mend()
                raise

    def _mend(self) -> None:
        old, one_file = self._cold.store, self._one_file
        old.close()
        store, _ = open_store(old.path, durable=True, max_bytes=self._cold_bytes, suspicious=True)
        self._hot = store if one_file else self._hot
        self._boots.mended(store, one_file)
        self._unready.clear()
        forget_doubles(self._hot, store)
        self._cold = Cold(store, self.device, self._cold_bytes * 95 // 100, self._give_seq)
        self._flights.use(self._hot, self._cold)
        known = self._boots.known
        lost, _ = losses(known, set(known), self._hot, store, Note(), damaged=True, kernel=self._kernel)
        self._hot.add_tally(imbalance(self._hot, store))
        with self._cold.changes():
            self._cold.tell(lost, self._boots.running, self._now())
            self._boots.to_cold()
        self._boots.note()


def _samples(records: Sequence[Record]) -> int:
    return sum(isinstance(record, Measured) for record in records)
