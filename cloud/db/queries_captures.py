"""What the API asks of captures: windows of raw input that devices kept."""

from __future__ import annotations

from typing import Final, LiteralString

from cloud.db.connect import Connection
from cloud.db.queries_packs import Row, ask

_COLUMNS: Final[LiteralString] = (
    "capture_key, id, device, pack_id, t_ns, begin_t_ns, end_t_ns, cause, note, parts, parts_here, bytes_here, whole"
)


def captures(conn: Connection, pack_id: str | None, limit: int) -> list[Row]:
    """The captures of one pack or of all, those that came last first."""
    query: LiteralString = f"""
        SELECT {_COLUMNS} FROM captures
        WHERE capture_key IN (SELECT capture_key FROM capture JOIN pack USING (pack_key)
                              WHERE %(pack_id)s::text IS NULL OR pack_id = %(pack_id)s
                              ORDER BY capture_key DESC LIMIT %(limit)s)
        ORDER BY capture_key DESC"""
    return ask(conn, query, {"pack_id": pack_id, "limit": limit})


def capture(conn: Connection, id_: str) -> Row | None:
    """The capture of this id; where two devices took the same, the one that came first."""
    found = ask(conn, f"SELECT {_COLUMNS} FROM captures WHERE id = %s ORDER BY capture_key LIMIT 1", (id_,))
    return found[0] if found else None


def parts_of(conn: Connection, capture_key: int, file: str) -> list[int]:
    """The numbers of the parts of a file, in order."""
    rows = ask(
        conn, "SELECT part FROM capture_chunk WHERE capture_key = %s AND file = %s ORDER BY part", (capture_key, file)
    )
    return [row["part"] for row in rows]


def data_of(conn: Connection, capture_key: int, part: int) -> bytes | None:
    """The zstd frame of a part; None when it has gone."""
    rows = ask(conn, "SELECT data FROM capture_chunk WHERE capture_key = %s AND part = %s", (capture_key, part))
    return bytes(rows[0]["data"]) if rows else None
