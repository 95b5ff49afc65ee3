"""Numbered SQL files, applied once each and in order, under a lock, so that any number of starters may race."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import psycopg

from cloud.db import flavour
from cloud.db.connect import Connection
from shared.errors import PacktwinError

log = logging.getLogger(__name__)

_LOCK: Final = 0x7061_636B_7477_696E  # "packtwin"
_LEAST_VERSION: Final = 150_000
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS migration (
    name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"""


class MigrationError(PacktwinError):
    """The schema cannot be brought up to date; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `cloud/db/migrations`; never edited once released."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The digest that the database remembers."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations, in order."""
    found = [entry for entry in files("cloud.db").joinpath("migrations").iterdir() if entry.name.endswith(".sql")]
    return sorted((Migration(f.name, f.read_text(encoding="utf-8")) for f in found), key=lambda m: m.name)


def migrations_pending(conn: Connection) -> list[str]:
    """Names of the migrations that the database has not seen, in order."""
    row = conn.execute("SELECT to_regclass('migration')").fetchone()
    applied = _applied(conn) if row and row[0] else {}
    return [m.name for m in _pending(migrations(), applied)]


def migrate(conn: Connection) -> list[str]:
    """Applies what is missing, in one transaction; the names applied. MigrationError if the database is not ours.

    Where TimescaleDB serves, its tables then take the place of ours that are empty: see cloud/db/flavour.py.
    """
    if conn.info.server_version < _LEAST_VERSION:
        raise MigrationError(f"PostgreSQL {conn.info.server_version // 10_000} is too old; packtwin needs 15 or newer")
    known = migrations()
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        timescaledb = flavour.prepare(conn)
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        conn.execute(_TABLE)
        pending = _pending(known, _applied(conn))
        for migration in pending:
            try:
                conn.execute(migration.sql.encode())
            except psycopg.Error as error:
                raise MigrationError(f"migration {migration.name} failed, nothing was changed: {error}") from error
            conn.execute("INSERT INTO migration (name, sha256) VALUES (%s, %s)", (migration.name, migration.sha256))
        if timescaledb:
            flavour.adopt(conn, timescaledb)
    log.info("%s", flavour.told(conn))
    return [m.name for m in pending]


def _applied(conn: Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT name, sha256 FROM migration").fetchall())


def _pending(known: list[Migration], applied: dict[str, str]) -> list[Migration]:
    """What is not applied yet; MigrationError for a changed file or a database newer than this code."""
    digests = {m.name: m.sha256 for m in known}
    for name, sha256 in sorted(applied.items()):
        if name not in digests:
            raise MigrationError(f"the database has migration {name}, which this version lacks; install a newer one")
        if digests[name] != sha256:
            raise MigrationError(f"migration {name} differs from the one applied; restore the released file")
    return [m for m in known if m.name not in applied]
