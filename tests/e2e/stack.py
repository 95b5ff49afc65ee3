"""The whole road as real processes in one temporary folder: servers, cloud, simulator, agents. Each can be killed.

No shell, no fixed port, nothing outside the folder but the agents' tmpfs files. `Stack` is a context manager.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
from conftest import missing
from e2e.agents import Agent
from free_ports import free_port
from waiting import until

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))

import kafka  # noqa: E402 - deploy/local is a folder of scripts, not a package
import mosquitto  # noqa: E402
import postgres  # noqa: E402
import processes  # noqa: E402

SEED = "7"  # of the simulated cars and their pasts
TUNING = {**postgres.TUNING, "log_min_messages": "warning"}
BARE = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
"""The environment of servers that are not ours."""
KAFKA_HEAP_MB = 256
KAFKA_JVM = {"JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
"""It starts again and again: that takes two thirds of the processor time without the late optimisations."""
START_S = 120.0  # after a kill a server looks through what it has, on a disk that others use
SERVERS = ("database", "mosquitto", "kafka")


@dataclass(frozen=True)
class Part:
    """One process: its command (with whatever must be done before it), and whether it answers now."""

    command: Callable[[], Sequence[str]]
    answers: Callable[[], object]
    environment: Mapping[str, str] = field(default_factory=dict)
    account: processes.Account | None = None
    polite: signal.Signals = signal.SIGTERM


class Stack:
    """The processes of one test, by name: database, api, sim, and those that `__init__` is asked for."""

    def __init__(
        self,
        folder: Path,
        cars: int = 3,
        speed: float = 1.0,
        agent: dict[str, str] | None = None,
        model: bool = False,
        brokers: int = 0,
        agents: Sequence[Agent] = (),
    ) -> None:
        """model: the champion is published before an agent starts, and the cars have pasts.

        brokers: of Kafka; 0 = the direct bus. More than one: parts kafka-1, kafka-2, ...
        agents: by default one, named `agent`, with all cars, by HTTP, and with the settings `agent`.
        """
        self.folder, self.cars, self.speed, self.model = folder, cars, speed, model
        cars_there = range(1, cars + 1)
        self.agents = {each.name: each for each in agents or [Agent(cars=cars_there, **(agent or {}))]}
        self.api_port, self.mqtt_port = free_port(), free_port()
        self.ingest_port, self.gateway_port = free_port(), free_port()
        self.login = postgres.Login("127.0.0.1", free_port(), "twin_data", "twin", "e2e")
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = folder / "logs"
        self.logs.mkdir()
        self._database_folder = Path(tempfile.mkdtemp(prefix="packtwin-e2e-"))
        self._database_folder.chmod(0o755)  # the server's own account must get through
        self.cluster = postgres.embedded(self._database_folder, self._database_folder / "outside")
        self.mosquitto = mosquitto.Broker(folder / "mosquitto", self.mqtt_port)
        self.kafka = _kafka(folder / "kafka", brokers) if brokers else None
        self.parts = self._parts()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def mqtt(self) -> str:
        return f"mqtt://127.0.0.1:{self.mqtt_port}"

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self.children)):
            self.stop(name)
        for leftover in (self._database_folder, *(each.hot_dir(self.folder) for each in self.agents.values())):
            shutil.rmtree(leftover, ignore_errors=True)
        if kind is not None:
            for log in sorted(self.logs.iterdir()):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:]))

    # --- what there is -------------------------------------------------------------------------------------------

    def _parts(self) -> dict[str, Part]:
        cars = ["--cars", str(self.cars), "--seed", SEED, "--speed", str(self.speed)]
        parts = {
            "database": Part(self._database, self.login.answers, account=self.cluster.account, polite=signal.SIGINT),
            "mosquitto": Part(self._mosquitto, self.mosquitto.ready),
            "ingest": Part(partial(self._cloud, "ingest"), lambda: healthy(self.ingest_port)),
            "gateway": Part(partial(self._cloud, "gateway"), lambda: healthy(self.gateway_port)),
            "api": Part(partial(self._cloud, "api"), lambda: healthy(self.api_port)),
            "sim": Part(
                lambda: ours("firmware_bridge", "sim", *cars, "--channel", str(self.folder / "can")),
                lambda: len(list((self.folder / "can").glob("BATTERY_*"))) == self.cars,
            ),
        }
        for broker in self.kafka.brokers if self.kafka else ():
            name = f"kafka-{broker.node}" if len(self.kafka.ports) > 1 else "kafka"
            parts[name] = Part(partial(self.kafka.command, broker), partial(self.kafka.ready, broker), KAFKA_JVM)
        for agent in self.agents.values():
            page = f"http://127.0.0.1:{agent.page_port}/status.json"
            parts[agent.name] = Part(partial(self._agent, agent), partial(fetch, page), agent.ports())
        return parts

    def environment(self) -> dict[str, str]:
        """What every part of ours gets to know."""
        bus: dict[str, str] = {}
        if self.kafka:
            copies = str(self.kafka.replication)
            bus = {"BUS": "kafka", "KAFKA_BOOTSTRAP": self.kafka.bootstrap, "KAFKA_REPLICATION": copies}
        return {
            **os.environ,
            **self.login.environment(),
            **bus,
            "MQTT_PORT": str(self.mqtt_port),
            "API_PORT": str(self.api_port),
            "INGEST_METRICS_PORT": str(self.ingest_port),
            "GATEWAY_METRICS_PORT": str(self.gateway_port),
            "PACKTWIN_RUN": str(self.folder / "run"),
            "PYTHONPATH": str(ROOT),
        }

    # --- starting ------------------------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Starts the named parts in order, and waits until each answers; `kafka` = all its brokers at once."""
        for name in names:
            these = [part for part in self.parts if part == name or part.startswith(f"{name}-")]
            if name == "kafka" and self.kafka:
                self.kafka.prepare()
            for each in these:
                self.spawn(each)
            for each in these:
                until(f"{each} answers", self.parts[each].answers, START_S)

    def spawn(self, name: str) -> None:
        """Starts a part and does not wait for it."""
        part = self.parts[name]
        theirs = name.partition("-")[0] in SERVERS
        self.children[name] = processes.spawn(
            part.command(),
            environment={**(BARE if theirs else self.environment()), **part.environment},
            cwd=Path("/") if part.account else self.folder,
            log=self.logs / f"{name}.log",
            account=part.account,
            death_signal=signal.SIGKILL,
        )

    def _database(self) -> list[str]:
        self.cluster.prepare(self.login.name, self.login.user, self.login.password, superuser=True)
        return self.cluster.command(self.login.port, TUNING)

    def _mosquitto(self) -> list[str]:
        problem = mosquitto.problem()
        if problem:
            missing(problem)
        self.mosquitto.prepare()
        return self.mosquitto.command()

    def _agent(self, agent: Agent) -> list[str]:
        if self.model and not (self.folder / "root.json").exists():
            self._publish_champion()
        return ours("edge", "run", "--config", str(self.edge_config(agent.name)))

    def _cloud(self, command: str) -> list[str]:
        if not (self.folder / "migrated").exists():
            self.run("cloud", "migrate")
            (self.folder / "migrated").touch()
        return ours("cloud", command)

    def _publish_champion(self) -> None:
        (champion,) = (ROOT / "cloud" / "champion").glob("*.bundle")
        self.run("cloud", "release", "publish", str(champion), "--to", "fleet")
        shutil.copyfile(self.folder / ".local" / "release" / "metadata" / "1.root.json", self.folder / "root.json")
        self.run("firmware_bridge", "lives", "--past", str(self.cars), "--seed", SEED, "-o", str(self.folder / "pasts"))

    def edge_config(self, name: str = "agent") -> Path:
        """Writes an agent's edge.toml once."""
        path = self.folder / ("edge.toml" if name == "agent" else f"{name}.toml")
        if not path.exists():
            urls = {"http": self.api, "mqtt": self.mqtt}
            path.write_text(self.agents[name].toml(self.folder, urls, self.model))
        return path

    # --- ending --------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL, and gone when this returns."""
        child = self.children.pop(name)
        child.kill()
        child.wait()

    def stop(self, name: str) -> None:
        """A polite end; SIGKILL after 10 s."""
        child = self.children.pop(name)
        child.send_signal(self.parts[name].polite)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    # --- asking --------------------------------------------------------------------------------------------------

    def run(self, module: str, *arguments: str) -> str:
        """Runs a command of ours to its end; its stdout. AssertionError with its words when it fails."""
        done = subprocess.run(
            ours(module, *arguments),
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
            return connection.execute(sql, arguments or None).fetchall()

    def get(self, path: str, quiet: bool = False) -> Any:
        """The JSON of an API path; when it does not answer 200: None if `quiet`, else ConnectionError."""
        answer = fetch(self.api + path)
        if answer is None and not quiet:
            raise ConnectionError(f"{path} does not answer")
        return answer

    def books(self, agent: str = "agent") -> dict[str, Any]:
        """The Samples' part of `status`."""
        return dict(self.status(agent)["samples"])

    def status(self, agent: str = "agent") -> dict[str, Any]:
        """`edge status --json` of an agent."""
        return dict(json.loads(self.run("edge", "status", "--json", "--config", str(self.edge_config(agent)))))


def _kafka(folder: Path, brokers: int) -> kafka.Cluster:
    problem = kafka.problem()
    if problem:
        missing(problem)
    ports = tuple(kafka.Ports(free_port(), free_port()) for _ in range(brokers))
    return kafka.Cluster(kafka.fetch(), folder, ports, heap_mb=KAFKA_HEAP_MB)


def ours(module: str, *arguments: str) -> list[str]:
    """A command of packtwin's."""
    return [sys.executable, "-m", module, *arguments]


def healthy(port: int) -> bool:
    """Whether a process of the cloud says that it and all it needs work."""
    return fetch(f"http://127.0.0.1:{port}/health") is not None


def fetch(url: str) -> Any:
    """The JSON behind a URL, None when it does not answer with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None
