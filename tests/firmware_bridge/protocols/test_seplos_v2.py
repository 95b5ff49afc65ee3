"""Seplos V2 against recorded packs, in both of its framings."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import Vector, frames, pictures, value, vector, vectors

from firmware_bridge.checksums import crc16_xmodem, negated_sum16
from firmware_bridge.protocol import LineError, Part, Said
from firmware_bridge.protocols.seplos_v2 import SEPLOS_V2, SeplosV2Decoder, reply, request

SINGLE, SYSTEM, INFO, TELEMETRY, ALARMS = 0x61, 0x62, 0x51, 0x42, 0x44

EXPECTED: Final[dict[str, tuple[str, float, float]]] = {
    "voltage": ("pack_v", 1, 0.01),
    "total_voltage": ("pack_v", 1, 0.01),
    "current": ("current_a", 1, 0.01),
    "battery_level": ("soc_bms", 100, 0.1),
    "state_of_charge": ("soc_bms", 100, 0.1),
    "battery_health": ("soh_bms", 100, 0.1),
    "state_of_health": ("soh_bms", 100, 0.1),
    "cycles": ("cycles", 1, 1),
    "charging_cycles": ("cycles", 1, 1),
    "cycle_charge": ("extra.remaining_ah", 1, 0.01),
    "residual_capacity": ("extra.remaining_ah", 1, 0.01),
    "capacity_remaining": ("extra.remaining_ah", 1, 0.01),
    "battery_capacity": ("extra.full_ah", 1, 0.01),
    "design_capacity": ("extra.nominal_ah", 1, 1),
    "rated_capacity": ("extra.nominal_ah", 1, 0.01),
    "nominal_capacity": ("extra.nominal_ah", 1, 0.01),
    "port_voltage": ("extra.port_v", 1, 0.01),
    "pack_count": ("extra.packs", 1, 0),
    "ambient_temperature": ("ambient_c", 1, 0.1),
    "mosfet_temperature": ("extra.mos_temp_c", 1, 0.1),
    "dischrg_mosfet": ("discharge_mos", 1, 0),
    "chrg_mosfet": ("charge_mos", 1, 0),
    "discharging_switch": ("discharge_mos", 1, 0),
    "charging_switch": ("charge_mos", 1, 0),
    "current_limit_switch": ("extra.limiter", 1, 0),
    "heater": ("extra.heater", 1, 0),
    "heating_switch": ("extra.heater", 1, 0),
    **{f"cell_voltage[{i}]": (f"cell_v[{i}]", 1, 0.001) for i in range(16)},
    **{f"temperature[{i}]": (f"temp_c[{i}]", 1, 0.1) for i in range(4)},
    "temperature[4]": ("ambient_c", 1, 0.1),
    "temperature[5]": ("extra.mos_temp_c", 1, 0.1),
}
DERIVED: Final = {
    *("power", "charging_power", "discharging_power", "charging", "discharging", "battery_charging", "runtime"),
    *("delta_voltage", "delta_cell_voltage", "average_cell_voltage", "min_cell_voltage", "max_cell_voltage"),
    *("min_voltage_cell", "max_voltage_cell", "average_cell_temperature", "temperature", "cycle_capacity"),
    *("cell_count", "temp_sensors", "online_status", "problem", "alarms", "problem_code"),
    "balancer",  # read there as one big-endian number: cell 2 while cell 10 is the fullest
    *(f"alarm_event{i}_bitmask" for i in range(1, 9)),
}
"""What the sources work out of the rest, and sums of bits."""


def whole(recorded: Vector) -> list[bytes]:
    """The frames of a recording; fixtures of a payload, or with zeros for a checksum, are made whole."""
    if recorded["id"] == 440:
        letters = recorded["frame_hex"][0].upper().encode()
        return [b"~%s%04X\r" % (letters, negated_sum16(letters))]
    if recorded["id"] == 441:
        body = frames(recorded)[0][1 : 7 + 0x50]
        return [b"\x7e" + body + crc16_xmodem(body).to_bytes(2, "big") + b"\r"]
    return frames(recorded)


def fed(chunks: list[bytes], *sent: bytes) -> list[Said]:
    line = SeplosV2Decoder()
    for asked in sent:
        line.sent(asked)
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def the_error(chunks: list[bytes], *sent: bytes) -> str:
    """What is wrong with a line on which exactly one thing is, and nothing is said."""
    [said] = fed(chunks, *sent)
    assert isinstance(said, LineError), said
    return said.error


def the_part(chunk: bytes, *sent: bytes) -> Part:
    [said] = fed([chunk], *sent)
    assert isinstance(said, Part), said
    return said


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    count = 0
    recorded = vectors(shared_dir, "seplos_v2", "seplos_bms", "seplos_bms_ble")
    assert len(recorded) >= 5
    for one in recorded:
        found, wrong = pictures(fed(whole(one)))
        assert not wrong
        pack = found[0]
        for key, told in one["expected"].items():
            if key in DERIVED:
                continue
            count += 1
            if key == "cell_voltages":
                assert pack["cell_v"] == told
            elif key == "temp_values":
                assert pack["temp_c"] == [it["value"] for it in told if it["type"] == "CELL"]
                assert [pack["ambient_c"]] == [it["value"] for it in told if it["type"] == "AMBIENT"]
                assert [value(pack, "extra.mos_temp_c")] == [it["value"] for it in told if it["type"] == "MOSFET"]
            else:
                name, times, step = EXPECTED[key]
                expected = told["value"] if isinstance(told, dict) else told
                assert abs(value(pack, name) * times - expected) <= step + 1e-9, (one["id"], key)
    assert count >= 80


def test_the_pack_and_the_system_around_it_are_one_picture(shared_dir: Path) -> None:
    found, _ = pictures(fed(whole(vector(shared_dir, 316))))
    assert len(found) == 1
    assert (found[0]["pack_v"], value(found[0], "extra.system_v")) == (54.43, 53.0)
    assert found[0]["alarms"] == []


def test_the_fullest_cell_is_the_one_that_is_balanced(shared_dir: Path) -> None:
    [pack], _ = pictures(fed(whole(vector(shared_dir, 316))))
    fullest = pack["cell_v"].index(max(pack["cell_v"]))
    assert pack["balancing"] == 1 << fullest


def test_a_system_counts_in_tenths(shared_dir: Path) -> None:
    """Its current and its Ah were ten times too small: a pack of 304 Ah stood in a system of 84."""
    names = [f"extra.system_{name}" for name in ("current_a", "v", "remaining_ah", "full_ah", "nominal_ah")]
    for number, wanted in ((316, [21.5, 53.0, 437.2, 840.0, 840.0]), (327, [-9.1, 56.79, 280.0, 280.0, 280.0])):
        told = pictures(fed(whole(vector(shared_dir, number))))[0][-1]
        assert [value(told, name) for name in names] == wanted


def test_an_alarm_or_a_warning_anywhere_in_the_system_is_told(shared_dir: Path) -> None:
    """Warnings were dropped and stood in no extra. 327: cells and pack are nearly full: 00 11 00 00 00 02 00 00."""
    [pack], _ = pictures(fed(whole(vector(shared_dir, 326))))
    assert pack["alarms"] == ["other", "other:warning"]
    found, _ = pictures(fed(whole(vector(shared_dir, 327))))
    assert [picture["alarms"] for picture in found] == [[], ["other:warning"]]
    assert [picture["address"] for picture in found] == [0, 3]
    raws = [value(found[1], f"extra.system_{name}raw") for name in ("alarm_", "alarm_2_", "alarm_3_", "alarm_4_")]
    assert raws == [0x0011, 0, 0x0002, 0]


def test_what_a_pack_sent_is_written_bit_for_bit(shared_dir: Path) -> None:
    frame = whole(vector(shared_dir, 316))[0]
    assert reply(SINGLE, 0, the_part(frame).values, is_letters=False) == frame


def test_what_was_read_in_letters_comes_back(shared_dir: Path) -> None:
    values = the_part(whole(vector(shared_dir, 440))[0]).values
    assert the_part(reply(TELEMETRY, 0, values, is_letters=True)).values == values


def test_the_requests_are_those_that_a_client_sent(shared_dir: Path) -> None:
    asked = [bytes.fromhex(frame) for frame in vector(shared_dir, 316)["request_hex"]]
    assert [request(command, is_letters=False) for command in (SINGLE, INFO, SYSTEM)] == asked


def test_the_request_in_letters_is_the_documented_one() -> None:
    assert request(TELEMETRY, 0, is_letters=True) == b"~20004642E00200FD37\r"
    assert request(TELEMETRY, 1, is_letters=True) == b"~20014642E00201FD35\r"


# what is wrong


@pytest.mark.parametrize(("number", "error"), [(320, "function"), (321, "response"), (325, "address")])
def test_a_bad_frame_says_nothing_and_is_one_error(shared_dir: Path, number: int, error: str) -> None:
    assert the_error(whole(vector(shared_dir, number))) == error


def test_the_answer_to_another_question_is_refused(shared_dir: Path) -> None:
    frame = b"".join(whole(vector(shared_dir, 325)))
    assert the_error([frame], request(SINGLE, is_letters=False)) == "address"
    assert the_part(frame, request(SYSTEM, is_letters=False)).kind == "system"


def test_a_fixture_without_a_checksum_is_refused(shared_dir: Path) -> None:
    assert the_error(frames(vector(shared_dir, 441))) == "length"


def test_bytes_that_changed_are_a_checksum_error_and_the_next_frame_is_read(shared_dir: Path) -> None:
    for good in (whole(vector(shared_dir, 316))[0], whole(vector(shared_dir, 440))[0]):
        for at in range(14, len(good) - 5):
            bad = bytearray(good)
            bad[at] ^= 0x01  # a hex letter or a figure becomes another one
            if good[at] ^ 1 in (0x7E, 0x0D, 0x40):
                continue
            said = fed([bytes(bad) + good])
            assert isinstance(said[0], LineError)
            assert said[0].error == "checksum"
            assert isinstance(said[-1], Part)


def test_a_frame_that_was_cut_off_is_one_error_and_the_next_frame_is_read(shared_dir: Path) -> None:
    rng = random.Random(5)
    for good in (whole(vector(shared_dir, 316))[0], whole(vector(shared_dir, 440))[0]):
        for _ in range(200):
            cut = good[: rng.randrange(1, len(good))]
            said = fed([cut + good])
            assert isinstance(said[-1], Part)
            assert len(said) == 2, (cut, said)
            assert isinstance(said[0], LineError)
            assert said[0].error in ("length", "checksum", "noise")


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (bytes.fromhex("7e140051000001007aef0e"), "length"),
        (bytes.fromhex("7e140051000001007aee0d"), "checksum"),
        (bytes.fromhex("7e140051000001007aef0d00"), "length"),  # a byte more
        (bytes.fromhex("7e140051000002007aef0d"), "length"),  # a byte less
        (bytes.fromhex("7f140051000001007aef0d"), "noise"),
        (b"~20004642E00200FD37\r", "echo"),
        (bytes.fromhex("7e10004661000100f7c10d"), "echo"),
        (b"~2000460400000000\r", "checksum"),
        (b"~20004600E096\r", "length"),
        (b"~20004600F00200\r", "length"),
    ],
)
def test_what_is_no_reply_is_one_error(frame: bytes, error: str) -> None:
    assert the_error([frame]) == error


def letters(body: str) -> bytes:
    return b"~%s%04X\r" % (body.encode(), negated_sum16(body.encode()))


def test_a_refusal_in_letters_is_a_response() -> None:
    assert the_error([letters("200046040000")]) == "response"
    asked = request(TELEMETRY, 0, is_letters=True)
    assert the_error([letters("200046040000")], asked) == "response"
    assert the_error([letters("200146040000")], asked) == "address"


def test_another_family_of_devices_is_a_function_error() -> None:
    assert the_error([letters("20004A000000")]) == "function"


def test_a_length_that_fits_no_message_is_a_length_error() -> None:
    assert the_error([letters("20004600E0020A")]) == "length"
    assert the_error([reply(SINGLE, 0, {}, is_letters=False)[:7]]) == "length"


def test_a_letter_that_became_a_beginning_is_one_error_and_costs_no_other_frame(shared_dir: Path) -> None:
    """It was two: a frame that was cut off, and another one of a length that contradicts its check."""
    rng = random.Random("beginnings")
    good = whole(vector(shared_dir, 440))[0]
    for at in range(1, len(good)):
        bad = good[:at] + b"~" + good[at + 1 :]
        said = fed([bad + good])
        assert [type(it) for it in said] == [LineError, Part], at
        cuts = sorted({0, len(bad), *(rng.randrange(len(bad)) for _ in range(20))})
        assert fed([*(bad[begin:end] for begin, end in pairwise(cuts)), good]) == said
        assert at in (len(good) - 1, len(good) - 2) or len(fed([bad])) == 1


# pieces and junk


def test_the_chunks_in_which_it_came_say_the_same(shared_dir: Path) -> None:
    for one in vectors(shared_dir, "seplos_v2"):
        chunks = [bytes.fromhex(chunk) for reply_ in one["rx_fragments_hex"] for chunk in reply_]
        assert fed(chunks) == fed([b"".join(whole(one))])


def test_a_thousand_other_ways_to_cut_it_say_the_same(shared_dir: Path) -> None:
    rng = random.Random(7)
    line = b"".join(frame for number in (316, 440, 327) for frame in whole(vector(shared_dir, number)))
    parts = fed([line])
    assert len(parts) == 7
    for _ in range(1000):
        cuts = sorted({0, len(line), *(rng.randrange(len(line)) for _ in range(rng.choice((1, 5, 50))))})
        assert fed([line[begin:end] for begin, end in pairwise(cuts)]) == parts


def test_junk_in_front_loses_no_frame(shared_dir: Path) -> None:
    rng = random.Random(9)
    for good in (whole(vector(shared_dir, 316))[0], whole(vector(shared_dir, 440))[0]):
        kinds = (
            rng.randbytes(64),
            b"AT\r\n",
            b"~" * 9,
            b"~2000",
            b"~20004600E0020",
            good[:60],
            b"\x7e\x14\0\x61\0\0\x6a",
        )
        for junk in (*kinds, *(rng.randbytes(rng.randrange(1, 65)) for _ in range(1000))):
            parts = [it for it in fed([junk[:64] + good]) if isinstance(it, Part)]
            assert parts == fed([good])


def test_changed_frames_with_a_right_check_break_nothing(shared_dir: Path) -> None:
    rng = random.Random(11)
    good = whole(vector(shared_dir, 316))
    for _ in range(3000):
        frame = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 6)):
            frame[rng.randrange(1, len(frame) - 3)] = rng.choice((0, 1, 2, 0xFF, rng.randrange(256)))
        size = len(frame) - 10
        if rng.random() < 0.3:
            size = rng.randrange(size)
            frame = frame[: 7 + size] + frame[-3:]
        if rng.random() < 0.8:
            frame[5:7] = size.to_bytes(2, "big")
        frame[-3:-1] = crc16_xmodem(frame[1:-3]).to_bytes(2, "big")
        for said in fed([bytes(frame)]):
            if isinstance(said, Part):
                assert {name.split("[")[0] for name in said.values} <= {n.removesuffix("[]") for n in SEPLOS_V2.fields}


# which pack


def test_over_bluetooth_whoever_is_at_the_other_end_answers_address_0(shared_dir: Path) -> None:
    frame = whole(vector(shared_dir, 327))[2]
    assert the_part(frame, request(SYSTEM, 0, is_letters=False)).address == 3
    assert the_error([frame], request(SYSTEM, 2, is_letters=False)) == "address"


def test_on_rs485_only_the_pack_that_was_asked_is_believed() -> None:
    mine, other = ({"pack_v": volts, "cell_v[0]": 3.3} for volts in (52.0, 53.0))
    asked = request(TELEMETRY, 1, is_letters=True)
    assert the_error([reply(TELEMETRY, 2, other, is_letters=True)], asked) == "address"
    assert the_part(reply(TELEMETRY, 1, mine, is_letters=True), asked).address == 1
    assert SEPLOS_V2.answer is not None
    assert list(SEPLOS_V2.answer(asked, mine, 2)) == []


# alarms in letters


def test_alarms_in_letters_are_read_where_the_document_has_them() -> None:
    """16 cells, 6 sensors, 20 bytes: events 1-6, switches, balancer 2, state, wires 2, events 7-8, 6 more."""
    cells, sensors = "00" * 15 + "02", "00" * 6
    events = "01" + "02" + "20" + "08" + "20" + "08"
    info = f"000110{cells}06{sensors}000014{events}03{'0002'}02{'0000'}{'0001'}{'00' * 6}"
    part = the_part(letters(f"20004600{length_word(len(info))}{info}"))
    assert part.kind == "alarms"
    assert {name for name, stands in part.values.items() if name.startswith("alarm.") and stands} == {
        "alarm.voltage_sensor_fault",
        "alarm.cell_over_voltage",
        "alarm.discharge_over_temp",
        "alarm.ambient_under_temp",
        "alarm.short_circuit",
        "alarm.low_soc",
        "alarm.bms_fault",
    }
    assert (part.values["charge_mos"], part.values["discharge_mos"], part.values["balancing"]) == (True, True, 1 << 9)


def length_word(size: int) -> str:
    return f"{-(size + (size >> 4) + (size >> 8)) & 0xF:X}{size:03X}"


# what is not there


def test_a_sensor_that_is_not_there_has_no_temperature_and_zero_degrees_is_one() -> None:
    values: dict[str, Any] = {"temp_c[0]": None, "temp_c[1]": 0.0, "ambient_c": None, "extra.mos_temp_c": 0.0}
    part = the_part(reply(TELEMETRY, 0, values, is_letters=True))
    assert {name: part.values[name] for name in values} == values
    assert part.quality == {"temp_c[0]": "absent", "ambient_c": "absent"}


@pytest.mark.parametrize("cells", [0, 1, 8, 15, 16, 24, 32])
def test_packs_of_any_number_of_cells_and_sensors(cells: int) -> None:
    values = {f"cell_v[{i}]": 3.3 for i in range(cells)} | {"temp_c[0]": 21.5, "pack_v": 51.2, "current_a": -3.25}
    values |= {"ambient_c": 20.0, "extra.mos_temp_c": 30.0}
    for command, is_letters in ((SINGLE, False), (TELEMETRY, True)):
        assert values.items() <= the_part(reply(command, 4, values, is_letters=is_letters)).values.items()
