"""`python -m cloud` as a person runs it: exit codes, sentences, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from api_server import json_batch

from cloud import db
from cloud.__main__ import main
from cloud.api.serve import bind
from cloud.config import Database
from cloud.pack_table import read_packs
from shared.errors import ConfigError


def environment(database: Database, **more: str) -> dict[str, str]:
    names = {"DB_HOST": database.host, "DB_PORT": str(database.port), "DB_NAME": database.name,
             "DB_USER": database.user, "DB_PASSWORD": database.password}  # fmt: skip
    return {**os.environ, **names, **more}


def run(*words: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cloud", *words]
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=60, check=False)


@pytest.fixture
def settings(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    for name, value in environment(database).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return database


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr().err.strip()
    assert captured.count("\n") == 0, captured
    return captured


def test_help_shows_examples() -> None:
    answer = run("--help")
    assert answer.returncode == 0
    assert "examples:" in answer.stdout and "cloud migrate" in answer.stdout


def test_migrate_twice_is_fine(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_migrate_without_a_database_is_one_sentence(
    settings: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DB_PORT", "1")
    assert main(["migrate"]) == 1
    assert "no database" in said(capsys)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("API_PORT", "many"), ("DB_PORT", "0"), ("API_HOST", "192.0.2.7"), ("BAND_SOC_WARNING", "nan")],
)
def test_a_bad_setting_is_one_sentence_and_exit_2(
    settings: Database, setting: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(setting, value)
    assert main(["api"]) == 2
    assert setting in said(capsys)


def test_an_unknown_key_in_the_env_file_is_exit_2(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_text("API_PROT=5001\n")
    assert main(["migrate"]) == 2
    assert "API_PROT" in said(capsys)


def test_a_busy_port_is_exit_2(
    settings: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with bind("127.0.0.1", 0) as busy:
        monkeypatch.setenv("API_PORT", str(busy.getsockname()[1]))
        assert main(["api"]) == 2
    assert "is in use" in said(capsys)


def test_ingest_says_that_it_runs_inside_the_api(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["ingest"], ["ingest", "--from-start"]):
        assert main(words) == 2
        assert "inside the API process" in said(capsys)


def test_wrong_usage_is_exit_2() -> None:
    for words in ((), ("fly",), ("pack",), ("pack", "import")):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2


TABLE = "\n".join(
    (
        "pack_id,device,vehicle,fleet,chemistry,series,parallel,nominal_ah,nominal_v,layout_file,commissioned,tags,"
        "limits.cell_v_max",
        "P1,,car-1,north,NMC,96,2,120.5,350,,2024-05-01,a;b,4.25",
        "P2,,,,,,,,,,,,",
        "",
    )
)


def test_an_imported_table_is_listed_as_it_was_and_may_be_read_twice(
    settings: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("packs.csv").write_text(TABLE)
    for _ in range(2):
        assert main(["pack", "import", "packs.csv"]) == 0
        assert "2 packs" in capsys.readouterr().out
    assert main(["pack", "list"]) == 0
    assert capsys.readouterr().out == TABLE.replace("NMC", "nmc").replace(",350,", ",350.0,")
    Path("packs.csv").write_text("pack_id,vehicle\nP1,car-9\n")
    assert main(["pack", "import", "packs.csv"]) == 0
    with db.connect(settings) as conn:
        row = conn.execute("SELECT vehicle, chemistry, tags FROM pack WHERE pack_id = 'P1'").fetchone()
    assert row == ("car-9", "nmc", ["a", "b"])


def test_a_table_with_an_unknown_device_changes_nothing(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    Path("packs.csv").write_text("pack_id,device\nP1,\nP2,nobody\n")
    assert main(["pack", "import", "packs.csv"]) == 2
    assert "nobody" in said(capsys)
    with db.connect(settings) as conn:
        assert conn.execute("SELECT count(*) FROM pack").fetchone() == (0,)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "pack_id"),
        ("vehicle\ncar\n", "pack_id"),
        ("pack_id,colour\nP,red\n", "colour"),
        ("pack_id,pack_id\nP,P\n", "twice"),
        ("pack_id,series\nP,0\n", "line 2: series"),
        ("pack_id,series\nP,9.5\n", "line 2: series"),
        ("pack_id\nP\nP\n", "line 3"),
        ("pack_id\n-bad-\n", "pack_id"),
        ("pack_id,chemistry\nP,lead\n", "lead"),
        ("pack_id,nominal_v\nP,nan\n", "nominal_v"),
        ("pack_id,nominal_v\nP,-3\n", "nominal_v"),
        ("pack_id,commissioned\nP,01.02.2024\n", "commissioned"),
        ("pack_id,limits.x\nP,hot\n", "limits.x"),
        ("pack_id,vehicle\nP\n", "cells"),
        ("pack_id\nP,2\n", "cells"),
        ('pack_id\n"P', "CSV"),
        ("pack_id\n\n,\n", "cells"),
    ],
)
def test_a_bad_table_is_one_sentence_that_names_the_place(text: str, names: str) -> None:
    with pytest.raises(ConfigError, match=names.replace(".", r"\.")):
        read_packs(text, "packs.csv")


def test_a_missing_table_is_exit_2(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pack", "import", "nowhere.csv"]) == 2
    assert "nowhere.csv" in said(capsys)


def wait_for_health(url: str, status: int, process: subprocess.Popen[str]) -> None:
    """Waits until /health answers `status`: a killed server's last sessions live a moment longer than itself."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).status_code == status:
                return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    raise AssertionError(f"/health did not become {status}")


def test_the_api_starts_without_a_database_recovers_by_itself_and_ends_on_sigterm(own_pg_server, tmp_path) -> None:  # type: ignore[no-untyped-def]
    server = own_pg_server
    with db.connect(server.login) as conn:
        db.migrate(conn)
    server.stop()
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = environment(server.login, API_PORT=str(port))
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "cloud", "api"], env=env, cwd=tmp_path, stderr=log, text=True)
    try:
        wait_for_health(url, 503, process)
        server.start()
        wait_for_health(url, 200, process)
        upload = json_batch([{"pack_id": "P", "t_ns": time.time_ns(), "pack_v": 300.0}])
        assert httpx.post(f"{url}/device/v1/batches", json=upload).status_code == 200
        server.stop(kill=True)
        wait_for_health(url, 503, process)
        assert httpx.post(f"{url}/device/v1/batches", json=upload, timeout=40).status_code == 503
        server.start()
        wait_for_health(url, 200, process)
        assert httpx.get(f"{url}/api/battery/latest").json()["voltage"] == 300.0
        with httpx.stream("GET", f"{url}/api/v1/live?pack_id=P") as stream:
            assert stream.status_code == 200
            began_s = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            assert time.monotonic() - began_s < 5
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()
