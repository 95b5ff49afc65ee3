"""`make run` as real processes: database, API, cars and agent, killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import postgres
import processes
import pytest
import stack
from checkout import Checkout, end, new_checkout
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with new_checkout() as here:
        yield here


def test_it_runs_says_so_and_ends_with_zero_on_ctrl_c(checkout: Checkout) -> None:
    child = checkout.start()
    until("three packs in the list", lambda: len(checkout.packs()) == 3)
    told = until("all is ready", checkout.ready)
    assert [line.split()[:2] for line in told.splitlines()[1:]] == [
        [name, "ready"] for name in ("database", "api", "cars", "agent")
    ]
    second = checkout.call("run")
    assert second.returncode == 2
    assert second.stderr == f"packtwin: packtwin already runs here, {checkout.api}; 'make stop' ends it\n"
    began_s, services = time.monotonic(), checkout.services()
    assert end(child, signal.SIGINT) == 0
    assert time.monotonic() - began_s < 15
    assert not any(map(processes.is_alive, services.values()))
    assert checkout.call("status").returncode == 1


def test_a_killed_supervisor_leaves_nothing_running_and_the_next_start_continues(checkout: Checkout) -> None:
    child = checkout.start()
    until("rows in the database", checkout.samples)
    services, before = checkout.services(), checkout.samples()
    end(child, signal.SIGKILL)
    until("the children end", lambda: not any(map(processes.is_alive, services.values())))
    child = checkout.start()
    assert checkout.samples() >= before
    until("new rows", lambda: checkout.samples() > before + 3)
    assert end(child, signal.SIGTERM) == 0


@pytest.mark.parametrize("name", ["database", "api", "cars", "agent"])
def test_a_killed_service_is_started_again_and_rows_go_on(checkout: Checkout, name: str) -> None:
    child = checkout.start()
    until("rows in the database", checkout.samples)
    killed = checkout.services()[name]
    os.kill(killed.pid, signal.SIGKILL)
    until(f"{name} starts again", lambda: checkout.services().get(name, killed) != killed)
    until("all is ready again", checkout.ready, 120)  # PostgreSQL looks through what it has first
    before = checkout.samples()
    until("new rows", lambda: checkout.samples() > before)
    assert end(child, signal.SIGTERM) == 0


def test_the_simulated_packs_say_what_they_are_and_what_a_person_changed_stays(
    checkout: Checkout, tmp_path: Path
) -> None:
    child = checkout.start()
    facts = checkout.facts("BATTERY_002")
    assert {name: facts[name] for name in ("chemistry", "series", "parallel", "nominal_ah", "nominal_v", "tags")} == {
        "chemistry": "nmc", "series": 96, "parallel": 1, "nominal_ah": 180.0, "nominal_v": 353.0, "tags": ["simulated"]
    }  # fmt: skip
    table = tmp_path / "packs.csv"
    table.write_text("pack_id,fleet,tags\nBATTERY_002,north,simulated;mine\n")
    done = checkout.call("with", "database", "--", sys.executable, "-m", "cloud", "pack", "import", str(table))
    assert (done.returncode, done.stdout) == (0, f"1 packs read from {table}\n")
    assert end(child, signal.SIGINT) == 0
    child = checkout.start()
    facts = checkout.facts("BATTERY_002")
    assert (facts["fleet"], facts["tags"]) == ("north", ["simulated", "mine"])
    assert end(child, signal.SIGINT) == 0


def test_two_checkouts_run_beside_each_other(checkout: Checkout, tmp_path: Path) -> None:
    first = checkout.start()
    other_folder = Path(tempfile.mkdtemp(prefix="packtwin-run-"))
    other_folder.chmod(0o755)
    other = Checkout(other_folder)
    try:
        second = other.start()
        for each in (checkout, other):
            until("rows in both databases", lambda each=each: each.samples() > 3)  # type: ignore[misc]
        assert end(second, signal.SIGINT) == 0
    finally:
        other.call("stop")
        for setting in stack.hot_folder(other.paths):
            shutil.rmtree(setting.split('"')[1], ignore_errors=True)
        shutil.rmtree(other_folder, ignore_errors=True)
    assert end(first, signal.SIGINT) == 0


def test_a_database_of_the_users_own_replaces_the_embedded_one(checkout: Checkout, database: postgres.Login) -> None:
    checkout.environment |= database.environment()
    child = checkout.start()
    until("rows in the user's database", checkout.samples)
    assert "(yours)" in checkout.call("status").stdout
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) > 0 FROM samples").fetchone() == (True,)
    assert end(child, signal.SIGINT) == 0
    assert not (checkout.paths.local / "pg").exists()
    assert database.answers(), "a server of the user's is never stopped"


def test_another_command_gets_a_database_and_an_api_of_its_own_for_its_time(checkout: Checkout) -> None:
    script = "import os, urllib.request as u; print(u.urlopen(os.environ['PACKTWIN_URL'] + '/health').status)"
    done = checkout.call("with", "database,api", "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "200\n"), "the command's own output alone"
    assert done.stderr.splitlines()[-1] == "packtwin has stopped"
    assert checkout.call("status").returncode == 1


def test_beyond_loopback_the_agent_here_sends_with_tls_and_a_token(tmp_path: Path) -> None:
    with new_checkout(API_HOST="0.0.0.0", TLS_DIR=str(tmp_path / "tls")) as here:
        child = here.start()
        assert f"open https://localhost:{here.environment['API_PORT']}" in here.said
        until("rows in the database", here.samples)
        until("all is ready", here.ready)
        config = (here.paths.edge / "edge.toml").read_text()
        assert f'ca_file = "{tmp_path}/tls/ca.pem"' in config and str(here.paths.device_token) in config
        assert here.paths.device_token.stat().st_mode & 0o777 == 0o600
        assert end(child, signal.SIGTERM) == 0
