"""A car in another network namespace: it gets to the cloud with TLS and a token, and by no other way; nothing is lost.

Database, API, gateway and Mosquitto are in one namespace, the agent is in the other. The ports inside are the defaults:
nobody else is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import mosquitto
import processes
import pytest
from conftest import ROOT, missing
from e2e.namespaces import Namespace, two_machines
from e2e.stack import fetch
from pg_process import PgServer, served
from waiting import until

from cloud import db
from cloud.tls import Authority

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.root]
API_PORT, MQTT_PORT, MQTTS_PORT, PAGE_PORT = 5001, 1883, 8883, 5002
STATUS = f"http://127.0.0.1:{PAGE_PORT}/status.json"
API_TOKEN = "token-of-the-people"
DEVICE = "far-car"


@dataclass
class Cloud:
    """The cloud's machine: its database, and processes by name."""

    here: Namespace
    folder: Path
    server: PgServer
    children: dict[str, subprocess.Popen[bytes]]

    @property
    def ca(self) -> Path:
        return self.folder / "tls" / "ca.pem"

    def environment(self, **more: str) -> dict[str, str]:
        login = self.server.login
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DB_HOST": login.host,
            "DB_PORT": str(login.port),
            "DB_NAME": login.name,
            "DB_USER": login.user,
            "DB_PASSWORD": login.password,
            "TLS_DIR": str(self.folder / "tls"),
            "MQTT_PASSWORD_FILE": str(self.folder / "broker" / "passwords"),
            **more,
        }

    def run(self, *words: str) -> str:
        """A command of `cloud`; its stdout."""
        done = self.here(
            subprocess.run, [sys.executable, "-m", "cloud", *words], env=self.environment(), cwd=self.folder,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return str(done.stdout).strip()

    def start(self, name: str, command: list[str], **environment: str) -> None:
        self.children[name] = self.here(
            processes.spawn, command, environment=self.environment(**environment), cwd=self.folder,
            log=self.folder / f"{name}.log", death_signal=signal.SIGKILL,
        )  # fmt: skip

    def start_api(self, **environment: str) -> None:
        """Returns when it answers."""
        self.start("api", [sys.executable, "-m", "cloud", "api"], **environment)
        until("the API answers", lambda: self.here(api_answers), 60)

    def stop(self, name: str) -> None:
        child = self.children.pop(name)
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            with db.connect(self.server.login) as conn:
                return conn.execute(sql.encode()).fetchall()

        return self.here(ask)

    def rows(self) -> int:
        return int(self.query("SELECT count(*) FROM samples")[0][0])


def api_answers() -> bool:
    """Whether an API is healthy here, with TLS or without."""
    for scheme in ("https", "http"):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{scheme}://127.0.0.1:{API_PORT}/health", verify=False, timeout=5).status_code == 200:
                return True
    return False


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Namespace, Namespace]]:
    with two_machines() as both:
        yield both


@pytest.fixture
def cloud(machines: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[Cloud]:
    """The cloud's machine with a migrated database; API, broker and gateway are the test's to start."""
    here = machines[0]
    folder = tmp_path / "cloud"
    folder.mkdir()
    with contextlib.ExitStack() as opened:
        database = served(5432)
        server = here(database.__enter__)
        opened.callback(lambda: here(database.__exit__, None, None, None))
        running = Cloud(here, folder, server, {})
        running.run("migrate")
        try:
            yield running
        finally:
            for name in list(running.children):
                running.stop(name)
                print(f"--- {name}\n{running.log(name)[-2000:]}")


@dataclass
class Car:
    """The car's machine: one simulated car and an agent, whose outbox outlives each of its starts."""

    here: Namespace
    folder: Path
    sim: subprocess.Popen[bytes]
    agent: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "edge.toml"

    def told(self, url: str, token: str = "", ca: Path | None = None, sample_s: float = 0.2) -> None:
        """Writes edge.toml."""
        (self.folder / "token.txt").write_text(f"{token}\n")
        lines = [
            f'device = "{DEVICE}"', 'clock = "system"', f"sample_s = {sample_s}",
            'data_dir = "cold"', 'hot_dir = "hot"',
            "[uplink]", f'url = "{url}"', 'mode = "live"',
            *(['token_file = "token.txt"'] if token else []),
            *([f'ca_file = "{ca}"'] if ca else []),
            "[page]", f"port = {PAGE_PORT}", "[[source]]", 'pack_id = "BATTERY_001"', 'type = "can"',
            'interface = "slcan"', 'channel = "can/BATTERY_001"', 'mapping = "mapping.toml"',
        ]  # fmt: skip
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        self.agent = self.here(
            processes.spawn, [sys.executable, "-m", "edge", "run", "--config", str(self.config)],
            environment={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=self.folder, log=self.folder / "agent.log",
            death_signal=signal.SIGKILL,
        )  # fmt: skip
        until("the agent runs", lambda: self.here(fetch, STATUS), 60)

    def stop(self) -> None:
        if self.agent is not None:
            self.agent.terminate()
            assert self.agent.wait(20) == 0
            self.agent = None

    def status(self) -> dict[str, Any]:
        """What the running agent tells of itself; without one, what `edge status` finds in its files."""
        told: dict[str, Any] | None = self.here(fetch, STATUS) if self.agent is not None else None
        if told is None:
            done = self._command("status", "--json")
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
        return told

    def samples(self, name: str) -> int:
        """One number of the books."""
        return int(self.status()["samples"][name])

    def problem(self) -> str:
        """Why the uplink waits; "" = it does not."""
        return str(self.status()["uplink"]["problem"] or "")

    def refusal(self) -> str:
        """What `edge run` says when it does not even start; one sentence."""
        done = self._command("run")
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert done.stderr.strip().count("\n") == 0, done.stderr
        return str(done.stderr)

    def waits_because(self, what: str) -> None:
        """Starts the agent, waits until it says this one sentence, sees that it goes on measuring, and ends it."""
        before = self.samples("acquired")
        self.start()

        def said() -> bool:
            problem = self.problem()
            return bool(re.search(what, problem)) and "\n" not in problem and self.samples("acquired") > before + 5

        until(f"the agent says {what!r}", said, 40)
        self.stop()

    def _command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge", *words, "--config", str(self.config)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return self.here(
            subprocess.run, command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip


@pytest.fixture
def car(machines: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[Car]:
    folder = tmp_path / "car"
    folder.mkdir()
    shutil.copyfile(ROOT / "edge" / "samples" / "mapping.toml", folder / "mapping.toml")
    sim = processes.spawn(
        [sys.executable, "-m", "firmware_bridge", "sim", "--cars", "1", "--seed", "7", "--channel", "can"],
        environment={**os.environ, "PYTHONPATH": str(ROOT), "PACKTWIN_RUN": str(tmp_path / "run")}, cwd=folder,
        log=tmp_path / "sim.log", death_signal=signal.SIGKILL,
    )  # fmt: skip
    running = Car(machines[1], folder, sim)
    try:
        until("the car is there", (folder / "can" / "BATTERY_001").exists)
        yield running
    finally:
        for process in (sim, running.agent):
            if process is not None:
                process.kill()
                process.wait()
        if (folder / "agent.log").exists():
            print(f"--- agent\n{(folder / 'agent.log').read_text()[-3000:]}")


def start_broker(cloud: Cloud) -> None:
    """Mosquitto for other machines by TLS, and the gateway beside it."""
    if mosquitto.problem():
        missing(str(mosquitto.problem()))
    cloud.run("device", "ca")
    tls = mosquitto.Tls(MQTTS_PORT, cloud.folder / "tls" / "mqtt.pem", cloud.folder / "tls" / "mqtt.key")
    broker = mosquitto.Broker(cloud.folder / "broker", MQTT_PORT, tls)
    broker.prepare()
    cloud.start("mosquitto", broker.command())
    until("the broker answers", lambda: cloud.here(broker.ready))
    cloud.start("gateway", [sys.executable, "-m", "cloud", "gateway"])


@pytest.mark.parametrize("transport", ["https", "mqtts"])
def test_a_far_car_gets_in_with_tls_and_a_token_only_and_loses_nothing(
    transport: str, cloud: Cloud, car: Car, tmp_path: Path
) -> None:
    if transport == "mqtts":
        start_broker(cloud)
        near, plain = MQTTS_PORT, f"mqtt://{cloud.here.address}:{MQTT_PORT}"
    else:
        cloud.start_api(API_HOST="0.0.0.0", API_TOKEN=API_TOKEN)
        near, plain = API_PORT, f"http://{cloud.here.address}:{API_PORT}"
    url = f"{transport}://{cloud.here.address}:{near}"
    token = cloud.run("device", "add", DEVICE)
    revoked = cloud.run("device", "add", "another-car")
    cloud.run("device", "revoke", "another-car")
    other_ca = tmp_path / "other" / "ca.pem"
    cloud.here(make_ca, other_ca)

    # What is not allowed at all is one sentence and no start.
    car.told(plain, token)
    assert "would send in clear text" in car.refusal()
    car.told(url, ca=cloud.ca)
    assert "token_file" in car.refusal()

    # What the other side refuses is one sentence in a running agent, which keeps everything.
    no = "401.*token_file" if transport == "https" else "[Nn]ot authori.ed.*token_file"
    for wrong, trusted, sentence in (
        ("no-token-of-ours", cloud.ca, no),
        (revoked, cloud.ca, no),
        (token, other_ca, "certificate is not trusted.*ca_file"),
        (token, None, "certificate is not trusted.*ca_file"),
    ):
        car.told(url, wrong, trusted)
        car.waits_because(sentence)
    books = car.status()["samples"]
    assert books["acked"] == 0 and books["pending"] == books["stored"] > 20
    assert cloud.rows() == 0

    # The right way brings all of it; a revoked token ends that, a new one goes on.
    car.told(url, token, cloud.ca)
    car.start()
    until("what waited is there", lambda: cloud.rows() > books["stored"], 60)
    cloud.run("device", "revoke", DEVICE)
    until("the agent is refused", lambda: re.search(no, car.problem()), 60)
    stored, here = car.samples("stored"), cloud.rows()
    until("it goes on measuring", lambda: car.samples("stored") > stored + 5)
    assert cloud.rows() == here
    car.stop()
    token = cloud.run("device", "add", DEVICE)
    car.told(url, token, cloud.ca)
    car.start()
    until("it sends again", lambda: cloud.rows() > here + 10, 60)

    # At rest, with nothing new to measure, the cloud has all that was ever stored, once.
    car.stop()
    car.told(url, token, cloud.ca, sample_s=3600)
    car.start()
    until("nothing is pending", lambda: car.samples("pending") == 0, 60)
    books = car.status()["samples"]
    print(f"{transport}: {books}")
    assert (books["refused"], books["evicted"], books["lost"]) == (0, 0, 0)
    ((rows, distinct),) = cloud.query("SELECT count(*), count(DISTINCT (boot, seq)) FROM samples")
    assert rows == distinct == books["acked"] == books["stored"]
    assert cloud.query("SELECT * FROM gaps") == []
    assert "Traceback" not in (car.folder / "agent.log").read_text()


def make_ca(ca_file: Path) -> None:
    """Another CA."""
    Authority(ca_file.parent).prepare(datetime.now(UTC))


def test_loopback_is_for_this_machine_only(cloud: Cloud, car: Car) -> None:
    cloud.start_api()
    assert "http://127.0.0.1:5001" in cloud.log("api")
    with pytest.raises(ConnectionRefusedError):
        car.here(socket.create_connection, (cloud.here.address, API_PORT), 5)


def test_people_log_in_with_what_was_printed_at_first_start(cloud: Cloud, car: Car) -> None:
    cloud.start_api(API_HOST="0.0.0.0")
    log = cloud.log("api")
    token = re.search(r"API token (\S+) \(made now", log)
    fingerprint = re.search(r"SHA-256 fingerprint ([0-9A-F:]{95})", log)
    assert token and fingerprint and f"https://0.0.0.0:{API_PORT}" in log
    base = f"https://{cloud.here.address}:{API_PORT}"

    def from_afar() -> None:
        untrusted = httpx.get(f"{base}/ca.pem", verify=False, timeout=10).text
        certificate = ssl.PEM_cert_to_DER_cert(untrusted)
        assert hashlib.sha256(certificate).digest().hex(":").upper() == fingerprint[1], (
            "what was printed is what one sees from afar"
        )
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(base, timeout=10)
        trust = ssl.create_default_context(cadata=untrusted)
        with httpx.Client(base_url=base, verify=trust, timeout=10) as client:
            assert client.get("/health").status_code == 200
            for headers in ({}, {"authorization": "Bearer wrong"}):
                assert client.get("/api/v1/packs", headers=headers).status_code == 401
            assert client.get("/", headers={"accept": "text/html"}).status_code == 401
            assert client.post("/login", data={"token": "wrong"}).status_code == 401
            assert client.post("/login", data={"token": token[1]}).status_code == 303
            assert client.get("/api/v1/packs").status_code == 200
            bearer = {"authorization": f"Bearer {token[1]}"}
            assert httpx.get(f"{base}/metrics", headers=bearer, verify=trust).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{cloud.here.address}:{API_PORT}/health", timeout=10)

    car.here(from_afar)
    cloud.stop("api")
    cloud.start_api(API_HOST="0.0.0.0")
    assert cloud.log("api").count(token[1]) == 1, "it is printed once"
    assert cloud.log("api").count(fingerprint[1]) == 2, "the CA stays"
