"""`python -m cloud gateway` as people run it: it waits for all that it needs, ends when told, dies without a loss."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import processes
import pytest
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from fake_batches import batch, block
from free_ports import free_port
from waiting import until

from cloud import db
from cloud.config import Database
from edge.mqtt import Broker, Link
from edge.transport_mqtt import MqttTransport
from shared.wire import encode_batch

ROOT = Path(__file__).parents[2]
MESSAGES = 200
KILLS = 3


class Process:
    """The gateway of one database and one broker."""

    def __init__(self, database: Database, broker_port: int, folder: Path, **more: str) -> None:
        self.port, self._log = free_port(), folder / "gateway.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DB_", "MQTT_"))}
        self._environment = kept | {
            "PYTHONPATH": str(ROOT),
            "DB_HOST": database.host,
            "DB_PORT": str(database.port),
            "DB_NAME": database.name,
            "DB_USER": database.user,
            "DB_PASSWORD": database.password,
            "MQTT_PORT": str(broker_port),
            "GATEWAY_METRICS_PORT": str(self.port),
            **more,
        }
        self._folder = folder
        self.child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.child = processes.spawn(
            [sys.executable, "-m", "cloud", "gateway"],
            environment=self._environment,
            cwd=self._folder,
            log=self._log,
            death_signal=signal.SIGKILL,
        )

    def end(self, number: signal.Signals) -> int:
        assert self.child is not None
        self.child.send_signal(number)
        return self.child.wait(20)

    def health(self) -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    def words(self) -> str:
        return self._log.read_text()


def need_mosquitto() -> None:
    what = missing_part()
    if what:
        missing(what)


@pytest.mark.e2e
def test_it_waits_for_the_broker_and_ends_when_told(database: Database, tmp_path: Path) -> None:
    need_mosquitto()
    with running_broker() as broker:
        broker.stop()
        gateway = Process(database, broker.port, tmp_path)
        gateway.start()
        until("all but the broker is there", lambda: gateway.health()[1].get("database") == "ok")
        assert gateway.health()[1]["broker"] == "down"
        broker.start()
        until("all is well", lambda: gateway.health()[0] == 200)
        assert gateway.end(signal.SIGTERM) == 0
        assert gateway.words().count("no connection to the broker") == 1
        assert "Traceback" not in gateway.words()


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"MQTT_HOST": "broker.lan"}, "in clear text"),
        ({"MQTT_CA_FILE": "missing.pem"}, "holds no certificate"),
        ({"GATEWAY_METRICS_PORT": "99999"}, "GATEWAY_METRICS_PORT"),
    ],
)
def test_a_bad_setting_is_one_sentence(database: Database, tmp_path: Path, more: dict[str, str], sentence: str) -> None:
    gateway = Process(database, 1, tmp_path, **more)
    gateway.start()
    assert gateway.child is not None
    assert gateway.child.wait(20) == 2
    assert sentence in gateway.words()
    assert len(gateway.words().splitlines()) == 1


@pytest.mark.e2e
@pytest.mark.slow
def test_killed_with_messages_in_hand_it_loses_none_and_stores_none_twice(database: Database, tmp_path: Path) -> None:
    """Nobody sends anything again here: what the gateway had not acknowledged comes back from the broker."""
    need_mosquitto()
    with running_broker() as broker:
        gateway = Process(database, broker.port, tmp_path)
        gateway.start()
        until("all is well", lambda: gateway.health()[0] == 200)
        sender = link_of(broker)
        now_ns = time.time_ns() - 3600 * 10**9
        for kill in range(KILLS):
            for n in range(kill * MESSAGES, (kill + 1) * MESSAGES):
                body = encode_batch(batch("car-1", block("car-1-pack", 1, seq=n, t_ns=now_ns + n * 10**9)))
                sender.publish("packtwin/v1/car-1/up", body)
            assert gateway.end(signal.SIGKILL) == -signal.SIGKILL
            gateway.start()
        until("all are stored", lambda: stored(database) == list(range(KILLS * MESSAGES)), 60.0)
        sender.close()
        again = MqttTransport(broker.url, "car-1")
        assert again.send(encode_batch(batch("car-1", block("car-1-pack", 1, seq=0, t_ns=now_ns)))).accepted == (
            (0, 0),
        )
        again.close()
        assert stored(database) == list(range(KILLS * MESSAGES))
        assert gateway.end(signal.SIGTERM) == 0


def link_of(broker: TestBroker) -> Link:
    link = Link(Broker(host="127.0.0.1", port=broker.port, tls=False), "car-1", will=None, on_message=lambda m: None)
    link.open()
    return link


def stored(database: Database) -> list[int]:
    with db.connect(database) as conn:
        return [row[0] for row in conn.execute("SELECT seq FROM samples ORDER BY seq").fetchall()]
