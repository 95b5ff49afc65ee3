"""Batches into the database, exactly once: one transaction takes many Batches of many devices.

It claims the Batches' seq first; what was claimed before is a duplicate, whoever wrote it and whenever. So the same
Batch again, in pieces, in another order or from two processes at once, changes nothing and gets the same Receipt.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import psycopg

from cloud.config import Config
from cloud.db import Connection, partitions, telemetry
from cloud.ingest_rows import Origin, Rows, gather, readings
from cloud.spans import Spans, inside, repeats, spans_of
from shared.alerts import END_OF_LIFE
from shared.batch import Batch, ranges
from shared.block import NO_TIME, Ints, Layout, SampleBlock
from shared.errors import PacktwinError
from shared.records import Capture, Estimate, Event, Receipt, Rejected, Session, Single

log = logging.getLogger(__name__)

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS
MINUTE_NS: Final = 60_000_000_000
_PACKS_KEPT_NS: Final = MINUTE_NS
_DETAIL_CHARS: Final = 200
_TRIES: Final = 3

_Part = tuple[Origin, SampleBlock]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one Batch: its Receipt, and what of it was new (None of the records that were there already)."""

    device: str
    boot: int
    receipt: Receipt
    blocks: tuple[SampleBlock, ...]
    estimates: tuple[Estimate, ...]
    events: tuple[Event, ...]
    sessions: tuple[Session, ...]
    written: int
    duplicates: int
    rejected: int


class Beside(Protocol):
    """What a bus does in the transaction of its Batches. A PacktwinError that it raises is no Batch's fault."""

    def begin(self, first: int, end: int) -> None:
        """The transaction writes the Batches first, first + 1 ... end - 1 of those given to `write_each`."""
        ...

    def bury(self, index: int, detail: str) -> str | None:
        """This Batch is rejected whole as malformed; where it can be found (the origin of its rejects)."""
        ...


@dataclass(slots=True)
class _Sorted:
    """One Batch, sorted out: what is new and good, and what is refused."""

    batch: Batch
    device_key: int
    boot: int
    seqs: Ints
    spans: Spans
    repeated: Spans = field(default_factory=list)
    parts: list[_Part] = field(default_factory=list)
    singles: list[tuple[int, int, int | None, Single]] = field(default_factory=list)
    refused: dict[str, list[Ints]] = field(default_factory=dict)
    refused_before: list[tuple[int, int, str]] = field(default_factory=list)

    def refuse(self, reason: str, seqs: Ints) -> None:
        if seqs.size:
            self.refused.setdefault(reason, []).append(seqs)

    def refused_spans(self) -> list[tuple[int, int, str]]:
        found = [(*s, reason) for reason, parts in self.refused.items() for s in ranges(np.sort(np.concatenate(parts)))]
        return sorted(found)


@dataclass(frozen=True, slots=True)
class _Window:
    """Which times are taken: [first, last] in ns."""

    first_ns: int
    last_ns: int

    def reason(self, t_ns: int | None) -> str | None:
        if t_ns is None or self.first_ns <= t_ns <= self.last_ns:
            return None
        return "too_old" if t_ns < self.first_ns else "bad_time"


class Ingest:
    """Writes Batches over one connection (autocommit). Remembers keys that the database gave; not for two threads."""

    def __init__(self, conn: Connection, config: Config, clock: Callable[[], int]) -> None:
        self._conn = conn
        self._config = config
        self._clock = clock
        self._devices: dict[str, int] = {}
        self._packs: dict[str, tuple[int, int | None]] = {}
        self._packs_since_ns = 0
        self._extra_layouts: dict[Layout, int] = {}
        self._days: set[date] = set()
        telemetry.keep_bands(conn, config.bands)

    def write_each(self, batches: Sequence[Batch], beside: Beside | None = None, offset: int = 0) -> list[Outcome]:
        """As `write`; a Batch that the database cannot take at all is rejected as malformed and stops no other.

        offset: how `beside` counts the first Batch.
        """
        if not batches:
            return []
        for attempt in range(_TRIES):
            try:
                return self.write(batches, beside, offset)
            except Exception as error:
                self._forget()
                collided = isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure)
                if not (collided and attempt < _TRIES - 1) and not _is_poison(error):
                    raise
                if attempt and not collided:  # the second time nothing was remembered wrongly
                    poison = error
                    break
        if len(batches) == 1:
            log.exception("batch of %s cannot be written, rejected as malformed", batches[0].device, exc_info=poison)
            return [self._reject_whole(batches[0], poison, beside, offset)]
        middle = len(batches) // 2
        first_half = self.write_each(batches[:middle], beside, offset)
        return first_half + self.write_each(batches[middle:], beside, offset + middle)

    def write(self, batches: Sequence[Batch], beside: Beside | None = None, offset: int = 0) -> list[Outcome]:
        """Writes all in one transaction; an Outcome for each. After any exception nothing is written."""
        now_ns = self._clock()
        window = self._window(now_ns)
        self._ensure_days(batches, window)
        with self._conn.transaction():
            if beside is not None:
                beside.begin(offset, offset + len(batches))
            sorted_out = self._sorted_out(batches, window, now_ns)
            self._write_samples([part for one in sorted_out for part in one.parts], window, now_ns)
            telemetry.add_singles(self._conn, [single for one in sorted_out for single in one.singles])
            telemetry.add_rejects(
                self._conn,
                [(one.device_key, one.boot, *span, None, None) for one in sorted_out for span in one.refused_spans()],
            )
        t_ns = self._clock()
        return [_outcome(one, t_ns) for one in sorted_out]

    # --- whose it is, and what of it is new ---

    def claim(self, batches: Sequence[Batch], now_ns: int) -> list[_Part]:
        """Claims the seq of all, inside the caller's transaction; the samples that are new and good."""
        return [part for one in self._sorted_out(batches, self._window(now_ns), now_ns) for part in one.parts]

    def _window(self, now_ns: int) -> _Window:
        return _Window(now_ns - self._config.retention.raw_days * DAY_NS, now_ns + HOUR_NS)

    def _sorted_out(self, batches: Sequence[Batch], window: _Window, now_ns: int) -> list[_Sorted]:
        found = self._claim(batches)
        self._know_packs(found, now_ns)
        t_ns = _times(batches)
        all_in_time = bool(((t_ns == NO_TIME) | ((t_ns >= window.first_ns) & (t_ns <= window.last_ns))).all())
        refused: dict[tuple[int, int], list[tuple[int, int, str]]] = {}  # of the Batches before this one
        for one in found:
            before = refused.setdefault((one.device_key, one.boot), [])
            if one.repeated:
                one.refused_before += before
            self._sort_out(one, window, all_in_time)
            before += one.refused_spans()
        return found

    def _claim(self, batches: Sequence[Batch]) -> list[_Sorted]:
        """Claims all seq. Batches of the same boot take turns: each repeats what those before it have claimed."""
        unknown = {batch.device for batch in batches} - self._devices.keys()
        if unknown:
            self._devices |= telemetry.device_keys(self._conn, unknown)
        boots: dict[tuple[int, int], list[_Sorted]] = {}
        found = []
        for batch in batches:
            seqs = batch.seqs()
            one = _Sorted(batch, self._devices[batch.device], telemetry.signed(batch.boot), seqs, spans_of(seqs))
            found.append(one)
            boots.setdefault((one.device_key, one.boot), []).append(one)
        rows = [(*key, *span) for key, ones in boots.items() for one in ones for span in one.spans]
        claimed = telemetry.claim_ranges(self._conn, *np.array(rows, np.int64).T.copy())
        for key, ones in boots.items():
            for one, repeated in zip(ones, repeats([one.spans for one in ones], claimed.get(key, [])), strict=True):
                one.repeated = repeated
        for one in found:
            if one.repeated:
                hull = (one.repeated[0][0], one.repeated[-1][1])
                one.refused_before = telemetry.rejected_between(self._conn, one.device_key, one.boot, *hull)
        return found

    def _know_packs(self, sorted_out: Iterable[_Sorted], now_ns: int) -> None:
        """Looks up packs that are not known yet, or known as another device's: somebody may have moved them."""
        if now_ns - self._packs_since_ns > _PACKS_KEPT_NS:
            self._packs, self._packs_since_ns = {}, now_ns
        owners: dict[str, int] = {}
        for one in sorted_out:
            for pack_id in _pack_ids(one.batch):
                known = self._packs.get(pack_id)
                if known is None or known[1] != one.device_key:
                    owners.setdefault(pack_id, one.device_key)
        if owners:
            self._packs |= telemetry.packs(self._conn, owners, register=self._config.auto_register)

    def _refusal(self, pack_id: str, device_key: int) -> str | None:
        """Why this device's records of the pack are not taken."""
        known = self._packs.get(pack_id)
        if known is None:
            return "unknown_pack"
        return None if known[1] == device_key else "not_yours"

    def _sort_out(self, one: _Sorted, window: _Window, all_in_time: bool) -> None:
        for block in one.batch.blocks:
            fresh = block if not one.repeated else _chosen(block, ~inside(block.seq, one.repeated))
            if not len(fresh):
                continue
            reason = self._refusal(block.pack_id, one.device_key)
            if reason:
                one.refuse(reason, fresh.seq)
                continue
            good = fresh if all_in_time else _in_time(one, fresh, window)
            if len(good):
                one.parts.append((Origin(one.device_key, one.boot, self._packs[block.pack_id][0]), good))
        for record in one.batch.singles():
            if one.repeated and inside(np.array([record.seq]), one.repeated)[0]:
                continue
            pack_key, reason = None, None  # a Gap or a Report speaks of the device, at any time
            if isinstance(record, Estimate | Event | Session | Capture):
                reason = self._refusal(record.pack_id, one.device_key) or _time_refusal(record, window)
                pack_key = self._packs[record.pack_id][0] if reason is None else None
            if reason:
                one.refuse(reason, np.array([record.seq]))
            else:
                one.singles.append((one.device_key, one.boot, pack_key, record))

    # --- samples ---

    def _write_samples(self, parts: Sequence[_Part], window: _Window, now_ns: int) -> None:
        if not parts:
            return
        for layout in {block.layout for _, block in parts if block.layout.extras} - self._extra_layouts.keys():
            self._extra_layouts[layout] = _extra_layout_key(self._conn, layout)
        dated, undated = _by_time(parts)
        if dated:
            rows = telemetry.copy_samples(self._conn, gather(dated, self._extra_layouts))
            telemetry.update_latest(self._conn, *_latest(rows))
            telemetry.add_todo(self._conn, *_minutes(rows))
        if undated:
            bounds_us = (window.first_ns // 1000, now_ns // 1000)
            telemetry.copy_samples(self._conn, gather(undated, self._extra_layouts), bounds_us)

    def _ensure_days(self, batches: Iterable[Batch], window: _Window) -> None:
        t_ns = _times(batches)
        numbers = np.unique(t_ns[(t_ns >= window.first_ns) & (t_ns <= window.last_ns)] // DAY_NS)
        days = {date(1970, 1, 1) + timedelta(days=number) for number in numbers.tolist()}
        if not days <= self._days:
            # Tomorrow's too: nobody should have to wait for it at midnight.
            tomorrow = datetime.fromtimestamp(window.last_ns // 10**9, UTC).date() + timedelta(days=1)
            self._days = partitions.ensure_days(self._conn, days | {tomorrow})

    # --- when it fails ---

    def _forget(self) -> None:
        """Keys given in a transaction that was rolled back, or by a database that was replaced, are nobody's."""
        self._devices, self._packs, self._extra_layouts, self._days = {}, {}, {}, set()

    def _reject_whole(self, batch: Batch, error: Exception, beside: Beside | None, index: int) -> Outcome:
        detail = " ".join(str(error).split()).replace("\0", "")[:_DETAIL_CHARS]
        with self._conn.transaction():
            if beside is not None:
                beside.begin(index, index + 1)
            one = self._claim([batch])[0]
            one.refuse("malformed", one.seqs[~inside(one.seqs, one.repeated)])
            spans = one.refused_spans()
            origin = beside.bury(index, detail) if beside is not None and spans else None
            telemetry.add_rejects(self._conn, [(one.device_key, one.boot, *span, detail, origin) for span in spans])
        return _outcome(one, self._clock())


def _is_poison(error: Exception) -> bool:
    """Whether the Batch is to blame. A database that is away, full, or not migrated is no fault of the Batch."""
    if isinstance(error, psycopg.Error):
        limits = psycopg.errors.ProgramLimitExceeded
        return isinstance(error, psycopg.DataError | psycopg.IntegrityError | limits)
    return not isinstance(error, MemoryError | OSError | PacktwinError)


def _outcome(one: _Sorted, t_ns: int) -> Outcome:
    refused = one.refused_spans()
    rejected = sum(last - first + 1 for first, last, _ in refused)
    duplicates = int(inside(one.seqs, one.repeated).sum()) if one.repeated else 0
    refused += one.refused_before
    return Outcome(
        device=one.batch.device,
        boot=one.batch.boot,
        receipt=_receipt(one.seqs, refused, t_ns) if refused else Receipt(accepted=tuple(one.spans), t_ns=t_ns),
        blocks=tuple(block for _, block in one.parts),
        estimates=_records(one, Estimate),
        events=_records(one, Event),
        sessions=_records(one, Session),
        written=one.seqs.size - duplicates - rejected,
        duplicates=duplicates,
        rejected=rejected,
    )


def _records(one: _Sorted, kind: type[R]) -> tuple[R, ...]:
    return tuple(record for *_, record in one.singles if isinstance(record, kind))


def _receipt(seqs: Ints, refused: Sequence[tuple[int, int, str]], t_ns: int) -> Receipt:
    """The Receipt for `seqs`, of which these ranges are refused; they may reach beyond what this Batch has."""
    rejected = []
    taken = np.ones(seqs.size, np.bool_)
    for first, last, reason in sorted(refused):
        ours = (seqs >= first) & (seqs <= last)
        rejected += [Rejected(*span, reason) for span in ranges(seqs[ours & taken])]
        taken &= ~ours
    return Receipt(accepted=tuple(ranges(seqs[taken])), rejected=tuple(rejected), t_ns=t_ns)


def _times(batches: Iterable[Batch]) -> Ints:
    """The t_ns of all samples."""
    return np.concatenate([np.zeros(0, np.int64), *(block.t_ns for batch in batches for block in batch.blocks)])


def _by_time(parts: Sequence[_Part]) -> tuple[list[_Part], list[_Part]]:
    """(the samples that have a time, those that have none)."""
    dated, undated = [], []
    for origin, block in parts:
        timeless = block.t_ns == NO_TIME
        if not timeless.any():
            dated.append((origin, block))
            continue
        undated.append((origin, _chosen(block, timeless)))
        if not timeless.all():
            dated.append((origin, block.take(~timeless)))
    return dated, undated


def _in_time(one: _Sorted, block: SampleBlock, window: _Window) -> SampleBlock:
    """The rows of the block that lie in the window or are undated; the others are refused."""
    old = (block.t_ns < window.first_ns) & (block.t_ns != NO_TIME)
    future = block.t_ns > window.last_ns
    one.refuse("too_old", block.seq[old])
    one.refuse("bad_time", block.seq[future])
    return _chosen(block, ~(old | future))


def _time_refusal(record: Estimate | Event | Session | Capture, window: _Window) -> str | None:
    """Why its time is not taken. Sessions and ends of life are the whole life of a pack: never too old."""
    reason = window.reason(record.t_ns)
    lasting = isinstance(record, Session) or (isinstance(record, Event) and record.code == END_OF_LIFE)
    return None if lasting and reason == "too_old" else reason


def _chosen(block: SampleBlock, chosen: npt.NDArray[np.bool_]) -> SampleBlock:
    return block if chosen.all() else block.take(chosen)


def _pack_ids(batch: Batch) -> set[str]:
    ids = {block.pack_id for block in batch.blocks}
    ids.update(estimate.pack_id for estimate in batch.estimates)
    ids.update(event.pack_id for event in batch.events)
    ids.update(session.pack_id for session in batch.sessions)
    ids.update(capture.pack_id for capture in batch.captures)
    return ids


def _extra_layout_key(conn: Connection, layout: Layout) -> int:
    names, units = [extra.name for extra in layout.extras], [extra.unit for extra in layout.extras]
    digest = hashlib.sha256("\x1f".join([*names, "\x1e", *units]).encode()).digest()
    return telemetry.extra_layout_key(conn, digest, names, units)


def _latest(found: Sequence[Rows]) -> tuple[Mapping[str, Ints], Mapping[str, npt.NDArray[np.float64]]]:
    """(keys, readings) of the newest row of each pack."""
    candidates = [rows.take(_newest(rows.pack_key, rows.t_ns, rows.seq)) for rows in found]
    names = ("pack_key", "device_key", "boot", "seq", "t_ns")
    keys = {name: np.concatenate([getattr(rows, name) for rows in candidates]) for name in names}
    values = [readings(rows, telemetry.READINGS) for rows in candidates]
    best = _newest(keys["pack_key"], keys["t_ns"], keys["seq"])
    merged = {name: np.concatenate([v[name] for v in values])[best] for name in telemetry.READINGS}
    return {name: column[best] for name, column in keys.items()}, merged


def _newest(pack_key: Ints, t_ns: Ints, seq: Ints) -> npt.NDArray[np.intp]:
    """Positions of the newest row of each pack."""
    order = np.lexsort((seq, t_ns, pack_key))
    packs = pack_key[order]
    newest: npt.NDArray[np.intp] = order[np.append(packs[1:] != packs[:-1], True)]
    return newest


def _minutes(found: Sequence[Rows]) -> tuple[Ints, Ints]:
    """(pack keys, minutes since 1970): each pair that has a row, once."""
    pairs = np.unique(np.concatenate([rows.pack_key << 32 | rows.t_ns // MINUTE_NS for rows in found]))
    return pairs >> 32, pairs & 0xFFFFFFFF
