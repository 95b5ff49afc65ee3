"""Rollups: minutes from samples, hours from minutes, days from hours; whole buckets, so that late rows mend them."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Final

from cloud.db.connect import Connection

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

    Returns how many minutes were made; None when another process is at it. One transaction: what it did not finish is
    still noted. Rows committed meanwhile have notes of their own.
    """
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


def forget_before(conn: Connection, table: str, before: datetime) -> int:
    """Deletes the buckets of one of LEVELS that start before `before`; how many."""
    return conn.execute(f"DELETE FROM {table} WHERE bucket < %s", (before,)).rowcount
