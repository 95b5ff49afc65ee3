"""`cloud device ...` as a person runs it, and what a real Mosquitto makes of its tokens and certificates."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import mosquitto
import paho.mqtt.client as mqtt
import processes
import pytest
from conftest import missing
from free_ports import free_port
from paho.mqtt.enums import CallbackAPIVersion

from cloud import db, devices
from cloud.__main__ import main
from cloud.config import Database, Mqtt


@pytest.fixture
def settings(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    told = {"HOST": database.host, "PORT": str(database.port), "NAME": database.name, "USER": database.user}
    for name, value in {**told, "PASSWORD": database.password}.items():
        monkeypatch.setenv(f"DB_{name}", value)
    monkeypatch.chdir(tmp_path)
    return database


def said(capsys: pytest.CaptureFixture[str]) -> str:
    words = capsys.readouterr().err.strip()
    assert words.count("\n") == 0, words
    return words


def test_add_prints_the_token_alone_and_once(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "add", "box-1"]) == 0
    told = capsys.readouterr()
    token = told.out.strip()
    assert re.fullmatch(r"ptd_[\w-]{43}", token) and "box-1" in told.err and token not in told.err
    with db.connect(settings) as conn:
        assert devices.device_of_token(conn, token) == "box-1"
    assert main(["device", "add", "box-1"]) == 2
    assert "has a token already" in said(capsys)
    assert main(["device", "list"]) == 0
    listed = capsys.readouterr().out
    assert "box-1" in listed and "since 20" in listed and token not in listed


def test_add_writes_the_token_for_its_owner_only(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "add", "box-1", "-o", "token.txt"]) == 0
    token = Path("token.txt").read_text().strip()
    assert Path("token.txt").stat().st_mode & 0o777 == 0o600
    told = capsys.readouterr()
    assert token not in told.out + told.err
    assert main(["device", "add", "box-2", "-o", "token.txt"]) == 2
    assert "token.txt cannot be written" in said(capsys)
    assert main(["device", "add", "box-1", "-o", "other.txt"]) == 2
    assert not Path("other.txt").exists()
    with db.connect(settings) as conn:
        assert conn.execute("SELECT device FROM device").fetchall() == [("box-1",)], "no token that nobody has seen"


def test_revoke_ends_it_and_add_begins_anew(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "add", "box-1"]) == 0
    first = capsys.readouterr().out.strip()
    assert main(["device", "revoke", "box-1"]) == 0
    assert "is revoked" in capsys.readouterr().out
    assert main(["device", "list"]) == 0
    assert "revoked 20" in capsys.readouterr().out
    assert main(["device", "revoke", "box-1"]) == 0
    assert "has no token" in capsys.readouterr().out
    assert main(["device", "add", "box-1"]) == 0
    assert capsys.readouterr().out.strip() != first


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["revoke", "nobody"], "no device is called nobody"),
        (["add", "a b"], "is no id"),
        (["add", "gateway"], "gateway's own user"),
    ],
)
def test_wrong_words_are_one_sentence(
    settings: Database, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device", *words]) == 2
    assert says in said(capsys)


def test_an_empty_list_is_its_head(settings: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "list"]) == 0
    assert capsys.readouterr().out == "DEVICE  TOKEN  LAST RECEIVED  PACKS  REGISTERED\n"


def test_ca_makes_what_api_and_broker_need_without_a_database(
    settings: Database, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DB_PORT", "1")
    monkeypatch.setenv("TLS_NAMES", "twin.example")
    assert main(["device", "ca"]) == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", told)) == 1
    assert {file.name for file in Path(".local/tls").glob("*.*")} >= {"ca.pem", "api.pem", "mqtt.pem", "mqtt.key"}
    assert main(["device", "ca"]) == 0
    assert capsys.readouterr().out == told


# --- a real broker ---


@pytest.fixture
def broker(settings: Database, tmp_path: Path) -> Iterator[mosquitto.Broker]:
    """Mosquitto with TLS as `cloud device ca` made it; nobody may log in yet."""
    if mosquitto.problem():
        missing(str(mosquitto.problem()))
    assert main(["device", "ca"]) == 0
    tls = mosquitto.Tls(
        free_port(), tmp_path / ".local/tls/mqtt.pem", tmp_path / ".local/tls/mqtt.key", host="127.0.0.1"
    )
    running = mosquitto.Broker(tmp_path / "broker", free_port(), tls)
    running.prepare()
    process = processes.spawn(
        running.command(), environment={"PATH": "/usr/bin:/bin:/usr/sbin"}, cwd=tmp_path, log=tmp_path / "log",
        death_signal=signal.SIGKILL,
    )  # fmt: skip
    try:
        for _ in range(200):
            if running.ready():
                break
            threading.Event().wait(0.05)
        else:
            pytest.fail((tmp_path / "log").read_text())
        yield running
    finally:
        process.terminate()
        process.wait(60)  # it saves first


class Client:
    """An MQTT v5 client over TLS; `reason` of its CONNACK, and what came."""

    def __init__(self, port: int, ca: Path, user: str | None, password: str | None) -> None:
        self.reasons: queue.Queue[str] = queue.Queue()
        self.gone = threading.Event()
        self.acked: queue.Queue[str] = queue.Queue()
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.mqtt.tls_set(str(ca))
        if user is not None:
            self.mqtt.username_pw_set(user, password)
        self.mqtt.on_connect = lambda *a: self.reasons.put(str(a[3]))
        self.mqtt.on_disconnect = lambda *a: self.gone.set()
        self.mqtt.on_publish = lambda *a: self.acked.put(str(a[3]))
        self.mqtt.connect("127.0.0.1", port)
        self.mqtt.loop_start()

    def reason(self) -> str:
        return self.reasons.get(timeout=10)

    def publish(self, topic: str) -> str:
        """The reason in the PUBACK."""
        self.mqtt.publish(topic, b"x", qos=1)
        return self.acked.get(timeout=10)

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def write_passwords(broker: mosquitto.Broker, database: Database) -> None:
    """As the gateway does when tokens change."""
    with db.connect(database) as conn:
        broker.password_file.write_text(devices.password_lines(conn))


def test_a_real_broker_takes_good_tokens_only_and_cuts_revoked_ones_off(
    broker: mosquitto.Broker, settings: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert broker.tls is not None
    with db.connect(settings) as conn:
        token = devices.add(conn, "box-1", Mqtt())
    write_passwords(broker, settings)
    ca = tmp_path / ".local" / "tls" / "ca.pem"
    with contextlib.ExitStack() as open_clients:

        def client(user: str | None, password: str | None) -> Client:
            made = Client(broker.tls.port, ca, user, password)  # type: ignore[union-attr]
            open_clients.callback(made.close)
            return made

        for _ in range(100):  # until the broker has read the file
            good = client("box-1", token)
            if good.reason() == "Success":
                break
            good.close()
            threading.Event().wait(0.1)
        else:
            pytest.fail("the token is not taken")
        assert good.publish("packtwin/v1/box-1/up") == "No matching subscribers", "taken, though nobody listens"
        assert good.publish("packtwin/v1/box-2/up") == "Not authorized"
        assert good.publish("packtwin/v1/box-1/receipt") == "Not authorized"
        for user, password in (("box-1", "wrong"), ("box-2", token), (None, None), ("box-1", None), ("gateway", token)):
            assert client(user, password).reason() == "Not authorized"
        with db.connect(settings) as conn:
            devices.revoke(conn, "box-1")
        write_passwords(broker, settings)
        assert good.gone.wait(10), "who is in with a revoked token is put out"
        assert client("box-1", token).reason() == "Not authorized"


def test_a_client_that_trusts_another_ca_does_not_connect(
    broker: mosquitto.Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLS_DIR", str(tmp_path / "other"))
    assert main(["device", "ca"]) == 0
    assert broker.tls is not None
    with pytest.raises(OSError, match="certificate verify failed"):
        Client(broker.tls.port, tmp_path / "other" / "ca.pem", "box-1", "x")
