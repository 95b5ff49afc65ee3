"""Which tables keep the samples: TimescaleDB's where its extension serves, else our own day partitions and rollups.

All that decides it stands here. It is decided while a database is empty; the files of `cloud/db/timescale` then replace
what the numbered migrations made, behind the same names and columns, so that every query has one text.
"""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import Final

import psycopg

from cloud.db.connect import Connection

log = logging.getLogger(__name__)

LEAST_VERSION: Final = (2, 20)
"""The oldest TimescaleDB that has all words of the SQL."""
STEPS: Final = ("hypertable.sql", "columnstore.sql", "aggregates.sql")
"""The files, in order. Nothing is ours to replace unless the first is applied; each of the others may be refused."""
_REPLACED: Final = ("sample", "samples_1m", "samples_1h", "samples_1d")


def has_hypertable(conn: Connection) -> bool:
    """Whether `sample` is a hypertable; else it has our own partitions, or is not there."""
    return _kind(conn, "sample") == "r"


def has_aggregates(conn: Connection) -> bool:
    """Whether the rollups are continuous aggregates; else they are tables that cloud/db/rollups.py writes."""
    return _kind(conn, "samples_1m") == "v"


def prepare(conn: Connection) -> str | None:
    """TimescaleDB's version if it is to serve this database, whose extension is then there; None = plain tables.

    Inside the caller's transaction, which makes others wait.
    """
    found = conn.execute(
        """
        SELECT (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
               (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
               EXISTS (SELECT FROM pg_settings WHERE name LIKE 'timescaledb.%'
                       OR (name = 'shared_preload_libraries' AND setting LIKE '%timescaledb%'))
        """
    ).fetchone()
    assert found is not None
    installed, offered, preloaded = found
    if not preloaded or not (installed or offered):  # where it is not preloaded, asking for it ends the connection
        return None
    version = str(installed or offered)
    if _numbers(version) < LEAST_VERSION:
        log.warning("TimescaleDB %s is older than %d.%d, so plain tables serve", version, *LEAST_VERSION)
        return None
    if not has_hypertable(conn) and _holds_samples(conn):
        log.warning("plain tables go on serving: this database had samples before TimescaleDB %s came", version)
        return None
    try:
        with conn.transaction():
            conn.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    except psycopg.ProgrammingError as error:  # not allowed to us
        log.warning("TimescaleDB %s stays unused, so plain tables serve: %s", version, _sentence(error))
        return None
    licence = conn.execute("SELECT current_setting('timescaledb.license', true)").fetchone()
    if licence and licence[0] == "apache":
        log.warning("this TimescaleDB %s has no columnstore and no continuous aggregates: plain tables serve", version)
        return None
    return version


def adopt(conn: Connection, version: str) -> None:
    """Puts TimescaleDB's tables in the place of ours, inside the caller's transaction; once, while they are empty.

    What this TimescaleDB refuses stays ours, with a warning: everything works on either.
    """
    if has_hypertable(conn):
        return
    conn.execute(f"LOCK TABLE {', '.join(_REPLACED)} IN ACCESS EXCLUSIVE MODE")
    if _holds_samples(conn):
        return
    for step in STEPS:
        if not _apply(conn, step, version) and step == STEPS[0]:
            return


def told(conn: Connection) -> str:
    """What the log says once: which server it is, and what keeps the samples."""
    row = conn.execute(
        "SELECT split_part(current_setting('server_version'), ' ', 1),"
        " (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb')"
    ).fetchone()
    assert row is not None
    if not has_hypertable(conn):
        return f"PostgreSQL {row[0]}, samples in day partitions"
    rollups = "continuous aggregates" if has_aggregates(conn) else "rollup tables"
    return f"PostgreSQL {row[0]} with TimescaleDB {row[1]}, samples in a hypertable, {rollups}"


def text(step: str) -> str:
    """The SQL of one of STEPS."""
    return files("cloud.db").joinpath("timescale", step).read_text(encoding="utf-8")


def _apply(conn: Connection, step: str, version: str) -> bool:
    try:
        with conn.transaction():
            for statement in text(step).strip().split(";\n\n"):  # one by one, as psql would send them
                conn.execute(statement.encode())
    except psycopg.Error as error:
        later = isinstance(error, psycopg.OperationalError)  # a server that is away, full or busy refuses nothing
        if later and not isinstance(error, psycopg.errors.ObjectNotInPrerequisiteState):
            raise
        log.warning("TimescaleDB %s refuses %s, so plain tables serve there: %s", version, step, _sentence(error))
        return False
    return True


def _holds_samples(conn: Connection) -> bool:
    there = [table for table in _REPLACED if _kind(conn, table)]
    return any(conn.execute(f"SELECT FROM {table} LIMIT 1").fetchone() is not None for table in there)


def _kind(conn: Connection, relation: str) -> str | None:
    """The kind of a relation as pg_class says it: p partitioned, r ordinary, v view; None = it is not there."""
    row = conn.execute("SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)", (relation,)).fetchone()
    return str(row[0]) if row else None


def _numbers(version: str) -> tuple[int, ...]:
    """2.28.3 -> (2, 28); 2.30.0-dev -> (2, 30)."""
    return tuple(int(part) for part in version.partition("-")[0].split(".")[:2])


def _sentence(error: psycopg.Error) -> str:
    return " ".join(str(error).split())
