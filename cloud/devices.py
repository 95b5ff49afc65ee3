"""Devices and their tokens: made once, shown once, kept only as hashes, good until they are revoked."""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from typing import Final

from cloud.config import Mqtt
from cloud.db import queries_access, telemetry
from cloud.db.connect import Connection
from shared.errors import ConfigError
from shared.fields import ID

PREFIX: Final = "ptd_"
"""Tells a device's token at a glance, and to programs that look for secrets in files."""
_TOKEN_BYTES: Final = 32
_SALT_BYTES: Final = 12
_ROUNDS: Final = 101
"""Mosquitto's own default. More would protect guessable passwords; a token has 256 random bits."""
_BROKER_USER: Final = "gateway"
"""May read and write everything on the broker: no device may be called so."""


def add(conn: Connection, device: str, mqtt: Mqtt) -> str:
    """Registers the device if need be; its new token. ConfigError if the id is none or the device has a token."""
    check_id(device)
    if device in (_BROKER_USER, mqtt.user):
        raise ConfigError(f"{device} is the gateway's own user at the MQTT broker; give the device another id")
    token = PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    with conn.transaction():
        telemetry.device_keys(conn, [device])
        if not queries_access.add_token(conn, device, digest(token), mqtt_hash(token)):
            raise ConfigError(f"{device} has a token already; `cloud device revoke {device}` first, then add it again")
    return token


def revoke(conn: Connection, device: str) -> bool:
    """Ends the device's token; False if it had none. ConfigError for an unknown device."""
    check_id(device)
    if not queries_access.is_registered(conn, device):
        raise ConfigError(f"no device is called {device}; `cloud device list` shows all")
    return queries_access.revoke_token(conn, device)


def check_id(device: str) -> None:
    """ConfigError unless it may be a device's id."""
    if not ID.fullmatch(device):
        raise ConfigError(f"{device[:80]!r} is no id: 1 to 64 letters, digits, dots, _ and -, a letter or digit first")


def device_of_token(conn: Connection, token: str) -> str | None:
    """The device that this token is good for; None if it is wrong or revoked."""
    return queries_access.device_of(conn, digest(token))


def password_lines(conn: Connection) -> str:
    """Mosquitto's password file: a line of each device that has a good token. The gateway's own line is not here."""
    return "".join(f"{device}:{hashed}\n" for device, hashed in queries_access.mqtt_hashes(conn))


def digest(token: str) -> bytes:
    """What finds a token in the database. No salt: it is no word that anyone could guess."""
    return hashlib.sha256(token.encode()).digest()


def mqtt_hash(token: str, salt: bytes | None = None) -> str:
    """The token as Mosquitto 2 keeps passwords: `$7$rounds$salt$PBKDF2-HMAC-SHA512`."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    hashed = hashlib.pbkdf2_hmac("sha512", token.encode(), salt, _ROUNDS)
    return f"$7${_ROUNDS}${b64encode(salt).decode()}${b64encode(hashed).decode()}"
