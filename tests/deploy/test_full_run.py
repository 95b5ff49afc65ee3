"""`make run STACK=full` as real processes: what is here runs, what is killed comes back, and all ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kafka
import mosquitto
import processes
import prometheus
import pytest
import settings
from checkout import Checkout, end, new_checkout
from conftest import missing
from free_ports import free_port
from paho.mqtt import MQTTException, publish, subscribe
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
ROAD = ("database", "kafka", "mosquitto", "api", "ingest", "gateway", "cars", "agent")
READY_S = 540.0  # the first time MLflow is installed and versitygw built


@pytest.fixture(scope="module")
def checkout() -> Iterator[Checkout]:
    for problem in (kafka.problem(), mosquitto.problem(), prometheus.problem(), prometheus.problem("alertmanager")):
        if problem is not None:
            missing(problem)
    moved = {name: str(free_port()) for name in settings.FULL_PORTS}
    with new_checkout(STACK="full", **moved) as here:
        yield here


@pytest.fixture(scope="module")
def running(checkout: Checkout) -> Iterator[subprocess.Popen[str]]:
    """The stack, started once for the tests here; each leaves it running."""
    child = checkout.start()
    yield child
    if child.poll() is None:
        end(child, signal.SIGTERM)


def rows_of(checkout: Checkout) -> dict[str, tuple[str, str]]:
    """{service: (state, address)} as `make status` prints it when all is well."""
    lines = until("everything is ready", checkout.ready, READY_S).splitlines()[1:]
    cut = [
        line.replace("left out", "left-out").replace("not answering", "not-answering").split(None, 4) for line in lines
    ]
    return {name: (health, address) for name, health, _pid, _restarts, address in cut}


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def test_one_table_tells_service_state_and_address(checkout: Checkout, running: subprocess.Popen[str]) -> None:
    table = checkout.said.split("SERVICE", 1)[1]
    assert [line.split()[0] for line in table.splitlines()[1:9]] == list(ROAD)
    rows = rows_of(checkout)
    assert [*rows] == [*ROAD, "s3", "mlflow", "prometheus", "alertmanager", "grafana"]
    assert {rows[name][0] for name in ROAD} == {"ready"}
    for name, (health, address) in rows.items():
        if health == "left-out":
            assert f"{name} is left out: {address}" in checkout.said, "it was said up front, too"


def test_records_come_by_mqtt_and_kafka(checkout: Checkout, running: subprocess.Popen[str]) -> None:
    assert 'url = "mqtt://127.0.0.1:' in (checkout.paths.edge / "edge.toml").read_text()
    until("three packs in the list", lambda: len(checkout.packs()) == 3)
    until("rows in the database", checkout.samples)
    told = checkout.call("with", "database", "--", sys.executable, "-c", "import os; print(os.environ['BUS'])")
    assert told.stdout == "kafka\n", told.stderr


def test_home_assistant_and_others_find_live_values_at_the_broker(
    checkout: Checkout, running: subprocess.Popen[str]
) -> None:
    port = checkout.environment["MQTT_PORT"]
    message = subscribe.simple("packtwin/live/BATTERY_001/soc_bms", hostname="127.0.0.1", port=int(port))
    assert 0 < float(message.payload) <= 1


def test_prometheus_reads_every_process_of_ours(checkout: Checkout, running: subprocess.Popen[str]) -> None:
    url = rows_of(checkout)["prometheus"][1]

    def up() -> set[str]:
        found = fetched(f"{url}/api/v1/targets")["data"]["activeTargets"]
        return {target["labels"]["job"] for target in found if target["health"] == "up"}

    until("all four are read", lambda: up() == {"api", "agent", "ingest", "gateway"})


def test_a_training_is_noted_in_mlflow_and_its_files_in_s3(
    checkout: Checkout, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    until("everything is ready", checkout.ready, READY_S)
    (tmp_path / "card.html").write_text("a card")
    script = (
        "import os, pathlib, sys\nfrom cloud.training import track\n"
        "files = [pathlib.Path(sys.argv[1])]\n"
        "print(track.note(os.environ['MLFLOW_TRACKING_URI'], 'rul-9', {'seed': 1}, {'r2': 0.9}, files))"
    )
    command = ["with", "database", "--", sys.executable, "-c", script, str(tmp_path / "card.html")]
    done = checkout.call(*command)
    assert done.stdout.splitlines()[-1] == rows_of(checkout)["mlflow"][1], done.stderr
    kept = checkout.paths.local / ("s3" if rows_of(checkout)["s3"][0] == "ready" else "mlflow/artifacts")
    assert [file.read_text() for file in kept.rglob("card.html")] == ["a card"]


@pytest.mark.parametrize("name", ["kafka", "mosquitto", "ingest", "gateway"])
def test_a_killed_server_is_started_again_and_rows_go_on(
    checkout: Checkout, running: subprocess.Popen[str], name: str
) -> None:
    killed = checkout.services()[name]
    os.kill(killed.pid, signal.SIGKILL)
    until(f"{name} starts again", lambda: checkout.services().get(name, killed) != killed)
    until("all is ready again", checkout.ready, READY_S)
    before = checkout.samples()
    until("new rows", lambda: checkout.samples() > before + 3)


def test_it_all_ends_and_leaves_nothing_running(checkout: Checkout, running: subprocess.Popen[str]) -> None:
    services, began_s = checkout.services(), time.monotonic()
    assert checkout.call("stop").returncode == 0
    assert time.monotonic() - began_s < 60
    assert not any(map(processes.is_alive, services.values()))
    assert running.wait(10) == 0
    secrets = checkout.paths.secrets
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert {"DB_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"} <= {
        line.split("=")[0] for line in secrets.read_text().splitlines()
    }


def test_beyond_loopback_devices_speak_tls_and_prometheus_has_the_token(tmp_path: Path) -> None:
    moved = {name: str(free_port()) for name in settings.FULL_PORTS}
    told = {"API_HOST": "0.0.0.0", "TLS_DIR": str(tmp_path / "tls"), "MLFLOW_TRACKING_URI": "off"}
    with new_checkout(STACK="full", **told, **moved) as here:
        child = here.start()
        until("rows of the agent here", here.samples)
        targets = f"http://127.0.0.1:{moved['PROMETHEUS_PORT']}/api/v1/targets"
        until("all are read", lambda: {t["health"] for t in fetched(targets)["data"]["activeTargets"]} == {"up"})
        command = ["with", "database", "--", sys.executable, "-m", "cloud", "device", "add", "van-7"]
        token = here.call(*command).stdout.strip()
        until("the broker knows it", lambda: "van-7:" in (here.paths.local / "mosquitto" / "passwords").read_text())
        device = {"hostname": "127.0.0.1", "port": int(moved["BROKER_TLS_PORT"]), "qos": 1}
        trust = {"ca_certs": str(tmp_path / "tls" / "ca.pem")}

        def admitted(password: str) -> bool:
            try:
                login = {"username": "van-7", "password": password}
                publish.single("packtwin/v1/van-7/status", "x", **device, auth=login, tls=trust)  # type: ignore[arg-type]
            except MQTTException:
                return False
            return True

        until("it may speak", lambda: admitted(token))
        assert not admitted("guess")
        assert end(child, signal.SIGTERM) == 0
