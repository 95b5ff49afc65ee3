"""A PostgreSQL of a test's or benchmark's own, to be stopped, killed and started again; and migrated databases."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy" / "local"))

import postgres
import processes

from cloud import db
from cloud.config import Database
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
        for _ in range(20):  # after a kill it starts only once the last orphaned backend is gone
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


_numbers = itertools.count()


def fresh_database(superuser: Database) -> Database:
    """A new, migrated database: a copy of a template that is migrated once per server."""
    name = f"fresh_{next(_numbers)}"
    with db.connect(superuser) as conn:
        if conn.execute("SELECT FROM pg_database WHERE datname = 'migrated'").fetchone() is None:
            conn.execute("CREATE DATABASE migrated")
            with db.connect(replace(superuser, name="migrated")) as template:
                db.migrate(template)
        conn.execute(f"CREATE DATABASE {name} TEMPLATE migrated")
    return replace(superuser, name=name)
