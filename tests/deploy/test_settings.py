"""Settings and ports: every wrong one is a sentence that names what, where and what to do."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import ports
import pytest
import run
import settings
import stack
from conftest import ROOT
from free_ports import free_port

from cloud import config as cloud_config
from shared.errors import ConfigError


def env_file(folder: Path, text: str) -> Path:
    path = folder / ".env"
    path.write_text(text)
    return path


def test_the_environment_beats_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    written = env_file(tmp_path, 'API_PORT=6001   # mine\nexport EDGE_PORT=6002\nDB_NAME="other"\n\n# CARS=9\n')
    read = settings.read_settings({"API_PORT": "7001", "METRICS_PORT": ""}, written)
    assert (read.cloud.api_port, read.edge_port, read.metrics_port, read.cars) == (7001, 6002, None, 3)
    assert (read.cloud.database.name, read.cloud.database.user, read.external) == ("other", "twin", False)
    assert read.environment["EDGE_PORT"] == "6002", "the children are told what .env says"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("API_PRT=1\n", "API_PRT is not a setting"),
        ("EDGEPORT=1\n", r"EDGEPORT is not a setting; did you mean EDGE_PORT\?"),
        ("EDGE_PORT=x\n", "EDGE_PORT='x' is not a whole number from 1 to 65535; correct the setting"),
        ("METRICS_PORT=70000\n", "METRICS_PORT='70000' is not a whole number"),
        ("API_PORT=0\n", "API_PORT=0 is no address for a browser; set a port"),
        ("CARS=0\n", "CARS='0' is not a whole number from 1 to 99"),
        ("what is this\n", "line 1 is not NAME=value"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        settings.read_settings({}, env_file(tmp_path, text))


def test_the_example_lists_every_setting_that_the_code_reads() -> None:
    read = set(cloud_config.SETTINGS)
    for folder in ("shared", "firmware_bridge", "edge", "cloud", "deploy/local"):
        for source in (ROOT / folder).rglob("*.py"):
            if "node_modules" not in source.parts:
                read |= set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z][A-Z0-9_]+)\"", source.read_text()))
    others = {
        "PATH",
        "HOME",
        "JAVA_HOME",
        "NO_COLOR",
        "HTTP_HOST",
        "HTTP_X_PACKTWIN_KEY",
        "CONTENT_LENGTH",
        "ORT_DISABLE_TELEMETRY",
        "PATH_INFO",
        "REQUEST_METHOD",
        "PACKTWIN_URL",
    }  # the system's, onnxruntime's, WSGI's, run.py's
    ours = {name for name in read - others if not name.startswith(("XDG_", "PIP_", "UV_", "SSL_"))}
    assert ours - settings.known_settings() == set()


def test_a_busy_port_names_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError) as raised:
            ports.require_free("API_PORT", port)
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    assert str(raised.value) == f"port {port} is in use by PID {os.getpid()} ({name}); stop it or set API_PORT"


def test_a_busy_default_moves_to_the_next_free_port_and_an_explicit_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        moved = ports.claim("EDGE_PORT", None, port)
        assert moved > port
        assert ports.claim("EDGE_PORT", None, port, taken=frozenset({moved})) > moved
        with pytest.raises(ConfigError, match=f"port {port} is in use by .*; stop it or set EDGE_PORT"):
            ports.claim("EDGE_PORT", port, 1)


def test_a_host_of_another_machine_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        ports.is_free(0, "192.0.2.1")


def command(*arguments: str, local: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs run.py with its state in another folder, as a user of this checkout would."""
    code = (
        f"import sys; sys.path[:0] = [{str(ROOT / 'deploy' / 'local')!r}]\n"
        f"import pathlib, run, stack; stack.LOCAL = pathlib.Path({str(local)!r})\n"
        f"sys.exit(run.main({list(arguments)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_make_run_with_a_busy_api_port_says_who_has_it_and_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = command("run", local=tmp_path / ".local", API_PORT=str(port))
    assert done.returncode == 2
    assert re.fullmatch(
        rf"packtwin: port {port} is in use by PID {os.getpid()} \(.*\); stop it or set API_PORT\n", done.stderr
    )
    assert not (tmp_path / ".local" / "pg").exists()


def test_make_run_with_a_database_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    port = str(free_port())
    done = command(
        "run", local=tmp_path / ".local", DB_HOST="127.0.0.1", DB_PORT=port, API_PORT=str(free_port()), DB_PASSWORD="x"
    )
    assert done.returncode == 2
    assert f"packtwin: no database at DB_HOST=127.0.0.1 DB_PORT={port}: " in done.stderr
    assert "start it, or correct the DB_ settings" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / ".local" / "pg").exists(), "the user's own server replaces the embedded one"


def test_a_command_that_is_none_prints_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["fly"]) == 2
    assert capsys.readouterr().err.startswith("usage: run.py run | status")


@pytest.mark.parametrize(("word", "code"), [("status", 1), ("stop", 0), ("logs", 1), ("psql", 2)])
def test_companions_of_a_stack_that_does_not_run_say_so(tmp_path: Path, word: str, code: int) -> None:
    done = command(word, local=tmp_path / ".local")
    assert done.returncode == code
    assert "make run" in done.stdout + done.stderr or "does not run here" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_cars_use_vcan_where_all_of_it_is_up(tmp_path: Path) -> None:
    for number, flags in enumerate(("0x80", "0x80", "0xc1")):
        (tmp_path / f"vcan{number}").mkdir()
        (tmp_path / f"vcan{number}" / "flags").write_text(flags + "\n")
    assert stack.vcan_buses(3, tmp_path) == []
    for number in range(3):
        (tmp_path / f"vcan{number}" / "flags").write_text("0xc1\n")
    assert stack.vcan_buses(3, tmp_path) == ["vcan0", "vcan1", "vcan2"]
    assert stack.vcan_buses(4, tmp_path) == []


def test_an_edge_toml_that_the_user_took_over_is_left_alone(tmp_path: Path) -> None:
    told, paths = settings.read_settings({"CARS": "2"}, tmp_path / ".env"), stack.Paths(tmp_path)
    paths.make()
    config = paths.edge / "edge.toml"
    stack.write_edge_config(config, told, paths)
    assert config.read_text().count("[[source]]") == 2
    config.write_text('device = "mine"\n')
    stack.write_edge_config(config, told, paths)
    assert config.read_text() == 'device = "mine"\n'


def test_secrets_are_made_once_and_only_their_owner_may_read_them(tmp_path: Path) -> None:
    import state

    file = tmp_path / "secrets.env"
    assert state.secret(file, "A", "one") == "one"
    assert state.secret(file, "B", "two") == "two"
    assert state.secret(file, "A", "three") == "one"
    assert file.stat().st_mode & 0o777 == 0o600
