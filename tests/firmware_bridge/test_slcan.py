"""The language of USB-CAN adapters: what is parsed, in whatever pieces it comes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.frames import EXTENDED, FD_LENGTHS, REMOTE, FrameBatch
from firmware_bridge.slcan import MAX_LINE_BYTES, SlcanParser, encode

ids = st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF).map(lambda number: number | EXTENDED))
payloads = st.one_of(
    st.binary(max_size=8), st.sampled_from(FD_LENGTHS).flatmap(lambda n: st.binary(min_size=n, max_size=n))
)
frames = st.lists(st.tuples(st.just(7), ids, payloads), max_size=30)
junk = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from([b"t1002", b"T18FF10F48", b"\r", b"\a", b"z\r", b"V1013\r", b"t", b"d10", b"00112233"]),
        st.binary(min_size=MAX_LINE_BYTES - 2, max_size=MAX_LINE_BYTES + 40).map(lambda b: b.replace(b"\r", b"t")),
    ),
    max_size=20,
).map(b"".join)


def feed(pieces: Iterable[bytes]) -> tuple[list[tuple[int, int, bytes]], int, int]:
    """What a parser makes of the pieces: frames, bad lines, replies."""
    parser = SlcanParser("can0")
    rows = [row for piece in pieces for row in parser.feed(piece, 7).rows()]
    return rows, parser.bad_lines, parser.replies


def cut(text: bytes, sizes: list[int]) -> list[bytes]:
    """`text` in pieces of `sizes`, repeated until it ends."""
    pieces, at = [], 0
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    return pieces


@given(frames)
def test_what_is_encoded_is_parsed_again(rows: list[tuple[int, int, bytes]]) -> None:
    assert feed([encode(FrameBatch.of("can0", rows))]) == (rows, 0, 0)


@given(frames, junk, st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_any_cutting_gives_the_same_frames_and_counts(
    rows: list[tuple[int, int, bytes]], noise: bytes, sizes: list[int]
) -> None:
    text = noise + encode(FrameBatch.of("can0", rows)) + noise
    assert feed(cut(text, sizes)) == feed([text])


@given(st.binary(max_size=2000))
def test_junk_never_raises(noise: bytes) -> None:
    feed([noise, b"\r"])


@given(frames, st.binary(max_size=300))
def test_frames_after_junk_are_all_found(rows: list[tuple[int, int, bytes]], noise: bytes) -> None:
    found, _, _ = feed([noise, b"\r", encode(FrameBatch.of("can0", rows))])
    assert found[len(found) - len(rows) :] == rows


def test_the_words_of_the_language() -> None:
    text = b"t10020A1b\rT18ff10F4100\rr7FF8\rR000000013\rd12490" + b"00" * 11 + b"FF\r"
    rows, bad, _ = feed([text])
    assert rows == [
        (7, 0x100, b"\x0a\x1b"),
        (7, 0x18FF10F4 | EXTENDED, b"\x00"),
        (7, 0x7FF | REMOTE, bytes(8)),
        (7, 1 | EXTENDED | REMOTE, bytes(3)),
    ]
    assert bad == 1  # the last line is one digit short of its 12 bytes


@pytest.mark.parametrize("reply", [b"\r", b"\a", b"z\r", b"Z\r", b"V1013\r", b"NPTWN\r", b"F00\r"])
def test_replies_of_the_adapter_are_neither_frames_nor_bad(reply: bytes) -> None:
    assert feed([b"t1000\r" + reply + b"t1010\r"]) == ([(7, 0x100, b""), (7, 0x101, b"")], 0, 1)


def test_a_line_end_of_two_bytes_is_one_line_end() -> None:
    assert feed([b"t1000\r\nt1010\r\n"])[:2] == ([(7, 0x100, b""), (7, 0x101, b"")], 0)


def test_timestamps_of_an_adapter_are_skipped() -> None:
    assert feed([b"t1001AB1F3C\rt1000EA5F\r"]) == ([(7, 0x100, b"\xab"), (7, 0x100, b"")], 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"t1009",
        b"t8000",
        b"T200000000",
        b"t10",
        b"t100",
        b"t1002AB",
        b"t1001GG",
        b"tG000",
        b"t1001ABzzzz",
        b"hello",
        b"t1000\a",
    ],
)
def test_a_bad_line_is_counted_and_nothing_else(line: bytes) -> None:
    rows, bad, _ = feed([line + b"\rt1010\r"])
    assert rows == [(7, 0x101, b"")]
    assert bad == 1


def test_a_line_without_end_takes_no_more_room_than_a_line() -> None:
    parser = SlcanParser("can0")
    for _ in range(1000):
        parser.feed(b"t" * 1000, 0)
    assert len(parser._tail) <= MAX_LINE_BYTES + 1
    assert len(parser.feed(b"\rt1010\r", 0)) == 1
    assert parser.bad_lines == 1


def test_a_length_that_can_does_not_know_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="9 bytes"):
        encode(FrameBatch.of("can0", [(0, 1, bytes(9))]))


def test_parsed_as_python_can_parses() -> None:
    from can.interfaces.slcan import slcanBus as slcan_bus

    batch = FrameBatch.of("can0", [(7, 0x123, b"\x01\xfe"), (7, 0x18FF50E5 | EXTENDED, bytes(range(8))), (7, 5, b"")])
    bus = slcan_bus("loop://", sleep_after_open=0)
    try:
        bus.flush()
        bus.serialPortOrig.write(encode(batch))
        messages = [bus.recv(1.0) for _ in range(3)]
    finally:
        bus.shutdown()
    theirs = [(m.arbitration_id | (EXTENDED if m.is_extended_id else 0), bytes(m.data)) for m in messages if m]
    assert theirs == [(can_id, payload) for _, can_id, payload in batch.rows()]
