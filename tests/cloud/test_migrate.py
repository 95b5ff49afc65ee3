"""The schema comes up, once, on every supported PostgreSQL, whoever races."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pg_process import drop_database, empty_database

from cloud import db
from cloud.config import Database
from cloud.db.connect import DatabaseAway
from cloud.db.migrate import MigrationError, migrations
from shared.records import Sample

VIEWS = ("samples", "estimates", "events", "reports", "rejects", "gaps", "latest_battery_status", "open_events")


@pytest.fixture
def empty(any_superuser: Database) -> Iterator[Database]:
    made = empty_database(any_superuser)
    yield made
    drop_database(any_superuser, made)


def test_an_empty_database_gets_all_migrations_once_and_every_view_answers(empty: Database) -> None:
    with db.connect(empty) as conn:
        names = [m.name for m in migrations()]
        assert db.migrations_pending(conn) == names
        assert db.migrate(conn) == names
        assert db.migrations_pending(conn) == []
        assert db.migrate(conn) == []
        for view in VIEWS:
            assert conn.execute(f"SELECT * FROM {view}").fetchall() == []


def test_of_many_that_migrate_at_once_one_does_it(empty: Database) -> None:
    applied: list[list[str]] = []

    def run() -> None:
        with db.connect(empty) as conn:
            applied.append(db.migrate(conn))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied, key=len)[:3] == [[], [], []]
    assert max(applied, key=len) == [m.name for m in migrations()]


def test_a_changed_or_unknown_migration_is_said_in_one_sentence(conn: db.Connection) -> None:
    conn.execute("UPDATE migration SET sha256 = 'other' WHERE name LIKE '0002%'")
    with pytest.raises(MigrationError, match=r"0002_views\.sql differs"):
        db.migrate(conn)
    conn.execute("UPDATE migration SET name = '9999_future.sql' WHERE name LIKE '0002%'")
    with pytest.raises(MigrationError, match=r"9999_future\.sql, which this version lacks"):
        db.migrations_pending(conn)


def test_a_database_that_is_not_there_is_one_sentence(database: Database) -> None:
    with pytest.raises(DatabaseAway, match=r"no database nowhere at ") as caught:
        db.connect(replace(database, name="nowhere"))
    assert "\n" not in str(caught.value)


def test_the_samples_view_has_every_name_of_a_sample(conn: db.Connection) -> None:
    names = {column.name for column in conn.execute("SELECT * FROM samples").description or ()}
    assert names >= set(Sample.__slots__) | {"device", "boot", "t"}
