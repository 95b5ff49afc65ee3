"""Daly's A5 language against what packs sent.

Captures: https://github.com/jblance/mpp-solar, https://github.com/fl4p/batmon-ha,
https://github.com/Louisvdw/dbus-serialbattery issues 53 and 165.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import Vector, frames, pictures, value, vector, vectors

from firmware_bridge.protocol import LineError, Part, Said
from firmware_bridge.protocols.daly_payloads import INFO, PACKS, payloads
from firmware_bridge.protocols.daly_uart import DALY_UART, DalyUartDecoder, request, sentence

SOC: Final = bytes.fromhex("a5019008021400007545037889")  # 53.2 V, 2.1 A out, 88.8 %
SWITCHES: Final = bytes.fromhex("a5019308020101780003cb40cb")  # discharges, 248.64 Ah = 88.8 % of 280 Ah
RANGE: Final = bytes.fromhex("a50191080d000f0cfe010378e1")  # behind it stands what was left of the SoC's reply
SIXTEEN: Final = bytes.fromhex("a5019408100100000000034096")
EXPECTED: Final[dict[str, tuple[str, float, float]]] = {
    "voltage": ("pack_v", 1, 0.1),
    # The maker's sign: what is +5 A in both vectors flows out of the pack (facts, section 2).
    "current": ("current_a", -1, 0.1),
    "soc": ("soc_bms", 100, 0.1),
    "capacity_ah": ("extra.remaining_ah", 1, 0.01),
    "Residual Capacity": ("extra.remaining_ah", 1, 0.01),
    "Maximum Cell Voltage": ("extra.cell_max_v", 1, 0.001),
    "Maximum Cell Number": ("extra.cell_max_number", 1, 0),
    "Minimum Cell Voltage": ("extra.cell_min_v", 1, 0.001),
    "Minimum Cell Number": ("extra.cell_min_number", 1, 0),
    "Charge/Discharge Cycles": ("cycles", 1, 0),
    "BMS Life": ("extra.life", 1, 0),
}
SWITCH_WORDS: Final = {
    "charging_mosfet": "charge_mos",
    "discharging_mosfet": "discharge_mos",
    "Charging MOS Tube Status": "charge_mos",
    "Discharging MOS Tube Status": "discharge_mos",
}
DIRECTIONS: Final = {"stationary": 0, "charging": 1, "discharging": 2}
CONNECTED: Final = {"disconnected": 0, "connected": 1}


def heard(*chunks: bytes, sent: bytes = b"") -> list[Said]:
    line = DalyUartDecoder()
    if sent:
        line.sent(sent)
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def picture(*chunks: bytes) -> dict[str, Any]:
    """The one picture that these bytes make, with nothing wrong in them."""
    found, wrong = pictures(heard(*chunks))
    assert not wrong
    assert len(found) == 1
    return found[0]


def errors(said: list[Said]) -> list[str]:
    assert all(isinstance(it, LineError) for it in said), said
    return [it.error for it in said if isinstance(it, LineError)]


def whole(recorded: Vector) -> list[bytes]:
    """The frames of a recording; of two, only the payload is recorded."""
    if recorded["protocol"] == "daly":
        return [sentence(PACKS.start, recorded["extra"]["cmd"], frame) for frame in frames(recorded)]
    return frames(recorded)


def compared(recorded: Vector, found: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(what the source calls it, whether we say the same) of each value; cells that a pack has not are no value."""
    for key, expected in recorded["expected"].items():
        told = expected[0] if isinstance(expected, list) else expected
        if cell := re.fullmatch(r"Cell (\d+) Voltage", key):
            here = found["cell_v"][int(cell[1]) - 1 :][:1]
            if told or here:
                yield key, bool(here) and abs(here[0] - told) <= 0.001 + 1e-9
        elif key in EXPECTED:
            name, times, step = EXPECTED[key]
            yield key, abs(value(found, name) * times - told) <= step + 1e-9
        elif key in SWITCH_WORDS:
            yield key, value(found, SWITCH_WORDS[key]) is (told in (True, "01"))
        elif key in ("mode", "Charge Status"):
            yield key, value(found, "extra.direction") == DIRECTIONS[told]
        elif key in ("Charger Status", "Load Status"):
            yield key, value(found, "extra." + key.split()[0].lower()) == CONNECTED[told]
        else:
            # How many cells and sensors there are is the length of their arrays; the rest is what the command was.
            assert key.startswith(("_", "Number of", "Flags", "Reserved")), key


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, "daly_uart", "daly")
    assert len(recorded) >= 8
    told = [(one["id"], *it) for one in recorded for it in compared(one, picture(*whole(one)))]
    assert [it for it in told if not it[2]] == []
    assert len(told) >= 40


def test_every_recording_without_expectations_is_read_too(shared_dir: Path) -> None:
    for one in vectors(shared_dir, "daly_uart", kind="raw"):
        found, wrong = pictures(heard(*frames(one)))
        cut_off = [frame for frame in frames(one) if len(frame) % 13]
        assert found
        assert len(wrong) == len(cut_off)
        assert all(it.error == "length" for it in wrong)


def test_what_flows_out_of_the_pack_is_negative() -> None:
    """Daly's two languages contradict each other: here + is out, and the state of the same pack says so."""
    found = picture(SOC, SWITCHES)
    assert (found["current_a"], found["pack_v"], found["soc_bms"]) == (-2.1, 53.2, 0.888)
    assert found["extra"]["direction"] == 2
    assert found["extra"]["remaining_ah"] == pytest.approx(280 * found["soc_bms"], abs=0.1)


def test_a_sentence_that_lost_bytes_costs_its_own_cells_only(shared_dir: Path) -> None:
    """dbus-serialbattery issue 165: four bytes were lost on the wire, and a cell was told to have -23.295 V."""
    recorded = vector(shared_dir, 573)
    stream = frames(recorded)[0]
    found, wrong = pictures(heard(stream))
    assert [it.error for it in wrong] == ["length"]
    assert len(found) == 1
    cells = {str(i + 1): cell for i, cell in enumerate(found[0]["cell_v"]) if cell is not None}
    assert cells == pytest.approx(recorded["expected"]["cells_from_good_sentences"])
    assert [name for name in found[0]["quality"] if name.startswith("cell_v")] == [f"cell_v[{i}]" for i in (12, 13, 14)]
    assert (found[0]["pack_v"], found[0]["current_a"], found[0]["soc_bms"]) == (54.0, -29.4, 0.646)


def test_probes_of_other_programs_on_the_port_are_noise(shared_dir: Path) -> None:
    """dbus-serialbattery issue 53: another service looks for its own devices on the same port."""
    for probe in frames(vector(shared_dir, 574)):
        assert errors(heard(probe)) == ["noise"]
        found, wrong = pictures(heard(probe, SOC, probe))
        assert [it["pack_v"] for it in found] == [53.2]
        assert [it.error for it in wrong] == ["noise", "noise"]


def test_recorded_sentences_in_any_pieces_behind_any_junk_say_the_same(shared_dir: Path) -> None:
    rng = random.Random("daly pieces")
    lines = [b"".join(whole(one)) for one in vectors(shared_dir, "daly_uart", "daly")]
    lines.append(frames(vector(shared_dir, 573))[0])
    for line in lines:
        clean = [it for it in heard(line) if isinstance(it, Part)]
        for _ in range(1000):
            junk = rng.choice((b"AT\r\n", request(0x90), SOC[: rng.randrange(1, 13)], rng.randbytes(rng.randrange(64))))
            bytes_in = junk + line
            cuts = sorted(rng.sample(range(1, len(bytes_in)), rng.randrange(len(bytes_in) - 1)))
            pieces = [bytes_in[a:b] for a, b in zip([0, *cuts], [*cuts, len(bytes_in)], strict=True)]
            said = heard(*pieces)
            assert [it for it in said if isinstance(it, Part)] == clean
            assert said == heard(bytes_in)


def test_recorded_sentences_are_written_as_they_came(shared_dir: Path) -> None:
    """Bytes that a command does not use are left over from another reply, so they are not compared."""
    used = {0x90: 8, 0x91: 6, 0x92: 4, 0x93: 8, INFO: 7, 0x95: 7, 0x96: 8}
    count = 0
    for one in vectors(shared_dir, "daly_uart"):
        for at, frame in enumerate(_sentences(frames(one))):
            command = frame[2]
            (part,) = heard(frame)
            assert isinstance(part, Part)
            values = dict(part.values)
            if command == INFO:
                values |= {f"cell_v[{i}]": 3.3 for i in range(frame[4])} | {
                    f"temp_c[{i}]": 20.0 for i in range(frame[5])
                }
            if not values:
                continue  # places without a cell
            values |= {f"cell_v[{i}]": 0.0 for i in range(48) if f"cell_v[{i}]" not in values and command == 0x95}
            written = payloads(command, values)[at if command == 0x95 else 0]
            assert written[: used[command]] == frame[4 : 4 + used[command]], frame.hex()
            count += 1
    assert count >= 10


def _sentences(recorded: list[bytes]) -> list[bytes]:
    return [line[at : at + 13] for line in recorded for at in range(0, len(line) - 12, 13)]


# what is no reply of a pack


@pytest.mark.parametrize("host", [0x20, 0x40, 0x41, 0x80])
def test_a_sleeping_pack_sends_the_request_back(host: int) -> None:
    """A good sentence, but from a host: it would read as 0 V, 3000 A and 0 %."""
    echo = sentence(host, 0x90, bytes(8))
    assert errors(heard(echo)) == ["echo"]
    assert errors(heard(echo, sent=echo)) == ["echo"]
    said = heard(echo, SOC, sent=echo)
    assert errors(said[:1]) == ["echo"]
    # What was asked by 0x41 is not for the first pack.
    assert isinstance(said[1], Part) == (host != 0x41)


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (SOC[:-1] + b"\x88", "checksum"),
        (SOC[:6] + b"\x01" + SOC[7:], "checksum"),
        (SOC[:3] + b"\x07" + SOC[4:], "length"),
        (SOC[:-1], "length"),
        (SOC[:5], "length"),
        (SOC[:3], "noise"),
        (SOC[1:], "noise"),
        (sentence(0x00, 0x90, SOC[4:12]), "address"),
        (sentence(0x30, 0x90, SOC[4:12]), "address"),
        (sentence(0x01, 0xD9, bytes(8)), "function"),  # what a write is answered by
        (sentence(0x01, 0x95, b"\x20" + bytes(7)), "length"),  # cells 94 to 96
    ],
)
def test_what_is_no_reply_is_one_error(frame: bytes, error: str) -> None:
    assert errors(heard(frame)) == [error]
    assert [isinstance(it, Part) for it in heard(frame + SOC)][-1]


def test_a_reply_that_nobody_asked_for_is_an_error() -> None:
    assert isinstance(heard(SOC, sent=request(0x90))[0], Part)
    assert errors(heard(SOC, sent=request(0x93))) == ["address"]
    assert errors(heard(SOC, sent=request(0x90, 2))) == ["address"]
    second = sentence(2, 0x90, SOC[4:12])
    (part,) = heard(second, sent=request(0x90, 2))
    assert isinstance(part, Part) and part.address == 2


def test_a_sentence_cut_off_whose_sum_fits_by_chance_does_not_hide_the_next() -> None:
    """`A5 01 93 08` and the next sentence's first nine bytes: their sum is right by chance, once in 256 times."""
    good = bytes.fromhex("a50191080b2f0e0fd70e00007b")
    cut = bytes.fromhex("a5019308")
    assert sum((cut + good)[:12]) & 0xFF == (cut + good)[12]
    said = heard(cut + good)
    assert [type(it) for it in said] == [LineError, Part]
    assert said[1].values["extra.cell_max_v"] == 2.863


def test_a_sentence_without_its_beginning_is_one_error_though_a_cell_looks_like_one() -> None:
    """3.237 V is 0CA5: what came before it was noise, and what followed it a sentence that was cut off: two errors."""
    cells = sentence(1, 0x95, bytes.fromhex("010ca50ca60ca540"))
    for bad in (b"\xa4" + cells[1:], *(cells[cut:] for cut in range(1, len(cells)))):
        said = heard(bad + SOC)
        assert isinstance(said[0], LineError)
        assert [it.kind for it in said[1:] if isinstance(it, Part)] == ["soc"] and len(said) == 2


def test_a_sentence_that_ends_like_a_beginning_is_read_when_nothing_follows() -> None:
    """Its sum is A5: whether it is whole or cut off shows in what comes behind it."""
    payload = next(
        bytes([2, n, 0, 0, 0x75, 0x30, 3, 0x78])
        for n in range(256)
        if sentence(1, 0x90, bytes([2, n, 0, 0, 0x75, 0x30, 3, 0x78]))[-1] == 0xA5
    )
    frame = sentence(1, 0x90, payload)
    line = DalyUartDecoder()
    assert line.feed(frame) == []
    assert [it.kind for it in line.end() if isinstance(it, Part)] == ["soc"]
    assert [it.kind for it in heard(frame + SWITCHES) if isinstance(it, Part)] == ["soc", "switches"]
    assert [it.kind for it in heard(frame[:-1] + SWITCHES) if isinstance(it, Part)] == ["switches"]


# what is not there


def test_bytes_that_a_command_does_not_use_say_nothing() -> None:
    """In RANGE the SoC (0x378) of the reply before stands behind the numbers of the cells."""
    values = picture(RANGE)
    assert values["extra"] == {"cell_max_v": 3.328, "cell_max_number": 15, "cell_min_v": 3.326, "cell_min_number": 1}


def test_places_behind_the_last_cell_are_no_cells() -> None:
    sixth = sentence(1, 0x95, bytes.fromhex("060cfc0abc0def40"))  # stale numbers behind cell 16
    known = heard(SIXTEEN, sixth)
    assert [it.values.get("cell_v[15]") for it in known if isinstance(it, Part)][1] == 3.324
    assert not any(f"cell_v[{i}]" in it.values for it in known if isinstance(it, Part) for i in (16, 17))
    empty = sentence(1, 0x95, bytes.fromhex("0700000000000040"))
    assert all(it.values == {} for it in heard(empty) if isinstance(it, Part))


def test_places_told_before_their_number_go_when_it_comes() -> None:
    """Sentences are filled up with what was there before: with 94 behind them, four cells were six, two stale."""
    cells = [bytes([1]) + bytes.fromhex("0ce40ce50ce600"), bytes([2]) + bytes.fromhex("0ce70ce50ce600")]
    temps = [bytes([1]) + bytes.fromhex("3d3e3f3f3f3f3f")]
    info = bytes.fromhex("0402000000000100")
    scan = [*(sentence(1, 0x95, it) for it in cells), *(sentence(1, 0x96, it) for it in temps), sentence(1, INFO, info)]
    found, wrong = pictures(heard(*scan * 2))
    assert not wrong
    assert [it["cell_v"] for it in found] == [[3.3, 3.301, 3.302, 3.303]] * 2
    assert [it["temp_c"] for it in found] == [[21.0, 22.0]] * 2


def test_no_volts_at_a_cell_that_there_is_are_a_number() -> None:
    """A wire that is off reads 0 mV; 0 is a number."""
    broken = sentence(1, 0x95, bytes.fromhex("010cfc00000cfe40"))
    assert picture(broken)["cell_v"] == [3.324, 0.0, 3.326]
    at_the_end = sentence(1, 0x95, bytes.fromhex("010cfc0cfe000040"))
    assert picture(SIXTEEN, at_the_end)["cell_v"] == [3.324, 3.326, 0.0]


def test_a_sensor_that_is_not_there_is_no_temperature() -> None:
    two = sentence(1, INFO, bytes.fromhex("1002000000000340"))
    told = picture(two, sentence(1, 0x96, bytes.fromhex("01003c0000000000")))
    assert told["temp_c"] == [None, 20.0]
    assert told["quality"] == {"temp_c[0]": "absent"}
    assert picture(sentence(1, 0x96, bytes.fromhex("0128002900000000")))["temp_c"] == [0.0, None, 1.0]
    assert picture(sentence(1, 0x92, bytes.fromhex("ff01280200000000")))["extra"]["temp_max_c"] is None


def test_a_state_of_charge_that_no_pack_has_is_none() -> None:
    """FFFE was 6553 %."""
    (said,) = heard(sentence(1, 0x90, bytes.fromhex("021000007530fffe")))
    assert isinstance(said, Part)
    assert (said.values["soc_bms"], said.quality["soc_bms"]) == (None, "invalid")


def test_sentences_may_be_counted_from_zero() -> None:
    """The maker's manual counts from 0, the packs that were captured from 1; 0xFF says that there is none."""
    cells = [sentence(1, 0x95, bytes([n]) + bytes.fromhex("0cfc0cfd0cfe40")) for n in (0, 1, 0xFF)]
    assert picture(*cells)["cell_v"] == [3.324, 3.325, 3.326, 3.324, 3.325, 3.326]


# alarms


@pytest.mark.parametrize(
    ("byte", "bit", "code"),
    [
        (0, 0, "cell_over_voltage:warning"),
        (0, 1, "cell_over_voltage"),
        (0, 3, "cell_under_voltage"),
        (0, 5, "pack_over_voltage"),
        (0, 6, "pack_under_voltage:warning"),
        (1, 0, "charge_over_temp:warning"),
        (1, 3, "charge_under_temp"),
        (1, 5, "discharge_over_temp"),
        (1, 7, "discharge_under_temp"),
        (2, 1, "charge_over_current"),
        (2, 2, "discharge_over_current:warning"),
        (2, 5, "other"),
        (2, 7, "low_soc"),
        (3, 1, "cell_imbalance"),
        (3, 2, "temp_imbalance:warning"),
        (4, 0, "mos_over_temp"),
        (4, 3, "temp_sensor_fault"),
        (4, 7, "mos_fault"),
        (5, 0, "front_end_fault"),
        (5, 1, "voltage_sensor_fault"),
        (5, 5, "precharge_fault"),
        (5, 7, "communication_fault"),
        (6, 0, "current_sensor_fault"),
        (6, 2, "short_circuit"),
        (6, 3, "lockout"),
        (7, 4, "other"),
    ],
)
def test_each_bit_of_an_alarm_has_its_code(byte: int, bit: int, code: str) -> None:
    payload = bytearray(8)
    payload[byte] = 1 << bit
    told = picture(sentence(1, 0x98, bytes(payload)))
    assert told["alarms"] == [code]
    raws = [told["extra"][name] for name in ("alarm_raw", "alarm_2_raw", "alarm_3_raw", "alarm_4_raw")]
    assert sum(int(raw) << 16 * i for i, raw in enumerate(raws)) == int.from_bytes(payload, "little")


def test_balancing_is_a_bit_a_cell() -> None:
    assert picture(sentence(1, 0x97, bytes.fromhex("0180000000800000")))["balancing"] == 1 | 1 << 15 | 1 << 47


# the virtual pack


def test_a_virtual_pack_answers_its_own_address_and_reads_only() -> None:
    assert DALY_UART.answer is not None
    values = {"pack_v": 53.2, "current_a": -2.1, "soc_bms": 0.888}
    assert list(DALY_UART.answer(request(0x90), values, None)) == [SOC]
    assert list(DALY_UART.answer(request(0x90, 3), values, 3)) == [sentence(3, 0x90, SOC[4:12])]
    assert list(DALY_UART.answer(request(0x90, 3), values, None)) == []
    assert list(DALY_UART.answer(request(0x90)[:-1] + b"\0", values, None)) == []
    assert list(DALY_UART.answer(sentence(0x40, 0xD9, bytes(8)), values, None)) == []


def test_requests_are_what_the_sources_send(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, "daly_uart", kind="request")
    assert len(recorded) >= 3
    for one in recorded:
        assert request(one["expected"]["cmd"]).hex() == one["frame_hex"][0]
    assert all(0x50 <= poll.request[2] <= 0x98 for poll in DALY_UART.polls(None, None))
