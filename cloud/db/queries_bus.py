"""How far the bus is written, and what of it could not be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cloud.db.connect import Connection

Move = tuple[int, int]
"""(from, to): offsets of the next message to be written."""

_OURS: Final = "cluster = %(cluster)s AND topic = %(topic)s"


def positions(conn: Connection, cluster: str, topic: str, partitions: Iterable[int]) -> dict[int, int | None]:
    """The offset of the next message of each partition; None = this database never had one of it (now it is at 0)."""
    wanted = sorted(partitions)
    values = {"cluster": cluster, "topic": topic, "partitions": wanted}
    fresh = conn.execute(
        'INSERT INTO bus_offset (cluster, topic, "partition", next_offset)'
        " SELECT %(cluster)s, %(topic)s, p, 0 FROM unnest(%(partitions)s::int[]) p"
        ' ON CONFLICT DO NOTHING RETURNING "partition"',
        values,
    ).fetchall()
    known = conn.execute(
        f'SELECT "partition", next_offset FROM bus_offset WHERE {_OURS} AND "partition" = ANY(%(partitions)s)', values
    ).fetchall()
    new = {partition for (partition,) in fresh}
    return {partition: None if partition in new else offset for partition, offset in known}


def advance(conn: Connection, cluster: str, topic: str, moves: Mapping[int, Move]) -> bool:
    """Moves partitions on, inside the caller's transaction; False: one of them is not where the move begins."""
    ordered = sorted(moves.items())
    moved = conn.execute(
        f"""
        WITH ours AS (
            SELECT "partition", next_offset FROM bus_offset
            WHERE {_OURS} AND "partition" = ANY(%(partitions)s) ORDER BY "partition" FOR UPDATE
        )
        UPDATE bus_offset o SET next_offset = u.n, moved_at = now()
        FROM ours, unnest(%(partitions)s::int[], %(froms)s::bigint[], %(tos)s::bigint[]) AS u (p, f, n)
        WHERE o.cluster = %(cluster)s AND o.topic = %(topic)s AND o."partition" = ours."partition"
          AND ours."partition" = u.p AND ours.next_offset = u.f AND u.f <= u.n
        """,
        {
            "cluster": cluster, "topic": topic, "partitions": [partition for partition, _ in ordered],
            "froms": [move[0] for _, move in ordered], "tos": [move[1] for _, move in ordered],
        },
    ).rowcount  # fmt: skip
    return moved == len(moves)


def rewind(conn: Connection, cluster: str, topic: str, partitions: Iterable[int] | None = None) -> None:
    """Lets partitions (None: all) be read from their start again."""
    conn.execute(
        f"UPDATE bus_offset SET next_offset = 0, moved_at = now() WHERE {_OURS}"
        ' AND (%(partitions)s::int[] IS NULL OR "partition" = ANY(%(partitions)s))',
        {"cluster": cluster, "topic": topic, "partitions": None if partitions is None else sorted(partitions)},
    )


def is_buried(conn: Connection, origin: str) -> bool:
    """Whether the message that lies there was rejected before."""
    return conn.execute("SELECT FROM reject WHERE origin = %s LIMIT 1", (origin,)).fetchone() is not None


def bury(conn: Connection, device: str | None, reason: str, detail: str, origin: str) -> None:
    """Rejects a message that is no Batch; a device that is not known is not registered by it."""
    conn.execute(
        "INSERT INTO reject (device_key, reason, detail, origin)"
        " VALUES ((SELECT device_key FROM device WHERE device = %s), %s, %s, %s)",
        (device, reason, detail, origin),
    )


def buried(conn: Connection, origins: Sequence[str]) -> set[str]:
    """Which of these messages are rejected still."""
    rows = conn.execute("SELECT DISTINCT origin FROM reject WHERE origin = ANY(%s)", (list(origins),)).fetchall()
    return {origin for (origin,) in rows}


def unbury(conn: Connection, origin: str) -> int:
    """Forgets that a message was rejected, so that its records may come again; how many ranges that were."""
    with conn.transaction():
        rows = conn.execute(
            "DELETE FROM reject WHERE origin = %s RETURNING device_key, boot, first_seq, last_seq", (origin,)
        ).fetchall()
        for device_key, boot, first, last in rows:
            if boot is not None and first is not None:
                conn.execute(
                    "UPDATE received SET ranges = ranges - int8multirange(int8range(%s, %s, '[]'))"
                    " WHERE device_key = %s AND boot = %s",
                    (first, last, device_key, boot),
                )
    return len(rows)


def owners(conn: Connection) -> dict[str, str]:
    """pack_id -> the device whose records of it are taken; packs without one are left out."""
    return dict(conn.execute("SELECT pack_id, device FROM pack JOIN device USING (device_key)").fetchall())
