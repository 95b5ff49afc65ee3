"""What the earlier system's endpoints ask."""

from __future__ import annotations

from cloud.db.connect import Connection
from cloud.db.queries_packs import Row, ask


def pack_ids(conn: Connection) -> list[str]:
    """All ids, ascending."""
    return [row["pack_id"] for row in ask(conn, "SELECT pack_id FROM pack ORDER BY pack_id")]


def find_pack(conn: Connection, pack_id: str | None) -> Row | None:
    """pack_id and pack_key of a pack, of the first by id for None; None when there is none."""
    query = """
        SELECT pack_id, pack_key FROM pack WHERE %(pack_id)s::text IS NULL OR pack_id = %(pack_id)s
        ORDER BY pack_id LIMIT 1
        """
    rows = ask(conn, query, {"pack_id": pack_id})
    return rows[0] if rows else None


def statuses(conn: Connection, pack_id: str | None = None) -> list[Row]:
    """The view `latest_battery_status`: one pack or all, by id."""
    return ask(
        conn,
        """
        SELECT * FROM latest_battery_status WHERE %(pack_id)s::text IS NULL OR battery_id = %(pack_id)s
        ORDER BY battery_id
        """,
        {"pack_id": pack_id},
    )


def statuses_of(conn: Connection, pack_ids: list[str]) -> list[Row]:
    """The view `latest_battery_status`: these packs, by id."""
    query = "SELECT * FROM latest_battery_status WHERE battery_id = ANY(%s) ORDER BY battery_id"
    return ask(conn, query, (pack_ids,))


def open_events(conn: Connection) -> list[Row]:
    """Events that nobody has cleared, newest first."""
    return ask(conn, "SELECT * FROM open_events ORDER BY coalesce(since_t_ns, t_ns) DESC NULLS LAST, seq DESC")


def standing_alarms(conn: Connection) -> list[Row]:
    """pack_id, alarms and t of packs whose newest sample carries alarms."""
    return ask(
        conn,
        """
        SELECT p.pack_id, s.alarms, l.t
        FROM latest l JOIN pack p USING (pack_key)
        CROSS JOIN LATERAL (
            SELECT alarms FROM sample s
            WHERE s.pack_key = l.pack_key AND s.t = l.t AND s.device_key = l.device_key AND s.boot = l.boot
              AND s.seq = l.seq
            LIMIT 1 -- see queries_packs
        ) s
        WHERE s.alarms IS NOT NULL
        ORDER BY p.pack_id
        """,
    )
