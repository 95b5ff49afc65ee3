"""Opening an outbox after anything: what is whole is used, what is torn is set aside, and what may be lost is told.

Hot file there and of this kernel boot: only the process was killed, nothing is lost. Hot file gone: the machine lost
its memory; all that was flushed is in the cold file, and at most `ahead` records after that are not. Cold file damaged:
what can be read of it goes into a new one, the old is kept beside it as `outbox.damaged.sqlite`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from edge.books import Tally, balance
from edge.outbox.note import Note, read_note
from edge.outbox.records import OutboxError
from edge.outbox.store import Store
from edge.outbox.tables import FILE_NAME, Block, Boot, Corrupt
from shared.batch import Ints, ranges
from shared.errors import ConfigError, WireError
from shared.wire import decode_batch

log = logging.getLogger(__name__)

_LOCK: Final = "lock"
_DAMAGED: Final = "outbox.damaged.sqlite"
_MISSES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Records of a start that may be gone: what a Gap says, before it has a seq."""

    of_boot: int
    first_seq: int
    last_seq: int
    cause: str
    stored: tuple[tuple[int, int], ...] = ()
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Both files, ready; the same Store twice where there is no tmpfs. boots: all known starts, by no.

    lost: starts whose end in memory is gone; killed: starts that only have to tell their last seq.
    """

    cold: Store
    hot: Store
    boots: dict[int, Boot]
    lost: tuple[Loss, ...]
    killed: tuple[Loss, ...]


def open_stores(cold_dir: Path, hot_dir: Path | None, *, cold_bytes: int, hot_bytes: int, kernel: str) -> Opened:
    """Opens, upgrades and repairs both files and puts their accounts in order. Tells no one yet."""
    note = read_note(cold_dir)
    rebooted = not any(boot.kernel == kernel for boot in note.boots.values())
    cold, damaged = open_store(cold_dir / FILE_NAME, durable=True, max_bytes=cold_bytes, suspicious=rebooted)
    hot = cold
    if hot_dir is not None:
        _make_private(hot_dir)
        hot, torn = open_store(_ours(hot_dir / FILE_NAME, cold), durable=False, max_bytes=hot_bytes, suspicious=True)
        if torn:
            log.warning("the hot outbox was damaged: %s", hot.path)
    forget_doubles(hot, cold)
    survived = {boot.no for boot in hot.boots() if boot.kernel == kernel or hot is cold}
    fresh = hot is not cold and not hot.boots()
    if fresh:
        hot.add_tally(note.hot)
    if fresh or damaged:
        hot.add_tally(imbalance(hot, cold))
    boots = dict(note.boots) | {boot.no: boot for boot in cold.boots()}
    for boot in hot.boots():
        safe_seq = max(boot.safe_seq, boots[boot.no].safe_seq if boot.no in boots else 0)
        boots[boot.no] = replace(boot, safe_seq=safe_seq)
    lost, killed = losses(boots, survived, hot, cold, note, damaged=damaged, kernel=kernel)
    return Opened(cold=cold, hot=hot, boots=boots, lost=tuple(lost), killed=tuple(killed))


def imbalance(hot: Store, cold: Store) -> Tally:
    """What both files' tallies lack to agree with what is in them."""
    files = {id(store): store for store in (hot, cold)}.values()
    pending = sum(store.row_counts()[0] + store.block_counts()[0] for store in files)
    return balance(sum((store.tally() for store in files), Tally()), pending)


def losses(
    boots: Mapping[int, Boot], survived: set[int], hot: Store, cold: Store, note: Note, *, damaged: bool, kernel: str
) -> tuple[list[Loss], list[Loss]]:
    """(what may be gone, what only has to tell its last seq) of `boots`; `survived`: those whose rows are all there."""
    lost, killed = [], []
    known, last_seqs = {boot.no: boot for boot in cold.boots()}, cold.last_seqs()
    for no, boot in sorted(boots.items()):
        if boot.replay:
            continue
        noted_seq = note.boots[no].next_seq if no in note.boots else 0
        safe_seq = max(known[no].safe_seq if no in known else 0, last_seqs.get(no, -1) + 1)
        top = max(boot.next_seq, boot.safe_seq, safe_seq, noted_seq) - 1
        cut_off = no not in survived and boot.open
        cause = "killed" if boot.kernel == kernel else "power_cut"
        if damaged or cut_off or noted_seq > safe_seq:
            first = 0 if damaged else safe_seq
            stored = tuple(pending_ranges(no, hot, cold, first))
            ahead = boot.ahead if cut_off else 0
            if first <= top or ahead:
                loss = Loss(of_boot=boot.boot, first_seq=first, last_seq=top, cause=cause, stored=stored, ahead=ahead)
                lost.append(loss)
        elif boot.open and top >= 0:
            killed.append(Loss(of_boot=boot.boot, first_seq=top + 1, last_seq=top, cause=cause))
    return lost, killed


def lock_folder(cold_dir: Path) -> IO[bytes]:
    """An open file whose lock says that the outbox in `cold_dir` is in use; closing it (or dying) gives it back."""
    _make_private(cold_dir)
    file = (cold_dir / _LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"{cold_dir} is in use by another agent: stop that one, or give this one its own data_dir"
        ) from None
    return file


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "not writable")
    except OSError as error:
        raise ConfigError(f"{folder} cannot hold the outbox ({error.strerror}): set another folder") from None


def room_bytes(cold_dir: Path, wanted: int) -> int:
    """How large the cold file may grow: what was wanted, at most half of what the disk has for it."""
    mine = sum(path.stat().st_size for path in cold_dir.glob(f"{FILE_NAME}*"))
    return min(wanted, (shutil.disk_usage(cold_dir).free + mine) // 2)


def pending_ranges(no: int, hot: Store, cold: Store, first: int = 0, last: int = 2**62) -> list[tuple[int, int]]:
    """The seqs of a start that are stored in either file, from first to last, as ranges."""
    parts = [np.array(hot.seqs(no, first, last), np.int64)]
    for id_ in cold.overlapping(no, first, last):
        block = cold.block(id_)
        if block is not None:
            parts.append(block_seqs(block))
    found = np.unique(np.concatenate(parts))
    return ranges(found[(found >= first) & (found <= last)])


def block_seqs(block: Block) -> Ints:
    """The seqs in a block, ascending; all of its range where that follows from its head or the body says nothing."""
    whole = np.arange(block.first_seq, block.last_seq + 1, dtype=np.int64)
    if block.records == whole.size:
        return whole
    try:
        return decode_batch(block.body).seqs()
    except WireError:
        return whole


def forget_doubles(hot: Store, cold: Store) -> None:
    """Rows that are in a block too: the flush was cut short between the two files."""
    last_seqs = cold.last_seqs()
    for no in hot.row_boots():
        seqs = hot.seqs(no, 0, last_seqs.get(no, -1))
        if seqs:
            for id_ in cold.overlapping(no, seqs[0], seqs[-1]):
                block = cold.block(id_)
                if block is not None:
                    hot.drop_rows(no, ranges(block_seqs(block)))


def _ours(path: Path, cold: Store) -> Path:
    """The hot file's path; a hot file that belongs to another cold one is set aside first."""
    if path.exists():
        try:
            hot = Store(path, durable=False, max_bytes=1 << 20)
            numbers = {boot.no: boot.boot for boot in hot.boots()}
            hot.close()
            strange = any(numbers.get(boot.no, boot.boot) != boot.boot for boot in cold.boots())
        except (OutboxError, ValueError, TypeError):
            strange = False
        if strange:
            log.warning("%s belongs to another outbox and is set aside", path)
            _move(path, path.with_name("outbox.other.sqlite"))
    return path


# --- a damaged file ---


def open_store(path: Path, *, durable: bool, max_bytes: int, suspicious: bool) -> tuple[Store, bool]:
    """(store, whether something of it was damaged)."""
    try:
        store = Store(path, durable=durable, max_bytes=max_bytes)
    except Corrupt as error:
        return _salvaged(path, durable, max_bytes, error), True
    try:
        if suspicious and not store.intact():
            raise Corrupt(f"{path} is damaged")
        return store, suspicious and _drop_unsound(store)
    except (Corrupt, ValueError, TypeError) as error:
        store.close()
        return _salvaged(path, durable, max_bytes, error), True


def _drop_unsound(store: Store) -> bool:
    """Deletes blocks that are not what was written; whether there were any."""
    found, id_ = False, 0
    while (block := store.next_block(id_)) is not None:
        id_ = block.id
        if not block.sound:
            log.warning("a torn block is left out: id=%d in %s", block.id, store.path)
            store.drop_blocks([block.id])
            found = True
    store.boots()  # a garbled boot raises here, where it can still be salvaged
    return found


def _salvaged(path: Path, durable: bool, max_bytes: int, error: Exception) -> Store:
    """A new file with all that can be read of the damaged one, which is kept under another name."""
    aside = path.with_name(_DAMAGED)
    log.warning("%s; what can be read of it is saved, the rest is kept as %s", error, aside)
    _move(path, aside)
    store = Store(path, durable=durable, max_bytes=max_bytes)
    try:
        old = sqlite3.connect(aside, isolation_level=None)
    except sqlite3.Error:
        return store
    with store.transaction():
        for values in _readable(old, "boot", "no"):
            _copy(store, "boot", values, isinstance(values[0], int) and isinstance(values[1], str))
        for values in _readable(old, "layout", "id"):
            _copy(store, "layout", values, True)
        for values in _readable(old, "row", "boot_no, seq"):
            _copy(store, "row", values, len(values) == 11)
        for values in _readable_blocks(old):
            _copy(store, "block", values, len(values) == 11 and Block(*values).sound)
        for table, key in (("tally", "id"), ("reject", "id")):
            for values in _readable(old, table, key):
                _copy(store, table, values, all(value is not None for value in values[:5]))
    old.close()
    store.close()
    return Store(path, durable=durable, max_bytes=max_bytes)


def _copy(store: Store, table: str, values: tuple[Any, ...], plausible: bool) -> None:
    if plausible:
        store.put_raw(table, values)


def _readable(old: sqlite3.Connection, table: str, key: str) -> Iterator[tuple[Any, ...]]:
    """Rows from both ends of a table, as far as they can be read."""
    for order in ("", ", ".join(f"{column} DESC" for column in key.split(", "))):
        try:
            yield from old.execute(f"SELECT * FROM {table} ORDER BY {order or key}")
            return
        except sqlite3.Error:
            continue


def _readable_blocks(old: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Blocks one by one: a torn page hides only the blocks on it."""
    id_, misses = 0, 0
    while misses < _MISSES:
        id_ += 1
        try:
            found = old.execute("SELECT * FROM block WHERE id = ?", (id_,)).fetchone()
            if found is None and misses % 100 == 0:  # perhaps a long stretch was acknowledged
                (following,) = old.execute("SELECT min(id) FROM block WHERE id > ?", (id_,)).fetchone()
                if following is None:
                    return
                id_ = following - 1
                continue
        except sqlite3.Error:
            found = None
        misses = 0 if found else misses + 1
        if found:
            yield found


def _move(path: Path, to: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        target = to.with_name(to.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            source.rename(target)
