"""Numbers as ascending, disjoint, inclusive ranges (first, last)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batch import ranges
from shared.block import Ints

Spans = list[tuple[int, int]]
_ENDLESS: Final = 2**63


def spans_of(numbers: Ints) -> Spans:
    """The ranges of ascending numbers, at least one."""
    first, last = int(numbers[0]), int(numbers[-1])
    return [(first, last)] if last - first + 1 == numbers.size else ranges(numbers)


def inside(numbers: Ints, spans: Spans) -> npt.NDArray[np.bool_]:
    """Which of the numbers lie in one of the ranges."""
    if not spans:
        return np.zeros(numbers.size, np.bool_)
    bounds = np.array(spans, np.int64)
    at = np.searchsorted(bounds[:, 0], numbers, side="right") - 1
    found: npt.NDArray[np.bool_] = (at >= 0) & (numbers <= bounds[at, 1])
    return found


def repeats(turns: Sequence[Spans], taken: Spans) -> list[Spans]:
    """What each of `turns`, one after the other, has in common with what was `taken` before or by an earlier turn."""
    taken = list(taken)
    found = []
    for spans in turns:
        found.append([common for span in spans for common in _common(span, taken)])
        for span in spans:
            _add(taken, span)
    return found


def _common(span: tuple[int, int], taken: Spans) -> Spans:
    first, last = span
    at = max(0, bisect_right(taken, (first, _ENDLESS)) - 1)
    found = []
    while at < len(taken) and taken[at][0] <= last:
        low, high = max(first, taken[at][0]), min(last, taken[at][1])
        if low <= high:
            found.append((low, high))
        at += 1
    return found


def _add(taken: Spans, span: tuple[int, int]) -> None:
    """Adds a range, as one with those that it touches."""
    first, last = span
    begin = bisect_left(taken, (first, first))
    if begin and taken[begin - 1][1] >= first - 1:
        begin -= 1
    end = begin
    while end < len(taken) and taken[end][0] <= last + 1:
        first, last = min(first, taken[end][0]), max(last, taken[end][1])
        end += 1
    taken[begin:end] = [(first, last)]
