"""The cold file with its running counts: adding and dropping blocks, making room, telling what was lost.

Not locked: the Outbox holds its own lock around every call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from edge.books import Tally
from edge.outbox.boots import Boots
from edge.outbox.flush import BLOCK_BYTES, evicted, extended, gap_block, gap_of
from edge.outbox.records import BULK, LAST, URGENT
from edge.outbox.recovery import Loss, pending_ranges
from edge.outbox.store import Store
from edge.outbox.tables import Block, Boot
from shared.batch import Batch
from shared.errors import WireError
from shared.records import Gap
from shared.wire import decode_batch

log = logging.getLogger(__name__)


class Cold:
    """samples, others: what is pending in blocks. last: ids of those that can wait.

    give_seq: the next seq of the running start.
    """

    def __init__(self, store: Store, device: str, cap_bytes: int, give_seq: Callable[[], int]) -> None:
        self.store, self._device, self._cap_bytes, self._give_seq = store, device, cap_bytes, give_seq
        self.samples, self.others = store.block_counts()
        self.last = tuple(store.last_blocks())
        self._told: tuple[int, Gap] | None = None  # the last eviction's block, as long as it may still be extended
        self._evicted_id = 0  # no bulk block is as old as this one: the search for the oldest starts here

    @contextmanager
    def changes(self) -> Iterator[None]:
        """All of what is done inside, or nothing, the counts included."""
        before = self.samples, self.others, self.last, self._told, self._evicted_id
        try:
            with self.store.transaction():
                yield
        except BaseException:
            self.samples, self.others, self.last, self._told, self._evicted_id = before
            raise

    def add(self, block: Block) -> int:
        """Stores a new block; its id."""
        self.samples += block.samples
        self.others += block.records - block.samples
        id_ = self.store.add_block(block)
        if block.priority == LAST:
            self.last = (*self.last, id_)
        return id_

    def drop(self, block: Block) -> None:
        """Deletes a block."""
        self.samples -= block.samples
        self.others -= block.records - block.samples
        self._forget(block.id)

    def _forget(self, id_: int) -> None:
        self.store.drop_blocks([id_])
        if id_ in self.last:
            self.last = tuple(other for other in self.last if other != id_)

    def swap(self, old: Block, new: Block) -> None:
        """Puts a block in the place of another one, with its id."""
        self.samples += new.samples - old.samples
        self.others += new.records - new.samples - (old.records - old.samples)
        self.store.replace_block(new)

    def content(self, block: Block, boots: Mapping[int, Boot]) -> Batch | None:
        """The records of a block; None if the block is torn or holds what cannot be."""
        if not block.sound or block.boot_no not in boots:
            return None
        try:
            batch = decode_batch(block.body)
        except WireError as error:
            log.error("block %d cannot be read: %s", block.id, error)
            return None
        return batch if batch.boot == boots[block.boot_no].boot else None

    def give_up(self, block: Block, hot: Store, boots: Boots, mono_ns: int) -> None:
        """Deletes a block that `content` cannot read; its records are lost, and told."""
        log.error("a block is torn and lost: id=%d seq=%s..%s", block.id, block.first_seq, block.last_seq)
        before = self.samples
        self._forget(block.id)
        self.samples, self.others = self.store.block_counts()  # a torn block's own counts mean nothing
        self.store.add_tally(Tally(lost=before - self.samples))
        boot = boots.known.get(block.boot_no)
        if boot is None or not block.sound:  # then its head means nothing either: the cloud finds out what is missing
            suspects = [known for known in boots.known.values() if not known.replay]
        else:
            suspects = [boot]
        for known in suspects:
            first, last = (block.first_seq, block.last_seq) if block.sound else (0, known.safe_seq - 1)
            stored = tuple(pending_ranges(known.no, hot, self.store, first, last))
            loss = Loss(of_boot=known.boot, first_seq=first, last_seq=last, cause="power_cut", stored=stored)
            self.tell([loss] if first <= last else [], boots.running, mono_ns)

    def tell(self, losses: Collection[Loss], boot: Boot, mono_ns: int) -> None:
        """Stores losses as records of the running start `boot`."""
        gaps = [gap_of(loss, self._give_seq(), mono_ns) for loss in losses]
        if gaps:
            self.add(gap_block(self._device, gaps, boot))

    def handed_out(self, block_id: int) -> None:
        """The block may have been sent: what it says must not change any more."""
        if self._told is not None and self._told[0] == block_id:
            self._told = None

    def make_room(
        self, need_bytes: int, busy: Collection[int], boots: Mapping[int, Boot], running: Boot, mono_ns: int
    ) -> None:
        """Evicts the oldest blocks until `need_bytes` fit under the cap, and tells which.

        What can wait goes first, then samples and estimates.
        """
        over = self.store.used_bytes() + need_bytes - self._cap_bytes
        while over > 0:
            victim = self._oldest_last(busy) or self._oldest(BULK, busy) or self._oldest(URGENT, busy)
            if victim is None:
                return
            if victim.priority == BULK:
                self._evicted_id = victim.id
            over -= len(victim.body) + BLOCK_BYTES
            self.drop(victim)
            self.store.add_tally(Tally(evicted=victim.samples))
            self._tell_eviction(evicted(victim, boots[victim.boot_no].boot), running, mono_ns)

    def _oldest_last(self, busy: Collection[int]) -> Block | None:
        return next((self.store.block(id_) for id_ in self.last if id_ not in busy), None)

    def _oldest(self, kind: int, busy: Collection[int]) -> Block | None:
        id_ = self._evicted_id if kind == BULK else 0
        told = self._told[0] if self._told else 0
        while (block := self.store.next_block(id_, kind)) is not None:
            if block.id not in busy and block.id != told:
                return block
            id_ = block.id
        return None

    def _tell_eviction(self, loss: Loss, running: Boot, mono_ns: int) -> None:
        if self._told is not None:
            id_, gap = self._told
            more = extended(gap, loss)
            if more is not None:
                self.store.replace_block(gap_block(self._device, [more], running, id_))
                self._told = id_, more
                return
        gap = gap_of(loss, self._give_seq(), mono_ns)
        self._told = self.add(gap_block(self._device, [gap], running)), gap
