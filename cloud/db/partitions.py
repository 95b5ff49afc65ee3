"""The day partitions of `sample`, or a hypertable's chunks, which it makes itself. All that knows of them is here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg
from psycopg import sql

from cloud.db.connect import Connection
from cloud.db.flavour import has_hypertable

_LOCK: Final = 0x7061_7274_6974_696F
_PREFIX: Final = "sample_"
_BRIEFLY: Final = "SET LOCAL lock_timeout = '2s'"
"""A DROP that waits behind a long reader would make everybody else wait behind itself."""


def existing_days(conn: Connection) -> set[date]:
    """The UTC days that have a partition of ours."""
    rows = conn.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'sample'::regclass"
    ).fetchall()
    return {date.fromisoformat(name.removeprefix(_PREFIX)) for (name,) in rows}


def ensure_days(conn: Connection, days: Iterable[date]) -> set[date]:
    """Makes the missing partitions of these UTC days, and returns all days that are there. Not inside a transaction.

    A table that is attached once it is whole needs no lock that readers or writers of `sample` would feel.
    """
    if has_hypertable(conn):
        return set(days)
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        there = existing_days(conn)
        for day in sorted(set(days) - there):
            name = sql.Identifier(_name(day))
            conn.execute(sql.SQL("CREATE TABLE {} (LIKE sample INCLUDING ALL)").format(name))
            conn.execute(
                sql.SQL("ALTER TABLE sample ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                    name, sql.Literal(f"{day} 00:00+00"), sql.Literal(f"{day + timedelta(days=1)} 00:00+00")
                )
            )
            there.add(day)
    return there


def drop_before(conn: Connection, day: date) -> int:
    """Drops the days before `day`, oldest first; how many. What is being read stays for now."""
    if has_hypertable(conn):
        return drop_chunks(conn, "sample", datetime(day.year, day.month, day.day, tzinfo=UTC))
    dropped = 0
    for old in sorted(d for d in existing_days(conn) if d < day):
        try:
            with conn.transaction():
                conn.execute(_BRIEFLY)
                conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(_name(old))))
        except psycopg.errors.LockNotAvailable:
            break
        dropped += 1
    return dropped


def drop_chunks(conn: Connection, relation: str, before: datetime) -> int:
    """Drops the chunks of a hypertable or a continuous aggregate that end by `before`; how many. None that is read."""
    query = sql.SQL("SELECT drop_chunks({}, older_than => {})").format(sql.Literal(relation), sql.Literal(before))
    try:
        with conn.transaction():
            conn.execute(_BRIEFLY)
            return len(conn.execute(query).fetchall())
    except psycopg.errors.LockNotAvailable:
        return 0


def _name(day: date) -> str:
    return f"{_PREFIX}{day:%Y%m%d}"
