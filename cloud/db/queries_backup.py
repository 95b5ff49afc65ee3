"""What a restore asks of the database that it fills."""

from __future__ import annotations

from typing import Final, LiteralString

from psycopg import sql

from cloud.db.connect import Connection

_SETTLED: Final = ("migration", "band")
"""Tables that have rows though nothing was ever sent: what the schema is, and what the settings say."""
_KINDS: Final[dict[str, LiteralString]] = {
    "v": "VIEW", "m": "MATERIALIZED VIEW", "r": "TABLE", "p": "TABLE", "f": "FOREIGN TABLE", "S": "SEQUENCE",
}  # fmt: skip
"""Kinds of relations as pg_class names them, in the order in which they are dropped."""
_OURS: Final = """
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND d.deptype = 'e')"""
"""All relations `c` that no extension brought."""


def holds_anything(conn: Connection) -> bool:
    """Whether any table has a row that our schema alone does not bring."""
    tables = conn.execute(
        f"SELECT c.relname {_OURS} AND c.relkind IN ('r', 'p', 'm', 'f') AND c.relname <> ALL(%s)", (list(_SETTLED),)
    ).fetchall()
    return any(
        conn.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier("public", table))).fetchone() is not None
        for (table,) in tables
    )


def clear(conn: Connection) -> None:
    """Drops every relation and function of ours, in one transaction, and TimescaleDB if there was any: it kept them."""
    query = f"SELECT c.relname, c.relkind::text {_OURS} AND c.relkind = ANY(%s)"
    if not conn.execute(query, (list(_KINDS),)).fetchall():
        return
    with conn.transaction():
        conn.execute("DROP EXTENSION IF EXISTS timescaledb CASCADE")
        relations = conn.execute(query, (list(_KINDS),)).fetchall()
        for name, kind in sorted(relations, key=lambda row: list(_KINDS).index(row[1])):
            statement = sql.SQL("DROP {} IF EXISTS {} CASCADE")
            conn.execute(statement.format(sql.SQL(_KINDS[kind]), sql.Identifier("public", name)))
        routines = conn.execute(
            """
            SELECT p.oid::regprocedure::text FROM pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                              AND d.deptype = 'e')
            """
        )
        for (signature,) in routines.fetchall():
            conn.execute(f"DROP ROUTINE IF EXISTS {signature} CASCADE")


def begin_timescaledb(conn: Connection) -> None:
    """Makes TimescaleDB's extension, and lets its own tables be filled by whoever connects from now on."""
    conn.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    conn.execute("SELECT timescaledb_pre_restore()")


def end_timescaledb(conn: Connection) -> None:
    """Ends what `begin_timescaledb` began."""
    conn.execute("SELECT timescaledb_post_restore()")


def offers_timescaledb(conn: Connection) -> bool:
    """Whether the server has TimescaleDB to be created."""
    return conn.execute("SELECT FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone() is not None


def analyze(conn: Connection) -> None:
    """Lets the planner know what is there now."""
    conn.execute("ANALYZE")
