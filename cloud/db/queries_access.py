"""Which device has which token, and since when; a token itself is never seen here."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from cloud.db.connect import Connection


class DeviceRow(NamedTuple):
    """A device: its newest token's times (None = it never had one) and what it last sent."""

    device: str
    registered_at: datetime
    made_at: datetime | None
    revoked_at: datetime | None
    last_received_at: datetime | None
    packs: int


def add_token(conn: Connection, device: str, token_sha256: bytes, mqtt_hash: str) -> bool:
    """Gives a registered device its token; False if it has one already."""
    done = conn.execute(
        "INSERT INTO device_token (device_key, token_sha256, mqtt_hash)"
        " SELECT device_key, %s, %s FROM device WHERE device = %s ON CONFLICT DO NOTHING",
        (token_sha256, mqtt_hash, device),
    )
    return done.rowcount == 1


def revoke_token(conn: Connection, device: str) -> bool:
    """Ends a device's token; False if it has none that is good."""
    done = conn.execute(
        "UPDATE device_token SET revoked_at = now() FROM device d"
        " WHERE device_token.device_key = d.device_key AND d.device = %s AND revoked_at IS NULL",
        (device,),
    )
    return done.rowcount > 0


def is_registered(conn: Connection, device: str) -> bool:
    """Whether the device is known at all."""
    return conn.execute("SELECT FROM device WHERE device = %s", (device,)).fetchone() is not None


def device_of(conn: Connection, token_sha256: bytes) -> str | None:
    """The device whose token this is; None if it is nobody's, or revoked."""
    row = conn.execute(
        "SELECT device FROM device_token JOIN device USING (device_key) WHERE token_sha256 = %s AND revoked_at IS NULL",
        (token_sha256,),
    ).fetchone()
    return row[0] if row else None


def mqtt_hashes(conn: Connection) -> list[tuple[str, str]]:
    """(device, mqtt_hash) of every token that is good, by device."""
    return conn.execute(
        "SELECT device, mqtt_hash FROM device_token JOIN device USING (device_key)"
        " WHERE revoked_at IS NULL ORDER BY device"
    ).fetchall()


def devices(conn: Connection) -> list[DeviceRow]:
    """All devices by id, each with its newest token."""
    rows = conn.execute(
        """
        SELECT d.device, d.registered_at, t.made_at, t.revoked_at,
               (SELECT max(last_received_at) FROM received r WHERE r.device_key = d.device_key),
               (SELECT count(*) FROM pack p WHERE p.device_key = d.device_key)
        FROM device d
        LEFT JOIN LATERAL (
            SELECT made_at, revoked_at FROM device_token t WHERE t.device_key = d.device_key
            ORDER BY token_key DESC LIMIT 1
        ) t ON true
        ORDER BY d.device
        """
    ).fetchall()
    return [DeviceRow(*row) for row in rows]
