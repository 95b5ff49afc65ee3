"""The embedded PostgreSQL, really started: after a kill, as root in a closed folder, under a long path."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import postgres
import processes
import psycopg
import pytest
from conftest import missing
from free_ports import free_port

from shared.errors import ConfigError

LOGIN = ("twin_data", "twin", 'it\'s "secret"')


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other accounts may enter, as a checkout usually is; pytest's own is closed."""
    path = Path(tempfile.mkdtemp(prefix="packtwin-deploy-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def serving(cluster: postgres.Cluster, log: Path, login: tuple[str, str, str] = LOGIN) -> Iterator[tuple]:
    cluster.prepare(*login)
    at = postgres.Login(postgres.HOST, free_port(), *login)
    server = processes.spawn(
        cluster.command(at.port),
        environment={"LC_ALL": "C"},
        cwd=Path("/"),
        log=log,
        account=cluster.account,
    )
    try:
        wait_for(at, server, log)
        yield at, server
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
            server.wait(60)  # its last checkpoint waits for the disk


def wait_for(at: postgres.Login, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120  # after a kill it syncs every file first
    while not at.answers():
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def remember(at: postgres.Login, word: str) -> None:
    with at.connect() as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS said (word text)")
        connection.execute("INSERT INTO said VALUES (%s)", (word,))


def remembered(at: postgres.Login) -> list[str]:
    with at.connect() as connection:
        return [str(row[0]) for row in connection.execute("SELECT word FROM said ORDER BY word")]


def test_a_second_start_continues_also_after_a_kill(folder: Path) -> None:
    cluster = postgres.embedded(folder, folder / "outside")
    with serving(cluster, folder / "log") as (at, _):
        remember(at, "first")
    with serving(cluster, folder / "log") as (at, server):
        remember(at, "second")
        server.kill()
        server.wait()
    with serving(cluster, folder / "log") as (at, _):
        assert remembered(at) == ["first", "second"]


def test_the_role_is_no_superuser_and_the_superuser_cannot_log_in(folder: Path) -> None:
    with serving(postgres.embedded(folder, folder / "outside"), folder / "log") as (at, _):
        with at.connect() as connection:
            row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
            assert row == (False,)
        for user, password in (("postgres", ""), ("postgres", at.password), (at.user, "wrong")):
            with pytest.raises(psycopg.OperationalError):
                postgres.Login(at.host, at.port, at.name, user, password).connect()


def test_a_lost_password_is_replaced_and_the_data_stay(folder: Path) -> None:
    cluster = postgres.embedded(folder, folder / "outside")
    with serving(cluster, folder / "log") as (at, _):
        remember(at, "kept")
    with serving(cluster, folder / "log", ("twin_data", "twin", "new")) as (at, _):
        assert remembered(at) == ["kept"]


@pytest.mark.root
def test_as_root_in_a_folder_only_root_may_enter(folder: Path) -> None:
    checkout = folder / "closed" / "checkout"
    checkout.mkdir(parents=True)
    checkout.parent.chmod(0o700)
    local, outside = checkout / ".local", folder / "outside"
    local.mkdir()
    for word in ("first", "second"):
        cluster = postgres.embedded(local, outside)
        assert outside in cluster.data.parents and outside in cluster.binaries.parents
        with serving(cluster, folder / "log") as (at, _):
            remember(at, word)
            assert remembered(at)[-1] == word
    assert (local / "pg" / "PG_VERSION").exists(), "the checkout shows where its data live"


def test_a_very_long_path(folder: Path) -> None:
    deep = folder.joinpath(*["a-folder-with-a-rather-long-name"] * 8)
    deep.mkdir(parents=True)
    assert len(str(deep)) > 250
    with serving(postgres.embedded(deep, folder / "outside"), folder / "log") as (at, _):
        remember(at, "deep")


def test_a_pid_file_that_names_a_strangers_process_does_not_stop_the_start(folder: Path) -> None:
    cluster = postgres.embedded(folder, folder / "outside")
    with serving(cluster, folder / "log") as (at, _):
        lines = (cluster.data / "postmaster.pid").read_text().splitlines()
    stranger = subprocess.Popen(["sleep", "60"], user=cluster.account.uid if cluster.account else None)
    try:
        (cluster.data / "postmaster.pid").write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
        with serving(cluster, folder / "log") as (at, _):
            remember(at, "on")
        assert stranger.poll() is None, "the stranger was left alone"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_server_left_on_the_data_is_ended_first(folder: Path) -> None:
    cluster = postgres.embedded(folder, folder / "outside")
    with serving(cluster, folder / "log") as (at, left):
        remember(at, "left")
        cluster.prepare(*LOGIN)
        left.wait(60)
        assert "database system is shut down" in (folder / "log").read_text(), "a fast shutdown, not a kill"
    with serving(cluster, folder / "log") as (at, _):
        assert remembered(at) == ["left"]


def test_an_interrupted_first_start_leaves_nothing_half_made(folder: Path) -> None:
    half = folder / "pg.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    with serving(postgres.embedded(folder, folder / "outside"), folder / "log") as (at, _):
        remember(at, "whole")
    assert not half.exists()


def test_data_of_another_major_version_is_one_sentence(folder: Path) -> None:
    cluster = postgres.embedded(folder, folder / "outside")
    cluster.data.mkdir()
    (cluster.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(ConfigError, match="was made by PostgreSQL 12, this is 18; move it away"):
        cluster.prepare(*LOGIN)


@pytest.mark.root
def test_a_full_disk_is_one_sentence(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)], check=False)
    if made.returncode:
        missing("needs a machine that mounts a tmpfs")
    try:
        with pytest.raises(ConfigError, match="full: the database needs 300 MiB"):
            postgres.embedded(small, folder / "outside").prepare(*LOGIN)
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_the_server_does_not_outlive_a_killed_supervisor(folder: Path) -> None:
    """A SIGKILL leaves no chance to clean up; the kernel ends the children."""
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import time, pathlib, signal, postgres, processes\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"  # as a shell starts what it puts into the background
        f"folder = pathlib.Path({str(folder)!r})\n"
        "cluster = postgres.embedded(folder, folder / 'outside')\n"
        f"cluster.prepare(*{LOGIN!r})\n"
        f"server = processes.spawn(cluster.command({free_port()}), environment={{}}, cwd=folder, log=folder / 'log',\n"
        "    account=cluster.account, death_signal=signal.SIGINT)\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = processes.identify(int(parent.stdout.readline()))
    assert server is not None
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60  # its last checkpoint waits for the disk
    while processes.is_alive(server):
        assert time.monotonic() < deadline, f"the server outlived its supervisor: {(folder / 'log').read_text()}"
        time.sleep(0.02)
