"""FrameBatch: frames in columns."""

from __future__ import annotations

import pytest

from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch

ROWS = [
    (1_767_225_600_000_000_000, 0x100, b"\x01\x02"),
    (1_767_225_600_000_250_999, 0x18FF10F4 | EXTENDED, bytes(range(8))),
    (1_767_225_601_999_999_999, 0x7FF, b""),
]


def test_rows_come_back_as_they_went_in() -> None:
    assert list(FrameBatch.of("can0", ROWS).rows()) == ROWS


def test_candump_lines_have_whole_microseconds_and_ids_of_three_or_eight_digits() -> None:
    assert FrameBatch.of("can0", ROWS).candump() == [
        "(1767225600.000000) can0 100#0102",
        "(1767225600.000250) can0 18FF10F4#0001020304050607",
        "(1767225601.999999) can0 7FF#",
    ]


def test_a_remote_frame_and_a_long_frame_have_their_own_marks() -> None:
    batch = FrameBatch.of("vcan0", [(0, 0x123 | REMOTE, b""), (0, 0x124, bytes(12))])
    assert batch.candump() == ["(0.000000) vcan0 123#R", "(0.000000) vcan0 124##0" + "00" * 12]


def test_concat_keeps_order_and_widens_for_long_frames() -> None:
    both = FrameBatch.concat("can1", [FrameBatch.of("a", ROWS), FrameBatch.of("b", [(5, 6, bytes(range(64)))])])
    assert list(both.rows()) == [*ROWS, (5, 6, bytes(range(64)))]
    assert both.channel == "can1"


def test_an_empty_batch_is_a_batch() -> None:
    empty = FrameBatch.empty("can0")
    assert len(empty) == 0
    assert empty.candump() == []
    assert len(FrameBatch.concat("can0", [empty, empty])) == len(FrameBatch.concat("can0", [])) == 0


def test_take_picks_frames() -> None:
    batch = FrameBatch.of("can0", ROWS)
    assert list(batch.take(batch.length > 0).rows()) == ROWS[:2]


def test_a_payload_no_frame_can_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes, not 65"):
        FrameBatch.of("can0", [(0, 1, bytes(65))])
