"""The page for those who come from the earlier system: it leaves nothing out, and what it tells one to type works."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, missing
from e2e.stack import fetch
from free_ports import free_port
from waiting import until

PAGE = ROOT / "docs" / "coming-from-the-earlier-system.md"
SPAN = re.compile(r"`([^`]+)`")
STARTS = ("make ", ".venv/bin/", "curl ", "echo ", "docker compose ", "deploy/compose/up", "sudo ")
ELSEWHERE = {  # what another test runs: where, and the words there
    "make run": ("tests/deploy/test_coming_from.py", '["make", "run"]'),
    "make stop": ("tests/deploy/test_coming_from.py", '["make", "stop"]'),
    "make run STACK=full": ("tests/deploy/test_full.py", "full"),
    "deploy/compose/up": ("tests/deploy/test_compose.py", 'up("--init")'),
    "make retrain": ("tests/e2e/test_ring.py", '"retrain.py"'),
    "make test-all": (".ci/run", "make test-all"),
    ".venv/bin/python -m cloud api": ("tests/e2e/stack.py", 'self._cloud, "api"'),
    'make cloud ARGS="restore FILE"': ("tests/cloud/test_backup.py", "restore"),
}
SHORTER = {"make test": 'make test ARGS="--collect-only -n0"'}  # a test that runs all tests would run itself
NOT_OURS = re.compile(r"^(#|cd |git clone|source |\.venv\\|timeout )")
"""Of the earlier page's commands: those that are the shell's."""


@pytest.fixture(scope="module")
def earlier(shared_dir: Path) -> str:
    return (shared_dir / "earlier" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def then() -> str:
    """The first column of every table, and the rest of the page's text below the tables' heads."""
    return PAGE.read_text(encoding="utf-8").replace("\\|", "|")


def now_commands() -> list[str]:
    """Every command that the page tells one to type, as typed."""
    spans = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        text = cells[-2] if line.startswith("|") else line
        spans += [span.replace("\\|", "|") for span in SPAN.findall(text)]
    return [span for span in dict.fromkeys(spans) if span.startswith(STARTS)]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def test_every_command_of_the_earlier_page_is_on_it(earlier: str, then: str) -> None:
    found = [line.strip() for block in blocks(earlier, "bash") for line in block.splitlines()]
    commands = [line for line in found if line and not NOT_OURS.match(line)]
    assert len(commands) > 15
    assert [each for each in commands if each.split(" #")[0] not in then] == []


def test_every_endpoint_port_setting_and_file_of_the_earlier_page_is_on_it(earlier: str, then: str) -> None:
    endpoints = re.findall(r"`GET (/\S+)`", earlier)
    ports = set(re.findall(r"(?:localhost:|ports? |, )(\d{4})\b", earlier)) - {"2025"}
    settings = re.findall(r"^([A-Z_]+)=", "\n".join(blocks(earlier, "env")), re.MULTILINE)
    tree = re.findall(r"```\n(NEW_EV_BATTERY/.*?)```", earlier, re.DOTALL)[0]
    files = re.findall(r"^\s+([\w.-]+\.\w+|\.env)\s", tree, re.MULTILINE)
    assert len(endpoints) == 7 and len(ports) >= 9 and len(settings) >= 6 and len(files) >= 14
    wanted = [*endpoints, *ports, *settings, *(file for file in files if file != "README.md")]
    assert [each for each in wanted if each not in then] == []


def test_every_band_of_the_earlier_page_is_on_it(earlier: str, then: str) -> None:
    bands = then[then.index("## Bands") : then.index("## Files")]
    indicators = earlier[earlier.index("### Battery Health Indicators") : earlier.index("Contributing")]
    numbers = re.findall(r"(?:Good|Critical): ([<>] \d+)", indicators)
    assert len(numbers) >= 7
    assert [each for each in numbers if each not in bands] == []


def test_every_metric_and_topic_of_the_contract_is_on_it(then: str) -> None:
    metrics = ROOT / "cloud" / "api" / "metrics.py"
    names = set(re.findall(r"battery_[a-z_]+(?:percent|celsius|cycles|probability|total)", metrics.read_text()))
    names |= {"battery_predictions_total", "ev/battery/telemetry", "ev_battery_telemetry"}
    assert len(names) >= 6
    assert [name for name in sorted(names) if name not in then and f"{name}_total" not in then] == []


def test_a_command_that_is_run_elsewhere_is_run_there() -> None:
    commands = now_commands()
    assert set(ELSEWHERE) | set(SHORTER) <= set(commands)
    for command, (place, words) in ELSEWHERE.items():
        assert (ROOT / place).exists(), f"{command}: {place}"
        assert words in (ROOT / place).read_text(), f"{command}: {place}"


def test_the_commands_for_docker_name_services_that_are_there() -> None:
    """Docker is not on this machine."""
    services = yaml.safe_load((ROOT / "deploy" / "compose" / "compose.yaml").read_text())["services"]
    commands = [command.split()[2:] for command in now_commands() if command.startswith("docker compose ")]
    assert len(commands) >= 4
    for verb, *rest in commands:
        assert verb in ("ps", "logs", "down", "exec", "run")
        named = [word for word in rest if not word.startswith("-")][:1]
        assert set(named) <= set(services), named


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Path, dict[str, str]]]:
    """A fresh clone in which `make run` runs on ports of its own, with this very venv; and its environment."""
    if shutil.which("git") is None or shutil.which("curl") is None:
        missing("needs git and curl (apt-get install git curl)")
    folder = Path(tempfile.mkdtemp(prefix="packtwin-from-"))
    folder.chmod(0o755)
    clone = folder / "packtwin"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    (clone / ".venv").symlink_to(ROOT / ".venv")
    shutil.copytree(ROOT / "cloud" / "web" / "dist", clone / "cloud" / "web" / "dist")
    for file in clone.rglob("*"):  # older than the stamps: nothing is to be installed or built
        if file.is_file() and not file.is_symlink() and ".git" not in file.parts:
            os.utime(file, (0, 0))
    stamps = folder / "stamps"
    stamps.mkdir()
    for name in ("run", "dev", "train"):
        (stamps / name).touch()
    os.utime(clone / "cloud" / "web" / "dist" / "index.html")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTHON", "DB_", "PYTEST", "MAKE"))},
        **{name: str(free_port()) for name in ("API_PORT", "DB_PORT", "EDGE_PORT", "METRICS_PORT")},
        "PACKTWIN_RUN": str(folder / "r"),
        "MAKEFLAGS": f"STAMPS={stamps}",
    }
    environment.pop("DB_PORT")  # the embedded server moves on by itself
    log = (folder / "make-run.log").open("wb")
    child = subprocess.Popen(
        ["make", "run"], cwd=clone, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        latest = f"http://127.0.0.1:{environment['API_PORT']}/api/battery/latest"
        until("a first sample", lambda: child.poll() is not None or fetch(latest), 120)
        assert child.poll() is None, (folder / "make-run.log").read_text()
        yield clone, environment
        subprocess.run(["make", "stop"], cwd=clone, env=environment, check=True, capture_output=True)
        child.wait(90)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            child.wait(90)
        log.close()
        subprocess.run(["make", "-s", "clean", "DATA=1"], cwd=clone, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def typed() -> list[str]:
    return [each for each in now_commands() if each not in ELSEWHERE and not each.startswith("docker compose ")]


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("command", typed())
def test_what_the_page_says_to_type_works(command: str, running: tuple[Path, dict[str, str]]) -> None:
    clone, environment = running
    line = SHORTER.get(command, command).replace("localhost:5001", f"localhost:{environment['API_PORT']}")
    done = subprocess.run(
        ["bash", "-c", line], cwd=clone, env=environment, capture_output=True, text=True, timeout=500, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    assert done.stdout.strip() or done.stderr.strip(), f"{line} says nothing"
