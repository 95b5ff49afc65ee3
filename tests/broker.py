"""A real Mosquitto of a test's own, to be stopped, killed and started again on the same port."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy" / "local"))

import mosquitto
import processes
from free_ports import free_port
from paho.mqtt.client import Client, ReasonCode
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


class TestBroker:
    """Its address is mqtt://127.0.0.1:{port}. more: further lines for its configuration."""

    __test__ = False

    def __init__(self, folder: Path, more: str = "", *, tls: mosquitto.Tls | None = None, ask: bool = False) -> None:
        self.port = free_port()
        self.tls = tls
        self.broker = mosquitto.Broker(folder, self.port, tls, ask)
        self.broker.prepare()
        with self.broker.config_file.open("a") as file:
            file.write(more)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        log = self.broker.folder / "log"
        self._process = processes.spawn(
            self.broker.command(),
            environment={"PATH": "/usr/sbin:/usr/bin:/bin", "LC_ALL": "C"},
            cwd=self.broker.folder,
            log=log,
            death_signal=signal.SIGKILL,
        )
        deadline = time.monotonic() + 15
        while not self.broker.ready():
            assert self._process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.02)  # a poll with a deadline, not a synchronisation

    def kill(self) -> None:
        """SIGKILL: what it has not saved is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """A polite end: it saves first."""
        self._end(signal.SIGTERM)

    def saved_bytes(self) -> int:
        """The size of what it has on disk; 0 = it has never saved."""
        file = self.broker.folder / "mosquitto.db"
        return file.stat().st_size if file.exists() else 0

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None


@contextmanager
def running_broker(more: str = "", *, tls: mosquitto.Tls | None = None, ask: bool = False) -> Iterator[TestBroker]:
    """A running broker; gone at the end, with its folder."""
    folder = Path(tempfile.mkdtemp(prefix="packtwin-mqtt-"))
    broker = TestBroker(folder, more, tls=tls, ask=ask)
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def missing_part() -> str | None:
    """What is not installed here; None when all is."""
    return None if mosquitto.problem() is None else "needs mosquitto (apt-get install mosquitto)"


def lets_in(port: int, user: str, password: str, ca_file: Path | None = None) -> bool | None:
    """Whether the broker on localhost lets them in, by TLS where there is a CA; None = no answer."""
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    answers: list[ReasonCode] = []
    client.on_connect = lambda _client, _data, _flags, reason, _properties: answers.append(reason)
    if user:
        client.username_pw_set(user, password)
    if ca_file is not None:
        client.tls_set(ca_certs=str(ca_file))
    client.connect("localhost", port)
    deadline = time.monotonic() + 30
    while not answers and time.monotonic() < deadline:
        client.loop(0.1)
    client.disconnect()
    return not answers[0].is_failure if answers else None
