"""Columns of numbers as text: what numpy writes is what Python would have written."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.logs.digits import decimals, seconds_column, squeezed, whole
from edge.logs.frames import seconds_text


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1))
def test_whole_numbers_read_as_they_are(numbers: list[int]) -> None:
    text = squeezed(whole(np.array(numbers, np.int64)))
    assert text.tolist() == [str(number).encode() for number in numbers]


@given(st.lists(st.integers(0, 99_999_999), min_size=1))
def test_decimals_lose_their_trailing_zeros_but_one(numbers: list[int]) -> None:
    text = squeezed(decimals(np.array(numbers, np.int64), 8))
    assert text.tolist() == [(f"{n:08d}".rstrip("0") or "0").encode() for n in numbers]
    small = [number % 10_000 for number in numbers]
    text = squeezed(decimals(np.array(small, np.int64), 4))
    assert text.tolist() == [(f"{n:04d}".rstrip("0") or "0").encode() for n in small]


@given(st.lists(st.integers(-(2**62), 2**62), max_size=20))
def test_times_have_six_decimals_or_nine(times: list[int]) -> None:
    assert seconds_column(np.array(times, np.int64)).tolist() == [seconds_text(t_ns) for t_ns in times]


def test_a_time_before_the_first_keeps_its_sign() -> None:
    assert seconds_column(np.array([-1_500_000_000, 0, 1])).tolist() == [b"-1.500000", b"0.000000", b"0.000000001"]
