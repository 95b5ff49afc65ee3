"""The cells against the pack's voltage of one instant: 2 % are told in time under a load that never rests."""

from __future__ import annotations

import json
import random

import pytest

from edge.plausible.cell_sum import CellSum, Look
from edge.plausible.course import Course, Pair

S = 1_000_000_000
MAX_AGE_S = 5
FAULT_S = 300


def told_after_s(
    seed: int, factor: float, lag: int, *, seconds: int = FAULT_S + 60, is_cut: bool = False
) -> int | None:
    """A car of 96 cells in a city; its cells were measured `lag` s ago. When the fault is told, None = never."""
    rng, sums = random.Random(seed), CellSum(96, 96, "nmc", MAX_AGE_S * S, S)
    amperes, target_a, past = 0.0, 0.0, [0.0, 0.0]
    for t_s in range(1, seconds):
        if t_s % rng.choice((3, 5, 8)) == 0:
            target_a = rng.choice((-150, -80, -40, -20, 0, 0, 30, 60))
        amperes += (target_a - amperes) / 2
        past.append(amperes)
        before_v, pack_v, then_v = (360 + 0.1 * past[i] for i in (-2, -1, -1 - lag))
        cell_v = round(then_v * (factor if t_s >= FAULT_S else 1.0) / 96, 3)
        sums.pack(t_s * S, min(before_v, pack_v), max(before_v, pack_v))
        sums.look(
            Look(
                mono_ns=t_s * S,
                cell_v=(cell_v,) * 96,
                since_ns=(t_s - lag) * S,
                pack_v=round(pack_v, 1),
                pack_ns=t_s * S,
                current_a=round(amperes, 1),
                is_open=False,
                load_a=(min(past[-2:]), max(past[-2:])),
            )
        )
        if is_cut:
            state = json.loads(json.dumps(sums.state))
            sums = CellSum(96, 96, "nmc", MAX_AGE_S * S, S)
            sums.restore(state)
        if sums.doubted != ((), False):
            assert t_s >= FAULT_S, "false"
            assert sums.doubted == (tuple(range(96)), False)
            return t_s - FAULT_S
    return None


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_2_percent_are_told_within_the_max_age_while_the_load_changes_all_the_time(factor: float, lag: int) -> None:
    """They were after 2 to 59 s, half of them after more than 12: few scans said anything."""
    told = [told_after_s(seed, factor, lag) for seed in range(12)]
    assert all(t_s is not None and t_s <= MAX_AGE_S for t_s in told), told


def test_going_on_from_a_state_that_was_json_comes_to_the_same_verdict() -> None:
    assert told_after_s(3, 1.02, 1) == told_after_s(3, 1.02, 1, is_cut=True) is not None


def test_an_hour_without_a_fault_is_an_hour_without_a_doubt() -> None:
    assert told_after_s(4, 1.0, 1, seconds=3600) is None


class Followed:
    """A Course, a scan a second."""

    def __init__(self) -> None:
        self.course, self.t_s = Course(), 0

    def scans(self, count: int, off: float = 0.0, loads: float = 0.03) -> int | None:
        """Which of so many scans, all off by that share, shows that the course is left; None = none."""
        for n in range(count):
            self.t_s += 1
            if self.course.is_left(self.t_s * S, Pair(360.0 * (1 + off), 360.0, 0.0), loads, 3 * S // 2):
                return n + 1
        return None


def test_three_scans_leave_a_course_that_was_kept_long_enough() -> None:
    for kept, left in ((99, None), (100, 3)):
        one = Followed()
        one.scans(kept)
        assert one.scans(20, 0.02) == left


def test_a_course_kept_at_rest_or_under_smaller_loads_proves_nothing_of_this_one() -> None:
    for loads in (0.0, 0.009, 0.02):
        one = Followed()
        one.scans(1000, loads=loads)
        assert one.scans(20, 0.02) is None


def test_a_load_that_nobody_saw_makes_it_twice_as_hard_to_prove() -> None:
    one = Followed()
    one.scans(100)
    assert one.scans(2, -0.03) is None
    one.scans(1 + 199)
    assert one.scans(20, 0.02) is None
    one.scans(200)
    assert one.scans(20, 0.02) == 3
