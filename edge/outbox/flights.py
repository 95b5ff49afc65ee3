"""What is on its way to the cloud: handed out once, and found again in whichever file it is by then.

Not locked: the Outbox holds its own lock around every call.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.books import Tally
from edge.outbox.boots import Boots
from edge.outbox.cold import Cold
from edge.outbox.flush import block_of_batch
from edge.outbox.records import LAST, NO_SEQS, Settled, Taken, batch_of, dated, merged, only, sample_seqs, split_receipt
from edge.outbox.store import Store
from shared.batch import Batch, Ints, ranges
from shared.records import Receipt
from shared.wire import encode_batch

_MAX_REJECT_BYTES: Final = 64 << 10


@dataclass(slots=True)
class Flight:
    """Where taken records are now: seqs among the rows, and blocks with their seqs."""

    boot_no: int
    rows: Ints = field(default_factory=lambda: NO_SEQS)
    blocks: dict[int, Ints] = field(default_factory=dict)


class Flights:
    """Takes records from both files and settles them in both."""

    def __init__(self, device: str, hot: Store, cold: Cold, boots: Boots) -> None:
        self._device, self._hot, self._cold, self._boots = device, hot, cold, boots
        self._tokens = itertools.count(1)
        self._flights: dict[int, Flight] = {}

    def use(self, hot: Store, cold: Cold) -> None:
        """Goes on with mended files. All is pending again; a Receipt on its way is one that was lost."""
        self._hot, self._cold = hot, cold
        self._flights.clear()

    def busy(self) -> set[int]:
        """Ids of the blocks that are under way."""
        return set().union(*(flight.blocks for flight in self._flights.values()))

    def of_rows(self) -> dict[tuple[int, int], int]:
        """(boot_no, seq) of each row that is under way -> its flight's token."""
        return {(f.boot_no, seq): token for token, f in self._flights.items() for seq in f.rows.tolist()}

    def moved(self, token: int, block_id: int, seqs: Ints) -> None:
        """Rows of a flight have become a block."""
        flight = self._flights[token]
        flight.blocks[block_id], flight.rows = seqs, np.setdiff1d(flight.rows, seqs, assume_unique=True)

    # --- out ---

    def take_rows(
        self, boot_nos: list[int], limit: int, *, newest: bool, undated: bool, since_ns: int = 0, last: bool = False
    ) -> Taken | None:
        """Rows, put since `since_ns`, of the first of these starts that has any to send. last: those that can wait."""
        for no in boot_nos:
            busy = [flight.rows for flight in self._flights.values() if flight.boot_no == no]
            skip = frozenset(np.concatenate([NO_SEQS, *busy]).tolist())
            also = undated or not self._boots.waits(no)
            rows = self._hot.rows(no, limit, newest=newest, undated=also, skip=skip, since_ns=since_ns, last=last)
            if rows:
                batch = batch_of(self._device, self._boots.known[no].boot, rows)
                return self._away(Flight(no, np.array([row.seq for row in rows], np.int64)), batch)
        return None

    def take_blocks(
        self, limit: int, *, undated: bool, unready: set[int], mono_ns: int, last: bool = False
    ) -> Taken | None:
        """The oldest blocks, all of one start, but those `unready`. last: those that can wait, else the others."""
        flight: Flight | None = None
        parts: list[Batch] = []
        busy, id_, count = self.busy() | unready, 0, 0
        later = set(self._cold.last)
        if last and not later:
            return None
        while count < limit and (block := self._cold.store.next_block(id_, LAST if last else None)) is not None:
            id_ = block.id
            if id_ in busy or (id_ in later) != last:
                continue
            batch = self._cold.content(block, self._boots.known)
            if batch is None:
                with self._cold.changes():
                    self._cold.give_up(block, self._hot, self._boots, mono_ns)
                continue
            if flight is not None and flight.boot_no != block.boot_no:
                break
            if block.undated and not undated and self._boots.waits(block.boot_no):
                continue
            flight = flight or Flight(block.boot_no)
            flight.blocks[id_] = batch.seqs()
            self._cold.handed_out(id_)
            parts.append(batch)
            count += block.records
        return None if flight is None else self._away(flight, merged(parts))

    def _away(self, flight: Flight, batch: Batch) -> Taken:
        offset_ns = self._boots.known[flight.boot_no].offset_ns
        token = next(self._tokens)
        self._flights[token] = flight
        return Taken(batch=batch if offset_ns is None else dated(batch, offset_ns), token=token)

    # --- back ---

    def release(self, taken: Taken) -> None:
        """The records can be taken again."""
        self._flights.pop(taken.token, None)

    def settle(self, taken: Taken, receipt: Receipt) -> Settled:
        """Each file's part is one transaction; what an error leaves unsettled can be taken again."""
        flight = self._flights.pop(taken.token, None)
        if flight is None:
            return Settled(acked=0, refused=0, kept=len(taken.batch))
        accepted, rejected = split_receipt(receipt, taken.batch.seqs())
        refused = np.sort(np.concatenate([NO_SEQS, *rejected.values()]))
        if flight.blocks or refused.size:
            with self._cold.changes():
                self._settle_blocks(flight, taken.batch, accepted, refused)
                for reason, seqs in rejected.items():
                    self._keep_refused(flight.boot_no, taken.batch, seqs, reason)
        gone = np.intersect1d(flight.rows, np.concatenate([accepted, refused]))
        if gone.size:
            with self._hot.transaction():
                self._hot.drop_rows(flight.boot_no, ranges(gone))
                self._hot.add_tally(_left(flight.rows, accepted, refused, sample_seqs(taken.batch)))
        kept = len(taken.batch) - accepted.size - refused.size
        return Settled(acked=int(accepted.size), refused=int(refused.size), kept=kept)

    def _settle_blocks(self, flight: Flight, batch: Batch, accepted: Ints, refused: Ints) -> None:
        gone = np.concatenate([accepted, refused])
        samples = sample_seqs(batch)
        for id_, seqs in flight.blocks.items():
            block = self._cold.store.block(id_)
            if block is None:
                continue
            self._cold.store.add_tally(_left(seqs, accepted, refused, samples))
            left = np.setdiff1d(seqs, gone)
            rest = only(batch, left)
            if rest is None:
                self._cold.drop(block)
            elif left.size < seqs.size:
                boot = self._boots.known[flight.boot_no]
                self._cold.swap(block, block_of_batch(rest, boot, block.priority, block.put_ns, block.id))
        if flight.blocks:
            self._cold.store.put_boot(self._boots.cold_view(flight.boot_no))

    def _keep_refused(self, boot_no: int, batch: Batch, seqs: Ints, reason: str) -> None:
        part = only(batch, seqs)
        body = encode_batch(part) if part is not None else b""
        kept = body if len(body) <= _MAX_REJECT_BYTES else None
        self._cold.store.add_reject(boot_no, int(seqs[0]), int(seqs[-1]), int(seqs.size), reason, kept)


def _left(here: Ints, accepted: Ints, refused: Ints, samples: Ints) -> Tally:
    """What leaves a file for good, in Samples."""
    mine = np.intersect1d(here, samples)
    return Tally(acked=int(np.isin(mine, accepted).sum()), refused=int(np.isin(mine, refused).sum()))
