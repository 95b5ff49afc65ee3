"""What the ingest asks of the database and writes into it; one function per question. Arrays are numpy, one per column.

Rows that several writers may want are always locked in the order of their keys, so no two writers can wait in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
from psycopg import sql
from psycopg.types.json import Jsonb

from cloud.db.connect import Connection
from cloud.ingest_rows import HEADER, TRAILER, Rows, columns, encode
from shared.bands import Bands
from shared.block import Ints
from shared.records import Capture, Estimate, Event, Gap, Report, Session, Single

READINGS: Final = (
    *("pack_v", "current_a", "soc_bms", "soh_bms", "cycles", "cell_min_v", "cell_max_v", "temp_min_c", "temp_max_c"),
    *("speed_kmh", "state"),
)
"""What `latest` keeps of a sample."""
_EPOCH: Final = "timestamptz 'epoch'"


def _time(t_ns: str) -> str:
    return f"{_EPOCH} + {t_ns} / 1000 * interval '1 microsecond'"


def device_keys(conn: Connection, names: Iterable[str]) -> dict[str, int]:
    """Each device's key; devices not known yet are registered."""
    wanted = sorted(names)
    conn.execute(
        "INSERT INTO device (device) SELECT n FROM unnest(%s::text[]) n"
        " WHERE NOT EXISTS (SELECT FROM device WHERE device = n) ORDER BY n ON CONFLICT DO NOTHING",
        (wanted,),
    )
    return dict(conn.execute("SELECT device, device_key FROM device WHERE device = ANY(%s)", (wanted,)).fetchall())


def packs(conn: Connection, owners: Mapping[str, int], *, register: bool) -> dict[str, tuple[int, int | None]]:
    """pack_id -> (pack_key, device_key of its owner or None); unknown packs are left out, or registered to `owners`."""
    wanted = sorted(owners)
    if register:
        conn.execute(
            "INSERT INTO pack (pack_id, device_key) SELECT p, d FROM unnest(%s::text[], %s::int[]) AS u (p, d)"
            " WHERE NOT EXISTS (SELECT FROM pack WHERE pack_id = p) ORDER BY p ON CONFLICT DO NOTHING",
            (wanted, [owners[pack_id] for pack_id in wanted]),
        )
    conn.execute(
        "UPDATE pack SET device_key = d FROM unnest(%s::text[], %s::int[]) AS u (p, d)"
        " WHERE pack_id = p AND device_key IS NULL",
        (wanted, [owners[pack_id] for pack_id in wanted]),
    )
    rows = conn.execute("SELECT pack_id, pack_key, device_key FROM pack WHERE pack_id = ANY(%s)", (wanted,)).fetchall()
    return {pack_id: (pack_key, device_key) for pack_id, pack_key, device_key in rows}


def extra_layout_key(conn: Connection, digest: bytes, names: Sequence[str], units: Sequence[str]) -> int:
    """The key of this list of extras, interned."""
    conn.execute(
        "INSERT INTO extra_layout (digest, names, units) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (digest, list(names), list(units)),
    )
    row = conn.execute("SELECT layout_key FROM extra_layout WHERE digest = %s", (digest,)).fetchone()
    assert row is not None
    return int(row[0])


def claim_ranges(
    conn: Connection, device_key: Ints, boot: Ints, first: Ints, last: Ints
) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Claims ranges of seq for this transaction, and says which of them were claimed before: {(device, boot): ranges}.

    One statement locks the boots in order, adds the ranges, and keeps aside what they had in common with the old ones.
    """
    rows = conn.execute(
        """
        WITH claim AS (
            INSERT INTO received AS r (device_key, boot, ranges)
            SELECT d, b, range_agg(int8range(f, l, '[]'))
            FROM unnest(%s::int[], %s::bigint[], %s::bigint[], %s::bigint[]) AS u (d, b, f, l)
            GROUP BY d, b ORDER BY d, b
            ON CONFLICT (device_key, boot) DO UPDATE SET
                ranges = r.ranges + excluded.ranges, repeated = r.ranges * excluded.ranges, last_received_at = now()
            RETURNING device_key, boot, repeated
        )
        SELECT device_key, boot, lower(u), upper(u) - 1 FROM claim, unnest(repeated) u
        """,
        (device_key.astype(np.int32), boot, first, last),
    ).fetchall()
    repeated: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for key, of_boot, lo, hi in rows:
        repeated.setdefault((key, of_boot), []).append((lo, hi))
    return repeated


def rejected_between(conn: Connection, device_key: int, boot: int, first: int, last: int) -> list[tuple[int, int, str]]:
    """The ranges (first, last, reason) that were rejected before and touch [first, last]."""
    return conn.execute(
        "SELECT first_seq, last_seq, reason FROM reject"
        " WHERE device_key = %s AND boot = %s AND first_seq <= %s AND last_seq >= %s ORDER BY first_seq",
        (device_key, boot, last, first),
    ).fetchall()


def add_rejects(conn: Connection, rows: Sequence[tuple[int, int, int, int, str, str | None, str | None]]) -> None:
    """Adds (device_key, boot, first, last, reason, detail, origin)."""
    if not rows:
        return
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO reject (device_key, boot, first_seq, last_seq, reason, detail, origin)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s)",
            rows,
        )


def copy_samples(conn: Connection, found: Iterable[Rows], bounds_us: tuple[int, int] | None = None) -> list[Rows]:
    """Adds the rows, and returns them: to `sample`, or with `bounds_us` (see `encode`) to `sample_undated`."""
    dated = bounds_us is None
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier("sample" if dated else "sample_undated"),
        sql.SQL(", ").join(map(sql.Identifier, columns(dated))),
    )
    added = []
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(HEADER)
        for rows in found:
            for piece in encode(rows, bounds_us):
                copy.write(piece)
            added.append(rows)
        copy.write(TRAILER)
    return added


def update_latest(conn: Connection, keys: Mapping[str, Ints], readings: Mapping[str, Any]) -> None:
    """Makes these samples the latest of their packs (`keys`: pack_key device_key boot seq t_ns), where they are newer.

    NaN in `readings` (READINGS, float64) = None. One row per pack.
    """
    values = [f"nullif({name}, 'NaN'){'::smallint' if name == 'state' else ''}" for name in READINGS]
    conn.execute(
        f"""
        INSERT INTO latest AS l (pack_key, device_key, boot, seq, t_ns, t, {", ".join(READINGS)})
        SELECT pack_key, device_key, boot, seq, t_ns, {_time("t_ns")}, {", ".join(values)}
        FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]
                    {", %s::float8[]" * len(READINGS)})
             AS u (pack_key, device_key, boot, seq, t_ns, {", ".join(READINGS)})
        ORDER BY pack_key
        ON CONFLICT (pack_key) DO UPDATE SET
            (device_key, boot, seq, t_ns, t, {", ".join(READINGS)}) =
            (excluded.device_key, excluded.boot, excluded.seq, excluded.t_ns, excluded.t,
             {", ".join(f"excluded.{name}" for name in READINGS)})
        WHERE (excluded.t_ns, excluded.seq) > (l.t_ns, l.seq)
        """,
        [*(keys[name] for name in ("pack_key", "device_key", "boot", "seq", "t_ns")), *(readings[n] for n in READINGS)],
    )


def add_todo(conn: Connection, pack_keys: Ints, minutes: Ints) -> None:
    """Notes that these minutes (since 1970) of these packs got rows; pairs, both arrays of one length."""
    conn.execute(
        "INSERT INTO rollup_todo (pack_keys, minutes) VALUES (%s, %s)",
        (pack_keys.astype(np.int32), minutes.astype(np.int32)),
    )


# --- single records: table columns are the record's field names ------------------------------------------------------

_HEAD: Final = ("device_key", "boot", "seq", "mono_ns", "t_ns")
_SINGLES: Final = {
    Estimate: ("estimate", tuple(n for n in Estimate.__slots__ if n not in ("pack_id", "seq", "mono_ns", "t_ns"))),
    Event: ("event", tuple(n for n in Event.__slots__ if n not in ("pack_id", "seq", "mono_ns", "t_ns"))),
    Report: ("report", tuple(n for n in Report.__slots__ if n not in ("seq", "mono_ns", "t_ns"))),
    Session: ("session", tuple(n for n in Session.__slots__ if n not in ("pack_id", "seq", "mono_ns", "t_ns"))),
    Gap: ("gap", tuple(n for n in Gap.__slots__ if n not in ("seq", "mono_ns", "t_ns"))),
}


def add_singles(conn: Connection, rows: Sequence[tuple[int, int, int | None, Single]]) -> None:
    """Adds (device_key, boot, pack_key, record); pack_key only for those of a pack."""
    for kind, (table, names) in _SINGLES.items():
        members = [row for row in rows if type(row[3]) is kind]
        if not members:
            continue
        of_pack = kind in (Estimate, Event, Session)
        fields = (*_HEAD, "t", *(("pack_key",) if of_pack else ()), *names)
        marks = ["%s"] * len(_HEAD) + [_time("%s::bigint")] + ["%s"] * (len(fields) - len(_HEAD) - 1)
        with conn.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({', '.join(marks)})",
                [_single(*row, names=names, of_pack=of_pack) for row in members],
            )
    _add_captures(conn, [(*row[:3], row[3]) for row in rows if isinstance(row[3], Capture)])


def _add_captures(conn: Connection, rows: Sequence[tuple[int, int, int | None, Capture]]) -> None:
    """Adds parts of captures, each once: whoever is second with a part changes nothing."""
    if not rows:
        return
    ordered = sorted(rows, key=lambda row: (row[0], row[3].id, row[3].part))
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO capture (device_key, pack_key, id, t, t_ns, begin_t_ns, end_t_ns, cause, note, parts)"
            f" VALUES (%s, %s, %s, {_time('%s::bigint')}, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (device_key, pack_key, c.id, c.t_ns, c.t_ns, c.begin_t_ns, c.end_t_ns, c.cause, c.note, c.parts)
                for device_key, _, pack_key, c in ordered
            ],
        )
        cursor.executemany(
            "INSERT INTO capture_chunk (capture_key, part, boot, seq, file, data)"
            " SELECT capture_key, %s, %s, %s, %s, %s FROM capture"
            " WHERE device_key = %s AND id = %s AND pack_key = %s AND parts = %s ON CONFLICT DO NOTHING",
            [
                (c.part, boot, c.seq, c.file, c.data, device_key, c.id, pack_key, c.parts)
                for device_key, boot, pack_key, c in ordered
            ],
        )


def _single(
    device_key: int, boot: int, pack_key: int | None, record: Any, *, names: Sequence[str], of_pack: bool
) -> list[Any]:
    head = [device_key, boot, record.seq, record.mono_ns, record.t_ns, record.t_ns]
    return head + ([pack_key] if of_pack else []) + [_column(name, getattr(record, name)) for name in names]


def _column(name: str, value: Any) -> Any:
    if name == "of_boot":
        return signed(value)
    if name == "stored":
        return "{" + ",".join(f"[{first},{last}]" for first, last in value) + "}"
    if isinstance(value, dict):
        return Jsonb(value)
    return list(value) if isinstance(value, tuple) else value


def signed(boot: int) -> int:
    """A 64-bit boot as PostgreSQL's bigint (two's complement)."""
    return boot - 2**64 if boot >= 2**63 else boot


def forget_before(conn: Connection, before: datetime) -> int:
    """Deletes undated samples, estimates, rejects and captures older than `before`; how many. Other records stay."""
    old = {
        "sample_undated": "not_after",
        "estimate": "t",
        "reject": "received_at",
        "capture": "coalesce(t, received_at)",
    }
    return sum(conn.execute(f"DELETE FROM {table} WHERE {t} < %s", (before,)).rowcount for table, t in old.items())


def keep_bands(conn: Connection, bands: Bands) -> None:
    """Makes the views' bands those of the settings."""
    rows = [(name, band.warning, band.critical, band.rising) for name, band in _named(bands)]
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO band AS b VALUES (%s, %s, %s, %s) ON CONFLICT (reading) DO UPDATE"
            " SET (warning, critical, rising) = (excluded.warning, excluded.critical, excluded.rising)"
            " WHERE b IS DISTINCT FROM excluded",
            rows,
        )


def _named(bands: Bands) -> list[tuple[str, Any]]:
    return [(name, getattr(bands, name)) for name in ("soc", "soh", "temperature", "rul", "failure")]
