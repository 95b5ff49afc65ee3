"""Rollups: minutes from samples, hours from minutes, days from hours; whole buckets, so that late rows mend them.

Two kinds: tables that are written here, or TimescaleDB's continuous aggregates, which are refreshed here. Either way
`rollup_todo` knows what is not up to date yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from psycopg import sql

from cloud.db import partitions
from cloud.db.connect import Connection
from cloud.db.flavour import has_aggregates

METRICS: Final = {
    "pack_v": ("pack_v", "least(pack_v, pack_v_min)", "greatest(pack_v, pack_v_max)"),
    "current_a": ("current_a", "least(current_a, current_a_min)", "greatest(current_a, current_a_max)"),
    "soc_bms": ("soc_bms",),
    "soh_bms": ("soh_bms",),
    "temp_max_c": ("temp_max_c",),
    "temp_min_c": ("temp_min_c",),
    "cell_max_v": ("cell_max_v",),
    "cell_min_v": ("cell_min_v",),
    "cell_spread_v": ("cell_max_v - cell_min_v",),
    "power_w": ("pack_v * current_a",),
    "power_in_w": ("pack_v * greatest(current_a, 0)",),
    "power_out_w": ("pack_v * greatest(-current_a, 0)",),
    "speed_kmh": ("speed_kmh",),
    "ambient_c": ("ambient_c",),
    "odometer_km": ("odometer_km",),
    "cycles": ("cycles",),
}
"""Metric -> its expression over `sample`, and those whose least and greatest count if they differ from it."""
LEVELS: Final = ("samples_1m", "samples_1h", "samples_1d")
_UNITS: Final = {"samples_1m": "minute", "samples_1h": "hour", "samples_1d": "day"}
_UNIT_MINUTES: Final = {"samples_1m": 1, "samples_1h": 60, "samples_1d": 1440}
_GAP_MINUTES: Final = 60
_MOST_SPANS: Final = 20
_LOCK: Final = 0x726F_6C6C_7570_7300
_COLUMNS: Final = ("n", *(f"{name}_{part}" for name in METRICS for part in ("n", "avg", "min", "max")))


def _from_samples(name: str) -> str:
    value, *ends = METRICS[name]
    low, high = ends or (value, value)
    return f"count({value}), avg({value}), min({low}), max({high})"


def _from_finer(name: str) -> str:
    mean = f"sum({name}_avg * {name}_n) / nullif(sum({name}_n), 0)"
    return f"sum({name}_n), {mean}, min({name}_min), max({name}_max)"


def _store(table: str) -> str:
    return f"""
        ON CONFLICT (pack_key, bucket) DO UPDATE SET
            ({", ".join(_COLUMNS)}) = ({", ".join(f"excluded.{c}" for c in _COLUMNS)})"""


_MINUTES: Final = f"""
    INSERT INTO samples_1m (pack_key, bucket, {", ".join(_COLUMNS)})
    SELECT d.pack_key, d.bucket, s.* FROM dirty d CROSS JOIN LATERAL (
        SELECT count(*), {", ".join(map(_from_samples, METRICS))} FROM sample
        WHERE sample.pack_key = d.pack_key AND t >= d.bucket AND t < d.bucket + interval '1 minute'
        HAVING count(*) > 0
    ) s
    {_store("samples_1m")}"""


def _coarser(finer: str, table: str) -> str:
    unit = _UNITS[table]
    return f"""
        INSERT INTO {table} (pack_key, bucket, {", ".join(_COLUMNS)})
        SELECT d.pack_key, d.bucket, f.* FROM (
            SELECT DISTINCT pack_key, date_trunc('{unit}', bucket, 'UTC') AS bucket FROM dirty
        ) d CROSS JOIN LATERAL (
            SELECT sum(n), {", ".join(map(_from_finer, METRICS))} FROM {finer} f
            WHERE f.pack_key = d.pack_key AND f.bucket >= d.bucket AND f.bucket < d.bucket + interval '1 {unit}'
            HAVING count(*) > 0
        ) f
        {_store(table)}"""


def work_off(conn: Connection, most_commits: int) -> int | None:
    """Takes up to `most_commits` notes of what got rows, makes those buckets again, and forgets the notes.

    Returns how many minutes were made; None when another process is at it. What it did not finish is still noted. Rows
    committed meanwhile have notes of their own. Not inside a transaction.
    """
    return _refresh(conn, most_commits) if has_aggregates(conn) else _write(conn, most_commits)


def _write(conn: Connection, most_commits: int) -> int | None:
    """`work_off` where the rollups are tables, in one transaction."""
    with conn.transaction():
        locked = conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone()
        if not locked or not locked[0]:
            return None
        if conn.execute("SELECT FROM rollup_todo LIMIT 1").fetchone() is None:
            return 0
        conn.execute("CREATE TEMP TABLE dirty (pack_key int, bucket timestamptz) ON COMMIT DROP")
        made = conn.execute(
            """
            WITH todo AS (
                DELETE FROM rollup_todo WHERE id IN (SELECT id FROM rollup_todo ORDER BY id LIMIT %s)
                RETURNING pack_keys, minutes
            )
            INSERT INTO dirty
            SELECT DISTINCT k, to_timestamp(m::float8 * 60) FROM todo, unnest(pack_keys, minutes) AS u (k, m)
            """,
            (most_commits,),
        ).rowcount
        if made:
            conn.execute("ANALYZE dirty")
            conn.execute(_MINUTES)
            for finer, table in itertools.pairwise(LEVELS):
                conn.execute(_coarser(finer, table))
    return made


def _refresh(conn: Connection, most_commits: int) -> int | None:
    """`work_off` where they are continuous aggregates. A refresh is its own transaction; a second one changes nothing.

    Only what is noted is refreshed, so never a time whose raw rows were dropped: its buckets would become empty.
    """
    locked = conn.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
    if not locked or not locked[0]:
        return None
    try:
        notes = conn.execute("SELECT id, pack_keys, minutes FROM rollup_todo ORDER BY id LIMIT %s", (most_commits,))
        ids: list[int] = []
        noted: set[tuple[int, int]] = set()
        for note, pack_keys, minutes in notes:
            ids.append(note)
            noted.update(zip(pack_keys, minutes, strict=True))
        found = spans(sorted({minute for _, minute in noted}))
        for table in LEVELS:
            for first, end in whole_buckets(found, _UNIT_MINUTES[table]):
                conn.execute(
                    sql.SQL("CALL refresh_continuous_aggregate({}, {}, {})").format(
                        sql.Literal(table), sql.Literal(_minute(first)), sql.Literal(_minute(end))
                    )
                )
        conn.execute("DELETE FROM rollup_todo WHERE id = ANY(%s)", (ids,))
    finally:
        if not conn.closed:
            conn.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return len(noted)


def spans(minutes: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges [first, end) that hold the ascending minutes: few, and as close around them as few ranges can be."""
    gap = _GAP_MINUTES
    while True:
        found: list[tuple[int, int]] = []
        for minute in minutes:
            if found and minute - found[-1][1] < gap:
                found[-1] = (found[-1][0], minute + 1)
            else:
                found.append((minute, minute + 1))
        if len(found) <= _MOST_SPANS:
            return found
        gap *= 2


def whole_buckets(found: Sequence[tuple[int, int]], unit: int) -> list[tuple[int, int]]:
    """The ranges widened to whole buckets of `unit` minutes; those that then meet are one."""
    wide: list[tuple[int, int]] = []
    for first_minute, end_minute in found:
        first, end = first_minute // unit * unit, -(-end_minute // unit) * unit
        if wide and first <= wide[-1][1]:
            wide[-1] = (wide[-1][0], max(end, wide[-1][1]))
        else:
            wide.append((first, end))
    return wide


def _minute(number: int) -> datetime:
    return datetime.fromtimestamp(number * 60, UTC)


def forget_before(conn: Connection, table: str, before: datetime) -> int:
    """Drops the buckets of one of LEVELS that start before `before`; how many, or how many chunks that lie before."""
    if has_aggregates(conn):
        return partitions.drop_chunks(conn, table, before)
    return conn.execute(f"DELETE FROM {table} WHERE bucket < %s", (before,)).rowcount
