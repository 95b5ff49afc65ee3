"""A counter that may never move by itself: when all stands still it is told, when anything moves it is not."""

from __future__ import annotations

import json

from edge.plausible.standstill import Standstill

S = 1_000_000_000
CELLS = [3.301, 3.302, 3.3, 3.299]


def stuck_after(
    seconds: int, current_a: float | None, ah: float | None = 100.0, *, moves_each_s: int = 0
) -> int | None:
    """The second at which it is stuck; None = it is not. The last cell moves by a millivolt each `moves_each_s`."""
    still = Standstill()
    for t_s in range(seconds):
        last_v = CELLS[-1] + 0.001 * (t_s // moves_each_s % 2 if moves_each_s else 0)
        still.look(t_s * S, [0.55, current_a, *CELLS[:-1], last_v], current_a, ah)
        if still.is_stuck:
            return t_s
    return None


def test_when_nothing_moves_while_a_twentieth_of_the_capacity_flows_it_stands_still() -> None:
    for current_a in (50.0, -50.0):
        assert stuck_after(900, current_a) in (360, 361), "0.5 C for 6 min"


def test_a_millivolt_of_one_cell_is_enough_to_live() -> None:
    assert stuck_after(24 * 3600, -50.0, moves_each_s=300) is None


def test_at_rest_or_without_current_or_capacity_nothing_is_known() -> None:
    """A cellar: a filtered BMS may say the same for hours, with the offset of its current sensor."""
    for current_a, ah in ((0.0, 100.0), (-4.9, 100.0), (None, 100.0), (50.0, None)):
        assert stuck_after(24 * 3600, current_a, ah) is None


def test_what_does_not_come_does_not_stand_still() -> None:
    still = Standstill()
    for _ in range(10_000):
        still.look(5 * S, [0.55, *CELLS], -50.0, 100.0)
    assert not still.is_stuck


def test_it_is_over_with_the_first_digit_that_moves_and_goes_on_from_its_state() -> None:
    still = Standstill()
    for t_s in range(400):
        again = Standstill()
        again.restore(json.loads(json.dumps(still.state)))
        still = again
        still.look(t_s * S, [0.55, *CELLS], -50.0, 100.0)
    assert still.is_stuck
    still.look(400 * S, [0.549, *CELLS], -50.0, 100.0)
    assert not still.is_stuck
