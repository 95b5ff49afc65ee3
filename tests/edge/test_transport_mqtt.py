"""MQTT: which addresses are allowed, what each failure becomes, what is told without asking. A real Mosquitto."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from fakes.cloud import FakeCloud
from fakes.mqtt_cloud import MqttCloud
from fakes.outbox import measured
from waiting import until

from edge.clock import Clock, kernel_boot_id
from edge.config import UplinkConfig, load_config
from edge.models import _origin
from edge.outbox.box import Outbox
from edge.outbox.records import batch_of, row_of
from edge.transport import Forbidden, HttpTransport, Refused, Unavailable, transport_of
from edge.transport_mqtt import MqttTransport
from edge.uplink import Uplink, UplinkSettings
from shared.errors import ConfigError
from shared.wire import encode_batch

BODY = encode_batch(batch_of("device-1", 7, [row_of(measured(n, t_ns=n), n, "device-1", 7) for n in range(5)]))


@pytest.fixture
def broker() -> Iterator[TestBroker]:
    what = missing_part()
    if what:
        missing(what)
    with running_broker() as running:
        yield running


@pytest.fixture
def cloud(broker: TestBroker) -> Iterator[MqttCloud]:
    served = MqttCloud(broker.port, FakeCloud(), time.time_ns)
    yield served
    served.close()


@pytest.fixture
def transport(broker: TestBroker) -> Iterator[MqttTransport]:
    road = MqttTransport(broker.url, "device-1", answer_s=30.0)
    yield road
    road.close()


def test_the_scheme_of_the_address_chooses_the_transport() -> None:
    kinds = {"http://127.0.0.1:1": HttpTransport, "mqtt://127.0.0.1:1": MqttTransport, "": type(None)}
    for url, kind in kinds.items():
        assert type(transport_of(UplinkConfig(url=url), "device-1")) is kind


@pytest.mark.parametrize(
    ("url", "token", "sentence"),
    [
        ("mqtt://cloud.example", "t", "in clear text: use mqtts://"),
        ("mqtts://cloud.example", "", "set uplink.token_file"),
        ("mqtts://cloud.example/twin", "t", "a broker has a host and a port only"),
        ("mqtts://", "t", "must look like mqtts://cloud.example"),
        ("mqttx://cloud.example", "t", "must look like mqtts://cloud.example"),
    ],
)
def test_an_address_that_must_not_be_used_is_refused_in_one_sentence(url: str, token: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        transport_of(UplinkConfig(url=url, token=token), "device-1")


def test_a_ca_file_without_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match="holds no certificate"):
        MqttTransport("mqtts://cloud.example", "device-1", token="t", ca_file=str(tmp_path / "ca.pem"))


def test_models_need_an_address_of_their_own_when_records_go_through_a_broker(tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text("{}")
    file = tmp_path / "edge.toml"
    source = '[[source]]\npack_id = "P"\nchannel = "c"\nmapping = "mapping.toml"\n'
    uplink = '[uplink]\nurl = "mqtt://127.0.0.1"\n'
    file.write_text('device = "box"\n' + uplink + source)
    assert _origin(load_config(file, {})) is None
    file.write_text('device = "box"\ntrust_root = "root.json"\n' + uplink + source)
    with pytest.raises(ConfigError, match=r"set \[uplink\] models_url"):
        _origin(load_config(file, {}))
    uplink += 'models_url = "http://127.0.0.1:5001"\n'
    file.write_text('device = "box"\ntrust_root = "root.json"\n' + uplink + source)
    origin = _origin(load_config(file, {}))
    assert origin is not None
    assert origin.url == "http://127.0.0.1:5001"


def test_a_batch_goes_up_and_its_own_receipt_comes_back(transport: MqttTransport, cloud: MqttCloud) -> None:
    bodies = [encode_batch(batch_of("device-1", 7, [row_of(measured(n), n, "device-1", 7)])) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(transport.send, bodies))
    assert [receipt.accepted for receipt in receipts] == [((n, n),) for n in range(40)]


def test_a_receipt_that_is_lost_is_no_receipt_and_sending_again_settles_it(
    transport: MqttTransport, cloud: MqttCloud
) -> None:
    cloud.deaf, transport._answer_s = True, 1.0
    with pytest.raises(Unavailable, match="no receipt came"):
        transport.send(BODY)
    cloud.deaf, transport._answer_s = False, 30.0
    assert transport.send(BODY).accepted == ((0, 4),)
    assert cloud.asked == 1, "after silence a small question goes before the batch"
    assert cloud.cloud.twice == 0


def test_without_a_gateway_the_broker_itself_says_so(transport: MqttTransport) -> None:
    with pytest.raises(Unavailable, match="start the gateway"):
        transport.send(BODY)


def test_without_a_broker_it_says_so_and_works_again_once_it_is_back(
    transport: MqttTransport, broker: TestBroker, cloud: MqttCloud
) -> None:
    assert transport.send(BODY).accepted
    broker.kill()
    with pytest.raises(Unavailable):
        transport.send(BODY)
    with pytest.raises(Unavailable, match=r"^the broker at .* cannot be reached: Connection refused$"):
        transport.send(BODY)
    broker.start()
    until("the gateway is back", lambda: _sends(transport))


def _sends(transport: MqttTransport) -> bool:
    try:
        return bool(transport.send(BODY).accepted)
    except Unavailable:
        return False


def test_a_broker_that_dies_while_a_receipt_is_awaited_ends_the_waiting(broker: TestBroker, cloud: MqttCloud) -> None:
    transport = MqttTransport(broker.url, "device-1", answer_s=60.0)
    cloud.deaf = True
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(transport.send, BODY)
        until("the batch has arrived", lambda: cloud.cloud.batches)
        broker.kill()
        with pytest.raises(Unavailable, match=r"connection to the broker at 127\.0\.0\.1:\d+ has ended"):
            sending.result(10)
    transport.close()


@pytest.mark.parametrize(
    ("answer", "kind", "reason", "retry_s"),
    [
        ({"error": "No batch.", "reason": "malformed"}, Refused, "malformed", None),
        ({"error": "Large.", "reason": "too_large"}, Refused, "too_large", None),
        ({"error": "Not yours.", "reason": "not_yours"}, Forbidden, None, None),
        ({"error": "New.", "reason": "unknown_schema"}, Unavailable, None, None),
        ({"error": "Busy.", "reason": None, "retry_after_s": 7}, Unavailable, None, 7.0),
        ({"error": "Busy.", "retry_after_s": "soon"}, Unavailable, None, None),
    ],
)
def test_a_refusal_means_what_it_means_over_http(
    transport: MqttTransport, cloud: MqttCloud, answer: dict[str, Any], kind: type, reason: str, retry_s: float
) -> None:
    cloud.refuse = answer
    with pytest.raises(kind) as caught:
        transport.send(BODY)
    assert getattr(caught.value, "reason", None) == reason
    assert getattr(caught.value, "retry_after_s", None) == retry_s
    cloud.refuse = None
    assert transport.send(BODY).accepted == ((0, 4),)
    assert cloud.asked == 0


def test_a_batch_that_the_broker_would_not_take_is_refused_before_it_is_sent(broker: TestBroker) -> None:
    with running_broker("max_packet_size 1000\n") as small:
        served, transport = MqttCloud(small.port, FakeCloud()), MqttTransport(small.url, "device-1")
        with pytest.raises(Refused) as caught:
            transport.send(bytes(2000))
        assert caught.value.reason == "too_large"
        assert transport.desired("device-1").t_ns == 1
        transport.close()
        served.close()


def test_the_time_comes_from_a_question_and_the_wish_from_the_broker(
    transport: MqttTransport, cloud: MqttCloud
) -> None:
    cloud.wish("device-1", "live", "rul-3")
    desired = transport.desired("device-1")
    assert desired.asked
    assert abs((desired.t_ns or 0) - time.time_ns()) < 10**10
    until("the kept wish comes", lambda: transport.told() is not None)
    transport.send(BODY)
    desired = transport.desired("device-1")  # the receipt was sign of life enough
    assert (desired.mode, desired.bundle, desired.asked) == ("live", "rul-3", False)
    assert cloud.asked == 1


def test_a_wish_that_is_no_wish_changes_nothing(transport: MqttTransport, cloud: MqttCloud) -> None:
    cloud.wish("device-1", "economy")
    transport.desired("device-1")
    until("the wish comes", lambda: transport.told() is not None)
    before = transport.told()
    cloud._client.publish("packtwin/v1/device-1/desired", b"[1, 2", 1).wait_for_publish(5)
    transport.send(BODY)
    assert transport.told() == before


def test_the_broker_tells_whether_the_agent_is_there(broker: TestBroker, cloud: MqttCloud) -> None:
    def last(device: str) -> str | None:
        said = [json.loads(body)["state"] for name, body in cloud.statuses if name == device]
        return said[-1] if said else None

    transport = MqttTransport(broker.url, "device-1")
    transport.send(BODY)
    until("it is online", lambda: last("device-1") == "online")
    transport.close()
    until("it is offline", lambda: last("device-1") == "offline")
    transport = MqttTransport(broker.url, "device-1")
    transport.send(BODY)
    until("it is online again", lambda: last("device-1") == "online")
    told = len(cloud.statuses)
    replay = MqttTransport(broker.url, "device-1", announce=False)  # beside the agent, and without a word
    replay.send(BODY)
    replay.close()
    assert transport.send(BODY).accepted
    assert len(cloud.statuses) == told
    sock = transport._link._client.socket()  # type: ignore[union-attr]
    sock.shutdown(2)  # type: ignore[union-attr]
    until("the broker tells of a broken connection", lambda: last("device-1") == "offline")


def test_a_second_agent_with_the_same_id_takes_the_place_of_the_first(broker: TestBroker, cloud: MqttCloud) -> None:
    first, second = MqttTransport(broker.url, "device-1"), MqttTransport(broker.url, "device-1")
    first.send(BODY)
    link = first._link
    second.send(BODY)
    assert link is not None
    until("the first is sent away", lambda: link.ended is not None)
    assert first.send(BODY).accepted == ((0, 4),)
    first.close()
    second.close()


def test_an_uplink_over_mqtt_follows_a_wish_within_moments(
    transport: MqttTransport, cloud: MqttCloud, tmp_path: Path
) -> None:
    """Without being asked: over HTTP it takes until the next question, which is 10 s."""
    clock = Clock()
    outbox = Outbox(
        "device-1", tmp_path / "cold", tmp_path / "hot", max_bytes=1 << 20, flush_s=10.0, now=clock.mono_ns,
        kernel_boot_id=kernel_boot_id(),
    )  # fmt: skip
    uplink = Uplink(outbox, transport, clock, UplinkSettings())
    stop = threading.Event()

    def run() -> None:
        wait_s = 0.0
        while not stop.wait(wait_s):
            wait_s = uplink.step(clock.mono_ns()).wait_s

    cloud.wish("device-1", "normal")
    thread = threading.Thread(target=run)
    thread.start()
    try:
        until("it is connected", lambda: uplink.state.connected and uplink._told is not None)
        cloud.wish("device-1", "live", "rul-9")
        until("it goes live", lambda: uplink.state.mode == "live", 3.0)
        assert uplink.state.desired_bundle == "rul-9"
        cloud.wish("device-1", "normal")
        until("it calms down", lambda: uplink.state.mode == "normal", 3.0)
        assert clock.source in ("cloud", "kernel")
    finally:
        stop.set()
        thread.join()
        outbox.close()
