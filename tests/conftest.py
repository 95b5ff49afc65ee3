"""What tests of all packages share: recorded data, a real PostgreSQL, a browser, and a list of what was not proved."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import external_server
import pytest
from free_ports import free_port

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "deploy" / "local"))  # a folder of scripts, not a package

external_server.take()

BY_HAND = "by the selection"
KINDS = ("slow", "e2e", "browser", "root")
# A test's database may forget everything with the machine.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "100"}
_left_out = pytest.StashKey[Counter[str]]()


def missing(reason: str) -> NoReturn:
    """Skips the test and says why; in CI (CI=true) nothing may be missing, so there it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with recorded data: PACKTWIN_SHARED, default ../shared beside the checkout."""
    folder = Path(os.environ.get("PACKTWIN_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        missing(f"needs the recorded data in {folder}; set PACKTWIN_SHARED")
    return folder.resolve()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        path = shutil.which(name)
        if path:
            return path
    missing("needs Chromium (apt-get install chromium)")


@pytest.fixture(scope="session")
def pg_server() -> Iterator[object]:
    """A real PostgreSQL of this session, its role a superuser: a `postgres.Login`, whose database is best left alone.

    DB_HOST (DB_PORT DB_USER DB_PASSWORD) names a running one instead; tests that stop or starve one bring their own.
    PACKTWIN_PG_BIN names the folder of other binaries, to run the same tests on another major version.
    """
    import postgres
    import processes

    given = external_server.told()
    if given is not None:
        outside = postgres.Login(given.host, given.port, "postgres", given.user, given.password)
        problem = outside.problem()
        if problem:
            pytest.fail(f"no server at DB_HOST={given.host} DB_PORT={given.port}: {problem}")
        yield outside
        _drop_the_rest(outside)
        return
    folder = Path(tempfile.mkdtemp(prefix="packtwin-test-"))
    folder.chmod(0o755)  # the server's own account must get through
    cluster = postgres.embedded(folder, folder / "outside")
    other = os.environ.get("PACKTWIN_PG_BIN")
    if other:
        cluster = postgres.Cluster(cluster.data, Path(other), cluster.account)
    at = postgres.Login(postgres.HOST, free_port(), "twin_data", "twin", "secret")
    cluster.prepare(at.name, at.user, at.password, superuser=True)
    server = processes.spawn(
        cluster.command(at.port, {**postgres.TUNING, **FORGETFUL}),
        environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        cwd=Path("/"),
        log=folder / "postgres.log",
        account=cluster.account,
        death_signal=signal.SIGQUIT,
    )
    deadline = time.monotonic() + 120
    while not at.answers():
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"PostgreSQL does not start: {(folder / 'postgres.log').read_text()[-2000:]}")
        time.sleep(0.02)  # a poll with a deadline, not a synchronisation
    yield at
    server.send_signal(signal.SIGQUIT)
    server.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


def _drop_the_rest(at: Any) -> None:
    from pg_process import drop_the_rest

    from cloud.config import Database

    drop_the_rest(Database(at.host, at.port, at.name, at.user, at.password))


@pytest.fixture
def database(pg_server: object) -> Iterator[object]:
    """A `postgres.Login` of a fresh, empty database of this test's own; `.environment()` gives the DB_* variables."""
    from dataclasses import replace

    import postgres
    import psycopg

    assert isinstance(pg_server, postgres.Login)
    name = f"{external_server.PREFIX}{os.urandom(6).hex()}"
    told = {"host": pg_server.host, "port": pg_server.port, "user": pg_server.user, "password": pg_server.password}
    with psycopg.connect(**told, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        yield replace(pg_server, name=name)
        admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.getuid() != 0:
        missing("needs root")


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        kinds = [kind for kind in KINDS if item.get_closest_marker(kind)] or [BY_HAND]
        item.config.stash.setdefault(_left_out, Counter())[" ".join(kinds)] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of `-n` tells the one that reports what was left out; all workers collect the same."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = dict(session.config.stash.get(_left_out, Counter[str]()))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[_left_out] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Lists what this run did not prove: what was left out by its marker, what was skipped and why."""
    left_out = config.stash.get(_left_out, Counter[str]())
    skipped = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if not left_out and not skipped:
        return
    terminalreporter.section("not proved by this run")
    for kinds, count in sorted(left_out.items()):
        terminalreporter.line(f"{count:5}  left out: {kinds}{'' if kinds == BY_HAND else ' (make test-all runs them)'}")
    for reason, count in sorted(skipped.items()):
        terminalreporter.line(f"{count:5}  skipped: {reason}")


def _reason(report: pytest.TestReport) -> str:
    told = report.longrepr
    return str(told[2]).removeprefix("Skipped: ") if isinstance(told, tuple) else str(told)
