"""JK02 against what packs sent, and JK-PB's RS485, where nothing in a frame says whose it is.

Captures: https://github.com/patman15/aiobmsble, https://github.com/syssi/esphome-jk-bms,
https://github.com/fl4p/batmon-ha, https://github.com/jblance/mpp-solar,
https://github.com/mr-manuel/venus-os_dbus-serialbattery (read from the recorded data only).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import Vector, frames, pictures, vector, vectors
from bms_words import compared

from firmware_bridge.checksums import crc16_modbus, sum8
from firmware_bridge.protocol import LineError, Part, Said, Value, Values
from firmware_bridge.protocols.jk02 import JK02, Jk02Decoder, reply, request
from firmware_bridge.protocols.jk02_tables import ABOUT, FRAME_BYTES, HEAD, SETTINGS, STATUS, frame_of

AT: Final = b"AT\r\n"
BLE_ACK: Final = bytes.fromhex("aa5590ebc8010100000000000000000000000044")
ASKS_STATUS: Final = bytes.fromhex("aa5590eb96000000000000000000000000000010")
ASKS_ABOUT: Final = bytes.fromhex("aa5590eb97000000000000000000000000000011")
LOGBOOK: Final = 438
JK04: Final = (437, 510)
FLIPPED: Final = "batmon"
"""batmon has its currents the other way round (facts, section 2)."""


def heard(*chunks: bytes, sent: tuple[bytes, ...] = ()) -> list[Said]:
    line = Jk02Decoder()
    for asked in sent:
        line.sent(asked)
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def errors(said: list[Said]) -> list[str]:
    assert all(isinstance(it, LineError) for it in said), said
    return [it.error for it in said if isinstance(it, LineError)]


def parts(said: list[Said]) -> list[Part]:
    return [it for it in said if isinstance(it, Part)]


def a_pack(number: int, cells: int = 16) -> dict[str, Value]:
    """Values by which a pack is known again."""
    values: dict[str, Value] = {f"cell_v[{i}]": 3.3 + number / 1000 for i in range(cells)}
    return values | {
        "pack_v": 50.0 + number,
        "current_a": -10.0 - number,
        "soc_bms": 0.5,
        "soh_bms": 1.0,
        "cycles": float(number),
        "temp_c[0]": 20.0,
        "temp_c[1]": -3.1,
        "extra.mos_temp_c": 25.0,
        "extra.nominal_ah": 100.0 + number,
        "extra.model": "JK_PB2A16S20P",
        "extra.sw_version": "15.38",
        "extra.serial": f"{number}",
    }


def positives(shared_dir: Path) -> list[Vector]:
    found = vectors(shared_dir, "jk_ble_jk02", "jk_bms_ble", "jk")
    return [one for one in found if one["id"] not in (LOGBOOK, *JK04)]


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    told: list[tuple[Any, ...]] = []
    for one in positives(shared_dir):
        found, wrong = pictures(heard(*frames(one)))
        # Of 483 the settings are 300 bytes of a payload without a beginning.
        assert [it.error for it in wrong] == (["noise"] if one["id"] == 483 else []), one["id"]
        sign = -1 if FLIPPED in one["source_repo"] else 1
        told += [(one["id"], *it) for it in compared(one["expected"], found[-1], sign)]
    assert [it for it in told if not it[2]] == []
    assert len(told) >= 500


def test_recordings_in_the_pieces_in_which_they_came_and_behind_their_requests_say_the_same(shared_dir: Path) -> None:
    count = 0
    for one in positives(shared_dir):
        if "rx_fragments_hex" not in one or not one.get("request_hex"):
            continue
        line, said = Jk02Decoder(), []
        for asked, chunks in zip(one["request_hex"], one["rx_fragments_hex"], strict=True):
            line.sent(bytes.fromhex(asked))
            said += [it for chunk in chunks for it in line.feed(bytes.fromhex(chunk))]
        assert said + line.end() == heard(*frames(one)), one["id"]
        count += 1
    assert count >= 15


def test_any_cut_of_recordings_says_the_same(shared_dir: Path) -> None:
    rng = random.Random("cuts")
    stream = b"".join(frame for one in positives(shared_dir) for frame in frames(one))
    whole = heard(stream)
    assert len(parts(whole)) >= 30
    for _ in range(100):
        cuts = sorted({0, len(stream), *(rng.randrange(len(stream)) for _ in range(rng.choice((3, 30, 300))))})
        assert heard(*(stream[begin:end] for begin, end in pairwise(cuts))) == whole


def captured(shared_dir: Path) -> Iterator[tuple[str, bytes]]:
    """(file, frame) of each frame of the log files of JK02 packs."""
    for file in sorted((shared_dir / "can" / "captures-syssi" / "jk").glob("*BLE-JK02*.txt")):
        if "transposed" not in file.name:
            for line in file.read_text().splitlines():
                frame = bytes.fromhex(re.sub(r"0x|\s", "", line))
                if len(frame) == FRAME_BYTES:
                    yield file.name, frame


def test_in_hundreds_of_captured_frames_the_cells_add_up_to_the_pack(shared_dir: Path) -> None:
    """So the layout (24 or 32 cells) is the right one, of firmware 7, 10 and 11, with 8, 13, 16 and 24 cells."""
    seen = set()
    for name, frame in captured(shared_dir):
        (said,) = heard(frame)
        assert isinstance(said, Part), (name, said)
        if said.kind == "status":
            cells = [float(v) for key, v in said.values.items() if key.startswith("cell_v[") and v is not None]
            assert sum(cells) == pytest.approx(said.values["pack_v"], rel=0.005), name
            seen.add((name, len(cells)))
    assert {cells for _, cells in seen} == {8, 13, 16, 24}


def test_what_flows_into_the_pack_is_positive(shared_dir: Path) -> None:
    (status,) = heard(frames(vector(shared_dir, 431))[0])
    assert isinstance(status, Part)
    assert status.values["current_a"] == 31.881
    (status,) = heard(frames(vector(shared_dir, 433))[0])
    assert isinstance(status, Part)
    assert status.values["current_a"] == -0.727


def test_a_sensor_that_is_not_there_is_absent_and_not_minus_200_degrees(shared_dir: Path) -> None:
    """batmon-ha and BMS_BLE-HA issue 172 show -200 and -73 degC."""
    found, _ = pictures(heard(*frames(vector(shared_dir, 186))))
    assert found[0]["temp_c"] == [None, None, 19.5, 19.1]
    assert found[0]["quality"] == {"temp_c[0]": "absent", "temp_c[1]": "absent"}


def test_zero_degrees_are_a_temperature_where_the_firmware_has_the_sensor_and_nothing_where_it_has_not() -> None:
    values = a_pack(1) | {"temp_c[2]": 0.0, "temp_c[3]": 0.0, "temp_c[0]": 0.0}
    about, status = frame_of(ABOUT, values), frame_of(STATUS, values)
    assert pictures(heard(about, status))[0][0]["temp_c"] == [0.0, -3.1, 0.0, 0.0]
    old = frame_of(ABOUT, values | {"extra.sw_version": "11.48"})
    assert pictures(heard(old, status))[0][0]["temp_c"] == [0.0, -3.1]
    before = frame_of(STATUS, values | {"temp_c[2]": 0.4})
    assert pictures(heard(before, status))[0][1]["temp_c"] == [0.0, -3.1, 0.0, 0.0]


# what is wrong


def test_bad_frames_say_nothing_and_are_complained_of_once(shared_dir: Path) -> None:
    """Their type and their checksum were changed; both are wrong, and the checksum is looked at first."""
    for one in vectors(shared_dir, "jk_ble_jk02", kind="negative"):
        assert errors(heard(*frames(one))) == ["checksum"], one["id"]


def test_frames_of_another_family_are_not_taken_for_ours(shared_dir: Path) -> None:
    """JK04 has the same beginning and the same sum, and floats where we have millivolts."""
    for number in JK04:
        assert errors(heard(frames(vector(shared_dir, number))[0])) == ["function"]
    lines = (shared_dir / "can" / "captures-syssi" / "jk" / "JK-B2A16S-3.3.0-BLE-JK04.txt").read_text().splitlines()
    read = [heard(bytes.fromhex(line.replace("0x", ""))) for line in lines if line]
    kinds = {it.kind if isinstance(it, Part) else it.error for said in read for it in said}
    assert kinds == {"function", "about"}, "who made it is told alike"


def test_a_log_book_is_nothing_to_read(shared_dir: Path) -> None:
    assert errors(heard(frames(vector(shared_dir, LOGBOOK))[0])) == ["function"]


@pytest.mark.parametrize("at", [4, 5, 6, 100, 299])
def test_one_wrong_byte_is_one_error(at: int) -> None:
    frame = bytearray(frame_of(STATUS, a_pack(1)))
    frame[at] ^= 0x11
    assert errors(heard(bytes(frame))) == ["checksum"]


def test_a_frame_that_was_cut_off_is_one_error_and_costs_itself_alone() -> None:
    frame = frame_of(STATUS, a_pack(1))
    for size in (4, 63, 150, 296):
        assert errors(heard(frame[:size])) == ["length"]
        said = heard(frame[:size] + frame)
        assert [it.error if isinstance(it, LineError) else it.kind for it in said] == ["length", "status"], size


def test_what_bluetooth_puts_between_frames_is_nothing(shared_dir: Path) -> None:
    """esphome-jk-bms issues 247 and 360, batmon-ha issue 377: `AT` lines and acknowledgements, glued on."""
    frame = frame_of(STATUS, a_pack(1))
    clean = heard(frame)
    for junk in (AT, AT + AT, BLE_ACK, BLE_ACK + AT, AT + BLE_ACK):
        said = heard(junk + frame + junk + frame + junk)
        assert [it.values for it in said if isinstance(it, Part)] == [clean[0].values] * 2  # type: ignore[union-attr]
        assert len(said) == 2


def test_junk_of_64_bytes_in_front_loses_nothing() -> None:
    rng = random.Random("junk")
    frame = frame_of(STATUS, a_pack(1))
    for size in range(1, 65):
        said = heard(rng.randbytes(size) + frame)
        assert [it.kind for it in parts(said)] == ["status"]
        assert [it.error for it in said if isinstance(it, LineError)] in (["noise"], ["checksum"], ["length"])


def test_over_bluetooth_only_what_was_asked_for_is_taken() -> None:
    about, status = frame_of(ABOUT, a_pack(1)), frame_of(STATUS, a_pack(1))
    assert [it.kind for it in parts(heard(about, sent=(ASKS_ABOUT,)))] == ["about"]
    assert errors(heard(status, sent=(ASKS_ABOUT,))) == ["address"]
    # It goes on to send, however long it was silent.
    line = Jk02Decoder()
    line.sent(ASKS_STATUS)
    for _ in range(3):
        assert len(parts(line.feed(status))) == 1
        assert line.end() == []


# whose frame it is


def test_the_acknowledgement_says_whose_frame_it_is(shared_dir: Path) -> None:
    """As a JK-PB answered its master, caught by a logic analyser."""
    about, ack = (frames(vector(shared_dir, number))[0] for number in (528, 530))
    said = heard(about + b"\0" + ack + b"\0")
    assert [(it.kind, it.address) for it in parts(said)] == [("about", 3)]
    assert len(said) == 1
    assert request(3, STATUS) == frames(vector(shared_dir, 531))[0]


@pytest.mark.parametrize("echo", range(12))
def test_the_echo_of_our_request_in_front_is_no_loss(echo: int) -> None:
    for kind in (STATUS, SETTINGS, ABOUT):
        asked = request(2, kind)
        line = asked[:echo] + reply(2, kind, a_pack(2))
        for chunks in ([line], [line[:echo], line[echo:]], [line[at : at + 1] for at in range(len(line))]):
            said = heard(*chunks, sent=(asked,))
            assert [it.address for it in parts(said)] == [2]
            assert len(said) == 1, "an echo that was cut off was noise"
        told = heard(asked[:echo] + reply(2, kind, a_pack(2)), sent=(request(3, kind),))
        assert len(told) == (1 if echo in (0, len(asked)) else 2), "what nobody sent is no echo"


def test_an_echo_with_nothing_behind_it_is_an_error() -> None:
    assert errors(heard(request(2, STATUS))) == ["echo"]
    assert errors(heard(request(2, STATUS), sent=(request(2, STATUS),))) == ["echo"]


def test_interleaved_replies_go_to_their_packs() -> None:
    asked = tuple(request(number, kind) for number in (1, 2, 3) for kind in (STATUS, SETTINGS))
    rng = random.Random("interleaved")
    for _ in range(200):
        order = [(number, kind) for number in (1, 2, 3) for kind in (STATUS, SETTINGS)]
        rng.shuffle(order)
        said = heard(b"".join(reply(number, kind, a_pack(number)) for number, kind in order), sent=asked)
        assert [(it.address, it.kind) for it in parts(said)] == [
            (number, "status" if kind == STATUS else "settings") for number, kind in order
        ]
        assert all(is_its_own(it) for it in parts(said))


def test_a_reply_of_a_pack_that_nobody_asked_is_an_error() -> None:
    assert errors(heard(reply(2, STATUS, a_pack(2)), sent=(request(1, STATUS),))) == ["address"]
    assert errors(heard(reply(1, SETTINGS, a_pack(1)), sent=(request(1, STATUS),))) == ["address"]


def test_without_an_acknowledgement_nobody_guesses_between_two_packs() -> None:
    frame = frame_of(STATUS, a_pack(1))
    assert errors(heard(frame, sent=(request(1, STATUS), request(2, STATUS)))) == ["address"]
    assert [it.address for it in parts(heard(frame, sent=(request(1, STATUS),)))] == [1]
    # Another master asks others on the same line: then it may be theirs.
    others = reply(5, STATUS, a_pack(5))
    said = heard(others + frame + b"\0", sent=(request(1, STATUS),))
    assert errors(said) == ["address", "address"]


def test_an_acknowledgement_behind_two_frames_is_neither_ones() -> None:
    one, two = (reply(number, STATUS, a_pack(number)) for number in (1, 2))
    asked = (request(1, STATUS), request(2, STATUS))
    crossed = one[:FRAME_BYTES] + two[:FRAME_BYTES] + one[FRAME_BYTES:] + two[FRAME_BYTES:]
    assert parts(heard(crossed, sent=asked)) == []
    assert {it.address for it in parts(heard(crossed))} == {None}, "the first looked as if it came over Bluetooth"


def test_a_frame_that_lost_its_acknowledgement_costs_itself_alone() -> None:
    """The next one, with its own behind it, was refused as well: two errors for a loss."""
    replies = {number: reply(number, STATUS, a_pack(number)) for number in (1, 2)}
    line, said = Jk02Decoder(), []
    for number, size in ((1, FRAME_BYTES + 1), (2, None), (1, None)):
        line.sent(request(number, STATUS))
        said += line.feed(replies[number][:size])
    assert [it.error if isinstance(it, LineError) else it.address for it in said] == ["address", 2, 1]
    assert all(is_its_own(it) for it in parts(said))
    said = heard(replies[1], replies[1][: FRAME_BYTES + 1], replies[1], replies[1])
    assert [it.error if isinstance(it, LineError) else it.address for it in said] == [1, "address", 1, 1]


def test_a_pack_that_was_asked_before_may_be_the_one_of_an_acknowledgement() -> None:
    """Of three frames the first may be meant as well as the second."""
    frames_of = [frame_of(STATUS, a_pack(number)) for number in (1, 2, 3)]
    line, said = Jk02Decoder(), []
    for number, frame in zip((1, 2, 3), frames_of, strict=True):
        line.sent(request(number, STATUS))
        said += line.feed(frame)
    said += line.feed(reply(1, STATUS, a_pack(1))[FRAME_BYTES:]) + line.end()
    assert errors(said) == ["address"] * 3


def test_a_bad_frame_before_its_good_acknowledgement_is_one_error_and_takes_no_other_frame_with_it() -> None:
    bad = bytearray(reply(2, STATUS, a_pack(2)))
    bad[50] ^= 1
    asked = (request(1, STATUS), request(2, STATUS))
    assert errors(heard(bytes(bad), sent=asked)) == ["checksum"]
    said = heard(frame_of(STATUS, a_pack(1)) + bytes(bad) + reply(1, STATUS, a_pack(1)), sent=asked)
    assert [(it.address, is_its_own(it)) for it in parts(said)] == [(1, True)]


@pytest.mark.parametrize("at", range(FRAME_BYTES + 1, FRAME_BYTES + 9))
def test_a_frame_whose_acknowledgement_came_damaged_is_one_error(at: int) -> None:
    """It was two: nobody's frame, and noise."""
    bad = bytearray(reply(2, STATUS, a_pack(2)))
    bad[at] ^= 1
    asked = (request(1, STATUS), request(2, STATUS))
    assert errors(heard(bytes(bad), sent=asked)) == ["address"]
    said = heard(bytes(bad) + reply(1, STATUS, a_pack(1)), sent=asked)
    assert [it.error if isinstance(it, LineError) else it.address for it in said] == ["address", 1]


def test_a_request_made_after_a_frame_came_is_not_what_it_answers() -> None:
    line = Jk02Decoder()
    line.sent(request(1, STATUS))
    said = line.feed(frame_of(STATUS, a_pack(1)))
    line.sent(request(2, STATUS))
    said += line.feed(reply(2, STATUS, a_pack(2))[FRAME_BYTES:]) + line.end()
    assert errors(said) == ["address"]


def is_its_own(part: Part) -> bool:
    """Whether the values are those of the pack at the Part's address."""
    if part.kind == "status":
        return part.values["cycles"] == part.address
    name, offset = ("extra.nominal_ah", 100) if part.kind == "settings" else ("extra.serial", 0)
    return float(part.values[name] or 0) - offset == part.address


def test_whatever_is_lost_or_late_no_frame_goes_to_the_wrong_pack() -> None:
    """A master and up to 15 packs; replies come late, cut off, changed, without an end, with an echo, twice."""
    rng = random.Random("whose")
    count = 0
    for _ in range(600):
        line, said, late = Jk02Decoder(), [], b""
        packs = rng.sample(range(1, 16), rng.choice((2, 3, 15)))
        asks_aloud = rng.random() < 0.7
        for _ in range(rng.randrange(4, 20)):
            number, kind = rng.choice(packs), rng.choice((STATUS, STATUS, SETTINGS, ABOUT))
            if asks_aloud:
                line.sent(request(number, kind))
            came = (request(number, kind) if rng.random() < 0.3 else b"") + late
            late = b""
            answer = bytearray(reply(number, kind, a_pack(number)))
            fault = rng.random()
            if fault < 0.1:
                late = bytes(answer)
                answer.clear()
            elif fault < 0.2:
                del answer[rng.randrange(len(answer)) :]
            elif fault < 0.3:
                answer[rng.randrange(len(answer))] ^= 1 << rng.randrange(8)
            elif fault < 0.35:
                del answer[: rng.randrange(40)]
            elif fault < 0.4:
                answer *= 2
            elif fault < 0.5:
                answer = bytearray(rng.randbytes(rng.randrange(60))) + answer
            came += bytes(answer)
            while came:
                size = rng.randrange(1, 400)
                said += line.feed(came[:size])
                came = came[size:]
            if rng.random() < 0.7:
                said += line.end()
        said += line.end()
        told = [it for it in parts(said) if it.address is not None]
        assert all(it.address in packs and is_its_own(it) for it in told)
        count += len(told)
    assert count > 2000


# what goes in comes out


@pytest.mark.parametrize(("version", "most"), [("10.08", 24), ("11.48", 32), ("15.38", 32)])
def test_both_layouts_are_spoken_and_told_apart_with_any_number_of_cells(version: str, most: int) -> None:
    rng = random.Random(version)
    for cells in range(most + 1):
        values = a_pack(7, cells) | {"extra.sw_version": version, "pack_v": 3.3 * cells, "cycles": rng.randrange(5000)}
        (said,) = heard(frame_of(STATUS, values))
        assert isinstance(said, Part)
        assert {name: said.values.get(name) for name in values if name in said.values} == {
            name: pytest.approx(value) for name, value in values.items() if name in said.values
        }
        assert sum(name.startswith("cell_v") for name in said.values) == cells
        assert ("alarm.mos_fault" in said.values) == (most == 32)


@pytest.mark.parametrize("version", ["10.08", "15.38"])
def test_without_a_mask_of_cells_the_layout_is_that_in_which_they_add_up(version: str) -> None:
    """24 places whose mask is 0 were read as 32: 0.615 V instead of 56.164."""
    for cells in range(1, 25):
        values = a_pack(7, cells) | {"extra.sw_version": version, "pack_v": 3.31 * cells, "cycles": 615.0}
        frame = bytearray(frame_of(STATUS, values))
        mask_at = 6 + 2 * (24 if version == "10.08" else 32)
        frame[mask_at : mask_at + 4] = bytes(4)
        frame[270:274] = b"\1\2\3\4"
        frame[-1] = sum8(bytes(frame[:-1]))
        (said,) = heard(bytes(frame))
        assert isinstance(said, Part)
        assert said.values["pack_v"] == pytest.approx(3.31 * cells)
        assert said.values["cycles"] == 615.0
        assert sum(name.startswith("cell_v") for name in said.values) == cells


def test_a_state_of_charge_of_all_ones_is_none() -> None:
    """FF was 255 %."""
    frame = bytearray(frame_of(STATUS, a_pack(1)))
    frame[173] = 0xFF
    frame[-1] = sum8(bytes(frame[:-1]))
    (said,) = heard(bytes(frame))
    assert isinstance(said, Part)
    assert (said.values["soc_bms"], said.quality["soc_bms"]) == (None, "invalid")


def test_a_cell_that_is_not_there_between_others_is_absent() -> None:
    (said,) = heard(frame_of(STATUS, a_pack(1) | {"cell_v[3]": None}))
    assert isinstance(said, Part)
    assert (said.values["cell_v[3]"], said.quality["cell_v[3]"]) == (None, "absent")
    assert said.values["cell_v[4]"] == 3.301


def test_the_bytes_of_a_recording_come_out_of_its_values(shared_dir: Path) -> None:
    """What is read stands at the same place in ours. (Means, power and what nobody knows do not come out of values.)"""
    (captured_one,) = frames(vector(shared_dir, 431))
    (said,) = heard(captured_one)
    assert isinstance(said, Part)
    ours = frame_of(STATUS, said.values, captured_one[5])
    same = [*range(74), *range(144, 146), *range(150, 154), *range(158, 191), *range(194, 200), *range(254, 260)]
    assert bytes(ours[i] for i in same) == bytes(captured_one[i] for i in same)
    assert ours[:4] == HEAD and ours[299] == sum8(ours[:299])


def test_a_pack_answers_for_its_address_only() -> None:
    values: Values = a_pack(4)
    assert JK02.answer is not None
    assert JK02.answer(request(4, STATUS), values, 3) == []
    (answered,) = JK02.answer(request(4, STATUS), values, 4)
    assert len(answered) == FRAME_BYTES + 10
    assert crc16_modbus(answered[FRAME_BYTES + 1 : -1]) == 0
    assert [frame[4] for frame in JK02.answer(ASKS_STATUS, values, None)] == [SETTINGS, STATUS]


def test_nothing_but_three_reads_is_ever_asked() -> None:
    """They are worded as writes; what they write is zero, to registers that only make the BMS send."""
    for address in (None, *range(16)):
        for poll in JK02.polls(address, None):
            assert poll.request[1] == 0x10
            assert poll.request[2:4] in (b"\x16\x20", b"\x16\x1e", b"\x16\x1c")
            assert poll.request[4:9] == b"\0\1\2\0\0"
