"""The low-voltage CAN language against what batteries sent: Pylontech, Eco-Worthy, REC, BYD, Discover."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import can_frames, on_bus, pictures, value, vector, vectors

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import LineError, Part
from firmware_bridge.protocols.pylontech_can import PYLONTECH_CAN, PylontechCanDecoder

EXPECTED: Final[dict[str, tuple[str, float, float, float]]] = {
    "charge_voltage_limit_V": ("extra.charge_v_limit", 1, 0, 0.1),
    "charge_current_limit_A": ("charge_limit_a", 1, 0, 0.1),
    "discharge_current_limit_A": ("discharge_limit_a", 1, 0, 0.1),
    "discharge_voltage_limit_V": ("extra.discharge_v_limit", 1, 0, 0.1),
    "soc_pct": ("soc_bms", 100, 0, 1),
    "soc_highres_pct": ("soc_bms", 100, 0, 0.01),
    "soh_pct": ("soh_bms", 100, 0, 1),
    "voltage_V": ("pack_v", 1, 0, 0.01),
    "current_A": ("current_a", 1, 0, 0.1),
    "temperature_C": ("temp_c[0]", 1, 0, 0.1),
    "module_count": ("extra.modules", 1, 0, 0),
    "modules_online": ("extra.modules_online", 1, 0, 0),
    "cell_min_V": ("extra.cell_min_v", 1, 0, 0.001),
    "cell_max_V": ("extra.cell_max_v", 1, 0, 0.001),
    "temp_min_K": ("extra.temp_min_c", 1, 273, 1),
    "temp_max_K": ("extra.temp_max_c", 1, 273, 1),
    "installed_capacity_Ah": ("extra.nominal_ah", 1, 0, 1),
    "capacity_Ah": ("extra.full_ah", 1, 0, 1),
}
"""What the sources call it -> (our name, times, plus, a step of the wire)."""
EXPECTED_WORDS: Final = {
    "charge_enable": "charge_mos",
    "discharge_enable": "discharge_mos",
    "manufacturer": "extra.manufacturer",
    "serial": "extra.serial",
    "min_cell_id": "extra.cell_min_at",
    "max_cell_id": "extra.cell_max_at",
    "alarms": "alarms",
}


def decoded(*frames: str) -> dict[str, Any]:
    """The one picture of frames such as `356#0213000000`."""
    pairs = [frame.split("#") for frame in frames]
    found, wrong = pictures(on_bus(PylontechCanDecoder(), [(int(i, 16), bytes.fromhex(data)) for i, data in pairs]))
    assert not wrong
    assert len(found) == 1, found
    return found[0]


# what batteries sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, "pylontech_can", "victron_can_bms")
    assert len(recorded) >= 6
    count = 0
    for one in recorded:
        found, wrong = pictures(on_bus(PylontechCanDecoder(), can_frames(one)))
        assert not wrong
        assert len(found) == 1, "one round of frames is one picture"
        for key, expected in one["expected"].items():
            count += 1
            if key in EXPECTED_WORDS:
                assert value(found[0], EXPECTED_WORDS[key]) == expected, (one["id"], key)
                continue
            name, times, plus, step = EXPECTED[key]
            assert abs(value(found[0], name) * times + plus - expected) <= step + 1e-9, (one["id"], key)
    assert count >= 59


def test_the_order_of_a_round_does_not_matter(shared_dir: Path) -> None:
    for one in vectors(shared_dir, "pylontech_can", "victron_can_bms"):
        frames = can_frames(one)
        forth = pictures(on_bus(PylontechCanDecoder(), frames))[0]
        back = pictures(on_bus(PylontechCanDecoder(), reversed(frames)))[0]
        assert len(forth) == len(back) == 1
        assert forth[0] == back[0]


def test_what_they_sent_can_be_sent_again_and_says_the_same(shared_dir: Path) -> None:
    for one in vectors(shared_dir, "pylontech_can", "victron_can_bms"):
        values = {}
        for said in on_bus(PylontechCanDecoder(), can_frames(one)):
            assert isinstance(said, Part)
            values.update(said.values)
        assert PYLONTECH_CAN.frames is not None
        again = {}
        for said in on_bus(PylontechCanDecoder(), PYLONTECH_CAN.frames(values, None, None)):
            assert isinstance(said, Part)
            again.update(said.values)
        assert values.items() <= again.items()


def test_a_pylontech_frame_is_written_bit_for_bit(shared_dir: Path) -> None:
    one = vector(shared_dir, 566)
    values = {"pack_v": 48.66, "current_a": 0.0, "temp_c[0]": 33.0, "charge_mos": True, "discharge_mos": True}
    values |= {"extra.charge_v_limit": 53.2, "charge_limit_a": 370.0, "discharge_limit_a": 370.0}
    values |= {"extra.discharge_v_limit": 46.0}
    assert PYLONTECH_CAN.frames is not None
    sent = dict(PYLONTECH_CAN.frames(values, None, None))
    recorded = dict(can_frames(one))
    assert sent.keys() == {0x351, 0x356, 0x35C}
    for can_id, payload in sent.items():
        assert payload[: len(recorded[can_id])] == recorded[can_id]


# lengths


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_a_short_frame_says_as_much_as_it_holds(size: int) -> None:
    names = ["extra.charge_v_limit", "charge_limit_a", "discharge_limit_a", "extra.discharge_v_limit"]
    said = PylontechCanDecoder().frame(0, 0x351, bytes.fromhex("1402740e740ecc01")[:size])[0]
    assert isinstance(said, Part)
    assert list(said.values) == names[: size // 2]


@pytest.mark.parametrize("frame", ["355#64", "356#", "359#000000", "35C#", "351#14", "373#00"])
def test_a_frame_that_says_nothing_is_one_error(frame: str) -> None:
    can_id, data = frame.split("#")
    [said] = PylontechCanDecoder().frame(0, int(can_id, 16), bytes.fromhex(data))
    assert isinstance(said, LineError)
    assert (said.error, said.offset) == ("length", 0)


def test_other_ids_and_long_ids_are_not_its_business() -> None:
    bus = PylontechCanDecoder()
    frames = [(0x305, bytes(8)), (0x7DF, b"\2\1\0"), (EXTENDED | 0x351, bytes(8)), (EXTENDED | 0x356, bytes(6))]
    assert on_bus(bus, frames) == []


# traps


def test_a_percent_without_hundredths_counts_as_it_is() -> None:
    assert decoded("355#1a006400")["soc_bms"] == 0.26
    assert decoded("355#320064000000")["soc_bms"] == 0.5
    assert decoded("355#1a006400290a")["soc_bms"] == 0.2601


def test_hundredths_that_contradict_the_percent_are_not_a_state_of_charge() -> None:
    assert decoded("355#1a0064001027")["soc_bms"] == 0.26


def test_a_state_of_charge_of_all_ones_is_absent_and_zero_is_zero() -> None:
    absent = decoded("355#ffffffff")
    assert (absent["soc_bms"], absent["soh_bms"]) == (None, None)
    assert absent["quality"] == {"soc_bms": "absent", "soh_bms": "absent"}
    assert decoded("355#00000000")["soc_bms"] == 0


def test_cycles_stand_behind_the_measurements_and_a_frame_that_was_filled_up_has_none() -> None:
    assert decoded("356#4c1438ff2c012a00")["cycles"] == 42
    assert "cycles" not in decoded("356#4c1438ff2c01")
    filled = decoded("356#7914000071000000")
    assert (filled["cycles"], filled["quality"]["cycles"]) == (None, "absent")


def test_zero_volt_amperes_and_degrees_are_numbers() -> None:
    zero = decoded("356#000000000000")
    assert (zero["pack_v"], zero["current_a"], zero["temp_c"]) == (0, 0, [0])


def test_a_current_below_zero_discharges() -> None:
    assert decoded("356#8413f1ff3700")["current_a"] == -1.5


def test_protections_and_warnings_of_359_are_alarms() -> None:
    both = decoded("359#9e090000" + "01504e")
    assert set(both["alarms"]) == {
        "pack_over_voltage",
        "pack_under_voltage",
        "discharge_over_temp",
        "discharge_under_temp",
        "discharge_over_current",
        "charge_over_current",
        "bms_fault",
    }
    warned = decoded("359#00008208" + "01504e")
    assert set(warned["alarms"]) == {
        "pack_over_voltage:warning",
        "discharge_over_current:warning",
        "communication_fault:warning",
    }
    assert warned["extra"]["alarm_raw"] == 0x08820000


@pytest.mark.parametrize("data", ["00080000" + "01504e", "00800000" + "01504e"])
def test_a_system_error_is_seen_where_battery_emulator_writes_it_too(data: str) -> None:
    assert decoded(f"359#{data}")["alarms"] == ["bms_fault"]


def test_two_bits_say_active_inactive_or_not_watched() -> None:
    said = PylontechCanDecoder().frame(0, 0x35A, bytes.fromhex("a4828202a8828201"))[0]
    assert isinstance(said, Part)
    assert said.values["alarm.pack_over_voltage"] is True
    assert said.values["alarm.pack_under_voltage"] is False
    assert "alarm.other" not in said.values
    assert said.values["alarm.cell_imbalance"] is False
    assert said.values["alarm.cell_imbalance:warning"] is True


def test_a_battery_that_sends_both_kinds_of_alarms_is_one_picture_a_round() -> None:
    """Both ids tell the same codes: a name that came twice would end the picture in the middle of a round."""
    round_of = [(0x356, bytes.fromhex("021300004a01")), (0x359, bytes.fromhex("0200000001504e"))]
    alarms = (0x35A, bytes.fromhex("a4828202a8828202"))
    for order in ([*round_of, alarms], [alarms, *round_of]):
        found, wrong = pictures(on_bus(PylontechCanDecoder(), order * 5))
        assert not wrong
        assert len(found) == 5
        for picture in found:
            assert picture["alarms"] == ["pack_over_voltage"]
            assert picture["pack_v"] == 48.66


@pytest.mark.parametrize(
    ("poorer", "better", "wanted"),
    [
        ("359#00000000025045", "35A#A6AAAAAAAAAAAAAA", {"alarms": ["pack_over_voltage"]}),
        ("359#02000000025045", "35A#AAAAAAAAAAAAAAAA", {"alarms": []}),
        ("359#02000000025045", "35A#0000000000000000", {"alarms": ["pack_over_voltage"]}),
        ("370#76006C00CF0CCA0C", "373#CE0CD10C11011101", {"cell_min_v": 3.278, "cell_max_v": 3.281}),
    ],
)
def test_two_ids_that_contradict_each_other_are_one_picture(poorer: str, better: str, wanted: dict[str, Any]) -> None:
    """A code of 359 that 35A denied came twice in the first round, which fell into two pictures; so did 370 and 373."""
    for order in ([poorer, better], [better, poorer]):
        found = decoded(*order)
        assert {name: found["extra"].get(name, found.get(name)) for name in wanted} == wanted
    frames = [(int(it[:3], 16), bytes.fromhex(it[4:])) for it in (poorer, better)]
    assert len(pictures(on_bus(PylontechCanDecoder(), frames * 3))[0]) == 3


def test_a_limit_below_zero_is_none() -> None:
    """A negative limit was told as it stood, as if the pack had to charge."""
    limits = decoded("351#1402740e8cf1cc01")
    assert (limits["charge_limit_a"], limits["discharge_limit_a"]) == (370.0, None)
    assert limits["quality"] == {"discharge_limit_a": "invalid"}


def test_when_the_better_id_falls_silent_the_other_speaks_again() -> None:
    bus = PylontechCanDecoder()
    bus.frame(0, 0x35A, bytes.fromhex("a8828202a8828202"))
    told = [bus.frame(0, 0x359, bytes.fromhex("02000000"))[0] for _ in range(5)]
    assert isinstance(told[0], Part)
    assert isinstance(told[-1], Part)
    assert "alarm.pack_over_voltage" not in told[0].values
    assert told[-1].values["alarm.pack_over_voltage"] is True


def test_an_alarm_does_not_wait_until_the_better_id_has_been_silent_for_long() -> None:
    """What 35A had denied once was left out of the next three pictures, in which it did not come."""
    found = decoded("35A#0800000000000000", "359#0200000000504E")
    assert found["alarms"] == []
    bus, frame = PylontechCanDecoder(), (0x359, bytes.fromhex("0200000000504e"))
    found, _ = pictures(on_bus(bus, [(0x35A, bytes.fromhex("0800000000000000")), frame, frame, frame]))
    assert [it["alarms"] for it in found] == [[], ["pack_over_voltage"], ["pack_over_voltage"]]


def test_370_is_a_model_or_the_extremes_or_nothing_that_can_be_known() -> None:
    assert decoded("370#5054313653000000")["extra"] == {"model": "PT16S"}
    assert decoded("370#76006c00cf0cca0c")["extra"] == {
        "temp_max_fine_c": 11.8,
        "temp_min_fine_c": 10.8,
        "cell_max_v": 3.279,
        "cell_min_v": 3.274,
    }
    assert PylontechCanDecoder().frame(0, 0x370, bytes.fromhex("ffff00ff00ff0001")) == []
    assert PylontechCanDecoder().frame(0, 0x371, bytes.fromhex("0401020206020402")) == []


def test_cells_under_the_id_of_the_modules_are_no_modules() -> None:
    cells = decoded("372#e40ce60ce50ce70c")
    assert set(cells["extra"].values()) == {None}
    assert set(cells["quality"].values()) == {"invalid"}
    assert decoded("372#0200010000000100")["extra"] == {
        "modules_online": 2,
        "modules_no_charge": 1,
        "modules_no_discharge": 0,
        "modules_offline": 1,
    }


def test_places_that_overflow_are_letters_still() -> None:
    """JBD counts 10 on as ":" behind "09"."""
    assert decoded("374#49443a30312e303a")["extra"] == {"cell_min_at": "ID:01.0:"}


def test_no_kelvin_is_no_temperature() -> None:
    empty = decoded("373#cf0cd00c00000000")
    assert empty["extra"]["temp_min_c"] is None
    assert empty["quality"]["extra.temp_min_c"] == "absent"
    assert decoded("373#cf0cd00c11011101")["extra"]["temp_max_c"] == 0


def test_what_only_fills_a_frame_up_is_no_volts() -> None:
    """Cells of 0 V stood in a frame of zeros, and 0 V to which a pack may be discharged."""
    empty = decoded("373#0000000000000000")
    assert (empty["extra"]["cell_min_v"], empty["extra"]["cell_max_v"]) == (None, None)
    assert empty["quality"]["extra.cell_min_v"] == empty["quality"]["extra.cell_max_v"] == "absent"
    assert decoded("373#0000d00c1a011b01")["extra"]["cell_min_v"] == 0, "a cell that is dead"
    limits = decoded("351#1402740e740e0000")
    assert (limits["extra"]["discharge_v_limit"], limits["extra"]["charge_v_limit"]) == (None, 53.2)
    assert limits["quality"] == {"extra.discharge_v_limit": "absent"}


def test_it_never_asks() -> None:
    assert list(PYLONTECH_CAN.polls(None, None)) == []
