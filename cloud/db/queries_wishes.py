"""What devices are told over MQTT without asking: their mode, their bundle, whether someone looks at them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cloud.db.connect import Connection
from cloud.db.queries_packs import ask

WATCHED_S: Final = 15.0
"""How long one word that a device is watched holds."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Of one device, or of all that have no wish of their own. None = nothing set."""

    mode: str | None = None
    bundle: str | None = None
    watched: bool = False


def wishes(conn: Connection) -> tuple[Wish, dict[str, Wish]]:
    """(that of the fleet, those of devices for which anything differs from it)."""
    rows = ask(
        conn,
        """
        WITH told AS (
            SELECT DISTINCT ON (device_key) device_key, bundle FROM assignment ORDER BY device_key, assignment_key DESC
        )
        SELECT NULL AS device, NULL AS mode, bundle, false AS watched FROM told WHERE device_key IS NULL
        UNION ALL
        SELECT d.device, d.mode, t.bundle, coalesce(w.until > now(), false)
        FROM device d LEFT JOIN told t USING (device_key) LEFT JOIN watched w USING (device_key)
        WHERE d.mode IS NOT NULL OR t.bundle IS NOT NULL OR w.until > now()
        """,
    )
    fleet = Wish(bundle=next((row["bundle"] for row in rows if row["device"] is None), None))
    own = {
        row["device"]: Wish(row["mode"], row["bundle"] or fleet.bundle, row["watched"])
        for row in rows
        if row["device"] is not None
    }
    return fleet, own


def note_watched(conn: Connection, devices: Collection[str], seconds: float = WATCHED_S) -> None:
    """Says that someone looks at these devices for so long from now on; 0 = no more."""
    conn.execute(
        """
        INSERT INTO watched (device_key, until)
        SELECT device_key, now() + make_interval(secs => %s) FROM device WHERE device = ANY(%s)
        ON CONFLICT (device_key) DO UPDATE SET until = excluded.until
        """,
        (seconds, sorted(devices)),
    )
