"""Databases for the cloud's tests."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import missing
from pg_process import DEBIAN_15, PgServer, fresh_database, served

from cloud import db
from cloud.config import Database


@pytest.fixture
def own_pg_server(free_port: int) -> Iterator[PgServer]:
    """A server that the test may stop and kill."""
    with served(free_port) as server:
        yield server


@pytest.fixture(params=["ours", "15"])
def any_superuser(request: pytest.FixtureRequest, free_port: int) -> Iterator[Database]:
    """A superuser of the session's server, and of the oldest supported PostgreSQL where the machine has it."""
    if request.param == "ours":
        yield superuser_of(request.getfixturevalue("pg_server"))
    elif not DEBIAN_15.is_dir():
        missing("needs PostgreSQL 15 (apt-get install postgresql on Debian 12)")
    else:
        with served(free_port, DEBIAN_15) as server:
            yield server.login


def superuser_of(pg_server: Any) -> Database:
    """The login of the session's server as the cloud's settings say it."""
    return Database(pg_server.host, pg_server.port, pg_server.name, pg_server.user, pg_server.password)


@pytest.fixture
def database(pg_server: Any) -> Database:
    """A fresh, migrated database of its own."""
    return fresh_database(superuser_of(pg_server))


@pytest.fixture
def conn(database: Database) -> Iterator[db.Connection]:
    """A connection to `database`."""
    with db.connect(database) as connection:
        yield connection


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
