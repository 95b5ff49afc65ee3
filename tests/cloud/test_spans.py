"""Ranges of numbers, against sets of numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloud.spans import inside, repeats, spans_of
from shared.batch import ranges

NUMBERS = st.sets(st.integers(0, 60), min_size=1, max_size=30)


def as_spans(numbers: set[int]) -> list[tuple[int, int]]:
    return ranges(np.array(sorted(numbers), np.int64))


def as_set(spans: list[tuple[int, int]]) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}


@given(st.lists(NUMBERS, max_size=6), NUMBERS)
def test_each_turn_repeats_what_was_taken_before_it(turns: list[set[int]], taken: set[int]) -> None:
    found = repeats([as_spans(turn) for turn in turns], as_spans(taken))
    before = set(taken)
    for turn, repeated in zip(turns, found, strict=True):
        assert as_set(repeated) == turn & before
        assert repeated == sorted(repeated)
        before |= turn


@given(NUMBERS, NUMBERS)
def test_inside_is_membership(numbers: set[int], spans: set[int]) -> None:
    ordered = np.array(sorted(numbers), np.int64)
    assert inside(ordered, as_spans(spans)).tolist() == [n in spans for n in sorted(numbers)]
    assert spans_of(ordered) == as_spans(numbers)
