"""What the API asks of packs and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, LiteralString

from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from cloud.db.connect import Connection
from cloud.pack_table import PackRow
from shared.errors import ConfigError
from shared.fields import SCALARS

Row = dict[str, Any]

_TIMEOUT: Final = "SET statement_timeout = '15s'; SET default_transaction_read_only = on"
_EMPTY_JSON: Final[dict[str, Any]] = {"limits": {}, "tags": []}
ARRAYS: Final[dict[str, LiteralString]] = {
    "cell_v": "measured(s.cell_mv, 1000, s.cell_v)",
    "temp_c": "measured(s.temp_dc, 10, s.temp_c)",
}
"""How a row `s` of `sample` gives its arrays."""
_LAST_REPORT: Final = """
    SELECT r.model_id, r.counter, r.step, r.reason, r.t_ns
    FROM report r LEFT JOIN received b ON b.device_key = r.device_key AND b.boot = r.boot
    WHERE r.device_key = d.device_key
    ORDER BY coalesce(r.t, b.first_received_at) DESC NULLS LAST, r.seq DESC LIMIT 1"""
"""The last report on a model of a device `d`; one without a time (the clock was not trusted) is as old as its boot."""
_DESIRED: Final = """
    coalesce((SELECT bundle FROM assignment a WHERE a.device_key = d.device_key ORDER BY assignment_key DESC LIMIT 1),
             (SELECT bundle FROM assignment a WHERE a.device_key IS NULL ORDER BY assignment_key DESC LIMIT 1))"""
"""The bundle that a device `d` is told to run; null = none."""
_SCALAR_NAMES: Final = tuple(name for spec in SCALARS for name in spec.names if spec.kind != "state")


def prepare_reader(conn: Connection) -> Connection:
    """The connection itself, made read-only and impatient."""
    conn.execute(_TIMEOUT)
    return conn


def ask(conn: Connection, query: LiteralString, values: Sequence[Any] | Row = ()) -> list[Row]:
    """All rows of a query as dicts."""
    with conn.cursor(row_factory=dict_row, binary=True) as cursor:
        return cursor.execute(query, values).fetchall()


def migrated(conn: Connection) -> int:
    """How many migrations the database has; fails where it has no packtwin tables."""
    return int(ask(conn, "SELECT count(*) AS n FROM migration")[0]["n"])


def newest(conn: Connection, pack_id: str | None = None) -> list[Row]:
    """pack_id, device and t_ns of the newest dated sample (both null = none yet), of one pack or of all, by id."""
    return ask(
        conn,
        """
        SELECT p.pack_id, d.device, l.t_ns
        FROM pack p LEFT JOIN device d USING (device_key) LEFT JOIN latest l USING (pack_key)
        WHERE %(pack_id)s::text IS NULL OR p.pack_id = %(pack_id)s
        ORDER BY p.pack_id
        """,
        {"pack_id": pack_id},
    )


def now(conn: Connection, pack_id: str) -> list[Row]:
    """The view `pack_now` of a pack; empty = unknown."""
    return ask(conn, "SELECT * FROM pack_now WHERE pack_id = %s", (pack_id,))


def models_in_use(conn: Connection) -> list[str]:
    """Ids of the models whose predictions hold, ascending."""
    query = "SELECT DISTINCT model_id FROM pack_now WHERE model_id IS NOT NULL AND NOT stale ORDER BY model_id"
    return [row["model_id"] for row in ask(conn, query)]


def pack_key(conn: Connection, pack_id: str) -> int | None:
    """The key of a pack; None = unknown."""
    rows = ask(conn, "SELECT pack_key FROM pack WHERE pack_id = %s", (pack_id,))
    return rows[0]["pack_key"] if rows else None


def packs(conn: Connection, pack_ids: Sequence[str] | None = None) -> list[Row]:
    """What is known of these packs or of all, by id: as `facts`, and under `sample` the newest."""
    found = facts(conn, pack_ids)
    newest_samples = {row["pack_id"]: row for row in _newest_samples(conn, pack_ids)}
    for fact in found:
        fact["sample"] = newest_samples.get(fact["pack_id"])
    return found


def facts(conn: Connection, pack_ids: Sequence[str] | None = None) -> list[Row]:
    """Table row, device, status, newest prediction and its device's last report of these packs or of all, by id."""
    return ask(
        conn,
        f"""
        SELECT p.pack_id, d.device, d.mode, p.vehicle, p.fleet, p.chemistry, p.series, p.parallel, p.nominal_ah,
               p.nominal_v, p.layout_file, p.limits, p.commissioned, p.tags,
               (ARRAY['good', 'warning', 'critical'])[1 + n.band] AS status,
               n.e_t_ns, n.rul_cycles, n.rul_cycles_lo, n.rul_cycles_hi, n.p_eol_100, n.failure_probability,
               n.in_domain, n.model_id, n.model_sha256, n.e_reason, n.stale,
               m.model_id AS m_model_id, m.counter, m.step, m.reason, m.t_ns AS m_t_ns, {_DESIRED} AS desired
        FROM pack p JOIN pack_now n USING (pack_key)
        LEFT JOIN device d USING (device_key)
        LEFT JOIN LATERAL ({_LAST_REPORT}) m ON true
        WHERE %(pack_ids)s::text[] IS NULL OR p.pack_id = ANY(%(pack_ids)s)
        ORDER BY p.pack_id
        """,
        {"pack_ids": pack_ids},
    )


def _newest_samples(conn: Connection, pack_ids: Sequence[str] | None) -> list[Row]:
    return ask(
        conn,
        f"""
        SELECT p.pack_id, d.device, boot_hex(s.boot) AS boot, s.seq, s.mono_ns, s.t_ns,
               state_name(s.state) AS state, {", ".join("s." + name for name in _SCALAR_NAMES)},
               {", ".join(f"{how} AS {name}" for name, how in ARRAYS.items())},
               s.balancing::text AS balancing, s.alarms, s.quality,
               x.names AS extra_names, s.extra
        FROM latest l
        JOIN pack p USING (pack_key)
        JOIN device d ON d.device_key = l.device_key
        CROSS JOIN LATERAL (
            SELECT * FROM sample s
            WHERE s.pack_key = l.pack_key AND s.t = l.t AND s.device_key = l.device_key AND s.boot = l.boot
              AND s.seq = l.seq
            LIMIT 1 -- there is no other; so it stays a look-up for each pack, and opens the one day or chunk only
        ) s
        LEFT JOIN extra_layout x ON x.layout_key = s.extra_layout
        WHERE %(pack_ids)s::text[] IS NULL OR p.pack_id = ANY(%(pack_ids)s)
        """,
        {"pack_ids": pack_ids},
    )


def device_mode(conn: Connection, device: str) -> str | None:
    """The uplink mode that was set for a device; None = none, or the device is unknown."""
    rows = ask(conn, "SELECT mode FROM device WHERE device = %s", (device,))
    return rows[0]["mode"] if rows else None


def devices(conn: Connection) -> list[Row]:
    """Every device by id: its packs, when it was last heard, and its last report on a model (null = none yet)."""
    return ask(
        conn,
        f"""
        SELECT d.device, d.registered_at, d.mode,
               (SELECT max(last_received_at) FROM received r WHERE r.device_key = d.device_key) AS last_seen,
               (SELECT coalesce(array_agg(pack_id ORDER BY pack_id), ARRAY[]::text[]) FROM pack p
                WHERE p.device_key = d.device_key) AS packs,
               m.model_id AS m_model_id, m.counter, m.step, m.reason, m.t_ns AS m_t_ns, {_DESIRED} AS desired
        FROM device d
        LEFT JOIN LATERAL ({_LAST_REPORT}) m ON true
        ORDER BY d.device
        """,
    )


def events(conn: Connection, pack_id: str | None, only_open: bool, limit: int) -> list[Row]:
    """The newest record of each event, newest first, of one pack or of all."""
    return ask(
        conn,
        """
        SELECT device, boot, seq, t, pack_id, mono_ns, t_ns, id, code, severity, cell, value, threshold, reference,
               since_t_ns, cleared_t_ns, confidence
        FROM events_now
        WHERE (%(pack_id)s::text IS NULL OR pack_id = %(pack_id)s) AND (NOT %(only_open)s OR cleared_t_ns IS NULL)
        ORDER BY order_ns DESC, seq DESC
        LIMIT %(limit)s
        """,
        {"pack_id": pack_id, "only_open": only_open, "limit": limit},
    )


def import_packs(conn: Connection, rows: Sequence[PackRow]) -> None:
    """Writes what a table says of packs, all or nothing; ConfigError for a device that is not known."""
    with conn.transaction():
        for row in rows:
            conn.execute("INSERT INTO pack (pack_id) VALUES (%s) ON CONFLICT DO NOTHING", (row.pack_id,))
            for column, value in row.values.items():
                _set_column(conn, row.pack_id, column, value)
            if row.device:
                _set_device(conn, row)


def _set_column(conn: Connection, pack_id: str, column: str, value: Any) -> None:
    if column in _EMPTY_JSON:
        value = Jsonb(_EMPTY_JSON[column] if value is None else value)
    statement = sql.SQL("UPDATE pack SET {} = %s WHERE pack_id = %s").format(sql.Identifier(column))
    conn.execute(statement, (value, pack_id))


def _set_device(conn: Connection, row: PackRow) -> None:
    changed = conn.execute(
        """
        UPDATE pack SET device_key = d.device_key FROM device d WHERE d.device = %s AND pack_id = %s
        """,
        (row.device, row.pack_id),
    ).rowcount
    if not changed:
        raise ConfigError(
            f"pack {row.pack_id}: device {row.device} is not known; leave the cell empty, "
            "then the first device that sends the pack has it"
        )
