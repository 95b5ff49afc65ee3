"""JK's UART against what packs sent.

Captures: https://github.com/syssi/esphome-jk-bms (recorded data and logs), https://github.com/ArminJo/JK-BMSToPylontechCAN
(read from the recorded data only).
"""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from bms_vectors import Vector, frames, pictures, vector, vectors
from bms_words import compared

from firmware_bridge.checksums import sum16
from firmware_bridge.protocol import LineError, Part, Said, Value
from firmware_bridge.protocols.jk_uart import JK_UART, JkUartDecoder, reply, request

HEAD: Final = b"\x4e\x57"
TAGS_AT: Final = 11
BEHIND_BYTES: Final = 9


def framed(tags: bytes, command: int = 6, number: int = 0, transport: int = 1) -> bytes:
    """A frame around tags, as another program than ours would build it."""
    head = HEAD + (18 + len(tags)).to_bytes(2, "big") + number.to_bytes(4, "big") + bytes([command, 0, transport])
    body = head + tags + bytes.fromhex("0000000068")
    return body + b"\0\0" + (sum(body) & 0xFFFF).to_bytes(2, "big")


def whole(recorded: Vector) -> bytes:
    """The frame of a recording; of one, only the tags are recorded."""
    (frame,) = frames(recorded)
    return frame if frame.startswith(HEAD) else framed(frame)


def heard(*chunks: bytes, sent: bytes = b"") -> list[Said]:
    line = JkUartDecoder()
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


def tags(**changed: bytes) -> bytes:
    """Tags of a pack, by `t80=b"..."` some of them other ones, b"" to leave one out."""
    usual = {
        "t79": bytes.fromhex("060113880213890000")[:7],
        "t80": b"\0\x16",
        "t81": b"\0\x15",
        "t82": b"\0\x16",
        "t83": b"\x14\x6c",
        "t84": b"\0\0",
        "t85": b"\x3c",
        "t86": b"\2",
        "tc0": b"\1",
    }
    return b"".join(bytes.fromhex(tag[1:]) + value for tag, value in (usual | changed).items() if value)


# what packs sent


def test_every_value_of_every_recording_is_right_to_a_step_of_the_wire(shared_dir: Path) -> None:
    recorded = vectors(shared_dir, "jk_uart_4e57", "jk_bms")
    assert len(recorded) == 2
    told = []
    for one in recorded:
        found = picture(whole(one))
        # What is left is made up of the capacity and the SoC by the program; the pack does not say it.
        expected = {key: it for key, it in one["expected"].items() if key != "capacity_remaining"}
        told += [(one["id"], *it) for it in compared(expected, found)]
    assert [it for it in told if not it[2]] == []
    assert len(told) >= 40


@pytest.mark.parametrize(
    ("name", "cells", "pack_v", "current_a", "soc", "temp_c"),
    [
        ("JK-B2A24S20P-10.07-UART-TTL.txt", 13, 53.13, 0.0, 0.94, [19.0, 19.0]),
        # of 7.1.0H a digit of the log is lost (9F:00:46:0:00:64), which is put back
        ("JK-BD6A17S6P-7.1.0H-UART-TTL.txt", 16, 51.21, -0.69, 0.15, [16.0, 16.0]),
    ],
)
def test_logs_of_two_packs_are_read(
    shared_dir: Path, name: str, cells: int, pack_v: float, current_a: float, soc: float, temp_c: list[float]
) -> None:
    text = (shared_dir / "can" / "captures-syssi" / "jk" / name).read_text()
    asked, frame = (bytes.fromhex(re.sub(r":0:", ":A0:", line[4:]).replace(":", "")) for line in text.splitlines()[1:3])
    assert asked == request()
    found, wrong = pictures(heard(frame, sent=asked))
    assert not wrong
    assert len(found[0]["cell_v"]) == cells
    assert sum(found[0]["cell_v"]) == pytest.approx(pack_v, rel=0.005)
    assert [found[0][key] for key in ("pack_v", "current_a", "soc_bms", "temp_c")] == [pack_v, current_a, soc, temp_c]


def test_any_cut_and_junk_in_front_say_the_same(shared_dir: Path) -> None:
    rng = random.Random("cuts")
    frame = whole(vector(shared_dir, 769))
    clean = heard(frame)
    for _ in range(1000):
        junk = rng.randbytes(rng.randrange(65))
        stream = junk + frame
        cuts = sorted({0, len(stream), *(rng.randrange(len(stream)) for _ in range(rng.choice((1, 5, 100))))})
        said = heard(*(stream[begin:end] for begin, end in pairwise(cuts)))
        assert [it for it in said if isinstance(it, Part)] == clean
        assert said == heard(stream)


# what numbers mean


@pytest.mark.parametrize(
    ("version", "raw", "current_a"),
    [(1, 0x80D0, 2.08), (1, 0x0045, -0.69), (1, 0x8000, 0.0), (0, 9500, 5.0), (0, 11000, -10.0), (0, 10000, 0.0)],
)
def test_the_version_at_the_end_says_what_the_current_means(version: int, raw: int, current_a: float) -> None:
    """Version 1: the highest bit is in; before, 10000 is none and less is in."""
    assert picture(framed(tags(t84=raw.to_bytes(2, "big"), tc0=bytes([version]))))["current_a"] == current_a


def test_no_version_is_version_0() -> None:
    assert picture(framed(tags(t84=(9500).to_bytes(2, "big"), tc0=b"")))["current_a"] == 5.0


@pytest.mark.parametrize(("raw", "degrees"), [(0, 0.0), (22, 22.0), (100, 100.0), (101, -1.0), (140, -40.0)])
def test_degrees_above_100_are_below_zero(raw: int, degrees: float) -> None:
    """bsc_fw issue 239: -1 degC was shown as +101."""
    assert picture(framed(tags(t81=bytes([0, raw]))))["temp_c"][0] == degrees


def test_degrees_that_cannot_be_are_none() -> None:
    found = picture(framed(tags(t81=b"\0\xff", t80=b"\xff\xff")))
    assert (found["temp_c"][0], found["extra"]["mos_temp_c"]) == (None, None)
    assert found["quality"] == {"temp_c[0]": "invalid", "extra.mos_temp_c": "absent"}


def test_a_sensor_that_the_pack_does_not_count_is_absent() -> None:
    found = picture(framed(tags(t86=b"\1", t82=b"\0\0")))
    assert (found["temp_c"], found["quality"]) == ([21.0, None], {"temp_c[1]": "absent"})
    assert picture(framed(tags(t82=b"\0\0")))["temp_c"] == [21.0, 0.0]


def test_alarms_have_names() -> None:
    found = picture(framed(tags(tc0=b"") + b"\x8b\x0c\x81" + b"\xc0\1"))
    assert sorted(found["alarms"]) == ["cell_imbalance", "cell_over_voltage", "cell_under_voltage", "low_soc"]
    assert found["extra"]["alarm_raw"] == 0xC81


def test_a_tag_that_nobody_knows_ends_the_reading_but_not_what_was_read() -> None:
    found = picture(framed(tags(tc0=b"", t84=b"\x80\xd0") + b"\xee\1\2\3" + b"\xc0\1"))
    assert (found["pack_v"], found["current_a"], found["cell_v"]) == (52.28, 2.08, [5.0, 5.001])
    assert "current_a" not in found["quality"]


def test_what_may_stand_behind_a_tag_that_nobody_knows_has_a_reason() -> None:
    """The current was gone without a word."""
    found = picture(framed(tags(t83=b"\x14\x6c\xee\1\2\3")))
    assert (found["pack_v"], found["current_a"], found["soc_bms"]) == (52.28, None, None)
    assert (found["quality"]["current_a"], found["quality"]["soc_bms"]) == ("short_frame", "short_frame")


@pytest.mark.parametrize("what", [b"", b"\xee\1\2\3", b"\x79\xf0\1\x0d\x66\2\x0d\x66", b"\x79", b"\x83\x14"])
def test_a_frame_in_which_no_tag_stands_whole_is_one_error(what: bytes) -> None:
    """It was nothing at all, not even an error."""
    assert errors(heard(framed(what))) == ["length"]


def test_a_frame_that_was_cut_off_is_of_a_wrong_length() -> None:
    """With a good one behind it, it was a wrong checksum."""
    frame = framed(tags())
    for size in range(4, len(frame)):
        said = heard(frame[:size] + frame)
        assert [it.error if isinstance(it, LineError) else it.kind for it in said] == ["length", "all"], size


def test_a_state_of_charge_of_all_ones_is_none() -> None:
    """FF was 255 %."""
    found = picture(framed(tags(t85=b"\xff")))
    assert (found["soc_bms"], found["quality"]) == (None, {"soc_bms": "invalid"})


def test_cells_keep_their_numbers() -> None:
    found = picture(framed(tags(t79=bytes.fromhex("060310000110010000")[:7])))
    assert (found["cell_v"], found["quality"]) == ([4.097, None, 4.096], {"cell_v[1]": "absent"})


# what is wrong


def test_a_wrong_byte_a_wrong_end_and_a_length_that_cannot_be_are_one_error_each() -> None:
    frame = framed(tags())
    for at in (4, 20, len(frame) - 1):
        bad = bytearray(frame)
        bad[at] ^= 0x10
        assert errors(heard(bytes(bad))) == ["checksum"]
    ended = bytearray(frame)
    ended[-5] = 0x69
    ended[-2:] = sum16(bytes(ended[:-4])).to_bytes(2, "big")
    assert errors(heard(bytes(ended))) == ["length"]
    for size in (b"\0\0", b"\0\x11", b"\x7f\xff"):
        assert errors(heard(HEAD + size + frame[4:])) == ["length"]
    assert errors(heard(frame[:-3])) == ["length"]


def test_each_bit_of_the_check_counts(shared_dir: Path) -> None:
    """The upper half of it, which is zeros, was not looked at."""
    good = whole(vector(shared_dir, 769))
    for bit in range(32):
        bad = bytearray(good)
        bad[-4 + bit // 8] ^= 1 << bit % 8
        assert errors(heard(bytes(bad))) == ["checksum"]


def test_a_bad_frame_does_not_cost_the_next() -> None:
    frame = framed(tags())
    for bad in (frame[:-20], HEAD + b"\x7f\xff" + frame[4:], HEAD + b"\1\0" + frame[4:], frame[:30] + frame[31:]):
        said = heard(bad + frame)
        assert [it.kind for it in said if isinstance(it, Part)] == ["all"], bad.hex()
        assert len(said) == 2


def test_a_request_that_came_back_is_an_echo_and_the_reply_behind_it_is_kept() -> None:
    assert errors(heard(request())) == ["echo"]
    said = heard(request() + framed(tags()), sent=request())
    assert [it.error if isinstance(it, LineError) else it.kind for it in said] == ["echo", "all"]


def test_a_reply_must_answer_what_was_asked() -> None:
    asked = framed(b"\x85", command=3, number=7, transport=0)
    assert [it.address for it in heard(framed(tags(), 3, 7), sent=asked) if isinstance(it, Part)] == [7]
    assert errors(heard(framed(tags(), 3, 8), sent=asked)) == ["address"]
    assert errors(heard(framed(tags(), 6, 7), sent=asked)) == ["address"]


def test_the_reply_to_another_masters_write_is_nothing_to_read() -> None:
    assert errors(heard(framed(b"\xab\1", command=2))) == ["function"]


# what goes in comes out


def test_our_frames_have_the_tags_of_a_captured_one_in_its_order(shared_dir: Path) -> None:
    theirs = whole(vector(shared_dir, 769))
    found = heard(theirs)[0]
    assert isinstance(found, Part)
    ours = reply(found.values)
    assert len(ours) == len(theirs)
    assert heard(ours) == [found]
    assert list(by_tag(ours)) == list(by_tag(theirs))
    told = (0x79, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x89, 0x8A, 0x8B, 0x90, 0x93, 0xAA, 0xB6, 0xB7)
    assert {tag: by_tag(ours)[tag] for tag in told} == {tag: by_tag(theirs)[tag] for tag in told}


def by_tag(frame: bytes) -> dict[int, bytes]:
    """What is behind each tag, in the order in which they stand; by the document's sizes, not by our table."""
    sizes = {**dict.fromkeys((0x85, 0x86, 0x9D, 0xA9, 0xAB, 0xAC, 0xAE, 0xAF, 0xB1, 0xB3, 0xB8, 0xC0), 1)}
    sizes |= {**dict.fromkeys((0x89, 0xAA, 0xB5, 0xB6, 0xB9), 4), 0xB2: 10, 0xB4: 8, 0xB7: 15, 0xBA: 24}
    at, found = TAGS_AT, dict[int, bytes]()
    while at < len(frame) - BEHIND_BYTES:
        size = 1 + frame[at + 1] if frame[at] == 0x79 else sizes.get(frame[at], 2)
        found[frame[at]] = frame[at + 1 : at + 1 + size]
        at += 1 + size
    assert at == len(frame) - BEHIND_BYTES
    return found


def test_what_goes_in_comes_out() -> None:
    values: dict[str, Value] = {f"cell_v[{i}]": (3300 + i) / 1000 for i in range(24)}
    values |= {"pack_v": 79.2, "current_a": -327.67, "soc_bms": 1.0, "cycles": 65535.0, "charge_mos": False}
    values |= {"temp_c[0]": None, "temp_c[1]": -40.0, "extra.mos_temp_c": -1.0, "extra.runtime_s": 3600.0}
    assert JK_UART.answer is not None
    assert JK_UART.answer(request()[:-1] + b"\0", values, None) == []
    (said,) = heard(*JK_UART.answer(request(), values, None), sent=request())
    assert isinstance(said, Part)
    assert {name: said.values[name] for name in values} == values


def test_a_frame_of_32_cells_fits() -> None:
    values: dict[str, Value] = {f"cell_v[{i}]": 3.3 for i in range(32)}
    assert len(picture(reply(values))["cell_v"]) == 32
