"""Live values for other software: what stands on which topic, what Home Assistant finds, what the topic of old says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from fakes.outbox import measured
from waiting import until

from edge.assemble import readable
from edge.config import ReadableConfig, load_config
from edge.mapping import PackFacts
from edge.mqtt import Broker, Link, Message
from edge.readable import Readable
from edge.readable_values import SENSORS, discovery, earlier, topic, values
from shared.bands import Band, Bands
from shared.errors import ConfigError
from shared.fields import BY_NAME
from shared.records import Estimate, Sample

SECOND_NS = 10**9
T_NS = 1_780_000_000 * SECOND_NS
SAMPLE: dict[str, Any] = {
    "pack_id": "CAR.1", "seq": 0, "mono_ns": 5, "t_ns": T_NS, "pack_v": 400.0, "current_a": -12.5, "soc_bms": 0.815,
    "soh_bms": None, "state": "drive", "cycles": 120.5, "cell_v": [3.9, None, 4.1], "temp_c": [21.5, 44.0, None],
    "alarms": ["low_soc:warning"], "quality": {"soh_bms": "absent"}, "extra": {"fan_rpm": 900.0},
}  # fmt: skip
SAID = Estimate(
    pack_id="CAR.1", seq=1, mono_ns=5, rul_cycles=420.0, rul_cycles_lo=300.0, rul_cycles_hi=600.0, model_id="rul-1",
    failure_probability=0.1, in_domain=True, soh_capacity=0.91,
)  # fmt: skip


@pytest.fixture
def broker() -> Iterator[TestBroker]:
    what = missing_part()
    if what:
        missing(what)
    with running_broker() as running:
        yield running


class Listener:
    """Another program on the broker: what stands on each topic, and what came since."""

    def __init__(self, broker: TestBroker, *topics: str) -> None:
        self.kept: dict[str, Any] = {}
        self.heard: list[str] = []
        at = Broker(host="127.0.0.1", port=broker.port, tls=False)
        self.link = Link(at, f"listener-{id(self)}", will=None, on_message=self._take)
        self.link.open(*topics)

    def catch_up(self) -> None:
        """Returns once all that the broker had for it until now is here: what it says itself comes last."""
        self.link.publish("packtwin/live/listener/end", b"0", qos=0)
        until("the listener has caught up", lambda: "packtwin/live/listener/end" in self.heard)
        self.heard.clear()

    def _take(self, message: Message) -> None:
        text = message.payload.decode()
        self.kept[message.topic] = text if message.topic.startswith("packtwin/live-status") else json.loads(text)
        self.heard.append(message.topic)


def lane_of(pack_id: str) -> SimpleNamespace:
    """As much of a Lane as is read here."""
    facts = PackFacts(chemistry="nmc", series=8)
    return SimpleNamespace(
        config=SimpleNamespace(pack_id=pack_id), mapping=SimpleNamespace(pack=facts), latest=None, estimate=None
    )


def test_values_have_the_records_names_and_units() -> None:
    told = values(SAMPLE, SAID)
    assert told["soc_bms"] == 0.815
    assert told["cell_v"] == [3.9, None, 4.1]
    assert (told["cell_v_min"], told["cell_v_max"], told["temp_max_c"]) == (3.9, 4.1, 44.0)
    assert told["power_w"] == -5000.0
    assert told["extra.fan_rpm"] == 900.0
    assert (told["rul_cycles"], told["prediction_reason"]) == (420.0, None)
    assert told["soh_bms"] is None
    assert values(SAMPLE, None)["prediction_reason"] == "no_model"
    assert values(SAMPLE, replace(SAID, rul_cycles=None, reason="chemistry"))["prediction_reason"] == "chemistry"


def test_every_sensor_is_a_field_that_exists() -> None:
    fields = values(SAMPLE, SAID).keys() | BY_NAME.keys() | set(Sample.__dataclass_fields__)
    assert {sensor.field for sensor in SENSORS} <= fields


def test_home_assistant_is_told_what_it_needs() -> None:
    found = discovery(
        "CAR.1", "soc_bms", {"identifiers": ["packtwin_CAR.1"]}, "homeassistant", "packtwin/live-status/box"
    )
    assert found is not None
    where, config = found
    assert where == "homeassistant/sensor/packtwin_CAR_2E1/soc_bms/config"
    assert config["state_topic"] == topic("CAR.1", "soc_bms") == "packtwin/live/CAR.1/soc_bms"
    assert (config["unit_of_measurement"], config["device_class"]) == ("%", "battery")
    assert "value_json * 100" in config["value_template"]
    assert config["availability_topic"] == "packtwin/live-status/box"
    assert discovery("CAR.1", "cell_v", {}, "homeassistant", "s") is None
    uniques = {discovery("CAR.1", sensor.field, {}, "h", "s")[1]["unique_id"] for sensor in SENSORS}  # type: ignore[index]
    assert len(uniques) == len(SENSORS)


def test_the_earlier_json_has_percent_and_its_sign() -> None:
    assert earlier(SAMPLE, SAID, Bands()) == {
        "battery_id": "CAR.1",
        "timestamp": "2026-05-28T20:26:40.000Z",
        "soc": 81.5,
        "soh": 91.0,
        "voltage": 400.0,
        "current": 12.5,
        "temperature": 44.0,
        "charge_cycles": 120.5,
        "power_consumption": 5000.0,
        "is_charging": False,
        "status": "warning",
        "rul_prediction": 420.0,
        "failure_probability": 0.1,
        "prediction_reason": None,
    }
    bare = earlier({"pack_id": "P"}, None, Bands())
    assert bare == dict.fromkeys(bare) | {"battery_id": "P", "prediction_reason": "no_model"}


def test_topics_are_kept_change_with_the_pack_and_survive_the_broker(broker: TestBroker) -> None:
    lane = lane_of("BATTERY_001")
    strict = Bands(rul=Band(900.0, 500.0))
    config = ReadableConfig(host="127.0.0.1", port=broker.port, tls=False, earlier=True, bands=strict)
    mirror = Readable(config, "box", [lane])  # type: ignore[list-item]
    assert mirror.step() == 1.0
    lane.latest = measured(7 * SECOND_NS, pack_id="BATTERY_001", t_ns=T_NS)
    lane.estimate = SAID
    early = Listener(broker, "ev/battery/telemetry")
    mirror.step()
    listener = Listener(broker, "packtwin/live/#", "packtwin/live-status/#", "homeassistant/#")
    sample = readable(lane.latest)
    until("the kept values come", lambda: set(mirror._last) <= set(listener.kept))
    assert listener.kept["packtwin/live/BATTERY_001/pack_v"] == sample["pack_v"]
    assert listener.kept["packtwin/live/BATTERY_001/cell_v"] == sample["cell_v"]
    assert "packtwin/live/BATTERY_001/soc_bms" not in listener.kept, "what the pack never told has no topic"
    until("it is online", lambda: listener.kept.get("packtwin/live-status/box") == "online")
    config_topic = "homeassistant/sensor/packtwin_BATTERY_001/pack_v/config"
    until("discovery comes", lambda: config_topic in listener.kept)
    assert listener.kept[config_topic]["device"]["model"] == "NMC 8s"
    until("the earlier topic comes", lambda: early.heard)
    assert early.kept["ev/battery/telemetry"]["voltage"] == sample["pack_v"]
    assert early.kept["ev/battery/telemetry"]["status"] == "critical", "420 cycles left, by the bands of the settings"

    listener.catch_up()
    mirror.step()
    lane.latest = measured(8 * SECOND_NS, pack_id="BATTERY_001", t_ns=T_NS + SECOND_NS)
    mirror.step()
    now = readable(lane.latest)
    until("the change comes", lambda: listener.kept["packtwin/live/BATTERY_001/pack_v"] == now["pack_v"])
    until("all of it", lambda: listener.kept["packtwin/live/BATTERY_001/t_ns"] == now["t_ns"])
    assert "packtwin/live/BATTERY_001/model_id" not in listener.heard, "what stays is not sent again"

    broker.kill()
    until("the loss is noticed", lambda: mirror.step() >= 1.0 and mirror.problem is not None)
    broker.start()
    until("it is back", lambda: mirror.step() and mirror.problem is None)
    again = Listener(broker, "packtwin/live/#", "packtwin/live-status/#")
    until("all is told anew", lambda: again.kept.get("packtwin/live/BATTERY_001/model_id") == "rul-1")
    mirror.close()
    until("it says goodbye", lambda: again.kept.get("packtwin/live-status/box") == "offline")


def test_no_broker_holds_nothing_up() -> None:
    config = ReadableConfig(host="127.0.0.1", port=1, tls=False)
    mirror = Readable(config, "box", [])
    waits = [mirror.step() for _ in range(8)]
    assert all(1.0 <= wait <= 60.0 for wait in waits)
    assert mirror.problem is not None
    mirror.close()


EDGE = 'device = "box"\n[[source]]\npack_id = "P"\nchannel = "c"\nmapping = "mapping.toml"\n'


def test_edge_toml_says_where_and_how(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("secret\n")
    file = tmp_path / "edge.toml"
    file.write_text(EDGE + '[readable]\nurl = "mqtts://broker.lan"\nuser = "u"\npassword_file = "pw"\n')
    config = load_config(file, {}).readable
    assert config == ReadableConfig(host="broker.lan", port=8883, tls=True, user="u", password="secret")
    file.write_text(EDGE)
    assert load_config(file, {}).readable is None
    file.write_text(EDGE + '[readable]\nurl = "mqtt://broker.lan"\ndiscovery = false\nearlier_topic = true\n')
    with pytest.raises(ConfigError, match=r"readable\.url.*clear text"):
        load_config(file, {})
    told = {"ALLOW_PLAINTEXT_HOSTS": "broker.lan", "BAND_SOC_WARNING": "60"}
    config = load_config(file, told).readable
    bands = Bands(soc=Band(60.0, 20.0))
    assert config == ReadableConfig(host="broker.lan", port=1883, tls=False, discovery="", earlier=True, bands=bands)


@pytest.mark.e2e
def test_the_agent_mirrors_its_packs(broker: TestBroker, tmp_path: Path) -> None:
    """The real agent and a simulated car."""
    from fakes.running import Bench

    bench = Bench(tmp_path)
    listener = Listener(broker, "packtwin/live/#", "homeassistant/#")
    try:
        bench.car()
        until("the car is there", (tmp_path / "can" / "BATTERY_001").exists)
        bench.agent("", f'[readable]\nurl = "{broker.url}"\n')
        until("the state of charge comes", lambda: listener.kept.get("packtwin/live/BATTERY_001/soc_bms"), 30.0)
        until("all cells come", lambda: len(listener.kept.get("packtwin/live/BATTERY_001/cell_v", ())) == 96)
        assert "homeassistant/sensor/packtwin_BATTERY_001/soc_bms/config" in listener.kept
        assert bench.status()["readable"] == {"broker": f"127.0.0.1:{broker.port}", "problem": None}
    finally:
        bench.close()
        listener.link.close()
