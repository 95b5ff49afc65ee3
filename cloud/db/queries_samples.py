"""What the API asks of samples over time: row by row with a cursor, or as means of equal steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import sql
from psycopg.rows import tuple_row

from cloud.db.connect import Connection
from cloud.db.queries_packs import ARRAYS, Row, ask
from shared.fields import EXTRA_NAME, SCALARS

_FLOATS: Final = frozenset(name for spec in SCALARS if spec.kind == "float" for name in spec.names)
_FLAGS: Final = frozenset(spec.name for spec in SCALARS if spec.kind == "bool")
_ELEMENT: Final = re.compile(r"(cell_v|temp_c)\[(\d{1,4})\]")
_ROW_ONLY: Final = {
    "seq": sql.SQL("s.seq"),
    "mono_ns": sql.SQL("s.mono_ns"),
    "t_ns": sql.SQL("s.t_ns"),
    "device": sql.SQL("(SELECT device FROM device d WHERE d.device_key = s.device_key)"),
    "boot": sql.SQL("boot_hex(s.boot)"),
    "balancing": sql.SQL("s.balancing::text"),
    "alarms": sql.SQL("coalesce(s.alarms, '{}')"),
    "quality": sql.SQL("coalesce(s.quality, '{}')"),
    "extra": sql.SQL("extra_object(s.extra_layout, s.extra)"),
}
"""Fields that have no mean, so that they cannot be asked for with a step."""
SCALAR_FIELDS: Final = tuple(name for spec in SCALARS for name in spec.names)
ALL_FIELDS: Final = (*SCALAR_FIELDS, "cell_v", "temp_c", "balancing", "alarms", "quality", "extra")
MEAN_FIELDS: Final = (*SCALAR_FIELDS, "cell_v", "temp_c")
_FROM: Final = sql.SQL(" FROM sample s LEFT JOIN extra_layout x ON x.layout_key = s.extra_layout ")

Value = sql.Composable


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page of rows ended: the last row's time [us since 1970], boot (two's complement) and seq."""

    t_us: int
    boot: int
    seq: int


def known_field(name: str, stepped: bool) -> bool:
    """Whether `name` may be asked for: Sample's names, `cell_v[17]`, `temp_c[0]`, `extra.NAME`."""
    if name in MEAN_FIELDS or _ELEMENT.fullmatch(name):
        return True
    if name.startswith("extra."):
        return bool(EXTRA_NAME.fullmatch(name.removeprefix("extra.")))
    return not stepped and name in _ROW_ONLY


def _value(name: str) -> Value:
    """The SQL of one field of one row."""
    if name in _ROW_ONLY:
        return _ROW_ONLY[name]
    if name == "state":
        return sql.SQL("state_name(s.state)")
    if name in ARRAYS:
        return sql.SQL(ARRAYS[name])
    element = _ELEMENT.fullmatch(name)
    if element:
        return _element(element[1], int(element[2]))
    if name.startswith("extra."):
        return sql.SQL("s.extra[array_position(x.names, {})]").format(sql.Literal(name.removeprefix("extra.")))
    return sql.Identifier("s", name)


def _element(name: str, position: int) -> Value:
    small, per_unit = ("cell_mv", 1000.0) if name == "cell_v" else ("temp_dc", 10.0)
    return sql.SQL("coalesce({small}[{at}] / {per_unit}::float8, {fine}[{at}])").format(
        small=sql.Identifier("s", small),
        fine=sql.Identifier("s", name),
        at=sql.Literal(position + 1),
        per_unit=sql.Literal(per_unit),
    )


def _folded(name: str, sizes: Row) -> Value:
    """The SQL of one field over the rows of a step: mean; the least or most of `_min` and `_max`; the last of words."""
    if name in sizes:
        each = [_folded(f"{name}[{i}]", sizes) for i in range(sizes[name])]
        return sql.SQL("ARRAY[{}]::float8[]").format(sql.SQL(", ").join(each))
    if name in _FLAGS or name == "state":
        return sql.SQL("(array_agg({} ORDER BY s.t DESC, s.seq DESC))[1]").format(_value(name))
    how = "min" if name.endswith("_min") else "max" if name.endswith("_max") else "avg"
    return sql.SQL("{}({})").format(sql.SQL(how), _value(name))  # `how` is one of the three words above


def rows(
    conn: Connection,
    pack_key: int,
    since: datetime,
    until: datetime,
    fields: Sequence[str],
    limit: int,
    after: Position | None = None,
) -> list[tuple[Any, ...]]:
    """At most `limit` samples in [since, until] by time: (t_ns, t_us, boot, seq, *fields)."""
    query = sql.SQL(
        "SELECT s.t_ns, (extract(epoch FROM s.t) * 1000000)::int8 AS t_us, s.boot, s.seq, {fields}{source}"
        "WHERE s.pack_key = %(pack_key)s AND s.t >= {floor} AND s.t <= %(until)s {after}"
        "ORDER BY s.t, s.boot, s.seq LIMIT %(limit)s"
    ).format(
        fields=sql.SQL(", ").join(map(_value, fields)),
        source=_FROM,
        floor=sql.SQL("%(since)s" if after is None else "greatest(%(since)s, %(t)s)"),
        after=sql.SQL("" if after is None else "AND (s.t, s.boot, s.seq) > (%(t)s, %(boot)s, %(seq)s) "),
    )
    values: Row = {"pack_key": pack_key, "since": since, "until": until, "limit": limit}
    if after is not None:
        t = datetime.fromtimestamp(0, since.tzinfo) + timedelta(microseconds=after.t_us)
        values |= {"t": t, "boot": after.boot, "seq": after.seq}
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        return cursor.execute(query, values).fetchall()


def steps(
    conn: Connection,
    pack_key: int,
    since: datetime,
    until: datetime,
    fields: Sequence[str],
    limit: int,
    step_ns: int,
) -> list[tuple[Any, ...]]:
    """At most `limit` steps of `step_ns` that hold samples of [since, until], by time: (t_ns of its begin, *fields)."""
    sizes = _sizes(conn, pack_key, until) if {"cell_v", "temp_c"} & set(fields) else {}
    query = sql.SQL(
        "SELECT s.t_ns / %(step)s * %(step)s AS at, {fields}{source}"
        "WHERE s.pack_key = %(pack_key)s AND s.t >= %(since)s AND s.t <= %(until)s "
        "GROUP BY at ORDER BY at LIMIT %(limit)s"
    ).format(fields=sql.SQL(", ").join(_folded(name, sizes) for name in fields), source=_FROM)
    values: Row = {"pack_key": pack_key, "since": since, "until": until, "limit": limit, "step": step_ns}
    with conn.cursor(row_factory=tuple_row, binary=True) as cursor:
        return cursor.execute(query, values).fetchall()


def _sizes(conn: Connection, pack_key: int, until: datetime) -> Row:
    """How many cells and temperatures the pack's newest sample up to `until` has."""
    found = ask(
        conn,
        """
        SELECT coalesce(cardinality(cell_mv), cardinality(cell_v), 0) AS cell_v,
               coalesce(cardinality(temp_dc), cardinality(temp_c), 0) AS temp_c
        FROM sample WHERE pack_key = %s AND t <= %s ORDER BY t DESC LIMIT 1
        """,
        (pack_key, until),
    )
    return found[0] if found else {"cell_v": 0, "temp_c": 0}
