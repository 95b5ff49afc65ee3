"""The servers of STACK=full as they really are: what a start, a moved port, a kill and a changed password do."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grafana
import kafka
import mosquitto
import postgres
import processes
import prometheus
import psycopg
import pytest
import s3
from conftest import missing
from door import Door
from free_ports import free_port
from paho.mqtt import client as paho
from waiting import until

from cloud.config import Access
from cloud.tls import Authority

KAFKA_START_S = 90


@contextmanager
def running(
    command: list[str], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that ends with the block, by SIGKILL if need be."""
    told = environment or {"PATH": "/usr/sbin:/usr/bin:/bin", "LC_ALL": "C"}
    child = processes.spawn(command, environment=told, cwd=log.parent, log=log, death_signal=signal.SIGKILL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=3).status == 200)
    except OSError:
        return False


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


# --- Kafka -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def jars() -> Path:
    problem = kafka.problem()
    if problem is not None:
        missing(problem)
    return kafka.fetch()


def cluster(jars: Path, folder: Path, brokers: int) -> kafka.Cluster:
    made = kafka.Cluster(jars, folder, [kafka.Ports(free_port(), free_port()) for _ in range(brokers)], heap_mb=256)
    made.prepare()
    return made


def produced(bootstrap: str, topic: str, values: list[bytes], *, make: int = 0) -> None:
    """Sends values, all acknowledged by every in-sync replica; make: first makes the topic with that replication."""
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    async def go() -> None:
        if make:
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            await admin.create_topics([NewTopic(topic, 1, make)])
            await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        for value in values:
            await producer.send_and_wait(topic, value)
        await producer.stop()

    asyncio.run(go())


def consumed(bootstrap: str, topic: str, count: int) -> list[bytes]:
    from aiokafka import AIOKafkaConsumer

    async def go() -> list[bytes]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found = [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in range(count)]
        await consumer.stop()
        return found

    return asyncio.run(go())


@pytest.mark.slow
@pytest.mark.e2e
def test_kafka_keeps_what_it_acknowledged_over_a_kill_and_a_moved_port(jars: Path, tmp_path: Path) -> None:
    first = cluster(jars, tmp_path / "k", 1)
    (broker,) = first.brokers
    with running(first.command(broker), tmp_path / "log"):
        until("Kafka answers", lambda: first.ready(broker), KAFKA_START_S)
        assert kafka.answers(broker.ports.client)
        produced(first.bootstrap, "t", [b"one", b"two"], make=1)
    assert not kafka.answers(broker.ports.client)
    second = cluster(jars, tmp_path / "k", 1)
    assert second.bootstrap != first.bootstrap
    (broker,) = second.brokers
    with running(second.command(broker), tmp_path / "log"):
        until("Kafka answers again", lambda: second.ready(broker), KAFKA_START_S)
        assert consumed(second.bootstrap, "t", 2) == [b"one", b"two"]


@pytest.mark.slow
@pytest.mark.e2e
def test_three_brokers_acknowledge_while_one_is_dead(jars: Path, tmp_path: Path) -> None:
    three = cluster(jars, tmp_path / "k", 3)
    assert three.replication == 3
    first, second, third = three.brokers
    with (
        running(three.command(first), tmp_path / "1.log"),
        running(three.command(second), tmp_path / "2.log"),
        running(three.command(third), tmp_path / "3.log") as dead,
    ):
        until("all three answer", lambda: all(map(three.ready, three.brokers)), KAFKA_START_S)
        produced(three.bootstrap, "t", [b"three alive"], make=3)
        dead.kill()
        dead.wait()
        produced(three.bootstrap, "t", [b"two alive"])
        assert consumed(three.bootstrap, "t", 2) == [b"three alive", b"two alive"]


def test_jars_that_cannot_be_fetched_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] Could not transfer artifact: no route to host'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(
        Exception, match=r"Maven could not fetch Kafka: \[ERROR\] Could not transfer artifact"
    ) as raised:
        kafka.fetch(tmp_path / "libs")
    assert type(raised.value).__name__ == "PacktwinError"
    assert not kafka.resolved(tmp_path / "libs")


# --- Mosquitto ---------------------------------------------------------------------------------------------------


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[mosquitto.Broker]:
    """A broker with both listeners, and a device `box` with the token `t0ken`."""
    if mosquitto.problem() is not None:
        missing("needs mosquitto (apt-get install mosquitto)")
    authority = Authority(tmp_path / "tls")
    authority.prepare(datetime.now(UTC))
    pair = authority.pair("mqtt", ["127.0.0.1"], datetime.now(UTC))
    made = mosquitto.Broker(
        tmp_path / "m", free_port(), mosquitto.Tls(free_port(), pair.cert_file, pair.key_file, "127.0.0.1")
    )
    made.prepare()
    subprocess.run(["mosquitto_passwd", "-b", str(made.password_file), "box", "t0ken"], check=True)
    with running(made.command(), tmp_path / "mosquitto.log"):
        until("the broker answers", made.ready)
        yield made


class Client:
    """A device at the TLS listener, and what it was told."""

    def __init__(self, broker: mosquitto.Broker, user: str, password: str) -> None:
        self.said: list[str] = []
        self.paho = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.paho.on_connect = lambda _c, _u, _f, code, _p: self.said.append(f"connect: {code}")
        self.paho.on_publish = lambda _c, _u, _m, code, _p: self.said.append(f"publish: {code}")
        self.paho.on_disconnect = lambda *_: self.said.append("disconnected")
        self.paho.username_pw_set(user, password)
        assert broker.tls is not None
        self.paho.tls_set(str(broker.tls.cert_file.parent / "ca.pem"))
        self.paho.connect("127.0.0.1", broker.tls.port)
        self.paho.loop_start()

    def hears(self, words: str) -> None:
        until(f"{words!r} in {self.said}", lambda: words in self.said)


def test_a_device_speaks_on_its_own_topics_only(broker: mosquitto.Broker) -> None:
    device = Client(broker, "box", "t0ken")
    device.hears("connect: Success")
    device.paho.publish("packtwin/v1/box/up", b"x", qos=1)
    device.hears("publish: No matching subscribers")
    device.paho.publish("packtwin/v1/other/up", b"x", qos=1)
    device.hears("publish: Not authorized")
    stranger = Client(broker, "box", "guess")
    stranger.hears("connect: Not authorized")
    for each in (device, stranger):
        each.paho.disconnect()
        each.paho.loop_stop()


def test_a_token_that_leaves_the_password_file_is_out_within_moments(broker: mosquitto.Broker) -> None:
    device = Client(broker, "box", "t0ken")
    device.hears("connect: Success")
    new = broker.password_file.with_suffix(".new")
    new.write_text("")
    new.replace(broker.password_file)
    device.hears("disconnected")
    device.paho.loop_stop()


def test_beyond_loopback_nothing_is_heard_without_tls(broker: mosquitto.Broker) -> None:
    assert broker.tls is not None
    assert not mosquitto.answers(broker.tls.port), "a plain CONNECT on the port for other machines"
    assert f"listener {broker.port} 127.0.0.1\n" in broker.config()


# --- Prometheus, Alertmanager, S3, Grafana -----------------------------------------------------------------------


@pytest.mark.slow
def test_prometheus_asks_what_runs_here_and_knows_the_alertmanager(tmp_path: Path) -> None:
    for name in ("prometheus", "alertmanager"):
        if prometheus.problem(name) is not None:
            missing(str(prometheus.problem(name)))
    alarms = prometheus.Alertmanager(tmp_path / "a", free_port())
    server = prometheus.Server(
        tmp_path / "p", free_port(), {"api": f"127.0.0.1:{free_port()}"}, f"127.0.0.1:{alarms.port}"
    )
    for each in (alarms, server):
        each.prepare()
    with running(alarms.command(), tmp_path / "a.log"), running(server.command(), tmp_path / "p.log"):
        for each in (alarms, server):
            until("it is ready", lambda each=each: answers(each.ready_url))  # type: ignore[misc]
        until("targets are known", lambda: fetched(f"{server.url}/api/v1/targets")["data"]["activeTargets"])
        (target,) = fetched(f"{server.url}/api/v1/targets")["data"]["activeTargets"]
        assert target["labels"] == {"job": "api", "instance": server.targets["api"]}
        until("it knows it", lambda: fetched(f"{server.url}/api/v1/alertmanagers")["data"]["activeAlertmanagers"])
        assert fetched(f"{server.url}/api/v1/rules")["data"]["groups"]


@pytest.mark.slow
def test_prometheus_reads_an_api_that_wants_tls_and_a_token(tmp_path: Path) -> None:
    if prometheus.problem() is not None:
        missing(str(prometheus.problem()))

    class Metrics(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.headers["Authorization"] == "Bearer pta_secret" else 401)
            self.end_headers()
            self.wfile.write(b"packtwin_answer 42\n")

        def log_message(self, *_: object) -> None: ...

    authority, now = Authority(tmp_path / "tls"), datetime.now(UTC)
    authority.prepare(now)
    pair = authority.pair("api", ["127.0.0.1"], now)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert_file, pair.key_file)
    api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics)
    api.socket = context.wrap_socket(api.socket, server_side=True)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    way = Door(f"https://127.0.0.1:{api.server_port}", Access(api_token="pta_secret"), authority.ca_file)
    server = prometheus.Server(tmp_path / "p", free_port(), {}, api=way)
    server.prepare()
    with running(server.command(), tmp_path / "p.log"):
        until("it is ready", lambda: answers(server.ready_url))
        ask = f'{server.url}/api/v1/query?query=packtwin_answer{{job="api"}}'
        until("it reads the API", lambda: fetched(ask)["data"]["result"])
    assert (tmp_path / "p" / "api-token").stat().st_mode & 0o777 == 0o600
    api.shutdown()
    api.server_close()


def test_the_users_alertmanager_settings_are_kept_and_ours_follow_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that nobody had touched stayed as the first start had made it, whatever shipped later."""
    monkeypatch.setattr(prometheus, "FOLDER", tmp_path)
    shipped = tmp_path / "alertmanager.yml"
    alarms = prometheus.Alertmanager(tmp_path / "a", 9093)
    for text in ("first", "second", "third"):
        shipped.write_text(text)
        alarms.prepare()
        assert alarms.config_file.read_text() == text
    alarms.config_file.write_text("the user's")
    for text in ("fourth", "the user's", "fifth"):
        shipped.write_text(text)
        alarms.prepare()
        assert alarms.config_file.read_text() == "the user's"


@pytest.mark.slow
def test_the_s3_store_takes_those_with_the_keys_only(tmp_path: Path) -> None:
    if (problem := s3.problem()) is not None:
        missing(problem)
    port = free_port()
    s3.buckets(tmp_path / "data", "bucket-one")
    told = {**os.environ, "ROOT_ACCESS_KEY": "packtwin", "ROOT_SECRET_KEY": "0123456789"}
    command = [sys.executable, s3.__file__, str(port), str(tmp_path / "data")]
    with running(command, tmp_path / "log", told):
        url = f"http://127.0.0.1:{port}"
        until("the store answers", lambda: answers(url + s3.HEALTH), 540)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{url}/bucket-one")


STAND_IN = """#!{python}
import http.server, json, os, pathlib, sys
folder = pathlib.Path(os.environ["GF_PATHS_DATA"])
(folder / "told.json").write_text(json.dumps([sys.argv[1:], dict(os.environ)]))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
here = os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])
http.server.HTTPServer(here, Answer).serve_forever()
"""


def forget(database: postgres.Login, role: str) -> None:
    with database.connect() as owner:
        owner.execute(f'DROP OWNED BY "{role}"'.encode())
        owner.execute(f'DROP ROLE "{role}"'.encode())


def test_grafana_gets_our_dashboards_and_a_role_that_only_reads(
    tmp_path: Path, database: postgres.Login, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """With a stand-in of the same name and settings: no package of Grafana exists for a test to install."""
    home = tmp_path / "grafana-home"
    for name in ("bin", "conf"):
        (home / name).mkdir(parents=True)
    (home / "conf" / "defaults.ini").touch()
    (home / "bin" / "grafana").write_text(STAND_IN.format(python=sys.executable))
    (home / "bin" / "grafana").chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    subprocess.run([sys.executable, "-m", "cloud", "migrate"], check=True, env={**os.environ, **database.environment()})
    reader = f"reader_of_{database.name}"  # roles are the whole server's
    server = grafana.Server(
        tmp_path / "g", free_port(), database, "http://127.0.0.1:9090", "admin-pw", "reader-pw", reader
    )
    assert grafana.problem() is None
    server.prepare()
    server.prepare()
    request.addfinalizer(lambda: forget(database, reader))
    with running(server.command(), tmp_path / "log", dict(server.environment())):
        until("it is ready", lambda: answers(server.ready_url))
    arguments, told = json.loads((tmp_path / "g" / "data" / "told.json").read_text())
    assert arguments == ["server", "--homepath", str(home)]
    for name in ("GF_PATHS_PROVISIONING", "GRAFANA_DASHBOARDS", "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"):
        assert Path(told[name]).exists(), name
    provisioned = "".join(file.read_text() for file in Path(told["GF_PATHS_PROVISIONING"]).rglob("*.yaml"))
    for name in (word.rstrip("\"',") for word in provisioned.split() if word.startswith("$") and "__" not in word):
        assert name[1:] in told, f"{name} of the provisioning is told"
    assert "timescaledb: false\n" in provisioned and "timescaledb: true" not in provisioned, "a plain PostgreSQL"
    host, port = told["GRAFANA_DB_HOST"].split(":")
    with psycopg.connect(
        host=host, port=port, dbname=told["GRAFANA_DB_NAME"], user=told["GRAFANA_DB_USER"], password="reader-pw"
    ) as connection:
        assert connection.execute("SELECT count(*) FROM samples").fetchone() == (0,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM pack")


def test_a_grafana_without_its_files_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana, "HOMES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "grafana").write_text("#!/bin/sh\n")
    (tmp_path / "grafana").chmod(0o755)
    assert "grafana is there, but not its conf/defaults.ini" in str(grafana.problem())


def test_mosquitto_is_found_where_debian_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if mosquitto.problem() is not None:
        missing("needs mosquitto (apt-get install mosquitto)")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("mosquitto") is None
    assert mosquitto.binary().name == "mosquitto"
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.settimeout(0)
        assert not kafka.answers(free_port()) and not mosquitto.answers(free_port())
