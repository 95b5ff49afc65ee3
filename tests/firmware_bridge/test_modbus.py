"""Modbus on a line: only a reply that answers something, from whom it should, is a reply."""

from __future__ import annotations

import random
from typing import Any

import pytest

from firmware_bridge import checksums
from firmware_bridge.checksums import ModbusSums, crc16_modbus
from firmware_bridge.modbus import ModbusLine, ReadRequest, Reply, read_request, refusal_frame, reply_frame, with_crc
from firmware_bridge.protocol import LineError

OURS = 0xD2
ASKED = ReadRequest(OURS, 3, 0x0010, 4)
PAYLOAD = bytes(range(1, 9))


def a_line(*requests: ReadRequest, functions: tuple[int, ...] = (1, 3, 4)) -> ModbusLine:
    line = ModbusLine(functions, lambda address: address == OURS)
    for request in requests:
        line.sent(request.frame)
    return line


def heard(line: ModbusLine, *chunks: bytes) -> list[Reply | LineError]:
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def errors(told: list[Reply | LineError]) -> list[str]:
    assert all(isinstance(it, LineError) for it in told), told
    return [it.error for it in told if isinstance(it, LineError)]


def test_a_request_is_what_makers_print() -> None:
    """`d2030000003ed7b9` and `8103000000405bfa` are captured requests (patman15/aiobmsble, syssi/esphome-daly-bms)."""
    assert ReadRequest(0xD2, 3, 0, 62).frame.hex() == "d2030000003ed7b9"
    assert ReadRequest(0x81, 3, 0, 64).frame.hex() == "8103000000405bfa"
    assert read_request(ASKED.frame) == ASKED


@pytest.mark.parametrize("function", [5, 6, 15, 16, 3 | 0x80])
def test_what_is_no_read_is_no_read_request(function: int) -> None:
    assert read_request(with_crc(bytes([OURS, function, 0, 0, 0, 1]))) is None


@pytest.mark.parametrize("count", [0, 126, 0xFFFF])
def test_a_request_for_more_than_a_reply_holds_is_none(count: int) -> None:
    assert read_request(ReadRequest(OURS, 3, 0, count).frame) is None


def test_a_reply_tells_what_it_answers() -> None:
    frame = reply_frame(OURS, 3, PAYLOAD)
    assert heard(a_line(ASKED), frame) == [Reply(0, OURS, 3, PAYLOAD, ASKED)]
    assert heard(a_line(), frame) == [Reply(0, OURS, 3, PAYLOAD, None)]


def test_of_two_requests_each_reply_answers_the_one_of_its_length() -> None:
    other = ReadRequest(OURS, 3, 0x80, 2)
    told = heard(a_line(ASKED, other), reply_frame(OURS, 3, PAYLOAD[:4]) + reply_frame(OURS, 3, PAYLOAD))
    assert [it.request for it in told if isinstance(it, Reply)] == [other, ASKED]


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (reply_frame(0x01, 3, PAYLOAD), "address"),
        (reply_frame(OURS, 4, PAYLOAD), "address"),  # a function that the protocol has, but nobody asked with
        (reply_frame(OURS, 3, PAYLOAD[:6]), "address"),
        (reply_frame(OURS, 2, PAYLOAD), "function"),
        (with_crc(bytes([OURS, 6, 0, 1, 0, 2])), "function"),  # another master's write
        (refusal_frame(OURS, 3, 2), "response"),
        (refusal_frame(0x01, 3, 2), "address"),
        (refusal_frame(OURS, 4, 2), "address"),
        (ASKED.frame, "echo"),
        (ReadRequest(OURS, 3, 0x0120, 3).frame, "echo"),
        (with_crc(bytes([OURS, 3, 0])), "length"),
        (reply_frame(OURS, 3, PAYLOAD[:7]), "length"),
        (reply_frame(OURS, 3, PAYLOAD)[:-1] + b"\0", "checksum"),
        (reply_frame(OURS, 3, PAYLOAD)[:-1], "length"),
        (reply_frame(OURS, 3, PAYLOAD)[:2], "noise"),
        (b"AT\r\n", "noise"),
    ],
)
def test_what_is_no_answer_is_one_error(frame: bytes, error: str) -> None:
    """A right CRC alone proves nothing: an address, a function or a length may be another's."""
    assert errors(heard(a_line(ASKED), frame)) == [error]


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (reply_frame(0xD3, 3, PAYLOAD), "address"),
        (reply_frame(OURS, 2, PAYLOAD), "function"),
        (refusal_frame(OURS, 3, 2), "response"),
        (refusal_frame(0xD3, 3, 2), "address"),
    ],
)
def test_without_any_request_only_the_usual_address_is_believed(frame: bytes, error: str) -> None:
    assert errors(heard(a_line(), frame)) == [error]


def test_a_short_reply_with_a_bad_check_is_not_taken_for_a_request_cut_off() -> None:
    """A reply of one register has 7 bytes, a request 8."""
    request = ReadRequest(OURS, 3, 0xCF, 1)
    good = reply_frame(OURS, 3, b"\xff\xff")
    assert heard(a_line(request), good) == [Reply(0, OURS, 3, b"\xff\xff", request)]
    assert errors(heard(a_line(request), good[:-1] + b"\0")) == ["checksum"]


def test_eight_bytes_of_coils_are_a_reply() -> None:
    """A reply of 17 to 24 coils has as many bytes as a request."""
    request = ReadRequest(OURS, 1, 0, 20)
    frame = reply_frame(OURS, 1, b"\x00\x00\x05")
    assert heard(a_line(request), frame) == [Reply(0, OURS, 1, b"\x00\x00\x05", request)]
    assert heard(a_line(), frame) == [Reply(0, OURS, 1, b"\x00\x00\x05", None)]


def test_another_masters_request_tells_what_the_reply_behind_it_holds() -> None:
    told = heard(a_line(), ASKED.frame, reply_frame(OURS, 3, PAYLOAD))
    assert errors(told[:1]) == ["echo"]
    assert told[1:] == [Reply(8, OURS, 3, PAYLOAD, ASKED)]


def test_what_was_asked_before_a_silence_is_over() -> None:
    line = a_line(ASKED)
    line.end()
    assert errors(heard(line, reply_frame(OURS, 3, PAYLOAD))) == ["address"]


def test_any_pieces_of_a_line_say_the_same() -> None:
    rng = random.Random("modbus pieces")
    whole = b"".join(
        (
            b"\x00AT\r\n",
            ASKED.frame,
            reply_frame(OURS, 3, PAYLOAD),
            reply_frame(OURS, 3, PAYLOAD)[:-3],
            reply_frame(OURS, 3, PAYLOAD[:2]),
            bytes([OURS, 3, 0x20]),
            refusal_frame(OURS, 3, 6),
            reply_frame(0x33, 4, PAYLOAD),
            ReadRequest(OURS, 3, 0x0220, 11).frame,
            reply_frame(OURS, 3, b"\x01\x02\x03\x04"),
        )
    )
    said = heard(a_line(), whole)
    assert sum(isinstance(it, Reply) for it in said) == 3
    for _ in range(1000):
        cuts = sorted(rng.sample(range(1, len(whole)), rng.randrange(len(whole) - 1)))
        chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert heard(a_line(), *chunks) == said


def test_junk_before_a_reply_costs_no_reply() -> None:
    rng = random.Random("modbus junk")
    frame = reply_frame(OURS, 3, PAYLOAD)
    for _ in range(2000):
        told = heard(a_line(), rng.randbytes(rng.randrange(1, 65)) + frame)
        assert isinstance(told[-1], Reply) and told[-1].payload == PAYLOAD


def test_the_check_of_a_piece_is_right_wherever_it_lies() -> None:
    rng = random.Random("modbus sums")
    for _ in range(300):
        before, body, behind = (rng.randbytes(rng.randrange(100)) for _ in range(3))
        frame = with_crc(body)
        data = before + frame + behind
        sums = ModbusSums()
        sums.begin(data, len(before))
        assert sums.is_good(len(frame))
        at = rng.randrange(len(data) - 1)
        end = rng.randrange(at + 2, len(data) + 1)
        sums.begin(data, at)
        assert sums.is_good(end - at) == (crc16_modbus(data[at:end]) == 0)
        spoilt = bytearray(data)
        spoilt[len(before) + rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
        sums.begin(bytes(spoilt), len(before))
        assert not sums.is_good(len(frame))


def test_the_check_of_a_piece_is_right_when_the_buffer_has_moved_on() -> None:
    """All that was there before was summed up again with each byte that came."""
    rng = random.Random("modbus moves")
    sums, buffer = ModbusSums(), b""
    for _ in range(2000):
        buffer += with_crc(rng.randbytes(rng.randrange(9))) if rng.random() < 0.5 else rng.randbytes(rng.randrange(4))
        if len(buffer) < 3:
            continue
        at = rng.randrange(len(buffer) - 2)
        sums.begin(buffer, at)
        for size in range(2, len(buffer) - at + 1):
            assert sums.is_good(size) == (crc16_modbus(buffer[at : at + size]) == 0)
        buffer = buffer[at:] if rng.random() < 0.9 else rng.randbytes(20)


class Counting(tuple[int, ...]):
    """A table that counts how often it is looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)


def test_noise_full_of_heads_is_summed_up_once_however_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each byte that came all that waited was summed up again: 7 ms for 300 bytes, one at a time."""
    noise = bytes.fromhex("d203ffd203fe") * 200
    heard(a_line(), noise)  # what lengths need is known from here on
    table = Counting(checksums._MODBUS)
    monkeypatch.setattr(checksums, "_MODBUS", table)
    heard(a_line(), *(noise[at : at + 1] for at in range(len(noise))))
    assert len(noise) <= table.looks <= 2 * len(noise)


def test_a_line_holds_a_frame_at_most() -> None:
    rng = random.Random("modbus memory")
    line = a_line(ASKED)
    for _ in range(300):
        line.feed(rng.randbytes(200))
        assert len(line.pending) <= 300
