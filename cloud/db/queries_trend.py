"""A pack over time in few numbers: from samples while that is quick, else from the rollups and what they lack yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from psycopg import sql
from psycopg.rows import dict_row

from cloud.db.connect import Connection
from cloud.db.queries_packs import Row, ask
from cloud.db.rollups import METRICS

NAMES: Final = ("pack_v", "current_a", "soc_bms", "soh_bms", "temp_max_c", "cycles", "power_w")
_HOURS_FROM_S: Final = 3600
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

    rollups: long times are read from them (then the first minute may begin before `since`, and `state` is null);
    else from the samples, and `state` is the last one of the step.
    """
    values: Row = {"pack_key": pack_key, "since": since, "until": until, "width": width_ns}
    if not rollups:
        source = _from_samples("t_ns")
    else:
        by_hours = width_ns >= _HOURS_FROM_S * 10**9 and until - since > _HOURS_FROM
        values["minutes_to"] = max(since, _newest(conn, "samples_1m", pack_key) or since)
        values["hours_to"] = (_newest(conn, "samples_1h", pack_key) if by_hours else None) or datetime.min
        values["hours_to"] = min(max(values["hours_to"].replace(tzinfo=UTC), since), values["minutes_to"])
        source = sql.SQL(" UNION ALL ").join(
            (_from_rollup("samples_1h", "since", "hours_to"), _from_rollup("samples_1m", "hours_to", "minutes_to"),
             _from_samples("minute"))
        )  # fmt: skip
    query = sql.SQL(
        "SELECT at / %(width)s * %(width)s AS t_ns, sum(n)::int8 AS n, max(state) AS state, {means}"
        " FROM ({source}) f GROUP BY 1 ORDER BY 1"
    ).format(means=sql.SQL(", ").join(map(_mean, NAMES)), source=source)
    with conn.cursor(row_factory=dict_row, binary=True) as cursor:
        return cursor.execute(query, values).fetchall()


def predictions(conn: Connection, pack_key: int, since: datetime, until: datetime, width_ns: int) -> list[Row]:
    """The last estimate before `since`, then the last of each step of `width_ns` up to `until`, oldest first."""
    return ask(
        conn,
        """
        (SELECT * FROM estimate WHERE pack_key = %(pack_key)s AND t < %(since)s ORDER BY t DESC LIMIT 1)
        UNION ALL
        (SELECT DISTINCT ON (t_ns / %(width)s) * FROM estimate
         WHERE pack_key = %(pack_key)s AND t BETWEEN %(since)s AND %(until)s ORDER BY t_ns / %(width)s, t_ns DESC)
        ORDER BY t_ns
        """,
        {"pack_key": pack_key, "since": since, "until": until, "width": width_ns},
    )


def newest_prediction(conn: Connection, pack_key: int) -> Row:
    """The newest estimate; {} when there is none."""
    query = "SELECT * FROM estimate WHERE pack_key = %s AND t IS NOT NULL ORDER BY t DESC, seq DESC LIMIT 1"
    found = ask(conn, query, (pack_key,))
    return found[0] if found else {}


def _newest(conn: Connection, table: str, pack_key: int) -> datetime | None:
    """The newest bucket of a rollup: it may still lack rows, so it and what follows is taken from finer data."""
    query = sql.SQL("SELECT max(bucket) AS t FROM {} WHERE pack_key = %s").format(sql.Identifier(table))
    with conn.cursor(row_factory=dict_row, binary=True) as cursor:
        row = cursor.execute(query, (pack_key,)).fetchone()
    return row["t"] if row else None


def _mean(name: str) -> sql.Composable:
    columns = {part: sql.Identifier(f"{name}_{part}") for part in _PARTS}
    return sql.SQL("sum({avg} * {n}) / nullif(sum({n}), 0) AS {avg}, min({min}) AS {min}, max({max}) AS {max}").format(
        **columns
    )


def _from_rollup(table: str, since: str, until: str) -> sql.Composable:
    columns = sql.SQL(", ").join(sql.Identifier(f"{name}_{part}") for name in NAMES for part in _PARTS)
    unit = sql.Literal("hour" if table == "samples_1h" else "minute")
    return sql.SQL(
        "SELECT (extract(epoch FROM bucket) * 1000000000)::int8 AS at, n, NULL::int AS state, {columns} FROM {table}"
        " WHERE pack_key = %(pack_key)s AND bucket >= date_trunc({unit}, {since}) AND bucket < {until}"
    ).format(
        columns=columns, table=sql.Identifier(table), unit=unit,
        since=sql.Placeholder(since), until=sql.Placeholder(until),
    )  # fmt: skip


def _from_samples(by: str) -> sql.Composable:
    """Groups of samples: by steps of the width (`t_ns`) over all the time, or by minute where no rollup serves."""
    columns = sql.SQL(", ").join(map(_metric, NAMES))
    if by == "t_ns":
        at, floor = sql.SQL("t_ns / %(width)s * %(width)s"), sql.SQL("%(since)s")
        state = sql.SQL("(array_agg(state ORDER BY t DESC, seq DESC))[1]")
    else:
        at, floor = sql.SQL("t_ns / 60000000000 * 60000000000"), sql.SQL("%(minutes_to)s")
        state = sql.SQL("NULL::int")
    return sql.SQL(
        "SELECT {at} AS at, count(*) AS n, {state} AS state, {columns} FROM sample"
        " WHERE pack_key = %(pack_key)s AND t >= {floor} AND t <= %(until)s GROUP BY 1"
    ).format(at=at, state=state, columns=columns, floor=floor)


def _metric(name: str) -> sql.Composable:
    value, *ends = METRICS[name]
    low, high = ends or (value, value)
    text = "count({v}) AS {n}, avg({v}) AS {a}, min({l}) AS {i}, max({h}) AS {x}"
    names = {key: sql.Identifier(f"{name}_{part}") for key, part in zip("naix", _PARTS, strict=True)}
    return sql.SQL(text).format(v=sql.SQL(value), l=sql.SQL(low), h=sql.SQL(high), **names)
