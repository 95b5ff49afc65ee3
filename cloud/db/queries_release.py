"""Who is told to run which bundle."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cloud.db.connect import Connection
from cloud.db.queries_packs import Row, ask
from shared.errors import ConfigError

FLEET: Final = "fleet"
"""All devices that have no assignment of their own."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One row. device: None = the fleet; revives: key of the earlier row whose model it is."""

    key: int
    device: str | None
    bundle: str
    counter: int
    sha256: str
    revives: int | None
    assigned_at: datetime

    @property
    def origin(self) -> int:
        """Key of the row in which this model was assigned first."""
        return self.revives or self.key


def desired(conn: Connection, device: str | None) -> tuple[str | None, str | None]:
    """Uplink mode and bundle that a device is told, each None = nothing set; device None or unknown: the fleet's."""
    rows = ask(
        conn,
        """
        SELECT d.mode, coalesce(own.bundle, fleet.bundle) AS bundle
        FROM (VALUES (1)) one
        LEFT JOIN device d ON d.device = %s::text
        LEFT JOIN LATERAL (SELECT bundle FROM assignment a WHERE a.device_key = d.device_key
                           ORDER BY assignment_key DESC LIMIT 1) own ON true
        LEFT JOIN LATERAL (SELECT bundle FROM assignment a WHERE a.device_key IS NULL
                           ORDER BY assignment_key DESC LIMIT 1) fleet ON true
        """,
        (device,),
    )
    return rows[0]["mode"], rows[0]["bundle"]


def device_key(conn: Connection, to: str) -> int | None:
    """The key of a device, None for the fleet; ConfigError when it is not known."""
    if to == FLEET:
        return None
    rows = ask(conn, "SELECT device_key FROM device WHERE device = %s", (to,))
    if not rows:
        raise ConfigError(f"device {to} is not known; `cloud release list` shows those that are, or say --to fleet")
    return int(rows[0]["device_key"])


def assign(
    conn: Connection, to: int | None, bundle: str, counter: int, sha256: str, revives: int | None = None
) -> bool:
    """Tells a device (None: the fleet) to run a bundle; False = that is what it is told already."""
    with conn.transaction():
        conn.execute("LOCK TABLE assignment IN SHARE ROW EXCLUSIVE MODE")
        newest = _of(conn, to, limit=1)
        if newest and (newest[0].bundle, newest[0].sha256) == (bundle, sha256):
            return False
        conn.execute(
            "INSERT INTO assignment (device_key, bundle, counter, sha256, revives) VALUES (%s, %s, %s, %s, %s)",
            (to, bundle, counter, sha256, revives),
        )
    return True


def before(conn: Connection, to: int | None) -> tuple[Assignment | None, Assignment | None]:
    """What a device (None: the fleet) is told, and the first row of the model it was told before that; None = none.

    A revived model stands where it was at first, so that going back again goes further back.
    """
    rows = _of(conn, to)
    if not rows:
        return None, None
    by_key = {row.key: row for row in rows}
    now = rows[0]
    origin = by_key[now.origin]
    older = [by_key[row.origin] for row in rows if row.key < origin.key]
    return now, next((row for row in older if row.sha256 != origin.sha256), None)


def newest(conn: Connection) -> list[Assignment]:
    """What the fleet is told (first), and each device that has an assignment of its own, by name."""
    rows = ask(
        conn,
        """
        SELECT DISTINCT ON (d.device) a.assignment_key AS key, d.device, a.bundle, a.counter, a.sha256, a.revives,
               a.assigned_at
        FROM assignment a LEFT JOIN device d USING (device_key)
        ORDER BY d.device NULLS FIRST, a.assignment_key DESC
        """,
    )
    return [Assignment(**row) for row in rows]


def devices(conn: Connection) -> list[Row]:
    """device, and its last report: model_id, step, reason, t_ns (null = none yet); by name."""
    return ask(
        conn,
        """
        SELECT d.device, m.model_id, m.step, m.reason, m.t_ns
        FROM device d
        LEFT JOIN LATERAL (
            SELECT r.model_id, r.step, r.reason, r.t_ns
            FROM report r LEFT JOIN received b ON b.device_key = r.device_key AND b.boot = r.boot
            WHERE r.device_key = d.device_key
            ORDER BY coalesce(r.t, b.first_received_at) DESC NULLS LAST, r.seq DESC LIMIT 1) m ON true
        ORDER BY d.device
        """,
    )


def _of(conn: Connection, to: int | None, limit: int | None = None) -> list[Assignment]:
    """The assignments of a device (None: the fleet), newest first."""
    rows = ask(
        conn,
        """
        SELECT a.assignment_key AS key, d.device, a.bundle, a.counter, a.sha256, a.revives, a.assigned_at
        FROM assignment a LEFT JOIN device d USING (device_key)
        WHERE a.device_key IS NOT DISTINCT FROM %s::int
        ORDER BY a.assignment_key DESC LIMIT %s
        """,
        (to, limit),
    )
    return [Assignment(**row) for row in rows]
