"""Looking into an outbox without opening it: read-only, while the agent runs or when it does not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from edge.books import TALLY, Books, Tally, balance
from edge.outbox.note import read_note
from edge.outbox.records import OutboxError
from edge.outbox.tables import FILE_NAME
from shared.hidden import hidden

_NEWEST: Final = 20


def read_books(cold_dir: Path, hot_dir: Path | None) -> Books | None:
    """The accounts as the files have them, None where no agent ever ran. Raises OutboxError if one cannot be read."""
    cold_file, hot_file = cold_dir / FILE_NAME, (hot_dir or cold_dir) / FILE_NAME
    if not cold_file.exists() and not hot_file.exists():
        return None
    tally, pending, others, boots, last_seq = Tally(), 0, 0, [], -1
    for path in dict.fromkeys((cold_file, hot_file)):
        if path.exists():
            with _opened(path) as db:
                tally += Tally(*_row(db, f"SELECT {', '.join(TALLY)} FROM tally"))
                rows, samples = _row(db, "SELECT count(*), count(layout) FROM row")
                records, block_samples = _row(db, "SELECT total(records), total(samples) FROM block")
                pending += int(samples + block_samples)
                others += int(rows - samples + records - block_samples)
                boots.append(_row(db, "SELECT no, boot, next_seq FROM boot ORDER BY no DESC LIMIT 1"))
    if hot_file.exists():
        pending = tally.remaining  # a row that a cut-short flush left in both files counts once
    else:
        tally += read_note(cold_dir).hot
        tally += balance(tally, pending)
    _, boot, next_seq = max((found for found in boots if found), default=(0, "0", 0))
    last_seq = next_seq - 1
    return Books.of(
        tally,
        pending,
        pending_other=others,
        hot_bytes=0 if hot_file == cold_file else size_bytes(hot_file),
        cold_bytes=size_bytes(cold_file),
        oldest_age_s=None,
        boot=int(boot, 16),
        last_seq=last_seq,
    )


def size_bytes(path: Path) -> int:
    """What the file and its WAL take; 0 for one that is not there."""
    both = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in both if file.exists())


def tables(cold_dir: Path, hot_dir: Path | None) -> dict[str, dict[str, Any]]:
    """What each file holds: rows per table, the newest boots, blocks and refused records (without their bodies)."""
    with hidden("pandas"):
        from sqlite_utils import Database

    files = {"hot": (hot_dir or cold_dir) / FILE_NAME, "cold": cold_dir / FILE_NAME}
    out: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        if not path.exists() or (name == "hot" and path == files["cold"]):
            continue
        with _opened(path) as connection:
            db = Database(connection)
            out[name] = {
                "file": str(path),
                "bytes": size_bytes(path),
                "tables": {table.name: table.count for table in db.tables},
                "boots": list(db.query(f"SELECT * FROM boot ORDER BY no DESC LIMIT {_NEWEST}")),
                "blocks": list(
                    db.query(
                        "SELECT id, boot_no, first_seq, last_seq, records, samples, priority, length(body) AS bytes "
                        f"FROM block ORDER BY id LIMIT {_NEWEST}"
                    )
                ),
                "rejects": list(
                    db.query(
                        "SELECT boot_no, first_seq, last_seq, records, reason "
                        f"FROM reject ORDER BY id DESC LIMIT {_NEWEST}"
                    )
                ),
            }
    return out


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
    except sqlite3.Error as error:
        raise OutboxError(f"{path} cannot be opened: {error}") from None
    try:
        yield db
    except sqlite3.Error as error:
        raise OutboxError(f"{path} cannot be read ({error}): the agent mends it when it starts") from None
    finally:
        db.close()


def _row(db: sqlite3.Connection, sql: str) -> tuple[Any, ...]:
    """The one row of a query; () when there is none."""
    found: tuple[Any, ...] | None = db.execute(sql).fetchone()
    return found or ()
