"""How rows become blocks and how losses are told: pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from edge.outbox.records import (
    LAST,
    NO_SEQS,
    URGENT,
    Measured,
    Record,
    Row,
    batch_of,
    complement,
    dated,
    sample_count,
    singles_batch,
)
from edge.outbox.recovery import Loss, block_seqs
from edge.outbox.tables import Block, Boot
from shared.batch import Batch, Ints
from shared.block import NO_TIME
from shared.records import Gap
from shared.wire import encode_batch

MAX_BLOCK_ROWS: Final = 4096
_MAX_STORED_RANGES: Final = 64
BLOCK_BYTES: Final = 160
"""What a block takes beside its body, about."""


def blocks_of(
    device: str,
    boots: Mapping[int, Boot],
    rows: list[tuple[int, int, int, Row]],
    flight_of: Mapping[tuple[int, int], int],
) -> Iterator[tuple[Block, Ints, int | None]]:
    """(block, its seqs, the flight that has them) for rows as `Store.rows_to_flush` gives them.

    Rows that are on their way to the cloud get blocks of their own, so that one Receipt deletes whole blocks.
    """
    groups: dict[tuple[int, int, int | None], list[tuple[int, Row]]] = {}
    for no, priority, put_ns, row in rows:
        groups.setdefault((no, priority, flight_of.get((no, row.seq))), []).append((put_ns, row))
    for (no, priority, flight), group in groups.items():
        most = 1 if priority == LAST else MAX_BLOCK_ROWS
        for start in range(0, len(group), most):
            part = group[start : start + most]
            batch = batch_of(device, boots[no].boot, [row for _, row in part])
            yield block_of_batch(batch, boots[no], priority, part[0][0]), batch.seqs(), flight


def block_of_batch(batch: Batch, boot: Boot, priority: int, put_ns: int, id_: int = 0) -> Block:
    """The batch as a block, dated if its boot is."""
    if boot.offset_ns is not None:
        batch = dated(batch, boot.offset_ns)
    seqs = batch.seqs()
    body = encode_batch(batch)
    head = (int(seqs[0]), int(seqs[-1]), len(batch), sample_count(batch), priority, int(is_undated(batch)), put_ns)
    return Block(id_, boot.no, *head, 0, body).sealed()


def is_undated(batch: Batch) -> bool:
    """Whether a record of it has no t_ns."""
    return any(r.t_ns is None for r in batch.singles()) or any((b.t_ns == NO_TIME).any() for b in batch.blocks)


def evicted(block: Block, boot: int) -> Loss:
    """What is lost with a block. Seqs between its own are not: they are stored elsewhere or already settled."""
    return Loss(
        of_boot=boot,
        first_seq=block.first_seq,
        last_seq=block.last_seq,
        cause="evicted",
        stored=complement(block.first_seq, block.last_seq, block_seqs(block)),
    )


def extended(gap: Gap, loss: Loss) -> Gap | None:
    """The gap with a loss of the same boot that follows it; None if they are two stories."""
    if gap.of_boot != loss.of_boot or gap.cause != loss.cause or loss.first_seq <= gap.last_seq:
        return None
    between = complement(gap.last_seq + 1, loss.first_seq - 1, NO_SEQS)
    stored = _touching((*gap.stored, *between, *loss.stored))
    return replace(gap, last_seq=loss.last_seq, stored=stored) if len(stored) <= _MAX_STORED_RANGES else None


def _touching(spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return tuple(joined)


def gap_of(loss: Loss, seq: int, mono_ns: int) -> Gap:
    """The record that tells a loss."""
    return Gap(
        seq=seq,
        mono_ns=mono_ns,
        of_boot=loss.of_boot,
        first_seq=loss.first_seq,
        last_seq=loss.last_seq,
        cause=loss.cause,
        stored=loss.stored,
        ahead=loss.ahead,
    )


def overflow_gaps(records: Sequence[Record], lossy: Collection[str], first_seq: int, boot: int) -> list[Gap]:
    """What says of each Sample of a lossy pack that it did not see every frame; the Sample itself is `stored`.

    The records get seqs from `first_seq` on, these Gaps those after them.
    """
    told = [
        (seq, record)
        for seq, record in enumerate(records, first_seq)
        if isinstance(record, Measured) and record.pack_id in lossy
    ]
    return [
        Gap(
            seq=first_seq + len(records) + i,
            mono_ns=record.mono_ns,
            t_ns=record.t_ns,
            of_boot=boot,
            first_seq=seq,
            last_seq=seq,
            cause="bus_overflow",
            stored=((seq, seq),),
        )
        for i, (seq, record) in enumerate(told)
    ]


def gap_block(device: str, gaps: list[Gap], boot: Boot, id_: int = 0) -> Block:
    """Gaps as an urgent block."""
    return block_of_batch(singles_batch(device, boot.boot, gaps), boot, URGENT, gaps[0].mono_ns, id_)
