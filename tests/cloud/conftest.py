"""Databases for the cloud's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import free_ports
import kafka_server as kafka_servers
import pytest
from conftest import missing
from kafka_server import KafkaServer
from pg_process import DEBIAN_15, PgServer, drop_database, fresh_database, is_external, served, superuser_of

from cloud import db
from cloud.config import Database, Kafka
from cloud.db import flavour


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


@pytest.fixture
def database(pg_server: Any) -> Iterator[Database]:
    """A fresh, migrated database of its own."""
    superuser = superuser_of(pg_server)
    made = fresh_database(superuser)
    yield made
    if is_external(superuser):  # a server of our own is thrown away as a whole
        drop_database(superuser, made)


@pytest.fixture(params=["as the server keeps them", "as TimescaleDB keeps them"])
def database_of_any_flavour(request: pytest.FixtureRequest, pg_server: Any) -> Iterator[Database]:
    """A fresh, migrated database with each kind of tables for the samples: see cloud/db/flavour.py."""
    superuser = superuser_of(pg_server)
    made = fresh_database(superuser)
    if request.param.startswith("as TimescaleDB"):
        with db.connect(made) as conn:
            is_real = flavour.has_hypertable(conn)
        if is_real:
            drop_database(superuser, made)
            pytest.skip("the server has the real TimescaleDB; it needs no stand-in")
        made = fresh_database(superuser, stand_in=True)
    yield made
    if is_external(superuser):
        drop_database(superuser, made)


@pytest.fixture
def conn(database: Database) -> Iterator[db.Connection]:
    """A connection to `database`."""
    with db.connect(database) as connection:
        yield connection


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    return free_ports.free_port()


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    """A real Kafka of this session, one broker; a test that kills it starts it again."""
    problem = kafka_servers.problem()
    if problem:
        missing(problem)
    with kafka_servers.served() as server:
        yield server


@pytest.fixture
def kafka(kafka_server: KafkaServer) -> Kafka:
    """Where it is; no topic of ours is there yet."""
    kafka_server.clear()
    return kafka_server.settings
