"""A pack over time in few numbers: from samples while that is quick, else from the rollups and what they lack yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from psycopg import sql
from psycopg.rows import dict_row

from cloud.db.connect import Connection
from cloud.db.queries_packs import Row, ask
from cloud.db.rollups import METRICS

NAMES: Final = ("pack_v", "current_a", "soc_bms", "soh_bms", "temp_max_c", "cycles", "power_w")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT, _MINUTE, _HOUR = timedelta(microseconds=1), timedelta(minutes=1), timedelta(hours=1)
_HOUR_NS: Final = 3600 * 10**9
_HOURS_FROM: Final = timedelta(days=14)
_PARTS: Final = ("n", "avg", "min", "max")


def count_up_to(conn: Connection, pack_key: int, since: datetime, until: datetime, most: int) -> int:
    """How many samples lie in [since, until]; stops counting at `most`."""
    query = "SELECT count(*) AS n FROM (SELECT FROM sample WHERE pack_key = %s AND t BETWEEN %s AND %s LIMIT %s) AS few"
    return int(ask(conn, query, (pack_key, since, until, most))[0]["n"])


def fold(
    conn: Connection, pack_key: int, since: datetime, until: datetime, width_ns: int, *, rollups: bool
) -> list[Row]:
    """Steps of `width_ns` in [since, until], oldest first: t_ns of the begin, n, and _avg _min _max of each of NAMES.

    rollups: whole minutes and hours that are up to date are read from them, the rest from samples; `state` is null.
    Else all is read from the samples, and `state` is the last one of the step. The figures are the same.
    """
    values: Row = {"pack_key": pack_key, "since": since, "until": until, "width": width_ns}
    if not rollups:
        source = _from_samples("t_ns")
    else:
        by_hours = width_ns >= _HOUR_NS and until - since > _HOURS_FROM
        values |= _marks(conn, pack_key, since, by_hours=by_hours)
        source = sql.SQL(" UNION ALL ").join(
            (_from_samples("minute", "since", "minutes_from"), _from_rollup("samples_1m", "minutes_from", "hours_from"),
             _from_rollup("samples_1h", "hours_from", "hours_to"),
             _from_rollup("samples_1m", "hours_to", "minutes_to"), _from_samples("minute", "minutes_to"))
        )  # fmt: skip
    query = sql.SQL(
        "SELECT at / %(width)s * %(width)s AS t_ns, sum(n)::int8 AS n, max(state) AS state, {means}"
        " FROM ({source}) f GROUP BY 1 ORDER BY 1"
    ).format(means=sql.SQL(", ").join(map(_mean, NAMES)), source=source)
    with conn.cursor(row_factory=dict_row, binary=True) as cursor:
        return cursor.execute(query, values).fetchall()


def predictions(conn: Connection, pack_key: int, steps_ns: Sequence[int], width_ns: int) -> list[Row]:
    """For each step (t_ns of its begin): rul, failure and reason of the last estimate made up to its end.

    An estimate that no longer held when the step began counts as none, reason `stale`. One look at the index a step: a
    year of estimates is never read.
    """
    return ask(
        conn,
        """
        SELECT CASE WHEN NOT stale THEN rul_cycles END AS rul,
               CASE WHEN NOT stale THEN failure_probability END AS failure,
               CASE WHEN stale THEN 'stale' WHEN rul_cycles IS NULL THEN coalesce(reason, 'no_model') END AS reason
        FROM unnest(%s::timestamptz[], %s::timestamptz[]) WITH ORDINALITY AS step (since, until, position)
        LEFT JOIN LATERAL (
            SELECT t, rul_cycles, failure_probability, reason FROM estimate
            WHERE pack_key = %s AND t <= step.until ORDER BY t DESC LIMIT 1
        ) e ON true
        CROSS JOIN LATERAL (SELECT coalesce(e.t < step.since - prediction_holds(), false) AS stale) told
        ORDER BY position
        """,
        ([_time(t_ns) for t_ns in steps_ns], [_time(t_ns + width_ns - 1) for t_ns in steps_ns], pack_key),
    )


def _time(t_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=t_ns // 1000)


def _marks(conn: Connection, pack_key: int, since: datetime, *, by_hours: bool) -> dict[str, datetime]:
    """Where samples give way to minutes, those to hours, and back: minutes_from <= hours_from <= hours_to <= ..._to.

    The newest bucket may still lack rows, and so may each that late rows are noted for: what follows is read finer.
    """
    found = ask(
        conn,
        """
        SELECT (SELECT max(bucket) FROM samples_1m WHERE pack_key = %(key)s) AS minute,
               (SELECT max(bucket) FROM samples_1h WHERE pack_key = %(key)s) AS hour,
               (SELECT to_timestamp(min(minute) * 60.0::float8)
                FROM rollup_todo, unnest(pack_keys, minutes) AS u (pack_key, minute) WHERE pack_key = %(key)s) AS late
        """,
        {"key": pack_key},
    )[0]
    minutes_from = _whole(since + _MINUTE - _INSTANT, _MINUTE)
    done = min(found["minute"] or since, found["late"] or datetime.max.replace(tzinfo=UTC))
    minutes_to = max(minutes_from, done)
    hours_from = _whole(since + _HOUR - _INSTANT, _HOUR)
    hours_to = _whole(min(found["hour"] or since, minutes_to), _HOUR)
    if not by_hours or hours_to <= hours_from:
        hours_from = hours_to = minutes_to
    return {"minutes_from": minutes_from, "hours_from": hours_from, "hours_to": hours_to, "minutes_to": minutes_to}


def _whole(t: datetime, unit: timedelta) -> datetime:
    return t - (t - _EPOCH) % unit


def _mean(name: str) -> sql.Composable:
    columns = {part: sql.Identifier(f"{name}_{part}") for part in _PARTS}
    return sql.SQL("sum({avg} * {n}) / nullif(sum({n}), 0) AS {avg}, min({min}) AS {min}, max({max}) AS {max}").format(
        **columns
    )


def _from_rollup(table: str, since: str, until: str) -> sql.Composable:
    columns = sql.SQL(", ").join(sql.Identifier(f"{name}_{part}") for name in NAMES for part in _PARTS)
    return sql.SQL(
        "SELECT (extract(epoch FROM bucket) * 1000000000)::int8 AS at, n, NULL::int AS state, {columns} FROM {table}"
        " WHERE pack_key = %(pack_key)s AND bucket >= {since} AND bucket < {until}"
    ).format(
        columns=columns, table=sql.Identifier(table), since=sql.Placeholder(since), until=sql.Placeholder(until)
    )  # fmt: skip


def _from_samples(by: str, since: str = "since", before: str | None = None) -> sql.Composable:
    """Groups of samples from `since` on: by steps of the width (`t_ns`), or by minute where no rollup serves."""
    columns = sql.SQL(", ").join(map(_metric, NAMES))
    if by == "t_ns":
        at = sql.SQL("t_ns / %(width)s * %(width)s")
        state = sql.SQL("(array_agg(state ORDER BY t DESC, seq DESC))[1]")
    else:
        at, state = sql.SQL("t_ns / 60000000000 * 60000000000"), sql.SQL("NULL::int")
    end = sql.SQL("t <= %(until)s") if before is None else sql.SQL("t < {}").format(sql.Placeholder(before))
    return sql.SQL(
        "SELECT {at} AS at, count(*) AS n, {state} AS state, {columns} FROM sample"
        " WHERE pack_key = %(pack_key)s AND t >= {since} AND {end} GROUP BY 1"
    ).format(at=at, state=state, columns=columns, since=sql.Placeholder(since), end=end)


def _metric(name: str) -> sql.Composable:
    value, *ends = METRICS[name]
    low, high = ends or (value, value)
    text = "count({v}) AS {n}, avg({v}) AS {a}, min({l}) AS {i}, max({h}) AS {x}"
    names = {key: sql.Identifier(f"{name}_{part}") for key, part in zip("naix", _PARTS, strict=True)}
    return sql.SQL(text).format(v=sql.SQL(value), l=sql.SQL(low), h=sql.SQL(high), **names)
