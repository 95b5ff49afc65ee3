"""The gateway between a real Mosquitto, the real bus and a real database; its devices are the edge's own transport."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mosquitto
import pytest
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from fake_batches import batch, block
from free_ports import free_port
from gateway_server import running_gateway
from pg_process import PgServer, fresh_database
from waiting import until

from cloud import db, devices
from cloud.config import Config, Database, Mqtt
from cloud.db.queries_wishes import note_watched
from cloud.gateway_wishes import keep_passwords
from cloud.mqtt import check
from cloud.tls import Authority
from edge.mqtt import Broker, Link, Message
from edge.transport import Forbidden, Refused, Untrusted
from edge.transport_mqtt import MqttTransport
from shared.batch import Batch
from shared.errors import ConfigError
from shared.records import Rejected
from shared.wire import encode_batch


@pytest.fixture(scope="module")
def broker() -> Iterator[TestBroker]:
    """One for all tests that do not end it; each takes devices of its own."""
    what = missing_part()
    if what:
        missing(what)
    with running_broker() as running:
        yield running


def settings(database: Database, broker: TestBroker, **more: Any) -> Config:
    return Config(database=database, mqtt=Mqtt(port=broker.port), gateway_metrics_port=free_port(), **more)


def news(device: str, rows: int = 5, seq: int = 0) -> Batch:
    return batch(device, block(f"{device}-pack", rows, seq=seq, t_ns=time.time_ns() - 60 * 10**9))


def stored(database: Database, device: str) -> list[int]:
    """Every seq of a device in the database, in order."""
    with db.connect(database) as conn:
        rows = conn.execute("SELECT seq FROM samples WHERE device = %s ORDER BY seq", (device,)).fetchall()
    return [row[0] for row in rows]


def open_link(broker: TestBroker, *topics: str) -> tuple[Link, list[Message]]:
    """Another client of the broker, and what it hears."""
    heard: list[Message] = []
    link = Link(Broker(host="127.0.0.1", port=broker.port, tls=False), "listener", will=None, on_message=heard.append)
    link.open(*topics)
    return link, heard


def test_a_batch_becomes_rows_and_its_receipt_comes_back(database: Database, broker: TestBroker) -> None:
    with running_gateway(settings(database, broker)) as gateway:
        gateway.until_connected()
        transport = MqttTransport(broker.url, "car-a")
        body = encode_batch(news("car-a"))
        first, again = transport.send(body), transport.send(body)
        transport.close()
        assert first.accepted == again.accepted == ((0, 4),)
        assert abs(first.t_ns - time.time_ns()) < 60 * 10**9
        assert stored(database, "car-a") == [0, 1, 2, 3, 4]
        assert gateway.metric("packtwin_gateway_receipts_total") == 2
        assert gateway.metric("packtwin_gateway_messages_total") == 2
        assert gateway.metric("packtwin_gateway_inflight") == 0
        assert until("all is well", lambda: gateway.health()[0] == 200)
        assert gateway.health()[1].keys() == {"status", "database", "bus", "broker", "timestamp"}


def test_what_the_ingest_refuses_stands_in_the_receipt(database: Database, broker: TestBroker) -> None:
    with running_gateway(settings(database, broker)) as gateway:
        gateway.until_connected()
        transport = MqttTransport(broker.url, "car-b")
        tomorrow = block("car-b-pack", 3, t_ns=time.time_ns() + 86_400 * 10**9)
        receipt = transport.send(encode_batch(batch("car-b", tomorrow)))
        transport.close()
        assert receipt.rejected == (Rejected(0, 2, "bad_time"),)


def test_a_device_cannot_speak_for_another_one(database: Database, broker: TestBroker) -> None:
    with running_gateway(settings(database, broker)) as gateway:
        gateway.until_connected()
        transport = MqttTransport(broker.url, "car-c")
        with pytest.raises(Forbidden, match="A batch of car-d may not come on the topic of car-c"):
            transport.send(encode_batch(news("car-d")))
        transport.close()
        assert stored(database, "car-d") == []
        assert gateway.metric("packtwin_gateway_refused_total") == 1


def test_what_is_no_batch_is_refused_by_name_and_never_comes_again(database: Database, broker: TestBroker) -> None:
    with running_gateway(settings(database, broker)) as gateway:
        gateway.until_connected()
        transport = MqttTransport(broker.url, "car-e")
        with pytest.raises(Refused) as caught:
            transport.send(b"\x00 no batch")
        assert caught.value.reason == "malformed"
        assert transport.send(encode_batch(news("car-e"))).accepted == ((0, 4),)
        transport.close()
        assert gateway.metric("packtwin_gateway_messages_total") == 2


def test_json_is_understood_and_answered_in_json(database: Database, broker: TestBroker) -> None:
    """What `mosquitto_pub -t packtwin/v1/car-f/up -f batch.json` sends: no properties at all."""
    with running_gateway(settings(database, broker)) as gateway:
        gateway.until_connected()
        link, heard = open_link(broker, "packtwin/v1/car-f/receipt")
        sample = {"pack_id": "car-f-pack", "seq": 0, "mono_ns": 10**9, "t_ns": time.time_ns(), "soc_bms": 0.5}
        upload = {"schema": 1, "device": "car-f", "boot": f"{7:016x}", "samples": [sample]}
        link.publish("packtwin/v1/car-f/up", json.dumps(upload).encode())
        answer = until("the receipt comes", lambda: heard[0] if heard else None)
        link.close()
        assert json.loads(answer.payload)["accepted"] == [[0, 0]]
        assert answer.content_type == "application/json"
        assert stored(database, "car-f") == [0]


def test_what_was_published_while_the_gateway_was_away_arrives_when_it_is_back(
    database: Database, broker: TestBroker
) -> None:
    config = settings(database, broker)
    with running_gateway(config) as gateway:
        gateway.until_connected()
    link, heard = open_link(broker, "packtwin/v1/car-g/receipt")
    for n in range(20):
        link.publish("packtwin/v1/car-g/up", encode_batch(news("car-g", 1, seq=n)))
    with running_gateway(config):
        until("all receipts come", lambda: len(heard) >= 20)
    link.close()
    assert stored(database, "car-g") == list(range(20))


def test_a_short_outage_of_the_database_is_waited_out_and_health_tells_of_it(
    own_pg_server: PgServer, broker: TestBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.gateway._HOLD_S", 60.0)  # how long PostgreSQL takes to start is the machine's matter
    database = fresh_database(own_pg_server.login)
    with running_gateway(settings(database, broker)) as gateway, ThreadPoolExecutor(1) as pool:
        gateway.until_connected()
        transport = MqttTransport(broker.url, "car-h", answer_s=90.0)
        assert transport.send(encode_batch(news("car-h"))).accepted == ((0, 4),)
        own_pg_server.stop(kill=True)
        sending = pool.submit(transport.send, encode_batch(news("car-h", seq=5)))
        until("/health tells", lambda: gateway.health()[0] == 503, 5.0)
        assert gateway.health()[1].items() >= {"status": "degraded", "broker": "ok"}.items()
        until("the database is told to be down", lambda: gateway.health()[1]["database"] == "down", 5.0)
        own_pg_server.start()
        assert sending.result(100).accepted == ((5, 9),)
        transport.close()
        assert stored(database, "car-h") == list(range(10))
        assert gateway.metric("packtwin_gateway_messages_total") == 2
        until("all is well again", lambda: gateway.health()[0] == 200, 10.0)


def test_a_device_is_told_what_it_is_to_do_and_told_again_when_that_changes(
    database: Database, broker: TestBroker
) -> None:
    with running_gateway(settings(database, broker, uplink_mode="economy")) as gateway, db.connect(database) as conn:
        gateway.until_connected()
        transport = MqttTransport(broker.url, "car-i")
        assert transport.send(encode_batch(news("car-i"))).mode is None

        def told(mode: str, bundle: str | None) -> bool:
            wish = transport.told()
            return wish is not None and (wish.mode, wish.bundle) == (mode, bundle)

        until("the default is told", lambda: told("economy", None))
        conn.execute("INSERT INTO assignment (bundle, counter, sha256) VALUES ('rul-7', 7, %s)", ("ab" * 32,))
        until("the bundle is told", lambda: told("economy", "rul-7"))
        note_watched(conn, ["car-i"])
        until("somebody looks", lambda: told("live", "rul-7"), 3.0)
        assert transport.send(encode_batch(news("car-i", seq=5))).mode == "live"
        note_watched(conn, ["car-i"], 0.0)
        until("nobody looks", lambda: told("economy", "rul-7"), 3.0)
        transport.close()

        later = MqttTransport(broker.url, "car-i")  # what is wished is kept for those who come later
        assert later.desired("car-i").mode == "economy"
        until("the kept wish comes", lambda: later.told() is not None)
        later.close()


def test_the_password_file_follows_the_devices_tokens(conn: db.Connection, tmp_path: Path) -> None:
    mqtt = Mqtt(user="gateway", password="secret", password_file=tmp_path / "passwords")
    assert mqtt.password_file is not None
    file = mqtt.password_file
    devices.add(conn, "car-j", mqtt)
    assert keep_passwords(mqtt, file, devices.password_lines(conn))
    own, theirs = file.read_text().splitlines()
    assert own.startswith("gateway:$7$")
    assert theirs.startswith("car-j:$7$")
    assert file.stat().st_mode & 0o777 == 0o600
    assert not keep_passwords(mqtt, file, devices.password_lines(conn))
    devices.revoke(conn, "car-j")
    assert keep_passwords(mqtt, file, devices.password_lines(conn))
    assert file.read_text() == own + "\n"
    assert keep_passwords(replace(mqtt, password="other"), file, "")
    assert file.read_text() != own + "\n"


def test_at_a_broker_that_asks_a_token_opens_and_a_revoked_one_does_not(database: Database) -> None:
    what = missing_part()
    if what:
        missing(what)
    with running_broker(ask=True) as broker, db.connect(database) as conn:
        file = broker.broker.password_file
        config = settings(database, broker)
        config = replace(config, mqtt=Mqtt(port=broker.port, user="gateway", password="secret", password_file=file))
        token = devices.add(conn, "car-k", config.mqtt)
        with running_gateway(config) as gateway:  # at first the broker does not know even the gateway
            gateway.until_connected()
            transport = MqttTransport(broker.url, "car-k", token=token)
            assert transport.send(encode_batch(news("car-k"))).accepted == ((0, 4),)
            with pytest.raises(Forbidden, match="token_file"):
                MqttTransport(broker.url, "car-k", token="wrong").send(b"x")
            with pytest.raises(Forbidden, match=r"car-l/receipt|not authorized"):
                other = MqttTransport(broker.url, "car-l", token=token)
                other._broker = replace(other._broker, user="car-k")  # a good token, for topics of another device
                other.send(b"x")
            devices.revoke(conn, "car-k")

            def shut_out() -> bool:
                try:
                    transport.send(encode_batch(news("car-k", seq=5)))
                except Forbidden:
                    return True
                except Exception:
                    return False
                return False

            until("the revoked token opens nothing", shut_out)
            transport.close()


def test_both_sides_speak_tls_and_only_with_the_broker_whose_ca_they_know(database: Database, tmp_path: Path) -> None:
    what = missing_part()
    if what:
        missing(what)
    now = datetime.now(UTC)
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    for authority in (ours, others):
        authority.prepare(now)
    pair = ours.pair("mqtt", ["localhost", "127.0.0.1"], now)
    tls = mosquitto.Tls(free_port(), pair.cert_file, pair.key_file, "127.0.0.1")
    with running_broker(tls=tls, ask=True) as broker, db.connect(database) as conn:
        mqtt = Mqtt("127.0.0.1", tls.port, "gateway", "secret", ours.ca_file, broker.broker.password_file)
        token = devices.add(conn, "car-m", mqtt)
        url = f"mqtts://localhost:{tls.port}"
        with running_gateway(replace(settings(database, broker), mqtt=mqtt)) as gateway:
            gateway.until_connected()
            transport = MqttTransport(url, "car-m", token=token, ca_file=str(ours.ca_file))
            large = batch("car-m", block("car-m-pack", 3000, t_ns=time.time_ns() - 3600 * 10**9))
            assert transport.send(encode_batch(large)).accepted == ((0, 2999),)
            transport.close()
            with pytest.raises(Untrusted, match="not trusted"):
                MqttTransport(url, "car-m", token=token, ca_file=str(others.ca_file)).send(b"x")
        with running_gateway(
            replace(settings(database, broker), mqtt=replace(mqtt, ca_file=others.ca_file))
        ) as gateway:
            until("the database is there", lambda: gateway.health()[1]["database"] == "ok")
            assert gateway.health()[1]["broker"] == "down"


def test_a_broker_on_another_machine_is_not_spoken_to_in_clear_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MQTT_HOST=broker\.lan would be spoken to in clear text"):
        check(Mqtt("broker.lan"), [])
    check(Mqtt("broker.lan"), ["broker.lan"])
    check(Mqtt("broker.lan", 8883), [])
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="holds no certificate"):
        check(Mqtt("broker.lan", ca_file=tmp_path / "ca.pem"), [])
