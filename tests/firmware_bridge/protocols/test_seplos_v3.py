"""Seplos V3 against recorded systems and packs."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import Vector, frames, pictures, value, vector, vectors

from firmware_bridge.modbus import ReadRequest, reply_frame, with_crc
from firmware_bridge.protocol import LineError, Part, Said, Values
from firmware_bridge.protocols.seplos_v3 import SEPLOS_V3, SeplosV3Decoder

EIA, EIB, EIC = ReadRequest(0, 4, 0x2000, 26), ReadRequest(0, 4, 0x2100, 22), ReadRequest(0, 1, 0x2200, 80)
PIA, PIB, PIC = ReadRequest(1, 4, 0x1000, 17), ReadRequest(1, 4, 0x1100, 26), ReadRequest(1, 1, 0x1200, 144)
LOG: Final = "can/captures-syssi/seplos/v3/SG16S200A-SP57B-A-all-frames.txt"

EXPECTED: Final[dict[str, tuple[str, float, float]]] = {
    **dict.fromkeys(("voltage", "total_voltage", "pack_voltage"), ("pack_v", 1, 0.01)),
    **dict.fromkeys(("current", "pack_current"), ("current_a", 1, 0.1)),
    **dict.fromkeys(("battery_level", "state_of_charge", "pack_battery_level"), ("soc_bms", 100, 0.1)),
    **dict.fromkeys(("battery_health", "state_of_health"), ("soh_bms", 100, 0.1)),
    **dict.fromkeys(("cycles", "charging_cycles", "pack_cycle"), ("cycles", 1, 1)),
    "capacity_remaining": ("extra.remaining_ah", 1, 0.01),
    "total_capacity": ("extra.full_ah", 1, 0.01),
    "rated_capacity": ("extra.nominal_ah", 1, 0.01),
    "max_discharge_current": ("discharge_limit_a", 1, 0.1),
    "max_charge_current": ("charge_limit_a", 1, 0.1),
    "pack_count": ("extra.packs", 1, 0),
    "ambient_temperature": ("ambient_c", 1, 0.1),
    "mosfet_temperature": ("extra.mos_temp_c", 1, 0.1),
    "dischrg_mosfet": ("discharge_mos", 1, 0),
    "chrg_mosfet": ("charge_mos", 1, 0),
    "heater": ("extra.heater", 1, 0),
    "heating": ("extra.heating", 1, 0),
    **{f"pack_cell_voltage[{i}]": (f"cell_v[{i}]", 1, 0.001) for i in range(16)},
    **{f"pack_temperature[{i}]": (f"temp_c[{i}]", 1, 0.1) for i in range(4)},
}
PER_PACK: Final = {
    "pack_voltages": ("pack_v", 1, 0.01),
    "pack_currents": ("current_a", 1, 0.01),
    "pack_battery_levels": ("soc_bms", 100, 0.1),
    "pack_battery_health": ("soh_bms", 100, 0.1),
    "pack_cycles": ("cycles", 1, 1),
}
DERIVED: Final = {
    *("power", "charging_power", "discharging_power", "charging", "discharging", "battery_charging", "runtime"),
    *("delta_voltage", "cycle_capacity", "temperature", "cell_count", "problem", "problem_code", "balancer"),
    *("temperature_event_code", "temperature_protection"),
}
"""What the source works out of the rest, and sums of bits; alarms have a test of their own."""


def whole(recorded: Vector) -> list[bytes]:
    """The frames of a recording; those that are only a payload, or have zeros for a CRC, are made whole."""
    if recorded["protocol"] == "seplos_bms_v3_ble":
        [payload] = frames(recorded)
        return [reply_frame(0, 1 if len(payload) == 10 else 4, payload)]
    if recorded["protocol"] == "seplos_bms_v3_ble_pack":
        return [with_crc(frame[:-2]) for frame in frames(recorded)]
    return frames(recorded)


def fed(chunks: list[bytes], *sent: bytes) -> list[Said]:
    line = SeplosV3Decoder()
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


def answered(request: ReadRequest, values: Values) -> bytes:
    assert SEPLOS_V3.answer is not None
    [frame] = SEPLOS_V3.answer(request.frame, values, None)
    return frame


def exchanges(shared_dir: Path) -> list[tuple[bytes, bytes]]:
    """(request, reply) of a log of a whole system."""
    lines = (shared_dir / LOG).read_text().split("\n")
    both = [bytes.fromhex(line[4:].replace(".", "")) for line in lines if line[:3] in (">>>", "<<<")]
    return list(zip(both[::2], both[1::2], strict=True))


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, "seplos_v3_modbus", "seplos_bms_v3_ble", "seplos_bms_v3_ble_pack")
    assert len(recorded) >= 8
    count = 0
    for one in recorded:
        found, wrong = pictures(fed(whole(one)))
        assert not wrong
        by_address = {picture["address"]: picture for picture in found}
        assert len(by_address) == len(found)
        first, packs = found[0], [by_address[address] for address in sorted(by_address) if address]
        for key, told in one["expected"].items():
            if key in DERIVED:
                continue
            count += 1
            if key in PER_PACK:
                name, times, step = PER_PACK[key]
                assert [value(pack, name) * times for pack in packs] == pytest.approx(told, abs=step)
            elif key == "cell_voltages":
                assert [volts for pack in packs for volts in pack["cell_v"]] == told
            elif key == "temp_values":
                assert told == [it for pack in packs for it in sensors(pack)]
            elif key == "cycle_charge":
                name = "extra.remaining_ah" if one["id"] == 315 else "extra.discharged_ah"
                assert value(first, name) == (told["value"] if isinstance(told, dict) else told)
            elif key != "problem" and not isinstance(told, str):
                name, times, step = EXPECTED[key]
                expected = told["value"] if isinstance(told, dict) else told
                assert abs(value(first, name) * times - expected) <= step + 1e-9, (one["id"], key)
    assert count >= 48


def sensors(pack: dict[str, Any]) -> list[dict[str, Any]]:
    cells = [{"value": celsius, "type": "CELL"} for celsius in pack["temp_c"]]
    beside = [(pack["ambient_c"], "AMBIENT"), (value(pack, "extra.mos_temp_c"), "MOSFET")]
    return cells + [{"value": celsius, "type": where} for celsius, where in beside]


def test_a_log_of_a_whole_system_is_read_reply_by_reply(shared_dir: Path) -> None:
    kinds = {
        0x2000: "system",
        0x2100: "response",  # it has no such block
        0x2200: "system_events",
        0x1700: "version",
        0x1800: "function",  # inverter protocols
        0x1400: "response",
        0x1300: "function",  # limits
        0x1335: "function",
        0x1000: "pack",
        0x1100: "cells",
        0x1200: "response",  # asked for more bits than there may be
    }
    replies = exchanges(shared_dir)
    assert len(replies) == 22
    line = SeplosV3Decoder()
    seen = set()
    for asked, came in replies:
        line.sent(asked)
        [said] = line.feed(came)
        start = int.from_bytes(asked[2:4], "big")
        seen.add(start)
        assert (said.kind if isinstance(said, Part) else said.error) == kinds[start], asked.hex()
        if isinstance(said, Part):
            assert said.address == asked[0]
    assert seen == kinds.keys()
    assert line.end() == []


def test_the_same_log_without_the_requests_gives_the_same_values(shared_dir: Path) -> None:
    replies = exchanges(shared_dir)
    line = SeplosV3Decoder()
    asked = []
    for request, came in replies:
        line.sent(request)
        asked += [it for it in line.feed(came) if isinstance(it, Part)]
    assert [it for it in fed([came for _, came in replies]) if isinstance(it, Part)] == asked
    assert len(asked) == 10


def test_system_and_pack_of_the_log_agree_with_each_other(shared_dir: Path) -> None:
    found, _ = pictures(fed([came for _, came in exchanges(shared_dir)][:11]))
    system, pack = found
    assert (system["address"], pack["address"]) == (0, 1)
    assert (system["pack_v"], system["current_a"], system["soc_bms"]) == (53.25, -1.3, 0.832)
    assert (pack["pack_v"], pack["current_a"], pack["soc_bms"]) == (53.25, -1.37, 0.832)
    assert abs(sum(pack["cell_v"]) - pack["pack_v"]) < 0.03
    assert (value(pack, "extra.cell_max_v"), value(pack, "extra.cell_min_v")) == (
        max(pack["cell_v"]),
        min(pack["cell_v"]),
    )
    assert value(pack, "extra.temp_max_c") == pytest.approx(max(pack["temp_c"]), abs=0.11)  # a moment before
    assert (system["charge_mos"], system["discharge_mos"]) == (True, True)
    assert (system["charge_limit_a"], pack["charge_limit_a"]) == (180, 180)
    assert value(system, "extra.manufacturer") == "XZH-ElecTech Co.,Ltd"
    assert value(system, "extra.model") == "SG16S200A-SP57B-A"
    assert value(system, "extra.serial") == "SP57B-A2506120022"


def test_what_was_sent_is_written_bit_for_bit(shared_dir: Path) -> None:
    count = 0
    for asked, came in exchanges(shared_dir):
        request = ReadRequest(asked[0], asked[1], int.from_bytes(asked[2:4], "big"), int.from_bytes(asked[4:6], "big"))
        said = fed([came], asked)[0]
        if isinstance(said, Part) and said.kind != "system_events":
            count += 1
            assert answered(request, said.values) == came
    assert count == 8


# what is wrong


def test_a_block_of_a_length_that_no_block_has_is_one_error(shared_dir: Path) -> None:
    [bad] = vectors(shared_dir, "seplos_v3_modbus", kind="negative")
    assert the_error(frames(bad)) == "length"


def test_fixtures_with_zeros_for_a_crc_are_refused(shared_dir: Path) -> None:
    for one in vectors(shared_dir, "seplos_bms_v3_ble_pack"):
        assert the_error(frames(one)) == "checksum"


def test_a_refusal_is_a_response() -> None:
    assert the_error([bytes.fromhex("0084029301")]) == "response"
    assert the_error([bytes.fromhex("0084029301")], EIB.frame) == "response"
    assert the_error([bytes.fromhex("0084029301")], PIA.frame) == "address"


def test_the_block_of_another_pack_is_refused_where_one_was_asked(shared_dir: Path) -> None:
    recorded = whole(vector(shared_dir, 315))
    assert the_error([recorded[5]], PIA.frame) == "address"
    assert the_part(recorded[3], PIA.frame).address == 1


def test_a_request_that_comes_back_is_an_echo() -> None:
    assert the_error([EIA.frame], EIA.frame) == "echo"
    assert the_error([EIC.frame]) == "echo"


def test_what_was_changed_on_the_way_is_one_error_and_costs_itself_alone(shared_dir: Path) -> None:
    """A hit in the first three bytes was two to four errors: payloads are full of what may begin a frame."""
    for good in whole(vector(shared_dir, 315))[1:]:  # in the first one a hit makes a good refusal, by chance
        for at in range(len(good)):
            for bit in range(8):
                bad = bytearray(good)
                bad[at] ^= 1 << bit
                for chunks, count in (([bytes(bad)], 0), ([bytes(bad), good], 1), ([good, bytes(bad), good], 2)):
                    said = fed(chunks)
                    wrong = [it.error for it in said if isinstance(it, LineError)]
                    assert len(wrong) == 1 and len(said) == 1 + count, (at, bit, said)
                    assert wrong[0] in ("checksum", "length", "noise") if at < 3 else wrong == ["checksum"]


def test_a_head_that_was_hit_is_one_error_whatever_the_payload_looks_like() -> None:
    bad = "20043414720000ffbdffff346400006d60000000d500006d600000000100000000000007080000070800000240"
    assert the_error([bytes.fromhex(bad + "01d00002000901df03e7b336")]) in ("checksum", "length")


def test_two_bad_frames_in_a_row_are_two_errors(shared_dir: Path) -> None:
    bad = bytearray(whole(vector(shared_dir, 315))[3])
    bad[9] ^= 1
    assert [it.error for it in fed([bytes(bad) * 2]) if isinstance(it, LineError)] == ["checksum"] * 2


def test_a_frame_that_was_cut_off_is_of_a_wrong_length(shared_dir: Path) -> None:
    """It was a wrong checksum, over the beginning of the good frame behind it."""
    cells, pack = whole(vector(shared_dir, 315))[4], whole(vector(shared_dir, 315))[3]
    for size in range(3, len(cells)):
        said = fed([cells[:size], pack])
        assert [it.error if isinstance(it, LineError) else it.kind for it in said] == ["length", "pack"], size


def test_a_pack_of_eight_cells_has_eight() -> None:
    """Places of 16 cells that a pack has not stood there as 0.0 V."""
    volts = {f"cell_v[{i}]": 3.3 + i / 1000 for i in range(8)}
    for fill in (b"\0\0", b"\xff\xff"):
        cells = [round(1000 * volt).to_bytes(2, "big") for volt in volts.values()] + [fill] * 8
        told = the_part(reply_frame(1, 4, b"".join(cells) + bytes.fromhex("0ba5" * 10)), PIB.frame).values
        assert {name: it for name, it in told.items() if "cell" in name} == pytest.approx(volts)


# which block


@pytest.mark.parametrize("address", [0, 1, 7])
def test_26_registers_are_known_by_what_stands_in_them(address: int) -> None:
    """System and cells have the same length; a system's address need not be 0 behind a gateway, nor a pack's be 1."""
    system = answered(ReadRequest(address, 4, 0x2000, 26), {"pack_v": 52.0, "soc_bms": 1.0, "soh_bms": 1.0})
    cells = answered(ReadRequest(address, 4, 0x1100, 26), {"cell_v[0]": 3.3, "cell_v[1]": 3.31, "temp_c[0]": -10.0})
    assert (the_part(system).kind, the_part(cells).kind) == ("system", "cells")


def test_a_request_decides_which_block_it_is() -> None:
    assert the_part(reply_frame(1, 4, bytes(52)), PIB.frame).kind == "cells"
    assert the_part(reply_frame(0, 4, bytes(52)), EIA.frame).kind == "system"


def test_another_master_may_ask_for_more_or_less_of_a_block() -> None:
    values = {"pack_v": 52.5, "current_a": -7.25, "soc_bms": 0.5}
    for count in (3, 6, 17, 18):
        request = ReadRequest(1, 4, 0x1000, count)
        part = the_part(answered(request, values), request.frame)
        assert part.kind == "pack"
        assert (part.values["pack_v"], part.values["current_a"]) == (52.5, -7.25)
    assert the_part(answered(ReadRequest(1, 4, 0x1000, 18), values)).kind == "pack"


# alarms and switches


def test_event_bits_are_alarms_and_warnings(shared_dir: Path) -> None:
    ambient = the_part(whole(vector(shared_dir, 451))[0])
    assert [name for name, stands in ambient.values.items() if name.startswith("alarm.") and stands] == [
        "alarm.ambient_over_temp:warning"
    ]
    heating = the_part(whole(vector(shared_dir, 450))[0])
    assert not any(stands for name, stands in heating.values.items() if name.startswith("alarm."))
    assert heating.values["extra.heating"] == 1
    everything = pictures(fed(whole(vector(shared_dir, 315))))[0][0]["alarms"]
    assert {"cell_over_voltage", "short_circuit", "low_soc", "front_end_fault", "cell_imbalance"} <= set(everything)


def test_a_packs_events_stand_behind_its_cells() -> None:
    """The reply of a pack that rests with both switches closed, and a balancer on cell 10."""
    bits = bytes.fromhex("000000000000" + "0002" + "10" + "02000010000000" + "0000")
    bits = bits[:15] + b"\x03" + bits[16:]
    part = the_part(reply_frame(1, 1, bits), PIC.frame)
    assert (part.kind, part.values["balancing"], part.values["extra.status"]) == ("events", 1 << 9, 0x10)
    assert (part.values["charge_mos"], part.values["discharge_mos"]) == (True, True)
    assert [name for name, stands in part.values.items() if name.startswith("alarm.") and stands] == [
        "alarm.cell_over_voltage",
        "alarm.discharge_over_current",
    ]


# pieces, junk, absent sensors


def test_the_chunks_in_which_it_came_say_the_same(shared_dir: Path) -> None:
    one = vector(shared_dir, 315)
    chunks = [bytes.fromhex(chunk) for reply in one["rx_fragments_hex"] for chunk in reply]
    assert fed(chunks) == fed(whole(one))


def test_a_thousand_other_ways_to_cut_it_say_the_same(shared_dir: Path) -> None:
    rng = random.Random(3)
    line = b"".join(whole(vector(shared_dir, 315)))
    parts = fed([line])
    assert [it.address for it in parts if isinstance(it, Part)] == [0, 0, 0, 1, 1, 2, 2]
    for _ in range(1000):
        cuts = sorted({0, len(line), *(rng.randrange(len(line)) for _ in range(rng.choice((1, 5, 50))))})
        assert fed([line[begin:end] for begin, end in pairwise(cuts)]) == parts


def test_junk_in_front_loses_no_frame(shared_dir: Path) -> None:
    rng = random.Random(4)
    line = b"".join(whole(vector(shared_dir, 315)))
    good = fed([line])
    for _ in range(1000):
        said = fed([rng.randbytes(rng.randrange(1, 65)) + line])
        assert [it for it in said if isinstance(it, Part)] == good


def test_a_sensor_that_is_not_there_has_no_temperature_and_zero_degrees_is_one() -> None:
    values = {"cell_v[0]": 3.3, "cell_v[1]": 3.3, "temp_c[0]": None, "temp_c[1]": 0.0, "ambient_c": None}
    part = the_part(answered(PIB, values), PIB.frame)
    assert {name: part.values[name] for name in values} == values
    assert part.quality == {"temp_c[0]": "absent", "temp_c[2]": "absent", "temp_c[3]": "absent"} | {
        "ambient_c": "absent",
        "extra.mos_temp_c": "absent",
    }


# whom it asks


def test_the_system_is_address_0_and_a_pack_any_other() -> None:
    assert [poll.request for poll in SEPLOS_V3.polls(0, None)][:3] == [EIA.frame, EIB.frame, EIC.frame]
    assert [poll.request for poll in SEPLOS_V3.polls(1, None)] == [PIA.frame, PIB.frame, PIC.frame]
    assert SEPLOS_V3.polls(None, None) == SEPLOS_V3.polls(1, None)


def test_the_requests_are_those_that_a_client_sent(shared_dir: Path) -> None:
    asked = [bytes.fromhex(frame) for frame in vector(shared_dir, 315)["request_hex"]]
    known = {poll.request for address in (0, 1, 2) for poll in SEPLOS_V3.polls(address, None)}
    # Two of them came with a CRC that is wrong; the bytes in front of it are the same.
    assert {frame[:6] for frame in asked} <= {frame[:6] for frame in known}


def test_what_a_system_says_is_understood_exactly() -> None:
    values: dict[str, Any] = {
        "pack_v": 52.34,
        "current_a": -350.7,
        "soc_bms": 0.479,
        "soh_bms": 0.999,
        "cycles": 9.0,
        "charge_limit_a": 180.5,
        "extra.charge_v_limit": 57.6,
        "extra.discharged_ah": 2130.0,
        "extra.packs": 2.0,
        "extra.packs_online": 3.0,
        "extra.pack_highest_v": 52.35,
        "extra.temp_min_c": -11.2,
        "extra.soc_max": 0.48,
        "charge_mos": False,
        "discharge_mos": True,
        "alarm.lockout": True,
        "extra.model": "PT16S",
    }
    told: dict[str, Any] = {}
    for poll in SEPLOS_V3.polls(0, None):
        assert SEPLOS_V3.answer is not None
        [frame] = SEPLOS_V3.answer(poll.request, values, 0)
        part = the_part(frame, poll.request)
        assert part.address == 0
        assert told.keys().isdisjoint(part.values), "the blocks of one picture share no name"
        told |= part.values
    assert values.items() <= told.items()
