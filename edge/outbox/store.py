"""One file of the outbox: all of its SQL, one function per question. The hot and the cold file have the same tables.

Every method takes the file's lock; a `transaction` holds it from begin to commit, so a Store may be used by any thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Final

from edge.books import TALLY, Tally
from edge.outbox.records import LAST, OutboxError, Row
from edge.outbox.tables import Block, Boot, translated, upgrade
from shared.records import boot_hex

_PAGE_BYTES: Final = 4096
_WAL_PAGES: Final = 64
_MAX_REJECTS: Final = 1000
_ROW: Final = "seq, pack_id, layout, mono_ns, t_ns, quality, alarms, body"
_BLOCK: Final = "id, boot_no, first_seq, last_seq, records, samples, priority, undated, put_ns, crc, body"


class Store:
    """One SQLite file. durable: each transaction is on flash when it returns; else it survives all but a power cut."""

    def __init__(self, path: Path, *, durable: bool, max_bytes: int) -> None:
        self.path = path
        self.lock = threading.RLock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with translated(path):
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10.0)
            try:
                self._prepare(durable, max_bytes)
            except BaseException:
                self._db.close()
                raise
        self._layouts: dict[int, bytes] = dict(self._all("SELECT id, body FROM layout"))
        self._layout_ids = {body: id_ for id_, body in self._layouts.items()}

    def _prepare(self, durable: bool, max_bytes: int) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        # A short WAL is soon written over in place, and then a commit costs no entry in the file system's journal.
        db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {max_bytes // 16}")
        db.execute("PRAGMA temp_store = MEMORY")
        upgrade(db, self.path)

    def close(self) -> None:
        """Closes the file; what is committed stays."""
        with self.lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done inside, or nothing. Raises OutboxError (Corrupt where the file is to blame)."""
        with self.lock, translated(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.lock, translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        found = self._all(sql, values)
        return found[0] if found else None

    def _run(self, sql: str, values: Sequence[Any] = ()) -> int:
        with self.lock, translated(self.path):
            return self._db.execute(sql, values).rowcount

    # --- the file itself ---

    def used_bytes(self) -> int:
        """What its content and its WAL take on the disk; free pages inside are not counted, they are used again."""
        (pages,), (free,) = self._one("PRAGMA page_count"), self._one("PRAGMA freelist_count")
        wal = self.path.with_name(self.path.name + "-wal")
        return int(pages - free) * _PAGE_BYTES + (wal.stat().st_size if wal.exists() else 0)

    def fold(self) -> None:
        """Empties the WAL into the file."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    def intact(self) -> bool:
        """Whether SQLite finds its structure whole. Reads the whole file."""
        try:
            return bool(self._one("PRAGMA quick_check(1)") == ("ok",))
        except OutboxError:
            return False

    # --- boots ---

    def boots(self) -> list[Boot]:
        """All known starts, oldest first."""
        found = self._all(
            "SELECT no, boot, kernel, replay, open, offset_ns, safe_seq, next_seq, ahead FROM boot ORDER BY no"
        )
        return [
            Boot(no=no, boot=int(boot, 16), kernel=kernel, replay=bool(replay), open=bool(is_open),
                 offset_ns=offset, safe_seq=safe, next_seq=following, ahead=ahead)
            for no, boot, kernel, replay, is_open, offset, safe, following, ahead in found
        ]  # fmt: skip

    def put_boot(self, boot: Boot) -> None:
        """Writes all that is known of a start."""
        values = astuple(replace(boot, boot=0))
        self._run(
            "INSERT OR REPLACE INTO boot (no, boot, kernel, replay, open, offset_ns, safe_seq, next_seq, ahead) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (values[0], boot_hex(boot.boot), *values[2:]),
        )

    def drop_boot(self, no: int) -> None:
        """Forgets a start of which nothing is left."""
        self._run("DELETE FROM boot WHERE no = ?", (no,))

    def advance(self, no: int, next_seq: int) -> None:
        """The first seq of a start that is not given away."""
        self._run("UPDATE boot SET next_seq = ? WHERE no = ?", (next_seq, no))

    def date(self, kernel: str, offset_ns: int) -> None:
        """Sets the offset of all undated starts of a kernel boot; never changes one."""
        self._run("UPDATE boot SET offset_ns = ? WHERE kernel = ? AND offset_ns IS NULL", (offset_ns, kernel))

    # --- tallies ---

    def tally(self) -> Tally:
        """What came into this file or left it for good."""
        found = self._one(f"SELECT {', '.join(TALLY)} FROM tally")
        return Tally(*found) if found else Tally()

    def add_tally(self, more: Tally) -> None:
        """Counts more."""
        if more != Tally():
            sets = ", ".join(f"{name} = {name} + ?" for name in TALLY)
            self._run(f"UPDATE tally SET {sets}", astuple(more))

    # --- rows ---

    def add_rows(self, boot_no: int, rows: Iterable[tuple[Row, int]], put_ns: int) -> None:
        """Stores rows with their priorities."""
        values = [
            (boot_no, row.seq, row.pack_id, self._layout_id(row.layout), *row[3:], priority, put_ns)
            for row, priority in rows
        ]
        with self.lock, translated(self.path):
            self._db.executemany("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def learn_layouts(self, layouts: Iterable[bytes]) -> None:
        """Stores layouts that rows will point to; a transaction of its own."""
        for body in layouts:
            if body not in self._layout_ids:
                self._run("INSERT OR IGNORE INTO layout (body) VALUES (?)", (body,))
                (id_,) = self._one("SELECT id FROM layout WHERE body = ?", (body,))
                self._layouts[id_], self._layout_ids[body] = body, id_

    def _layout_id(self, body: bytes | None) -> int | None:
        return None if body is None else self._layout_ids[body]

    def rows(
        self,
        boot_no: int,
        limit: int,
        *,
        newest: bool,
        undated: bool,
        skip: frozenset[int],
        since_ns: int = 0,
        last: bool = False,
    ) -> list[Row]:
        """At most `limit` rows of a start put since `since_ns`, ascending: the newest or the oldest.

        undated: also those without t_ns. skip: seqs to leave out. last: those of the lowest priority, else the others.
        """
        found = self._all(
            f"SELECT {_ROW} FROM row WHERE boot_no = ? AND put_ns >= ? AND (t_ns IS NOT NULL OR ?) "
            f"AND priority {'>=' if last else '<'} {LAST} ORDER BY seq {'DESC' if newest else 'ASC'} LIMIT ?",
            (boot_no, since_ns, undated, limit + len(skip)),
        )
        chosen = [self._row(values) for values in found if values[0] not in skip][:limit]
        return chosen[::-1] if newest else chosen

    def rows_to_flush(self) -> list[tuple[int, int, int, Row]]:
        """(boot_no, priority, put_ns, row) of all rows, oldest start first, ascending."""
        found = self._all(f"SELECT boot_no, priority, put_ns, {_ROW} FROM row ORDER BY boot_no, seq")
        return [(no, priority, put_ns, self._row(rest)) for no, priority, put_ns, *rest in found]

    def _row(self, values: Sequence[Any]) -> Row:
        seq, pack_id, layout, *rest = values
        return Row(seq, pack_id, None if layout is None else self._layouts[layout], *rest)

    def drop_rows(self, boot_no: int, spans: Iterable[tuple[int, int]]) -> int:
        """Deletes rows by inclusive seq ranges; how many there were."""
        return sum(
            self._run("DELETE FROM row WHERE boot_no = ? AND seq BETWEEN ? AND ?", (boot_no, first, last))
            for first, last in spans
        )

    def seqs(self, boot_no: int, first: int, last: int) -> list[int]:
        """The seqs of the rows in an inclusive range, ascending."""
        found = self._all(
            "SELECT seq FROM row WHERE boot_no = ? AND seq BETWEEN ? AND ? ORDER BY seq", (boot_no, first, last)
        )
        return [seq for (seq,) in found]

    def row_boots(self) -> list[int]:
        """The starts that have rows, oldest first."""
        return [no for (no,) in self._all("SELECT DISTINCT boot_no FROM row ORDER BY boot_no")]

    def row_counts(self) -> tuple[int, int, int | None]:
        """(Samples, other records, when the oldest was put) among the rows."""
        samples, rows, put_ns = self._one("SELECT count(layout), count(*), min(put_ns) FROM row")
        return samples, rows - samples, put_ns

    # --- blocks ---

    def add_block(self, block: Block) -> int:
        """Stores a block (its id is ignored); its id."""
        marks = ", ".join("?" * 10)
        with self.lock, translated(self.path):
            cursor = self._db.execute(f"INSERT INTO block ({_BLOCK.removeprefix('id, ')}) VALUES ({marks})", block[1:])
            return int(cursor.lastrowid or 0)

    def replace_block(self, block: Block) -> None:
        """Overwrites the block of this id."""
        marks = ", ".join("?" * 11)
        self._run(f"INSERT OR REPLACE INTO block ({_BLOCK}) VALUES ({marks})", block)

    def drop_blocks(self, ids: Iterable[int]) -> None:
        """Deletes blocks."""
        for id_ in ids:
            self._run("DELETE FROM block WHERE id = ?", (id_,))

    def block(self, id_: int) -> Block | None:
        """The block of this id."""
        found = self._one(f"SELECT {_BLOCK} FROM block WHERE id = ?", (id_,))
        return None if found is None else Block(*found)

    def next_block(self, after_id: int, priority: int | None = None) -> Block | None:
        """The oldest block younger than `after_id`."""
        found = self._one(
            f"SELECT {_BLOCK} FROM block WHERE id > ? AND (? IS NULL OR priority = ?) ORDER BY id LIMIT 1",
            (after_id, priority, priority),
        )
        return None if found is None else Block(*found)

    def last_rows(self) -> tuple[int, int | None]:
        """(how many rows have the lowest priority, when the oldest was put)."""
        count, put_ns = self._one("SELECT count(*), min(put_ns) FROM row WHERE priority = ?", (LAST,))
        return count, put_ns

    def waits_before(self, put_ns: int) -> bool:
        """Whether there is a row of any other priority that was put before."""
        return self._one("SELECT 1 FROM row WHERE priority < ? AND put_ns < ? LIMIT 1", (LAST, put_ns)) is not None

    def last_blocks(self) -> list[int]:
        """Ids of the blocks of the lowest priority, oldest first. Reads the heads of all blocks."""
        return [id_ for (id_,) in self._all("SELECT id FROM block WHERE priority = ? ORDER BY id", (LAST,))]

    def last_block_id(self) -> int:
        """The highest id; 0 = no blocks."""
        return int(self._one("SELECT coalesce(max(id), 0) FROM block")[0])

    def overlapping(self, boot_no: int, first: int, last: int) -> list[int]:
        """Ids of a start's blocks that may hold a seq in the inclusive range. Reads the heads of all blocks."""
        found = self._all(
            "SELECT id FROM block WHERE boot_no = ? AND first_seq <= ? AND last_seq >= ? ORDER BY id",
            (boot_no, last, first),
        )
        return [id_ for (id_,) in found]

    def block_counts(self) -> tuple[int, int]:
        """(Samples, other records) in the blocks. Reads the heads of all blocks."""
        samples, records = self._one("SELECT coalesce(sum(samples), 0), coalesce(sum(records), 0) FROM block")
        return samples, records - samples

    def any_undated(self) -> bool:
        """Whether a block holds records without t_ns. Reads the heads of all blocks."""
        return self._one("SELECT 1 FROM block WHERE undated LIMIT 1") is not None

    def last_seqs(self) -> dict[int, int]:
        """Start -> the highest seq in its blocks. Reads the heads of all blocks."""
        return dict(self._all("SELECT boot_no, max(last_seq) FROM block GROUP BY boot_no"))

    def put_raw(self, table: str, values: Sequence[Any]) -> None:
        """A row of a damaged file as it was, if it fits."""
        marks = ", ".join("?" * len(values))
        with self.lock, translated(self.path), suppress(sqlite3.IntegrityError):
            self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)

    # --- rejects ---

    def add_reject(self, boot_no: int, first: int, last: int, records: int, reason: str, body: bytes | None) -> None:
        """Keeps what the cloud refused; only so many, the oldest go."""
        self._run(
            "INSERT OR REPLACE INTO reject (boot_no, first_seq, last_seq, records, reason, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (boot_no, first, last, records, reason, body),
        )
        self._run("DELETE FROM reject WHERE id <= (SELECT max(id) FROM reject) - ?", (_MAX_REJECTS,))
