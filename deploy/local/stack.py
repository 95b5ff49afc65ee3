"""The services of one checkout, in the order in which they start: database, api, cars, agent."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import door
import ports
import postgres
import state
from services import Service, answers
from settings import ROOT, Settings

from shared.errors import ConfigError, PacktwinError

LOCAL = ROOT / ".local"
CHAMPION = ROOT / "cloud" / "champion"  # the model that ships
DEVICE = "local-agent"
SAMPLE_MAPPING = ROOT / "edge" / "samples" / "mapping.toml"  # what the simulated cars and their packs are
DATABASE_PORT, EDGE_PORT, METRICS_PORT = 5432, 5002, 9100
GENERATED = "# Written by make run at every start. To keep your own version, remove this line."


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the state of a checkout lives, below `.local`."""

    local: Path

    @property
    def state(self) -> Path:
        return self.local / "run" / "state.json"

    @property
    def lock(self) -> Path:
        return self.local / "run" / "lock"

    @property
    def cars(self) -> Path:
        return self.local / "run" / "can"

    @property
    def logs(self) -> Path:
        return self.local / "logs"

    @property
    def edge(self) -> Path:
        return self.local / "edge"

    @property
    def pasts(self) -> Path:
        return self.local / "run" / "pasts"

    @property
    def trust_root(self) -> Path:
        return self.edge / "root.json"

    @property
    def device_token(self) -> Path:
        return self.edge / "token"

    @property
    def packs(self) -> Path:
        return self.local / "run" / "packs.csv"

    @property
    def secrets(self) -> Path:
        return self.local / "secrets.env"

    def make(self) -> None:
        """Creates the folders. `.local` itself stays open to the database's own account, where there is one."""
        for folder in (self.state.parent, self.logs, self.edge):
            folder.mkdir(parents=True, exist_ok=True)


def login(settings: Settings, paths: Paths) -> postgres.Login:
    """Returns how to reach the database: the user's own, or the embedded one with its port and password settled."""
    told = settings.cloud.database
    if settings.external:
        return postgres.Login(told.host, told.port, told.name, told.user, told.password)
    port = ports.claim("DB_PORT", settings.db_port, DATABASE_PORT)
    password = told.password or state.secret(paths.secrets, "DB_PASSWORD", secrets.token_urlsafe(24))
    return postgres.Login(postgres.HOST, port, told.name, told.user, password)


def database(settings: Settings, at: postgres.Login, paths: Paths) -> Service:
    """Returns the database: the user's own, asked only, or the embedded one."""
    address = f"postgresql://{at.user}@{at.host}:{at.port}/{at.name}"
    if settings.external:
        return Service(name="database", address=f"{address} (yours)", command=[], ready=lambda: _reached(at))
    cluster = postgres.embedded(paths.local)
    return Service(
        name="database",
        address=address,
        command=cluster.command(at.port),
        environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        prepare=lambda: cluster.prepare(at.name, at.user, at.password),
        before_restart=cluster.clear_stale_server,
        ready=at.answers,
        account=cluster.account,
        polite=signal.SIGINT,  # PostgreSQL's fast shutdown
    )


def _reached(at: postgres.Login) -> bool:
    problem = at.problem()
    if problem is not None:
        raise ConfigError(
            f"no database at DB_HOST={at.host} DB_PORT={at.port}: {problem}; start it, or correct the DB_ settings"
        )
    return True


def api(settings: Settings, at: postgres.Login) -> Service:
    """Returns the API with the page; its migrations run before its first start."""
    host, port = settings.cloud.api_host, settings.cloud.api_port
    ports.require_free("API_PORT", port, host)
    environment = for_process(settings, at.environment())
    way = door.of(settings.cloud)
    return Service(
        name="api",
        address=way.url,
        command=[sys.executable, "-m", "cloud", "api"],
        environment=environment,
        cwd=ROOT,
        prepare=lambda: migrate(environment),
        ready=lambda: way.get("/health") is not None,
        health=f"{way.url}/health",
    )


def api_url(settings: Settings) -> str:
    """Returns where the API is reached from this machine."""
    return door.of(settings.cloud).url


def page_url(settings: Settings) -> str:
    """Returns what a person on this machine opens; a certificate knows `localhost` as well as the address."""
    return api_url(settings).replace("//127.0.0.1:", "//localhost:")


def migrate(environment: Mapping[str, str]) -> None:
    """Brings the schema up to date; PacktwinError with the command's own sentence when it fails."""
    _cloud(environment, "migrate")


def _cloud(environment: Mapping[str, str], *arguments: str) -> None:
    _ours("cloud", environment, *arguments)


def _ours(module: str, environment: Mapping[str, str], *arguments: str) -> None:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise PacktwinError(f"{module} {arguments[0]} failed: {words[-1]}")


def cars(settings: Settings, at: postgres.Login, paths: Paths) -> Service:
    """Returns the simulated cars: on vcan0.. where these are up, else each on a serial port like an adapter's."""
    packs = pack_ids(settings)
    buses = vcan_buses(settings.cars)
    where = ["--interface", "socketcan", "--channel", ",".join(buses)] if buses else ["--channel", str(paths.cars)]
    return Service(
        name="cars",
        address=f"{packs[0]} .. {packs[-1]} on {', '.join(buses) if buses else 'serial ports'}",
        command=[sys.executable, "-m", "firmware_bridge", "sim", "--cars", str(settings.cars), *where],
        environment=for_process(settings, {}),
        cwd=ROOT,
        prepare=lambda: describe_packs(packs, door.of(settings.cloud), for_process(settings, at.environment()), paths),
        ready=lambda: bool(buses) or all((paths.cars / pack).exists() for pack in packs),
    )


def describe_packs(packs: Sequence[str], way: door.Door, environment: Mapping[str, str], paths: Paths) -> None:
    """Tells the cloud what the simulated packs are, and that they are simulated; what it knows already stays."""
    told = {pack: json.loads(way.get(f"/api/v1/packs/{pack}") or b"{}") for pack in packs}
    new = [pack for pack in packs if not told[pack].get("chemistry")]
    if not new:
        return
    facts = tomllib.loads(SAMPLE_MAPPING.read_text(encoding="utf-8"))["pack"]
    with paths.packs.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["pack_id", *facts, "tags"])
        table.writerows([pack, *facts.values(), "simulated"] for pack in new)
    _cloud(environment, "pack", "import", str(paths.packs))


def agent(settings: Settings, at: postgres.Login, paths: Paths) -> Service:
    """Returns the edge agent with one source per car; its two ports move when they are busy by default."""
    page = ports.claim("EDGE_PORT", settings.edge_port, EDGE_PORT)
    metrics = ports.claim("METRICS_PORT", settings.metrics_port, METRICS_PORT, taken=frozenset({page}))
    config, url = paths.edge / "edge.toml", f"http://127.0.0.1:{page}/"
    return Service(
        name="agent",
        address=f"{url}  metrics http://127.0.0.1:{metrics}/metrics",
        command=[sys.executable, "-m", "edge", "run", "--config", str(config)],
        environment=for_process(settings, {"EDGE_PORT": str(page), "METRICS_PORT": str(metrics)}),
        cwd=ROOT,
        prepare=lambda: prepare_agent(config, settings, at, paths),
        ready=lambda: answers(url),
        health=url,
    )


def prepare_agent(config: Path, settings: Settings, at: postgres.Login, paths: Paths) -> None:
    """Publishes the model that ships where none is published yet, gives the cars their pasts, writes edge.toml."""
    environment = for_process(settings, at.environment())
    root = ROOT / settings.cloud.release_dir / "metadata" / "1.root.json"
    if not root.exists() or not desired_bundle(door.of(settings.cloud)):
        # Nothing is published yet, or `.local` was removed and with it what the database still speaks of.
        _cloud(environment, "release", "publish", str(next(CHAMPION.glob("*.bundle"))), "--to", "fleet")
    shutil.copyfile(root, paths.trust_root)
    if not all((paths.pasts / f"{pack}.jsonl").exists() for pack in pack_ids(settings)):
        _ours("firmware_bridge", environment, "lives", "--past", str(settings.cars), "-o", str(paths.pasts))
    if door.of(settings.cloud).access is not None:
        door.device_token(paths.device_token, DEVICE, environment)
    write_edge_config(config, settings, paths)


def desired_bundle(way: door.Door) -> str | None:
    """What the agent is told to run; None = nothing yet."""
    told = json.loads(way.get(f"/device/v1/desired?device={DEVICE}") or b"{}")
    bundle: str | None = told.get("bundle")
    return bundle


def write_edge_config(path: Path, settings: Settings, paths: Paths) -> None:
    """Writes the agent's edge.toml unless the user has taken it over (see its first line)."""
    if path.exists() and not path.read_text(encoding="utf-8").startswith(GENERATED):
        return
    buses = vcan_buses(settings.cars)
    lines = [
        GENERATED,
        f'device = "{DEVICE}"',
        f'trust_root = "{paths.trust_root.name}"',
        'clock = "system"   # cars and cloud are this machine: its own clock is good enough',
        'data_dir = "data"',
        *hot_folder(paths),
        *uplink(settings, paths),
    ]
    for number, pack in enumerate(pack_ids(settings)):
        bus = ("socketcan", buses[number]) if buses else ("slcan", f"../run/{paths.cars.name}/{pack}")
        lines += [
            "[[source]]",
            f'pack_id = "{pack}"',
            'type = "can"',
            f'interface = "{bus[0]}"',
            f'channel = "{bus[1]}"',
        ]
        lines += ['mapping = "mapping.toml"', f'past = "../run/{paths.pasts.name}/{pack}.jsonl"']
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def uplink(settings: Settings, paths: Paths) -> Sequence[str]:
    """Returns the agent's way up: by HTTP to the API, or with STACK=full over our MQTT broker."""
    mqtt, way = settings.cloud.mqtt, door.of(settings.cloud)
    theirs = mqtt.host != postgres.HOST or mqtt.user or mqtt.ca_file
    rights = way.edge_lines(paths.device_token)
    if not settings.full or not settings.environment.get("MQTT_HOST") or theirs:
        return ["[uplink]", f'url = "{way.url}"', *rights]
    broker = f'url = "mqtt://{mqtt.host}:{mqtt.port}"'
    # Live values for Home Assistant and whoever else asks the broker.
    return ["[uplink]", broker, f'models_url = "{way.url}"', *rights, "[readable]", broker]


def hot_folder(paths: Paths, tmpfs: Path = Path("/dev/shm")) -> Sequence[str]:
    """Returns the agent's setting of a tmpfs folder of this checkout's own: two checkouts may run on one machine."""
    if not os.access(tmpfs, os.W_OK):
        return []
    checkout = hashlib.sha256(str(paths.local.resolve()).encode()).hexdigest()[:12]
    return [f'hot_dir = "{tmpfs}/packtwin-{os.getuid()}/{checkout}"']


def pack_ids(settings: Settings) -> Sequence[str]:
    """Returns the packs of the simulated cars."""
    return [f"BATTERY_{number:03d}" for number in range(1, settings.cars + 1)]


def vcan_buses(count: int, net: Path = Path("/sys/class/net")) -> Sequence[str]:
    """Returns vcan0.. when there is one that is up for every car, else nothing."""
    up = 0x1
    names = [f"vcan{number}" for number in range(count)]
    try:
        ready = all(int((net / name / "flags").read_text(), 16) & up for name in names)
    except (OSError, ValueError):
        return []
    return names if ready else []


def for_process(settings: Settings, more: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the environment of a process of ours: the settings, and `more` of this run."""
    return {**settings.environment, "PYTHONUNBUFFERED": "1", **more}
