"""Daly's Modbus languages, D2 and p81, against what packs sent.

Captures: https://github.com/patman15/aiobmsble, https://github.com/syssi/esphome-daly-bms,
https://github.com/fl4p/batmon-ha.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import Vector, frames, pictures, value, vector, vectors

from firmware_bridge.modbus import ReadRequest, read_request, refusal_frame, reply_frame, with_crc
from firmware_bridge.protocol import LineError, Part, Said
from firmware_bridge.protocols.daly_modbus import DALY_MODBUS, DalyModbusDecoder

D2: Final = 0xD2
POSITIVES: Final = ("daly_d2_modbus", "daly2", "daly_bms_ble")
STATUS: Final = 64
"""The recording of a four-cell pack: 62 registers, after 9 that hold the switches' temperature."""
LONG: Final = 579
"""The recording of 80 registers at once, of a pack that discharges."""
P81: Final = 475

EXPECTED: Final[dict[str, tuple[str, float, float]]] = {
    "voltage": ("pack_v", 1, 0.1),
    "voltage_V": ("pack_v", 1, 0.1),
    "total_voltage": ("pack_v", 1, 0.1),
    "current": ("current_a", 1, 0.1),
    "current_A": ("current_a", 1, 0.1),
    "battery_level": ("soc_bms", 100, 0.1),
    "soc": ("soc_bms", 100, 0.1),
    "soc_pct": ("soc_bms", 100, 0.1),
    "state_of_charge": ("soc_bms", 100, 0.1),
    "cycle_charge": ("extra.remaining_ah", 1, 0.1),
    "charge": ("extra.remaining_ah", 1, 0.1),
    "remaining_Ah": ("extra.remaining_ah", 1, 0.1),
    "capacity_remaining": ("extra.remaining_ah", 1, 0.1),
    "rated_capacity": ("extra.nominal_ah", 1, 0.1),
    "cycles": ("cycles", 1, 0),
    "num_cycles": ("cycles", 1, 0),
    "charging_cycles": ("cycles", 1, 0),
    "balancer": ("extra.balancer", 1, 0),
    "max_cell_V": ("extra.cell_max_v", 1, 0.001),
    "min_cell_V": ("extra.cell_min_v", 1, 0.001),
    "max_cell_voltage": ("extra.cell_max_v", 1, 0.001),
    "max_voltage_cell": ("extra.cell_max_number", 1, 0),
    "max_battery_temperature": ("extra.temp_max_c", 1, 1),
    "min_battery_temperature": ("extra.temp_min_c", 1, 1),
    "max_battery_temperature_probe": ("extra.temp_max_number", 1, 0),
    "min_battery_temperature_probe": ("extra.temp_min_number", 1, 0),
    "mosfet_temperature": ("extra.mos_temp_c", 1, 1),
    "board_temperature": ("extra.board_temp_c", 1, 1),
    "precharging": ("extra.precharging", 1, 0),
}
SWITCH_WORDS: Final = {
    "chrg_mosfet": "charge_mos",
    "charge_mos": "charge_mos",
    "charging": "charge_mos",
    "dischrg_mosfet": "discharge_mos",
    "discharge_mos": "discharge_mos",
    "discharging": "discharge_mos",
}
TEXT_WORDS: Final = {
    "sw_version": "extra.sw_version",
    "software_version": "extra.sw_version",
    "hw_version": "extra.hw_version",
    "hardware_version": "extra.hw_version",
}
DIRECTIONS: Final = {"idle": 0, "charging": 1, "charge": 1, "discharging": 2, "discharge": 2}
ALARM_WORDS: Final = {
    "": [],
    "Warning: Charging temperature too high": ["charge_over_temp:warning"],
    "Warning: Voltage difference too high": ["cell_imbalance:warning"],
    "Warning: Charging current too high": ["charge_over_current:warning"],
    "AFE acquisition chip failure": ["front_end_fault"],
    "Warning: Temperature difference too high": ["temp_imbalance:warning"],
    "Critical: Temperature difference too high": ["temp_imbalance"],
}
DERIVED: Final = {
    "delta_voltage",
    "delta_V",
    "delta_cell_voltage",
    "average_cell_voltage",
    "cycle_capacity",
    "power",
    "charging_power",
    "discharging_power",
    "battery_charging",
    "temperature",
    "problem",
    "min_voltage_cell",
}
"""What sources work out themselves."""
OTHER: Final = {
    "charging_switch",
    "discharging_switch",
    "soc_setting",
    "mos_temp",
    "current_warning",
    "n",
    "balancer_switch",
    "balancing",
    "energy",
}
"""Settings and counters of which nothing is taken."""


def heard(*chunks: bytes, sent: tuple[bytes, ...] = ()) -> list[Said]:
    line = DalyModbusDecoder()
    for request in sent:
        line.sent(request)
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def parts(said: list[Said]) -> list[Part]:
    return [it for it in said if isinstance(it, Part)]


def errors(said: list[Said]) -> list[str]:
    assert all(isinstance(it, LineError) for it in said), said
    return [it.error for it in said if isinstance(it, LineError)]


def asked(start: int, count: int, address: int = D2) -> bytes:
    return ReadRequest(address, 3, start, count).frame


def registers(start: int, count: int, values: dict[int, int], address: int = D2) -> bytes:
    """A reply of registers, zeros but for these."""
    return reply_frame(address, 3, b"".join(values.get(start + i, 0).to_bytes(2, "big") for i in range(count)))


def compared(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(what the source calls it, whether we say the same) of each value."""
    for key, one in expected.items():
        told = one["value"] if isinstance(one, dict) and "value" in one else one
        if key == "device_info":
            yield from compared(told, found)
        elif key == "switches":
            yield from compared({"charge_mos": told["charge"], "discharge_mos": told["discharge"]}, found)
        elif (same := array_is(key, told, found)) is not None or (same := scalar_is(key, told, found)) is not None:
            yield key, same
        else:
            assert key in DERIVED | OTHER or told == "", key


def array_is(key: str, told: Any, found: dict[str, Any]) -> bool | None:
    """Whether we say the same of cells or temperatures; None = it is something else."""
    if key in ("cell_voltages", "cells_V"):
        volts = [cell / (1000 if isinstance(cell, int) else 1) for cell in told]
        return bool(found["cell_v"] == pytest.approx(volts, abs=0.001))
    if key in ("temps_C", "temperatures"):
        return bool(found["temp_c"] == told)
    if key == "temp_values":
        by_type = {kind: [it["value"] for it in told if it["type"] == kind] for kind in ("GENERIC", "MOSFET")}
        mos = found["extra"].get("mos_temp_c")
        return found["temp_c"] == by_type["GENERIC"] and ([] if mos is None else [mos]) == by_type["MOSFET"]
    if place := re.fullmatch(r"(cell_voltage|temperature)\[(\d+)]", key):
        array, step = {"cell_voltage": ("cell_v", 0.001), "temperature": ("temp_c", 1)}[place[1]]
        return bool(abs(found[array][int(place[2])] - told) <= step + 1e-9)
    if key in ("cell_count", "temp_sensors", "temperature_sensors"):
        return len(found["cell_v" if key == "cell_count" else "temp_c"]) == told
    return None


def scalar_is(key: str, told: Any, found: dict[str, Any]) -> bool | None:
    """Whether we say the same of a value; None = it is something else, or the source says nothing."""
    if key == "min_cell_voltage":  # p81 does not tell it
        return bool(abs(found["extra"].get("cell_min_v", min(found["cell_v"])) - told) <= 0.001 + 1e-9)
    if key in SWITCH_WORDS:
        return value(found, SWITCH_WORDS[key]) is told
    if key in TEXT_WORDS and told:
        return bool(value(found, TEXT_WORDS[key]) == told)
    if key in ("state", "battery_status") and told:
        return bool(value(found, "extra.direction") == DIRECTIONS[told.lower()])
    if key == "errors":
        return bool(found["alarms"] == ALARM_WORDS[told])
    if key in ("problem_code", "error_bitmask"):
        return _raw(found) == told and bool(found["alarms"]) == bool(told)
    if key in EXPECTED:
        name, times, step = EXPECTED[key]
        return bool(abs(value(found, name) * times - told) <= step + 1e-9)
    return None


def _raw(found: dict[str, Any]) -> int:
    """The four registers of alarms as the one number that sources make of them."""
    names = ("alarm_raw", "alarm_2_raw", "alarm_3_raw", "alarm_4_raw")
    return sum(int(found["extra"][name]) << 16 * (3 - i) for i, name in enumerate(names))


def picture_of(recorded: Vector) -> dict[str, Any]:
    """What the recording of a scan says, as the last picture."""
    found, wrong = pictures(heard(*frames(recorded)))
    assert not wrong, recorded["id"]
    return found[-1] if found else {"extra": {}}


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, *POSITIVES)
    assert len(recorded) >= 31
    told = [(one["id"], *it) for one in recorded for it in compared(one["expected"], picture_of(one))]
    assert [it for it in told if not it[2]] == []
    assert len(told) >= 250


def test_each_recording_says_the_same_when_its_requests_were_seen(shared_dir: Path) -> None:
    """Some sources' tests send a stale reply first, which answers another request that was asked."""
    count = 0
    for one in vectors(shared_dir, *POSITIVES, "daly_p81_modbus") + vectors(shared_dir, "daly_p81_modbus", kind="raw"):
        requests = tuple(bytes.fromhex(it) for it in one.get("request_hex") or ())
        if requests and all(read_request(it) for it in requests):
            said = heard(*frames(one), sent=requests)
            assert len(parts(said)) == len(said) > 0, one["id"]
            assert [it.values for it in parts(said)] == [it.values for it in parts(heard(*frames(one)))]
            count += 1
    assert count >= 25


def test_what_flows_out_of_the_pack_is_negative(shared_dir: Path) -> None:
    """Unlike Daly's A5, + is in here: the pack says itself that it discharges."""
    for number in (LONG, P81):
        found = picture_of(vector(shared_dir, number))
        assert found["current_a"] == {LONG: -2.5, P81: -8.9}[number]
    assert picture_of(vector(shared_dir, LONG))["extra"]["direction"] == 2
    assert picture_of(vector(shared_dir, STATUS))["current_a"] == 3.0


def test_80_registers_hold_what_62_and_9_hold(shared_dir: Path) -> None:
    (frame,) = frames(vector(shared_dir, LONG))
    whole = parts(heard(frame))[0].values
    payload = frame[3:-2]
    first = reply_frame(D2, 3, payload[: 2 * 62])
    rest = reply_frame(D2, 3, payload[2 * 0x3E : 2 * 0x47])
    assert {**parts(heard(first))[0].values, **parts(heard(rest))[0].values} == whole
    assert whole["extra.mos_temp_c"] == 15.0
    assert whole["extra.balance_a"] == 0.0


def test_a_scan_of_p81_is_one_picture(shared_dir: Path) -> None:
    raws = vectors(shared_dir, "daly_p81_modbus", kind="raw")
    first = next(one for one in raws if one["request_hex"] == ["8103000000405bfa"])
    second = next(one for one in raws if one["request_hex"] == ["81030041003e8bce"])
    found, wrong = pictures(heard(frames(first)[0] + frames(second)[0]))
    assert not wrong
    assert len(found) == 1
    told = found[0]
    assert told["address"] == 0x51
    assert len(told["cell_v"]) == 16 and sum(told["cell_v"]) == pytest.approx(told["pack_v"], abs=0.1)
    assert (told["charge_mos"], told["discharge_mos"], told["cycles"]) == (True, True, 7)
    assert told["extra"]["remaining_ah"] == pytest.approx(271.2)
    assert told["extra"]["heartbeat"] == 0xF2


def test_a_password_is_not_told(shared_dir: Path) -> None:
    (part,) = parts(heard(*frames(vector(shared_dir, 459))))
    assert (part.kind, part.values) == ("password", {})


# which registers a reply holds


def test_the_request_says_which_registers_a_reply_holds() -> None:
    """A reply of three registers would be the password, one of nine the balancing's."""
    assert parts(heard(registers(0x28, 3, {0x28: 520, 0x29: 29990, 0x2A: 500}), sent=(asked(0x28, 3),)))[0].values == {
        "pack_v": 52.0,
        "current_a": -1.0,
        "soc_bms": 0.5,
    }
    nine = registers(0x00, 9, {i: 3300 + i for i in range(9)})
    (part,) = parts(heard(nine, sent=(asked(0x00, 9),)))
    assert part.values == {f"cell_v[{i}]": (3300 + i) / 1000 for i in range(9)}
    middle = registers(0x04, 10, {0x04 + i: 3300 + i for i in range(10)})
    (part,) = parts(heard(middle, sent=(asked(0x04, 10),)))
    assert list(part.values) == [f"cell_v[{i}]" for i in range(4, 14)]


def test_another_masters_request_on_the_line_says_it_too() -> None:
    said = heard(asked(0x28, 3), registers(0x28, 3, {0x28: 520, 0x29: 29990, 0x2A: 500}))
    assert errors(said[:1]) == ["echo"]
    assert parts(said)[0].values["pack_v"] == 52.0


def test_an_unknown_length_without_a_request_is_an_error() -> None:
    assert errors(heard(registers(0x28, 4, {0x28: 520}))) == ["length"]
    assert errors(heard(registers(0x28, 4, {0x28: 520}, 0x51))) == ["length"]


def test_a_longer_reply_of_new_firmware_begins_with_the_cells() -> None:
    (part,) = parts(heard(registers(0x00, 100, {0: 3300, 0x31: 1, 0x28: 33, 0x29: 30000})))
    assert (part.values["cell_v[0]"], part.values["pack_v"]) == (3.3, 3.3)


# what is not there


@pytest.mark.parametrize("raw", [0x0000, 0xFFFF, 0x00FF])
def test_a_sensor_that_is_not_there_is_no_temperature(raw: int) -> None:
    """Packs without one on the switches say 0x0000 or 0xFFFF, which once read as -40 degC (facts, complaint 5)."""
    (part,) = parts(heard(registers(0x3E, 9, {0x40: 30000, 0x42: raw})))
    assert part.values["extra.mos_temp_c"] is None
    assert part.quality["extra.mos_temp_c"] == "absent"
    status = {0x20: 61, 0x21: raw, 0x22: 40, 0x29: 30000, 0x32: 3}
    (part,) = parts(heard(registers(0x00, 62, status)))
    assert [part.values[f"temp_c[{i}]"] for i in range(3)] == [21.0, None, 0.0]
    assert "temp_c[3]" not in part.values


def test_a_sensor_that_says_what_cannot_be_is_no_temperature() -> None:
    """2515 was 2475 degC."""
    (part,) = parts(heard(registers(0x00, 62, {0x20: 61, 0x21: 2515, 0x29: 30000, 0x32: 2})))
    assert (part.values["temp_c[1]"], part.quality["temp_c[1]"]) == (None, "invalid")


def test_places_behind_the_last_cell_are_no_cells() -> None:
    status = {**dict.fromkeys(range(20), 3300), 0x29: 30000, 0x31: 16}
    (part,) = parts(heard(registers(0x00, 62, status)))
    assert "cell_v[15]" in part.values and "cell_v[16]" not in part.values
    status |= {15: 0}
    (part,) = parts(heard(registers(0x00, 62, status)))
    assert part.values["cell_v[15]"] == 0.0, "0 is a number where there is a cell"
    (part,) = parts(heard(registers(0x00, 62, status | {0x31: 0})))
    assert "cell_v[19]" in part.values and "cell_v[20]" not in part.values


def test_a_block_of_zeros_is_no_current() -> None:
    (part,) = parts(heard(registers(0x00, 62, {})))
    assert part.values["current_a"] is None and part.quality["current_a"] == "absent"


# what is no reply of a pack


def test_recorded_negatives_are_one_error(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, "daly_d2_modbus", "daly_bms_ble", "daly2", kind="negative")
    assert recorded
    for one in recorded:
        assert errors(heard(*frames(one))) == [{"wrong CRC": "checksum"}[one["variant"]]]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda f: with_crc(b"\xd3" + f[1:-2]), "address"),
        (lambda f: with_crc(b"\x01" + f[1:-2]), "address"),
        (lambda f: with_crc(f[:1] + b"\x04" + f[2:-2]), "function"),
        (lambda f: with_crc(f[:1] + b"\x17" + f[2:-2]), "function"),
        (lambda f: f[:-1] + bytes([f[-1] ^ 1]), "checksum"),
        (lambda f: f[:40] + bytes([f[40] ^ 1]) + f[41:], "checksum"),
        (lambda f: f[:-1], "length"),
        (lambda f: f[:20], "length"),
        (lambda f: f[1:], "noise"),
        (lambda f: f[:2], "noise"),
        (lambda f: refusal_frame(D2, 3, 2), "response"),
        (lambda f: asked(0, 62), "echo"),
        (lambda f: with_crc(b"\xd2\x03\x00"), "length"),
    ],
)
def test_what_is_no_reply_is_one_error(shared_dir: Path, change: Any, error: str) -> None:
    """A good CRC is not enough: another device on the line has one, too."""
    frame = frames(vector(shared_dir, STATUS))[1]
    assert errors(heard(change(frame))) == [error]
    said = heard(change(frame), frame)
    assert len(parts(said)) == 1, "the next frame is kept"


def test_a_reply_that_nobody_asked_for_is_an_error(shared_dir: Path) -> None:
    frame = frames(vector(shared_dir, STATUS))[1]
    assert errors(heard(frame, sent=(asked(0x3E, 9),))) == ["address"]
    assert errors(heard(frame, sent=(asked(0x00, 62, 0x01),))) == ["address"]
    assert errors(heard(refusal_frame(0x51, 3, 2), sent=(asked(0x00, 62),))) == ["address"]
    other = with_crc(b"\x01" + frame[1:-2])
    (part,) = parts(heard(other, sent=(asked(0x00, 62, 0x01),)))
    assert (part.address, part.values["pack_v"]) == (1, 14.0)


def test_p81_answers_from_another_address_than_it_is_asked_at(shared_dir: Path) -> None:
    frame = frames(vector(shared_dir, P81))[0]
    request = asked(0, 64, 0x81)
    assert len(parts(heard(frame, sent=(request,)))) == 1
    assert errors(heard(with_crc(b"\x81" + frame[1:-2]), sent=(request,))) == ["address"]
    assert errors(heard(with_crc(b"\x52" + frame[1:-2]), sent=(request,))) == ["address"]
    (second,) = parts(heard(with_crc(b"\x52" + frame[1:-2]), sent=(asked(0, 64, 0x82),)))
    assert second.address == 0x52
    assert errors(heard(request)) == ["echo"]


# a line


def test_recorded_replies_in_any_pieces_behind_any_junk_say_the_same(shared_dir: Path) -> None:
    rng = random.Random("daly modbus pieces")
    line = b"".join(frames(vector(shared_dir, n))[-1] for n in (LONG, STATUS, P81, 476, 66))
    clean = parts(heard(line))
    assert len(clean) == 5
    for _ in range(1000):
        junk = rng.choice((b"AT\r\n", asked(0, 62), line[: rng.randrange(64)], rng.randbytes(rng.randrange(64))))
        bytes_in = junk + line
        cuts = sorted(rng.sample(range(1, len(bytes_in)), rng.randrange(200)))
        pieces = [bytes_in[a:b] for a, b in zip([0, *cuts], [*cuts, len(bytes_in)], strict=True)]
        said = heard(*pieces)
        assert parts(said) == clean
        assert said == heard(bytes_in)


# the virtual pack


def test_recorded_replies_are_written_as_they_came(shared_dir: Path) -> None:
    """Registers that say nothing to us are not compared."""
    unread = {0x37, 0x38, 0x39, 0x41, *range(0x44, 0x50)}
    for number in (LONG, 580, 582, 588):
        (frame,) = frames(vector(shared_dir, number))
        count = (len(frame) - 5) // 2
        (part,) = parts(heard(frame))
        assert DALY_MODBUS.answer is not None
        (again,) = DALY_MODBUS.answer(asked(0, count), part.values, None)
        for i in range(count):
            if i not in unread:
                assert again[3 + 2 * i : 5 + 2 * i] == frame[3 + 2 * i : 5 + 2 * i], (number, hex(i))


def test_recorded_replies_of_p81_are_written_as_they_came(shared_dir: Path) -> None:
    (frame,) = frames(vector(shared_dir, P81))
    (part,) = parts(heard(frame))
    assert DALY_MODBUS.answer is not None
    for address in (0x51, 0x81):
        assert list(DALY_MODBUS.answer(asked(0, 64, 0x81), part.values, address)) == [frame]


def test_a_virtual_pack_answers_its_own_address_and_reads_only() -> None:
    assert DALY_MODBUS.answer is not None
    values = {"pack_v": 52.0}
    assert list(DALY_MODBUS.answer(asked(0, 62, 0x81), values, None)) == []
    assert list(DALY_MODBUS.answer(asked(0, 62), values, 0x51)) == []
    assert list(DALY_MODBUS.answer(with_crc(bytes.fromhex("d20600a50001")), values, None)) == []
    assert list(DALY_MODBUS.answer(asked(0, 62)[:-1] + b"\0", values, None)) == []
    (far,) = DALY_MODBUS.answer(asked(0xFFF0, 32), values, None)
    assert len(far) == 5 + 64


@pytest.mark.parametrize(
    ("address", "first"), [(None, "d2030000003ed7b9"), (0x51, "8103000000405bfa"), (0x81, "8103000000405bfa")]
)
def test_requests_are_what_the_sources_send(address: int | None, first: str) -> None:
    requests = [poll.request for poll in DALY_MODBUS.polls(address, None)]
    assert requests[0].hex() == first
    assert all(read_request(request) is not None for request in requests)
