"""A PostgreSQL of a test's or benchmark's own, to be stopped, killed and started again; and migrated databases."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy" / "local"))

import external_server
import postgres
import processes
import psycopg
import timescale_stand_in

from cloud import db
from cloud.config import Database
from cloud.db import flavour
from cloud.db.connect import DatabaseAway

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
FORGETFUL = {"fsync": "off", "full_page_writes": "off"}
"""A test kills the server, but not the machine: what was committed stays without any sync."""


@dataclass
class PgServer:
    """One server process; `login` is a superuser's."""

    cluster: postgres.Cluster
    login: Database
    tuning: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        log = self.cluster.data.parent / "postgres.log"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # after a kill it starts only once the last orphaned backend is gone
            self.process = processes.spawn(
                self.cluster.command(self.login.port, self.tuning),
                environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                cwd=Path("/"),
                log=log,
                account=self.cluster.account,
                death_signal=signal.SIGQUIT,
            )
            if self._answers():
                return
            time.sleep(0.1)  # between tries, not a synchronisation
        raise AssertionError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        """Stops the server as an administrator would (connections are ended), or kills it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def _answers(self) -> bool:
        """Waits until the process answers a connection (True) or ends (False)."""
        assert self.process is not None
        while self.process.poll() is None:
            with contextlib.suppress(DatabaseAway), db.connect(self.login):
                return True
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)
        return False


@contextlib.contextmanager
def served(port: int, binaries: Path | None = None, tuning: Mapping[str, str] = FORGETFUL) -> Iterator[PgServer]:
    """A running server, by default the embedded one; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="packtwin-test-"))
    folder.chmod(0o755)  # the server's own account must get through
    cluster = postgres.embedded(folder, folder / "outside")
    if binaries is not None:
        cluster = postgres.Cluster(cluster.data, binaries, cluster.account)
    login = Database("127.0.0.1", port, "twin_data", "twin", "secret")
    cluster.prepare(login.name, login.user, login.password, superuser=True)
    server = PgServer(cluster, login, {**postgres.TUNING, **tuning})
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def fresh_database(superuser: Database, *, stand_in: bool = False) -> Database:
    """A new, migrated database; stand_in: with the tables for TimescaleDB (tests/timescale_stand_in.py).

    On servers of our own a copy of a template, migrated once per server. Elsewhere each is migrated, since a worker of
    TimescaleDB holds on to a template; there `drop_database` when the test is over.
    """
    name = _new_name()
    ours = not is_external(superuser)
    template = f"{external_server.PREFIX}template{'_stand_in' if stand_in else ''}" if ours else "template0"
    with db.connect(superuser) as conn:
        if ours and conn.execute("SELECT FROM pg_database WHERE datname = %s", (template,)).fetchone() is None:
            conn.execute(f"CREATE DATABASE {template} TEMPLATE template0")
            _prepare(replace(superuser, name=template), stand_in)
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    made = replace(superuser, name=name)
    if not ours:
        _left.append(made)
        _prepare(made, stand_in)
    return made


_left: list[Database] = []
"""What was made on the server that DB_HOST named."""


def drop_the_rest(superuser: Database) -> None:
    """Drops what no test has dropped."""
    for database in _left:
        drop_database(superuser, database)


def empty_database(superuser: Database) -> Database:
    """A new database without any tables."""
    name = _new_name()
    with db.connect(superuser) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return replace(superuser, name=name)


def drop_database(superuser: Database, database: Database) -> None:
    """Drops it, whoever is still connected."""
    assert database.name.startswith(external_server.PREFIX)
    with db.connect(superuser) as conn:
        for tries_left in (2, 1, 0):
            try:
                conn.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")
                return
            except psycopg.errors.ObjectInUse:  # a worker of TimescaleDB came back in between
                if not tries_left:
                    raise


def superuser_of(pg_server: Any) -> Database:
    """The login of the session's server as the cloud's settings say it."""
    return Database(pg_server.host, pg_server.port, pg_server.name, pg_server.user, pg_server.password)


def is_external(superuser: Database) -> bool:
    """Whether this is the server that DB_HOST named."""
    given = external_server.told()
    return given is not None and (given.host, given.port) == (superuser.host, superuser.port)


def _new_name() -> str:
    return f"{external_server.PREFIX}{os.urandom(6).hex()}"


def _prepare(database: Database, stand_in: bool) -> None:
    with db.connect(database) as conn:
        db.migrate(conn)
        if stand_in:
            timescale_stand_in.install(conn)
            assert flavour.has_hypertable(conn) and flavour.has_aggregates(conn)
