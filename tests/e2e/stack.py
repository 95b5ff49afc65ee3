"""The whole road as real processes in one temporary folder: PostgreSQL, API, simulator, agent. Each can be killed.

No shell, no fixed port, nothing outside the folder but the agent's tmpfs file. `Stack` is a context manager.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import psycopg

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))

import postgres  # noqa: E402 - deploy/local is a folder of scripts, not a package
import processes  # noqa: E402

T = TypeVar("T")
SEED = "7"  # of the simulated cars and their pasts
TUNING = {**postgres.TUNING, "log_min_messages": "warning"}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(what: str, check: Callable[[], T], timeout_s: float = 30.0) -> T:
    """The first true answer of `check`, asked every 50 ms; TimeoutError naming `what`."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:.0f} s")
        time.sleep(0.05)


class Stack:
    """Database, API, simulator and agent of one test."""

    def __init__(
        self, folder: Path, cars: int = 3, speed: float = 1.0, agent: dict[str, str] | None = None, model: bool = False
    ) -> None:
        """model: the champion is published before the agent starts, and the cars have pasts."""
        self.folder, self.cars, self.speed, self.model = folder, cars, speed, model
        self.agent_settings = agent or {}
        self.api_port, self.page_port, self.metrics_port = free_port(), free_port(), free_port()
        self.login = postgres.Login("127.0.0.1", free_port(), "twin_data", "twin", "e2e")
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._database_folder = Path(tempfile.mkdtemp(prefix="packtwin-e2e-"))
        self._database_folder.chmod(0o755)  # the server's own account must get through
        self.cluster = postgres.embedded(self._database_folder, self._database_folder / "outside")

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self.children)):
            self.stop(name)
        for leftover in (self._database_folder, self.hot_dir()):
            shutil.rmtree(leftover, ignore_errors=True)
        if kind is not None:
            for log in sorted(self.logs.iterdir()):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:]))

    # --- starting ------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Starts the named parts in order and waits until each answers: database, api, sim, agent."""
        for name in names:
            getattr(self, f"_start_{name}")()

    def _spawn(self, name: str, command: list[str], account: Any = None, cwd: Path | None = None) -> None:
        self.children[name] = processes.spawn(
            command,
            environment=self.environment() if account is None else {"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            cwd=cwd or self.folder,
            log=self.logs / f"{name}.log",
            account=account,
            death_signal=signal.SIGKILL,
        )

    def environment(self) -> dict[str, str]:
        """What every part of ours gets to know."""
        return {
            **os.environ,
            **self.login.environment(),
            "API_PORT": str(self.api_port),
            "EDGE_PORT": str(self.page_port),
            "METRICS_PORT": str(self.metrics_port),
            "PACKTWIN_RUN": str(self.folder / "run"),
            "PYTHONPATH": str(ROOT),
        }

    def _start_database(self) -> None:
        self.cluster.prepare(self.login.name, self.login.user, self.login.password, superuser=True)
        command = self.cluster.command(self.login.port, TUNING)
        self._spawn("database", command, self.cluster.account, cwd=Path("/"))
        until("the database answers", self.login.answers)

    def _start_api(self) -> None:
        if not (self.folder / "migrated").exists():
            self.run("cloud", "migrate")
            (self.folder / "migrated").touch()
        self._spawn("api", [sys.executable, "-m", "cloud", "api"])
        until("the API answers", lambda: self.get("/health", quiet=True))

    def _start_sim(self) -> None:
        command = [sys.executable, "-m", "firmware_bridge", "sim", "--cars", str(self.cars), "--seed", SEED]
        self._spawn("sim", [*command, "--speed", str(self.speed), "--channel", str(self.folder / "can")])
        until("the cars are there", lambda: len(list((self.folder / "can").glob("BATTERY_*"))) == self.cars)

    def _publish_champion(self) -> None:
        (champion,) = (ROOT / "cloud" / "champion").glob("*.bundle")
        self.run("cloud", "release", "publish", str(champion), "--to", "fleet")
        shutil.copyfile(self.folder / ".local" / "release" / "metadata" / "1.root.json", self.folder / "root.json")
        self.run("firmware_bridge", "lives", "--past", str(self.cars), "--seed", SEED, "-o", str(self.folder / "pasts"))

    def _start_agent(self) -> None:
        if self.model and not (self.folder / "root.json").exists():
            self._publish_champion()
        self._spawn("agent", [sys.executable, "-m", "edge", "run", "--config", str(self.edge_config())])
        until("the agent answers", lambda: fetch(f"http://127.0.0.1:{self.page_port}/status.json"))

    def edge_config(self) -> Path:
        """Writes edge.toml once: one slcan source per car, everything below the folder."""
        path = self.folder / "edge.toml"
        if path.exists():
            return path
        mapping = ROOT / "edge" / "samples" / "mapping.toml"
        lines = [
            'device = "e2e-agent"',
            'clock = "system"',
            f'data_dir = "{self.folder / "cold"}"',
            f'hot_dir = "{self.hot_dir()}"',
            f"sample_s = {self.agent_settings.get('sample_s', '1.0')}",
            *(['trust_root = "root.json"'] if self.model else []),
            "[uplink]",
            f'url = "{self.api}"',
            f'mode = "{self.agent_settings.get("mode", "live")}"',
            "[page]",
            f"port = {self.page_port}",
            "[metrics]",
            f"port = {self.metrics_port}",
        ]
        for n in range(1, self.cars + 1):
            lines += ["[[source]]", f'pack_id = "BATTERY_{n:03d}"', 'type = "can"', 'interface = "slcan"']
            lines += [f'channel = "{self.folder / "can" / f"BATTERY_{n:03d}"}"', f'mapping = "{mapping}"']
            lines += [f'past = "pasts/BATTERY_{n:03d}.jsonl"'] if self.model else []
        path.write_text("\n".join(lines) + "\n")
        return path

    def hot_dir(self) -> Path:
        """The agent's tmpfs folder, of this test alone."""
        shm = Path("/dev/shm")
        return (shm if os.access(shm, os.W_OK) else self.folder) / f"packtwin-e2e-{self.folder.name}-{os.getpid()}"

    # --- ending --------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL, and gone when this returns."""
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def stop(self, name: str) -> None:
        """A polite end; SIGKILL after 10 s."""
        child = self.children.pop(name)
        child.send_signal(signal.SIGINT if name == "database" else signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    # --- asking --------------------------------------------------------------------------------------------------

    def run(self, module: str, *arguments: str) -> str:
        """Runs a command of ours to its end; its stdout. AssertionError with its words when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{module} {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def query(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """Rows of one query on a connection of its own."""
        with psycopg.connect(
            host=self.login.host,
            port=self.login.port,
            dbname=self.login.name,
            user=self.login.user,
            password=self.login.password,
            connect_timeout=5,
        ) as connection:
            return connection.execute(sql, arguments or None).fetchall()  # type: ignore[arg-type]

    def get(self, path: str, quiet: bool = False) -> Any:
        """The JSON of an API path; None when `quiet` and it does not answer 200."""
        answer = fetch(self.api + path)
        assert answer is not None or quiet, f"{path} does not answer"
        return answer

    def books(self) -> dict[str, Any]:
        """`edge status --json` of the agent."""
        status = json.loads(self.run("edge", "status", "--json", "--config", str(self.edge_config())))
        return status.get("samples", status)  # type: ignore[no-any-return]


def fetch(url: str) -> Any:
    """The JSON behind a URL, None when it does not answer with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None
