"""JBD against what packs sent, and UP16S beside it on the same line.

Captures: https://github.com/patman15/aiobmsble, https://github.com/syssi/esphome-jbd-bms (recorded data and logs),
https://github.com/fl4p/batmon-ha, https://github.com/mr-manuel/venus-os_dbus-serialbattery (read from the recorded data
only).
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

from firmware_bridge.checksums import crc16_modbus, negated_sum16
from firmware_bridge.protocol import LineError, Part, Said, Value
from firmware_bridge.protocols.jbd import JBD, JbdDecoder, reply, request

STATUS: Final = bytes.fromhex("dd03001d0618fee101f201f4002a2c7c00000000000080640304030b8b0b8a0b84f88477")
CELLS: Final = bytes.fromhex("dd0400080d660d610d680d59fe3c77")
LOGIN_TAKEN: Final = bytes.fromhex("ffaa15010016")
LOGIN_REFUSED: Final = bytes.fromhex("ffaa15010117")
LOGIN: Final = bytes.fromhex("ffaa15063030303030303b")
REQUEST_OR_UP16S: Final = (402, 411, 412, 413)
"""Without expectations: two are requests, two are UP16S."""
PAYLOADS: Final = {394: 3, 396: 5, 400: 3, 403: 3, 408: 3, 410: 3}
"""Of these only the payload is recorded, of that command."""


def heard(*chunks: bytes, sent: tuple[bytes, ...] = ()) -> list[Said]:
    line = JbdDecoder()
    for asked in sent:
        line.sent(asked)
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def errors(said: list[Said]) -> list[str]:
    assert all(isinstance(it, LineError) for it in said), said
    return [it.error for it in said if isinstance(it, LineError)]


def parts(said: list[Said]) -> list[Part]:
    return [it for it in said if isinstance(it, Part)]


def framed(command: int, payload: bytes, status: int = 0) -> bytes:
    """A reply with this payload, as another program than ours would build it."""
    body = bytes([status, len(payload)]) + payload
    return bytes([0xDD, command]) + body + (0x10000 - sum(body) & 0xFFFF).to_bytes(2, "big") + b"\x77"


def whole(recorded: Vector) -> list[bytes]:
    """The frames of a recording; of some, only the payload is recorded."""
    if recorded["id"] in PAYLOADS:
        return [framed(PAYLOADS[recorded["id"]], frame) for frame in frames(recorded)]
    return frames(recorded)


def positives(shared_dir: Path) -> list[Vector]:
    found = vectors(shared_dir, "jbd", "jbd_bms", "jbd_bms_ble", "jbd_bms_up")
    return [one for one in found if one["id"] not in REQUEST_OR_UP16S]


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    told: list[tuple[Any, ...]] = []
    for one in positives(shared_dir):
        found, wrong = pictures(heard(*whole(one)))
        assert wrong == [], one["id"]
        told += [(one["id"], *it) for it in compared(one["expected"], found[-1])]
    assert [it for it in told if not it[2]] == []
    assert len(told) >= 130


def test_every_recording_without_expectations_is_read_too(shared_dir: Path) -> None:
    kinds = [heard(*frames(one)) for one in vectors(shared_dir, "jbd_uart", kind="raw")]
    assert {it.kind for said in kinds for it in parts(said)} == {"status", "cells", "hardware", "errors"}
    assert all(len(said) == 1 and parts(said) for said in kinds)
    for one in vectors(shared_dir, "jbd_uart", kind="request"):
        assert errors(heard(*frames(one))) == ["echo"]


def test_a_reply_that_was_not_asked_for_now_is_left_out(shared_dir: Path) -> None:
    """The recording holds old replies in front of the one that was asked for, on purpose."""
    one = vector(shared_dir, 162)
    line, said = JbdDecoder(), []
    for asked, chunks in zip(one["request_hex"], one["rx_fragments_hex"], strict=True):
        line.sent(bytes.fromhex(asked))
        said += [it for chunk in chunks for it in line.feed(bytes.fromhex(chunk))]
    assert [it.error if isinstance(it, LineError) else it.kind for it in said] == [
        *("status", "address", "address", "cells")
    ]


def test_any_cut_of_recordings_says_the_same(shared_dir: Path) -> None:
    rng = random.Random("cuts")
    ones = [*positives(shared_dir), *vectors(shared_dir, "jbd_up16s_rs485", "jbd_uart", kind="raw")]
    stream = b"".join(frame for one in ones for frame in whole(one))
    clean = heard(stream)
    assert len(parts(clean)) >= 35
    for _ in range(300):
        cuts = sorted({0, len(stream), *(rng.randrange(len(stream)) for _ in range(rng.choice((3, 30, 300))))})
        assert heard(*(stream[begin:end] for begin, end in pairwise(cuts))) == clean


def test_what_flows_out_of_the_pack_is_negative() -> None:
    (status,) = parts(heard(STATUS))
    assert status.values["current_a"] == -2.87


@pytest.mark.parametrize(("behind", "per"), [(b"", 100), (b"\x35", 100), (b"\x80", 10), (b"\xb5\0\0", 10)])
def test_a_large_pack_counts_in_steps_of_a_tenth(behind: bytes, per: int) -> None:
    (status,) = parts(heard(framed(0x03, STATUS[4:-3] + behind)))
    told = {name: status.values[name] for name in ("current_a", "extra.remaining_ah", "extra.nominal_ah")}
    assert told == {"current_a": -287 / per, "extra.remaining_ah": 498 / per, "extra.nominal_ah": 500 / per}
    assert status.values["pack_v"] == 15.6


def test_bytes_of_the_maker_behind_the_sensors_are_no_sensors(shared_dir: Path) -> None:
    """Chins: 34 bytes, of which 25 are the status."""
    (status,) = parts(heard(*frames(vector(shared_dir, 639))))
    assert {name: it for name, it in status.values.items() if name.startswith("temp_c")} == {"temp_c[0]": 26.2}


def test_counters_of_errors_are_told(shared_dir: Path) -> None:
    (counted,) = parts(heard(*frames(vector(shared_dir, 652))))
    assert {name: it for name, it in counted.values.items() if it} == {
        "extra.count_cell_over_voltage": 122.0,
        "extra.count_cell_under_voltage": 2.0,
    }


# what is wrong


@pytest.mark.parametrize("number", [163, 164, 165, 167])
def test_a_login_that_went_wrong_does_not_cost_the_status_behind_it(shared_dir: Path, number: int) -> None:
    said = heard(*frames(vector(shared_dir, number)))
    assert [it.values for it in parts(said)] == [it.values for it in parts(heard(STATUS))]
    assert len(said) == (1 if number == 163 else 2)


def test_a_login_is_no_noise() -> None:
    assert len(heard(LOGIN_TAKEN + STATUS)) == 1
    assert errors(heard(LOGIN_REFUSED)) == ["response"]
    said = heard(LOGIN)
    assert errors(said) == ["echo"]
    assert "3030" not in str(said), "a password is not shown"
    assert errors(heard(b"\xff\xaa\x15\x01\0\x17")) == ["checksum"]
    assert errors(heard(b"\xff\xaa\x15\xf0\0\x17")) == ["noise"]


def test_a_wrong_end_is_one_error(shared_dir: Path) -> None:
    assert errors(heard(*frames(vector(shared_dir, 169)))) == ["length"]


@pytest.mark.parametrize(("at", "error"), [(3, "length"), (4, "checksum"), (33, "checksum"), (34, "checksum")])
def test_one_wrong_byte_is_one_error(at: int, error: str) -> None:
    bad = bytearray(STATUS)
    bad[at] ^= 0x02
    assert errors(heard(bytes(bad))) == [error]


CELLS_WITH_A_HEAD: Final = framed(4, bytes.fromhex("0cda0cdb0cdc0cdd0cde0cdf0ce00ce1"))  # 3.293 V


@pytest.mark.parametrize("wrong", [*range(len(CELLS_WITH_A_HEAD)), *range(-len(CELLS_WITH_A_HEAD) + 1, 0)])
def test_a_frame_hit_anywhere_or_without_its_beginning_is_one_error_though_a_cell_looks_like_a_head(wrong: int) -> None:
    """What came before the DD of a cell was noise, and what followed it a frame of a wrong length: two errors."""
    rng = random.Random(wrong)
    cut = [CELLS_WITH_A_HEAD[-wrong:]] if wrong < 0 else []
    hit = [bytearray(CELLS_WITH_A_HEAD) for _ in range(8 if wrong >= 0 else 0)]
    for bit, frame in enumerate(hit):
        frame[wrong] ^= 1 << bit
    for bad in (*cut, *map(bytes, hit)):
        assert len(errors(heard(bad))) == 1
        for line in (bad + CELLS, STATUS + bad + CELLS):
            said = heard(line)
            assert len(parts(said)) == line.count(CELLS) + line.count(STATUS)
            assert len(said) == 1 + len(parts(said))
            for _ in range(10):
                cuts = sorted({0, len(line), *(rng.randrange(len(line)) for _ in range(rng.choice((1, 5, 30))))})
                assert heard(*(line[begin:end] for begin, end in pairwise(cuts))) == said


def test_each_of_two_bad_frames_is_an_error() -> None:
    bad = STATUS[:20] + b"\x11" + STATUS[21:]
    assert errors(heard(bad + bad)) == ["checksum", "checksum"]


@pytest.mark.parametrize(("command", "other"), [(0x05, 0x04), (0x04, 0x05)])
def test_text_is_no_cells_and_cells_are_no_text(command: int, other: int) -> None:
    """The sum does not cover the command: one bit made cells of 19 V of a name, and the name `fahY` of cells."""
    payloads = {0x05: b"JBD-SP04S020-L4S-100A-B ", 0x04: CELLS[4:-3]}
    assert len(parts(heard(framed(command, payloads[command])))) == 1
    assert errors(heard(framed(other, payloads[command]))) == ["function"]


def test_a_cell_of_more_volts_than_cells_have_is_none() -> None:
    (said,) = parts(heard(framed(4, bytes.fromhex("0d664a42"))))
    assert (said.values["cell_v[1]"], said.quality) == (None, {"cell_v[1]": "invalid"})


def test_the_length_decides_where_the_sum_sees_nothing() -> None:
    """The sum is the same whether zeros are lost or not: the printed Chins frame says 34 bytes and has 32."""
    lost = STATUS.replace(b"\0\0\0\0\0\0", b"\0\0\0\0")
    assert negated_sum16(lost[2:-3]) == int.from_bytes(lost[-3:-1], "big")
    assert errors(heard(lost)) == ["length"]
    said = heard(lost + CELLS)
    assert [it.error if isinstance(it, LineError) else it.kind for it in said] == ["length", "cells"]


def test_a_bms_that_refuses_says_so_and_what_nobody_knows_is_a_function() -> None:
    assert errors(heard(framed(4, b"", status=0x80))) == ["response"]
    assert errors(heard(framed(0xE1, b""))) == ["function"]
    assert errors(heard(framed(3, bytes(22)))) == ["length"]
    assert errors(heard(STATUS, sent=(request(4),))) == ["address"]


@pytest.mark.parametrize(("command", "payload"), [(4, b""), (4, b"\x0d\x66\x0d"), (5, b""), (0xAA, b""), (0xAA, b"\0")])
def test_a_reply_too_short_to_say_anything_is_one_error(command: int, payload: bytes) -> None:
    """No cells at all were a reply without a word about it, three bytes were one cell."""
    assert errors(heard(framed(command, payload))) == ["length"]


def test_a_sensor_that_is_not_there_is_no_temperature() -> None:
    """0000 was -273.1 degC, FFFF 6280.4; sensors that the frame counts and does not hold were not told of."""
    head = STATUS[4:26]
    (said,) = parts(heard(framed(3, head + bytes.fromhex("050000ffff0b8b7000"))))
    assert {name: it for name, it in said.values.items() if name.startswith("temp")} == {
        **{f"temp_c[{i}]": None for i in (0, 1, 3, 4)},
        "temp_c[2]": pytest.approx(22.4),
    }
    assert said.quality == {
        "temp_c[0]": "absent",
        "temp_c[1]": "absent",
        "temp_c[3]": "invalid",
        "temp_c[4]": "short_frame",
    }


def test_a_state_of_charge_of_all_ones_is_none() -> None:
    """FF was 255 %."""
    payload = bytearray(STATUS[4:-3])
    payload[19] = 0xFF
    (said,) = parts(heard(framed(3, bytes(payload))))
    assert (said.values["soc_bms"], said.quality) == (None, {"soc_bms": "invalid"})


def test_zeros_behind_a_frame_are_nothing_and_junk_in_front_loses_none() -> None:
    assert len(heard(STATUS + bytes(6) + CELLS + bytes(12))) == 2
    rng = random.Random("junk")
    for size in range(1, 65):
        said = heard(rng.randbytes(size) + STATUS)
        assert [it.kind for it in parts(said)] == ["status"]


# UP16S


def up16s(address: int, function: int, start: int, end: int, payload: bytes = b"") -> bytes:
    """A frame of UP16S, as another program than ours would build it."""
    body = bytes(
        [address, function, *start.to_bytes(2, "big"), *end.to_bytes(2, "big"), *len(payload).to_bytes(2, "big")]
    )
    body += payload
    return body + crc16_modbus(body).to_bytes(2, "little")


def test_the_packs_of_a_bank_are_told_apart_and_read(shared_dir: Path) -> None:
    """Values by the comments that stand beside the captured bytes."""
    one, two = (parts(heard(*frames(vector(shared_dir, number))))[0] for number in (412, 536))
    assert (one.address, two.address) == (1, 2)
    told = {name: two.values[name] for name in ("pack_v", "current_a", "soc_bms", "soh_bms", "cycles", "cell_v[15]")}
    assert told == {
        "pack_v": 53.14, "current_a": 3.12, "soc_bms": 0.62, "soh_bms": 1.0, "cycles": 3.0, "cell_v[15]": 3.321
    }  # fmt: skip
    assert (two.values["extra.full_ah"], two.values["extra.nominal_ah"]) == (320.0, 314.0)
    assert sum(float(one.values[f"cell_v[{i}]"] or 0) for i in range(16)) == pytest.approx(
        one.values["pack_v"], rel=2e-3
    )


def test_every_recording_of_up16s_is_read_or_known(shared_dir: Path) -> None:
    kinds: list[str] = []
    for one in vectors(shared_dir, "jbd_up16s_rs485", kind="raw"):
        (frame,) = frames(one)
        if frame[0] == 0x78:  # recorded without address and CRC
            frame = b"\1" + frame + crc16_modbus(b"\1" + frame).to_bytes(2, "little")
        (said,) = heard(frame)
        kinds.append(said.error if isinstance(said, LineError) else said.kind)
        if isinstance(said, Part):
            assert said.address == frame[0]
    assert sorted(set(kinds)) == ["about", "function", "pack", "status", "totals"]
    assert kinds.count("function") == 2, "the acknowledgements of another master's writes"
    (totals,) = parts(heard(*frames(vector(shared_dir, 552))))
    assert totals.values == {"extra.charged_ah": 651.6, "extra.discharged_ah": 791.4}
    for one in vectors(shared_dir, "jbd_up16s_rs485", kind="request"):
        assert errors(heard(*frames(one))) in (["echo"], ["function"])


def logged(shared_dir: Path) -> Iterator[tuple[bool, bytes]]:
    """(whether it was sent, the bytes) of each line of the log of two packs."""
    text = (shared_dir / "can" / "captures-syssi" / "jbd" / "JBD-UP16S020-two-devices.txt").read_text()
    for sign, said in re.findall(r"(>>>|<<<) ([0-9A-F:]+)", text):
        yield sign == ">>>", bytes.fromhex(said.replace(":", ""))


def test_both_ways_to_ask_a_pack_say_the_same_of_it(shared_dir: Path) -> None:
    """So the temperatures of function 78, whose scale no document tells, agree with those in kelvin of 45."""
    by_kind: dict[str, list[Part]] = {}
    for is_sent, data in logged(shared_dir):
        for part in [] if is_sent else parts(heard(data)):
            by_kind.setdefault(part.kind, []).append(part)
    status = [it for it in by_kind["status"] if it.address == 1]
    assert len(by_kind["pack"]) >= 5
    for pack in by_kind["pack"]:
        same = [name for name in pack.values if name.startswith(("temp_c", "cell_v", "pack_v", "extra.mos", "ambient"))]
        assert len(same) == 16 + 4 + 3
        nearest = min(
            max(abs(float(pack.values[name] or 0) - float(it.values[name] or 0)) for name in same) for it in status
        )
        assert nearest <= 0.1 + 1e-9
    assert {it.address for it in by_kind["status"]} == {1, 2}


@pytest.mark.parametrize("is_pack_first", [False, True])
def test_a_pack_that_is_asked_both_ways_is_one_picture_a_scan(shared_dir: Path, is_pack_first: bool) -> None:
    """78 and 45 tell the same names: each scan fell into two pictures, the second in whole percent."""
    scans: list[bytes] = []
    pack = next(data for is_sent, data in logged(shared_dir) if not is_sent and data[1] == 0x45)
    for is_sent, data in logged(shared_dir):
        if not is_sent and data[1:4] == b"\x78\x10\0":
            both = (pack, data) if is_pack_first else (data, pack)
            scans.append(b"".join(both if data[0] == pack[0] else (data,)))
    found, wrong = pictures(heard(*scans))
    assert wrong == []
    assert len(found) == len(scans) >= 10
    assert {(it["address"], it["soc_bms"]) for it in found} == {(1, 0.6095), (2, 0.73)}


def test_a_pack_that_is_asked_by_45_alone_again_says_what_45_tells(shared_dir: Path) -> None:
    pack = next(data for is_sent, data in logged(shared_dir) if not is_sent and data[1] == 0x45)
    status = next(data for is_sent, data in logged(shared_dir) if not is_sent and data[:4] == b"\1\x78\x10\0")
    told = [it.values.get("soc_bms") for it in parts(heard(status, *[pack] * 5))]
    assert told == [0.6095, None, None, None, 0.6, 0.6]


def test_a_reply_of_a_pack_that_nobody_asked_is_an_error(shared_dir: Path) -> None:
    (frame,) = frames(vector(shared_dir, 413))
    asked = up16s(1, 0x78, 0x1000, 0x10A0)
    assert errors(heard(frame, sent=(asked,))) == ["address"]
    assert [it.address for it in parts(heard(frame, sent=(up16s(2, 0x78, 0x1000, 0x10A0),)))] == [2]
    assert errors(heard(frame, sent=(up16s(2, 0x78, 0x1C00, 0x1CA0),))) == ["address"]


def test_bad_frames_of_up16s_are_one_error_and_cost_themselves_alone(shared_dir: Path) -> None:
    (frame,) = frames(vector(shared_dir, 412))
    bad = bytearray(frame)
    bad[60] ^= 1
    assert errors(heard(bytes(bad))) == ["checksum"]
    assert errors(heard(frame[:-9])) == ["length"]
    for first in (bytes(bad), frame[:-9], frame[:20]):
        said = heard(first + frame)
        assert [it.address for it in parts(said)] == [1]
        assert len(said) == 2
        assert [it.kind for it in parts(heard(first + STATUS))] == ["status"]
    assert errors(heard(up16s(1, 0x78, 0x1000, 0x10A0, bytes(40)))) == ["function"], "too short to be a status"


def test_a_sensor_of_up16s_that_is_not_there_is_absent(shared_dir: Path) -> None:
    frame = bytearray(frames(vector(shared_dir, 412))[0][8:-2])
    at = 68 + 32 + 2
    frame[at : at + 2], frame[at + 2 : at + 4] = b"\0\0", b"\x01\xf4"
    (said,) = parts(heard(up16s(1, 0x78, 0x1000, 0x10A0, bytes(frame))))
    assert [said.values[f"temp_c[{i}]"] for i in range(4)] == [None, 0.0, 21.0, 21.2]
    assert said.quality == {"temp_c[0]": "absent"}


# what goes in comes out


@pytest.mark.parametrize(("cells", "sensors"), [(1, 0), (4, 2), (16, 4), (32, 8)])
def test_packs_of_any_size_come_back_in_both_dialects(cells: int, sensors: int) -> None:
    values: dict[str, Value] = {
        "pack_v": 51.2,
        "current_a": -100.01,
        "soc_bms": 0.87,
        "cycles": 12.0,
        "charge_mos": True,
    }
    values |= {f"cell_v[{i}]": (3200 + i) / 1000 for i in range(cells)}
    values |= {f"temp_c[{i}]": (i - 3) / 10 for i in range(sensors)}
    values |= {"balancing": 0b101, "extra.remaining_ah": 55.55, "discharge_mos": False}
    assert JBD.answer is not None
    for asked in ([request(3), request(4)], [up16s(7, 0x78, 0x1000, 0x10A0)]):
        replies = [it for one in asked for it in JBD.answer(one, values, None)]
        told: dict[str, Value] = {}
        for said in parts(heard(*replies, sent=tuple(asked))):
            told |= said.values
        assert {name: told[name] for name in values} == values
        assert sum(name.startswith("cell_v") for name in told) == cells
        assert sum(name.startswith("temp_c") for name in told) == sensors


def test_a_captured_frame_comes_out_of_its_own_values(shared_dir: Path) -> None:
    values = {name: value for said in parts(heard(STATUS + CELLS)) for name, value in said.values.items()}
    assert reply(4, values) == CELLS
    date_and_sum = [14, 15, 33, 34]
    assert [i for i, byte in enumerate(reply(3, values)) if byte != STATUS[i]] == date_and_sum
    (frame,) = frames(vector(shared_dir, 412))
    (said,) = parts(heard(frame))
    assert JBD.answer is not None
    (ours,) = JBD.answer(up16s(1, 0x78, 0x1000, 0x10A0), said.values, 1)
    not_said = {*range(6, 8), *range(28, 30), *range(42, 66), *range(122, 200)}  # of the frame
    assert [i for i, byte in enumerate(ours[:-2]) if i not in not_said and byte != frame[i]] == []


def test_a_pack_of_up16s_answers_for_its_address_only() -> None:
    asked = up16s(2, 0x78, 0x1000, 0x10A0)
    assert JBD.answer is not None
    assert len(JBD.answer(asked, {"pack_v": 50.0}, 2)) == 1
    assert JBD.answer(asked, {"pack_v": 50.0}, 1) == []
    assert JBD.answer(up16s(2, 0x79, 0x2006, 0x2008), {"pack_v": 50.0}, 2) == []


def test_a_pack_with_an_address_is_asked_as_up16s_and_one_without_as_jbd() -> None:
    assert all(poll.request[:2] == b"\xdd\xa5" for poll in JBD.polls(None, None))
    assert all(poll.request[:2] == b"\x05\x78" for poll in JBD.polls(5, None))
    assert JBD.polls(1, None)[0].request == up16s(1, 0x78, 0x1000, 0x10A0)
