"""What goes into the outbox and what comes out of it; pure, no SQL.

On its way a record takes three shapes: a `Row` (as it arrived, one per record), a block (many rows as one wire body,
compact, for flash) and a Batch (what is sent). `batch_of` and `merged` make the second and third from the first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np

from shared.batch import Batch, Ints, ranges
from shared.block import NO_TIME, Layout, SampleBlock, block_of
from shared.errors import PacktwinError
from shared.fields import QUALITY_REASONS
from shared.records import Capture, Estimate, Event, Gap, Receipt, Report, Session, Single
from shared.wire import decode_batch, decode_layout, encode_batch, encode_layout

URGENT: Final = 0
BULK: Final = 1
LAST: Final = 2
"""Priorities: when the outbox is full, parts of captures go first, then samples and estimates, and only they. Parts of
captures leave when nothing else is left to send, one by one, so that a Sample never waits for more than one of them."""
_REASONS: Final = frozenset(QUALITY_REASONS)
NO_SEQS: Final = np.zeros(0, np.int64)


class OutboxError(PacktwinError):
    """The outbox could not store, read or settle (disk full, read-only, I/O error). What was given is not stored."""


class OutboxFull(OutboxError):
    """Nothing more can be taken in until something is sent or written to flash. What was given is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A Sample on its way into the outbox: already rounded to its layout's resolutions, without a seq."""

    pack_id: str
    layout: Layout
    row: bytes  # int32, little-endian, layout.width of them
    mono_ns: int
    t_ns: int | None
    quality: Mapping[str, str]
    alarms: tuple[str, ...]


Record = Measured | Single
"""What `Outbox.put` takes. The seq of all but Measured is the outbox's to give."""


class Row(NamedTuple):
    """One record in table `row`. layout: bytes of `encode_layout`; None = not a Sample, body is a Batch of one."""

    seq: int
    pack_id: str
    layout: bytes | None
    mono_ns: int
    t_ns: int | None
    quality: str | None
    alarms: str | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Records handed out for sending. Give it back to `settle` or `release`; `token` is the outbox's own."""

    batch: Batch
    token: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of taken records, as counts of records of any kind."""

    acked: int
    refused: int
    kept: int


def priority(record: Record) -> int:
    """URGENT for what explains the data, BULK for the data, LAST for what can wait."""
    if isinstance(record, Capture):
        return LAST
    return BULK if isinstance(record, Measured | Estimate) else URGENT


def row_of(record: Record, seq: int, device: str, boot: int) -> Row:
    """The record as a Row with its seq."""
    if isinstance(record, Measured):
        if len(record.row) != 4 * record.layout.width:  # stored, it could never be sent
            raise ValueError(f"{record.pack_id}: a row of {len(record.row)} bytes for {record.layout.width} columns")
        if not _REASONS.issuperset(record.quality.values()):
            raise ValueError(f"{record.pack_id}: unknown quality reason in {dict(record.quality)}")
        layout = encode_layout(record.layout)
        quality = json.dumps(dict(record.quality)) if record.quality else None
        alarms = " ".join(record.alarms) or None
        return Row(seq, record.pack_id, layout, record.mono_ns, record.t_ns, quality, alarms, record.row)
    body = encode_batch(singles_batch(device, boot, [replace(record, seq=seq)]))
    return Row(seq, "", None, record.mono_ns, record.t_ns, None, None, body)


def singles_batch(device: str, boot: int, records: Iterable[Single]) -> Batch:
    """A Batch of records that are not Samples."""
    kinds: dict[type, list[Any]] = {Estimate: [], Event: [], Report: [], Gap: [], Session: [], Capture: []}
    for record in records:
        kinds[type(record)].append(record)
    return Batch(
        device=device,
        boot=boot,
        estimates=tuple(kinds[Estimate]),
        events=tuple(kinds[Event]),
        reports=tuple(kinds[Report]),
        gaps=tuple(kinds[Gap]),
        sessions=tuple(kinds[Session]),
        captures=tuple(kinds[Capture]),
    )


def batch_of(device: str, boot: int, rows: Sequence[Row]) -> Batch:
    """Rows, ascending by seq, as a Batch: one block per pack and layout."""
    packs: dict[tuple[str, bytes], list[Row]] = {}
    singles: list[Single] = []
    for row in rows:
        if row.layout is None:
            singles.extend(decode_batch(row.body).singles())
        else:
            packs.setdefault((row.pack_id, row.layout), []).append(row)
    blocks = [block for (pack, layout), of in packs.items() for block in _blocks(pack, decode_layout(layout), of)]
    return replace(singles_batch(device, boot, singles), blocks=tuple(blocks))


def _blocks(pack_id: str, layout: Layout, rows: list[Row]) -> Iterator[SampleBlock]:
    for run in _ascending(rows, [row.mono_ns for row in rows]):
        yield block_of(
            pack_id,
            layout,
            [row.seq for row in run],
            [row.mono_ns for row in run],
            [row.t_ns for row in run],
            b"".join([row.body for row in run]),
            [json.loads(row.quality) if row.quality else None for row in run],
            [tuple(row.alarms.split()) if row.alarms else () for row in run],
        )


def _ascending(rows: list[Row], mono_ns: list[int]) -> Iterator[list[Row]]:
    """Runs in which mono_ns never falls: a block must not hold such a fall (a replayed log may)."""
    start = 0
    for i in range(1, len(rows)):
        if mono_ns[i] < mono_ns[i - 1]:
            yield rows[start:i]
            start = i
    yield rows[start:]


def merged(batches: Sequence[Batch]) -> Batch:
    """Batches of one device and boot, ascending, as one: blocks of the same pack and layout are joined."""
    if len(batches) == 1:
        return batches[0]
    groups: dict[tuple[str, Layout], list[list[SampleBlock]]] = {}
    for block in (block for batch in batches for block in batch.blocks):
        runs = groups.setdefault((block.pack_id, block.layout), [])
        if runs and _follows(runs[-1][-1], block):
            runs[-1].append(block)
        else:
            runs.append([block])
    singles = [record for batch in batches for record in batch.singles()]
    blocks = tuple(_joined(run) for runs in groups.values() for run in runs)
    return replace(singles_batch(batches[0].device, batches[0].boot, singles), blocks=blocks)


def _follows(before: SampleBlock, after: SampleBlock) -> bool:
    return bool(after.seq[0] > before.seq[-1] and after.mono_ns[0] >= before.mono_ns[-1])


def _joined(blocks: list[SampleBlock]) -> SampleBlock:
    if len(blocks) == 1:
        return blocks[0]
    qualities: list[Mapping[str, str]] = [{}]
    alarms: list[tuple[str, ...]] = [()]
    quality_index, alarm_index = [], []
    for block in blocks:
        quality_index.append(_shifted(block.quality_index, len(qualities) - 1))
        alarm_index.append(_shifted(block.alarm_index, len(alarms) - 1))
        qualities.extend(block.qualities[1:])
        alarms.extend(block.alarms[1:])
    return SampleBlock(
        blocks[0].pack_id,
        blocks[0].layout,
        np.concatenate([block.seq for block in blocks]),
        np.concatenate([block.mono_ns for block in blocks]),
        np.concatenate([block.t_ns for block in blocks]),
        np.concatenate([block.rows for block in blocks], axis=1),
        np.concatenate(quality_index),
        np.concatenate(alarm_index),
        tuple(qualities),
        tuple(alarms),
    )


def _shifted(index: Ints, by: int) -> Ints:
    return np.where(index > 0, index + by, 0)


def dated(batch: Batch, offset_ns: int) -> Batch:
    """The batch with t_ns = mono_ns + offset_ns wherever there was none."""
    blocks = []
    for block in batch.blocks:
        undated = block.t_ns == NO_TIME
        if undated.any():
            block = replace(block, t_ns=np.where(undated, block.mono_ns + offset_ns, block.t_ns))  # noqa: PLW2901
        blocks.append(block)
    singles = [r if r.t_ns is not None else replace(r, t_ns=r.mono_ns + offset_ns) for r in batch.singles()]
    return replace(singles_batch(batch.device, batch.boot, singles), blocks=tuple(blocks))


def only(batch: Batch, seqs: Ints) -> Batch | None:
    """The records of `batch` whose seq is among `seqs`; None if there are none."""
    blocks = []
    for block in batch.blocks:
        chosen = np.isin(block.seq, seqs)
        if chosen.all():
            blocks.append(block)
        elif chosen.any():
            blocks.append(block.take(chosen))
    wanted = set(seqs.tolist())
    singles = [record for record in batch.singles() if record.seq in wanted]
    part = replace(singles_batch(batch.device, batch.boot, singles), blocks=tuple(blocks))
    return part if len(part) else None


def sample_seqs(batch: Batch) -> Ints:
    """The seqs of its Samples, ascending."""
    return np.sort(np.concatenate([NO_SEQS, *(block.seq for block in batch.blocks)]))


def sample_count(batch: Batch) -> int:
    """How many Samples it holds."""
    return sum(map(len, batch.blocks))


def within(seqs: Ints, spans: Iterable[tuple[int, int]]) -> Ints:
    """Those of the ascending `seqs` that lie in any of the inclusive ranges."""
    inside = np.zeros(seqs.size, np.bool_)
    for first, last in spans:
        inside[np.searchsorted(seqs, first) : np.searchsorted(seqs, last, side="right")] = True
    return seqs[inside]


def complement(first: int, last: int, seqs: Ints) -> tuple[tuple[int, int], ...]:
    """The ranges within [first, last] that hold none of the ascending `seqs`."""
    free, at = [], first
    for start, end in ranges(seqs):
        if start > at:
            free.append((at, start - 1))
        at = end + 1
    if at <= last:
        free.append((at, last))
    return tuple(free)


def split_receipt(receipt: Receipt, seqs: Ints) -> tuple[Ints, dict[str, Ints]]:
    """(accepted, {reason: rejected}) of the ascending `seqs`; what the receipt does not name is in neither."""
    accepted = within(seqs, receipt.accepted)
    rest = np.setdiff1d(seqs, accepted, assume_unique=True)
    rejected: dict[str, Ints] = {}
    for item in receipt.rejected:
        hit = within(rest, [(item.first, item.last)])
        if hit.size:
            rejected[item.reason] = np.union1d(rejected.get(item.reason, hit[:0]), hit)
            rest = np.setdiff1d(rest, hit, assume_unique=True)
    return accepted, rejected
