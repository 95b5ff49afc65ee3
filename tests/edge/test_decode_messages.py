"""What gateways publish -> Fields: batmon, ESPHome and Battery-Emulator as they are, and what they say when they fail.

Topics and keys after batmon-ha (github.com/fl4p/batmon-ha), github.com/syssi/esphome-jk-bms and
github.com/dalathegreat/Battery-Emulator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edge.assemble import Assembler, readable
from edge.config import SAMPLES
from edge.decode_messages import Heard, MessageDecoder
from edge.mapping import load_mapping
from edge.mapping_mqtt import fits, names_at, parse_path
from firmware_bridge.virtual.gateways import GATEWAYS
from shared.errors import ConfigError

S = 1_000_000_000
UTC_NS = 1_790_000_000 * S
CELLS = [3.301, 3.302, 3.299, 3.3]

BATMON = """[mqtt]
[pack]
series = 4
[fields]
pack_v = { from = "batmon/jk/soc/total_voltage", resolution = 0.01 }
current_a = { from = "batmon/jk/soc/current", scale = -1.0, resolution = 0.01 }   # > 0 discharges there
soc_bms = { from = "batmon/jk/soc/soc_percent", unit = "%" }
cycles = { from = "batmon/jk/bms/num_cycles" }
cell_v = { from = "batmon/jk/cell_voltages/{}", count = 4 }
temp_c = { from = "batmon/jk/temperatures/{}", count = 2 }
charge_mos = { from = "batmon/jk/switch/charge" }
discharge_mos = { from = "batmon/jk/switch/discharge" }
"extra.remaining_ah" = { from = "batmon/jk/mosfet_status/capacity_ah", unit = "Ah", resolution = 0.01 }
"""
ESPHOME = """[mqtt]
period_s = 10
[fields]
pack_v = { from = "jk-bms/sensor/total_voltage/state" }
current_a = { from = "jk-bms/sensor/current/state" }
soc_bms = { from = "jk-bms/sensor/state_of_charge/state", unit = "%" }
cell_v = { from = "jk-bms/sensor/cell_voltage_{}/state", count = 4 }
temp_c = { from = "jk-bms/sensor/temperature_sensor_{}/state", count = 2 }
charge_mos = { from = "jk-bms/binary_sensor/charging/state" }
discharge_mos = { from = "jk-bms/binary_sensor/discharging/state" }
[alarms]
other = "jk-bms/binary_sensor/alarm/state"
"""
EMULATOR = """[mqtt]
topic = "BE/info"
[fields]
pack_v = { from = "battery_voltage" }
current_a = { from = "battery_current" }
soc_bms = { from = "SOC_real", unit = "%" }
soh_bms = { from = "state_of_health", unit = "%" }
temp_c = { from = ["temperature_min", "temperature_max"] }
cell_v = { from = "BE/spec_data#cell_voltages[{}]", count = 4 }
contactor_main = { from = "bms_status", values = { ACTIVE = true, FAULT = false } }
state = { from = "bms_status", values = { ACTIVE = "park", FAULT = "fault" } }
"extra.max_charge_w" = { from = "max_charge_power", unit = "W", resolution = 1.0 }
"""
PACK = {
    "pack_v": 13.2, "current_a": -12.3, "soc_bms": 0.885, "soh_bms": 0.97, "cycles": 24.0, "charge_mos": True,
    "discharge_mos": False, "extra.remaining_ah": 88.5, "temp_c[0]": 21.5, "temp_c[1]": 0.0, "charge_limit_a": 10.0,
    **{f"cell_v[{i}]": volts for i, volts in enumerate(CELLS)},
}  # fmt: skip


class Desk:
    """A decoder and an assembler for the messages of one pack."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "m.toml").write_text(text)
        self.mapping = load_mapping(folder / "m.toml")
        self.decoder = MessageDecoder(self.mapping)
        assert self.mapping.published is not None
        self.assembler = Assembler("P", self.mapping, self.mapping.published.period_s)

    def say(self, t_s: float, messages: Mapping[str, Any], *, kept: bool = False, utc: bool = True) -> bool:
        """Whether they said anything."""
        offset_ns = UTC_NS if utc else None
        heard = [
            Heard(
                topic, payload if isinstance(payload, bytes) else str(payload).encode(), int(t_s * S), kept, offset_ns
            )
            for topic, payload in messages.items()
        ]
        fields = self.decoder.decode(heard)
        if fields is not None:
            self.assembler.feed(fields)
        return fields is not None

    def at(self, t_s: float) -> Mapping[str, Any]:
        return readable(self.assembler.sample(int(t_s * S), None))


BATMON_SAYS = {
    "batmon/jk/soc/total_voltage": "13.2", "batmon/jk/soc/current": "12.3", "batmon/jk/soc/soc_percent": "88.5",
    "batmon/jk/bms/num_cycles": "24", "batmon/jk/mosfet_status/capacity_ah": "88.5",
    "batmon/jk/cell_voltages/1": "3.301", "batmon/jk/cell_voltages/2": "3.302", "batmon/jk/cell_voltages/3": "3.299",
    "batmon/jk/cell_voltages/4": "3.3", "batmon/jk/cell_voltages/delta": "0.003",
    "batmon/jk/temperatures/1": "21.5", "batmon/jk/temperatures/2": "0.0",
    "batmon/jk/switch/charge": "ON", "batmon/jk/switch/discharge": "OFF",
}  # fmt: skip
ESPHOME_SAYS = {
    "jk-bms/status": "online", "jk-bms/sensor/total_voltage/state": "13.200", "jk-bms/sensor/current/state": "-12.300",
    "jk-bms/sensor/state_of_charge/state": "88.5", "jk-bms/sensor/cell_voltage_1/state": "3.301",
    "jk-bms/sensor/cell_voltage_2/state": "3.302", "jk-bms/sensor/cell_voltage_3/state": "3.299",
    "jk-bms/sensor/cell_voltage_4/state": "3.300", "jk-bms/sensor/temperature_sensor_1/state": "21.5",
    "jk-bms/sensor/temperature_sensor_2/state": "0.0", "jk-bms/binary_sensor/charging/state": "ON",
    "jk-bms/binary_sensor/discharging/state": "OFF", "jk-bms/binary_sensor/alarm/state": "ON",
}  # fmt: skip
EMULATOR_SAYS = {
    "BE/info": '{"bms_status":"ACTIVE","pause_status":"RUNNING","SOC":90.1,"SOC_real":88.50,"state_of_health":97.00,'
    '"temperature_min":0.0,"temperature_max":21.5,"stat_batt_power":-162,"battery_current":-12.3,'
    '"cell_max_voltage":3.302,"cell_min_voltage":3.299,"battery_voltage":13.2,"max_discharge_power":5000,'
    '"max_charge_power":4500}',
    "BE/spec_data": '{"cell_voltages":[3.301,3.302,3.299,3.300]}',
}
CASES = {"batmon": (BATMON, BATMON_SAYS), "esphome": (ESPHOME, ESPHOME_SAYS), "emulator": (EMULATOR, EMULATOR_SAYS)}


@pytest.mark.parametrize(("mapping", "says"), CASES.values(), ids=CASES.keys())
def test_a_gateways_payloads_become_the_right_sample(tmp_path: Path, mapping: str, says: dict[str, str]) -> None:
    desk = Desk(tmp_path, mapping)
    assert desk.say(0.5, says)
    sample = desk.at(1.0)
    assert (sample["pack_v"], sample["current_a"], sample["soc_bms"]) == (13.2, -12.3, 0.885)
    assert (sample["current_a_min"], sample["current_a_max"]) == (-12.3, -12.3)
    assert sample["cell_v"] == CELLS
    assert sorted(sample["temp_c"]) == [0.0, 21.5]
    assert not sample["quality"] and not +desk.decoder.errors
    if "charge_mos" in mapping:
        assert (sample["charge_mos"], sample["discharge_mos"]) == (True, False)


def test_what_else_they_say(tmp_path: Path) -> None:
    batmon, esphome, emulator = (Desk(tmp_path, mapping) for mapping, _ in CASES.values())
    for desk, (_, says) in zip((batmon, esphome, emulator), CASES.values(), strict=True):
        desk.say(0.5, says)
    assert batmon.at(1)["extra"] == {"remaining_ah": 88.5} and batmon.decoder.skipped == 1
    assert esphome.at(1)["alarms"] == ["other"] and esphome.decoder.skipped == 1
    sample = emulator.at(1)
    assert (sample["soh_bms"], sample["contactor_main"], sample["state"]) == (0.97, True, "park")
    assert sample["extra"] == {"max_charge_w": 4500.0}


@pytest.mark.parametrize(
    ("gateway", "mapping"), [("batmon", BATMON), ("esphome", ESPHOME), ("battery_emulator", EMULATOR)]
)
def test_the_virtual_gateways_say_the_same(tmp_path: Path, gateway: str, mapping: str) -> None:
    device = {"batmon": "jk", "esphome": "jk-bms", "battery_emulator": "BE"}[gateway]
    desk = Desk(tmp_path, mapping)
    assert desk.say(0.5, GATEWAYS[gateway](device, PACK))
    sample = desk.at(1.0)
    assert (sample["pack_v"], sample["current_a"], sample["soc_bms"]) == (13.2, -12.3, 0.885)
    assert sample["cell_v"] == CELLS


@pytest.mark.parametrize(
    ("gateway", "sample", "device"),
    [("batmon", "batmon", "jk"), ("esphome", "esphome", "jk-bms"), ("battery_emulator", "battery-emulator", "BE")],
)
def test_the_mappings_that_ship_fit_what_is_published(tmp_path: Path, gateway: str, sample: str, device: str) -> None:
    text = (SAMPLES / f"{sample}.toml").read_text()
    desk = Desk(tmp_path, text.replace("count = 16", "count = 4").replace("count = 96", "count = 4"))
    assert desk.say(0.5, GATEWAYS[gateway](device, PACK))
    said = desk.at(1.0)
    assert (said["pack_v"], said["current_a"], said["soc_bms"]) == (13.2, -12.3, 0.885)
    assert said["cell_v"] == CELLS and sorted(said["temp_c"]) == [0.0, 21.5]
    assert not +desk.decoder.errors
    assert set(said["quality"]) <= {"extra.full_ah", "extra.max_discharge_w"}, "what this pack does not say"


# --- what is wrong is counted, and is None with a reason ---

ONE = '[mqtt]\ntopic = "b/state"\n[fields]\npack_v = { from = "v" }\nsoc_bms = { from = "soc", unit = "%" }\n'
BAD: dict[str, tuple[Any, str, str | None]] = {
    "cut off": ('{"v": 13.2, "so', "invalid", "json"),
    "no JSON": ("hello", "invalid", "json"),
    "nothing": ("", "invalid", "json"),
    "no text": (b"\xff\xfe{", "invalid", "json"),
    "a text for a number": ('{"v": "much"}', "invalid", "value"),
    "a list for a number": ('{"v": [1]}', "invalid", "value"),
    "null": ('{"v": null}', "absent", None),
    "NaN": ('{"v": NaN}', "absent", None),
    "unavailable": ('{"v": "unavailable"}', "absent", None),
    "infinite": ('{"v": 1e999}', "invalid", "value"),
    "more than a float": ('{"v": ' + "9" * 400 + "}", "out_of_range", None),
    "more digits than Python reads": ('{"v": ' + "9" * 5000 + "}", "invalid", "json"),
    "as deep as a well": ("[" * 200_000, "invalid", "json"),
}


@pytest.mark.parametrize(("payload", "reason", "error"), BAD.values(), ids=BAD.keys())
def test_a_bad_value_is_none_with_its_reason_and_counted(
    tmp_path: Path, payload: Any, reason: str, error: str | None
) -> None:
    desk = Desk(tmp_path, ONE)
    desk.say(0.1, {"b/state": '{"v": 13.2, "soc": 50}'})
    assert desk.at(1.0)["pack_v"] == 13.2
    desk.say(1.1, {"b/state": payload})
    sample = desk.at(2.0)
    assert sample["pack_v"] is None and sample["quality"]["pack_v"] == reason
    assert dict(+desk.decoder.errors) == ({error: 1} if error else {})


def test_a_message_that_leaves_a_value_out_says_nothing_of_it_until_it_is_stale(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ONE)
    desk.say(0.0, {"b/state": '{"v": 13.2, "soc": 50}'})
    for t_s in range(1, 40):
        desk.say(t_s, {"b/state": '{"v": 13.3}'})
        quality = desk.at(t_s + 0.5)["quality"]
        assert quality == ({} if t_s < 25 else {"soc_bms": "stale"})


def test_what_is_too_large_is_counted_and_not_read(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ONE)
    assert not desk.say(0.0, {"b/state": b'{"v": 1, "x": "' + b"x" * (1 << 20) + b'"}'})
    assert desk.decoder.errors["too_large"] == 1


# --- age ---

DATED = ONE.replace("[fields]", 'time = "t"\n[fields]')


def test_what_stood_at_the_broker_before_has_no_age_and_is_no_measurement(tmp_path: Path) -> None:
    desk = Desk(tmp_path, ONE)
    assert not desk.say(0.0, {"b/state": '{"v": 13.2}'}, kept=True)
    assert desk.decoder.errors == {"kept": 1}
    assert desk.say(1.0, {"b/state": '{"v": 13.2}'})


@pytest.mark.parametrize("kept", [False, True])
def test_a_message_that_tells_its_time_is_as_old_as_it_says(tmp_path: Path, kept: bool) -> None:
    desk = Desk(tmp_path, DATED)
    now_s = UTC_NS / S + 100
    for told in (now_s - 10, round((now_s - 10) * 1000), f'"{iso(now_s - 10)}Z"', f'"{iso(now_s - 10)}+00:00"'):
        assert desk.say(100.0, {"b/state": f'{{"v": 13.2, "t": {told}}}'}, kept=kept)
        assert desk.at(100.5)["pack_v"] == 13.2
        assert desk.at(116.0)["quality"]["pack_v"] == "stale"
    assert not +desk.decoder.errors
    desk.say(100.0, {"b/state": f'{{"v": 13.2, "t": {now_s - 60}}}'}, kept=kept)
    assert desk.at(101.0)["quality"]["pack_v"] == "stale" and desk.decoder.errors["late"] == 1


def test_what_is_late_is_in_no_extreme_of_now(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DATED)
    now_s = UTC_NS // S + 100
    desk.say(100.0, {"b/state": f'{{"v": 9.0, "t": {now_s - 60}}}'})
    desk.say(100.1, {"b/state": f'{{"v": 13.2, "t": {now_s}}}'})
    sample = desk.at(101.0)
    assert (sample["pack_v"], sample["pack_v_min"], sample["pack_v_max"]) == (13.2, 13.2, 13.2)


def iso(t_s: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(t_s, UTC).replace(tzinfo=None).isoformat()


def test_a_time_that_is_none_is_counted_and_the_arrival_counts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DATED)
    for n, told in enumerate(("null", '"soon"', "-5", "[]", "true", "1e400", '"2026-13-45"'), 1):
        assert desk.say(100.0, {"b/state": f'{{"v": 13.2, "t": {told}}}'})
        assert desk.decoder.errors["time"] == n
    assert desk.at(101.0)["pack_v"] == 13.2
    assert desk.say(101.0, {"b/state": f'{{"v": 13.4, "t": {UTC_NS // S + 7}}}'}, utc=False), "our clock is not trusted"
    assert desk.at(102.0)["pack_v"] == 13.4


def test_a_clock_that_is_ahead_makes_nothing_younger_than_now(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DATED)
    desk.say(100.0, {"b/state": f'{{"v": 13.2, "t": {UTC_NS // S + 5000}}}'})
    assert desk.at(101.0)["pack_v"] == 13.2 and desk.at(140.0)["quality"]["pack_v"] == "stale"


# --- topics, paths, mappings ---


def test_a_plus_stands_for_one_level() -> None:
    assert fits("batmon/jk/soc/current", "batmon/+/soc/current") and fits("a/b", "+/+")
    assert not fits("batmon/jk/x/soc/current", "batmon/+/soc/current") and not fits("a", "+/+")


def test_a_wildcard_maps_whatever_device_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BATMON.replace("batmon/jk/", "batmon/+/"))
    desk.say(0.5, BATMON_SAYS)
    assert desk.at(1.0)["cell_v"] == CELLS
    assert desk.decoder.names.state == {"batmon/+": "jk"} and not desk.decoder.names.notes


def test_a_second_device_below_a_wildcard_is_never_taken_for_this_pack(tmp_path: Path) -> None:
    """With two BMSs behind one batmon each Sample held a mixture of both, and nothing was said about it."""
    desk = Desk(tmp_path, BATMON.replace("batmon/jk/", "batmon/+/"))
    other = {topic.replace("/jk/", "/boat/"): "99" for topic in BATMON_SAYS}
    for t_s in (0.5, 10.5, 20.5):
        desk.say(t_s, BATMON_SAYS)
        assert not desk.say(t_s + 0.1, other), "nothing of it is heard at all"
        sample = desk.at(t_s + 0.5)
        assert (sample["pack_v"], sample["pack_v_max"], sample["cell_v"]) == (13.2, 13.2, CELLS)
    assert dict(+desk.decoder.errors) == {"address": 3 * (len(BATMON_SAYS) - 1)}
    (note,) = desk.decoder.names.notes
    assert "batmon/+" in note and "jk" in note and "boat" in note and "mapping" in note
    assert desk.at(200.0)["quality"]["pack_v"] == "stale", "nor when this pack has gone"
    desk.say(200.1, other)
    assert desk.at(201.0)["quality"]["pack_v"] == "stale"


def test_what_a_gateway_that_is_gone_has_left_at_the_broker_names_no_device(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BATMON.replace("batmon/jk/", "batmon/+/"))
    desk.say(0.4, {topic.replace("/jk/", "/old/"): said for topic, said in BATMON_SAYS.items()}, kept=True)
    assert desk.say(0.5, BATMON_SAYS) and desk.decoder.names.state == {"batmon/+": "jk"}


def test_nor_does_what_it_has_left_with_a_time(tmp_path: Path) -> None:
    text = '[mqtt]\ntime = "t"\n[fields]\npack_v = { from = "+/pack#v" }\n'
    desk = Desk(tmp_path, text)
    said = f'{{"v": 52, "t": {UTC_NS // S}}}'
    assert not desk.say(0.4, {"old/pack": said}, kept=True) and not desk.decoder.names.state
    assert desk.say(0.5, {"new/pack": said}) and desk.say(0.6, {"new/pack": said}, kept=True)
    assert not desk.say(0.7, {"old/pack": said}, kept=True)
    assert dict(+desk.decoder.errors) == {"address": 2}


def test_a_message_that_gives_a_name_is_told_once(tmp_path: Path) -> None:
    """Before it is read: the name has to be on flash first."""
    desk = Desk(tmp_path, '[mqtt]\n[fields]\npack_v = { from = "+/v" }\nsoc_bms = { from = "x/+/soc" }\n')
    names = desk.decoder.names
    assert not desk.decoder.gives_a_name("nobody/asked/for/it") and not names.state
    assert desk.decoder.gives_a_name("a/v") and not desk.decoder.gives_a_name("b/v") and not names.are_complete
    assert desk.decoder.gives_a_name("x/1/soc") and not desk.decoder.gives_a_name("x/2/soc") and names.are_complete
    assert names.state == {"+": "a", "x/+": "1"}
    assert not desk.say(0.1, {"b/v": "1"}) and desk.say(0.2, {"a/v": "1"})
    assert Desk(tmp_path, '[mqtt]\n[fields]\npack_v = { from = "a/v" }\n').decoder.names.are_complete


def test_each_plus_of_a_topic_has_a_name_of_its_own(tmp_path: Path) -> None:
    text = '[mqtt]\n[fields]\npack_v = { from = "+/pack/+/v" }\ncurrent_a = { from = "+/pack/+/i" }\n'
    desk = Desk(tmp_path, f'{text}soc_bms = {{ from = "x/soc" }}\n')
    assert desk.say(0.1, {"home/pack/1/v": "52", "x/soc": "0.5"})
    for foreign in ("home/pack/2/i", "boat/pack/1/i", "boat/pack/2/i"):
        assert not desk.say(0.2, {foreign: "7"})
    assert desk.say(0.3, {"home/pack/1/i": "3"})
    sample = desk.at(1.0)
    assert (sample["pack_v"], sample["current_a"], sample["soc_bms"]) == (52.0, 3.0, 0.5)
    assert names_at("home/pack/1/v", "+/pack/+/v") == {"+": "home", "+/pack/+": "1"}


def test_another_esphome_node_is_none_of_the_mapping_that_ships(tmp_path: Path) -> None:
    """`+/sensor/current/state` fitted any node with a power meter."""
    desk = Desk(tmp_path, (SAMPLES / "esphome.toml").read_text())
    assert not desk.say(0.1, {"kitchen-plug/sensor/current/state": "0.35"})
    assert desk.say(0.2, {"jk-bms/sensor/current/state": "-12.4"})
    sample = desk.at(1.0)
    assert (sample["current_a"], sample["current_a_max"], desk.decoder.skipped) == (-12.4, -12.4, 1)


def test_paths() -> None:
    assert parse_path("a.b[3].c") == parse_path("$.a.b[3].c") == ("a", "b", 3, "c")
    assert parse_path('["any key"].x') == ("any key", "x")
    assert parse_path('a["quo\\"te"]') == ("a", 'quo"te')
    assert parse_path("[0][1]") == (0, 1)
    assert parse_path("State of charge") == ("State of charge",)


WRONG = {
    "no topic": (ONE.replace('topic = "b/state"\n', "").replace('"v"', '"#v"'), "has no topic"),
    "no path": (ONE.replace('"v"', '"#a[x"'), "is no path"),
    "no key": (ONE.replace('"v"', '"b/c#"'), "names no key"),
    "half a level": (ONE.replace('"v"', '"b/c+/d"'), "within a level"),
    "a # in the topic": (ONE.replace('"b/state"', '"b/#"'), "has a #"),
    "a unit of something else": (ONE.replace('"%"', '"mV"'), "must be one of 1, %"),
    "a time that is no path": (DATED.replace('"t"', '"[["'), "time"),
    "two kinds": (f'dbc = "packtwin.dbc"\n{ONE}', "one of the four"),
    "a setting that is none": (ONE.replace("[mqtt]", "[mqtt]\nqos = 2"), "qos"),
    "a period": (ONE.replace("[mqtt]", "[mqtt]\nperiod_s = 0"), "period_s"),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG.keys())
def test_a_mapping_that_is_wrong_is_told_in_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"m\.toml") as error:
        load_mapping(tmp_path / "m.toml")
    assert says in str(error.value) and "\n" not in str(error.value)


def test_units_become_the_fields_own_before_or_after_a_scale(tmp_path: Path) -> None:
    text = """[mqtt]
topic = "t"
[fields]
pack_v = { from = "mv", unit = "mV" }
current_a = { from = "ma", unit = "mA", scale = -1.0 }
temp_c = { from = ["f"], unit = "degF" }
insulation_kohm = { from = "r", unit = "Mohm" }
energy_kwh = { from = "wh", unit = "Wh", offset = 500.0 }
"""
    desk = Desk(tmp_path, text)
    desk.say(0.5, {"t": json.dumps({"mv": 52_100, "ma": 1500, "f": 32.0, "r": 2, "wh": 1500})})
    sample = desk.at(1.0)
    assert (sample["pack_v"], sample["current_a"], sample["temp_c"]) == (52.1, -1.5, [0.0])
    assert (sample["insulation_kohm"], sample["energy_kwh"]) == (2000.0, 2.0)
