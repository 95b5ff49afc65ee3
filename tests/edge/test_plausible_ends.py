"""A doubt of cells against pack ends when nothing can be compared any more; behind an open contactor there is none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes.said_day import Hearer

from edge.mapping import load_mapping

MAX_AGE_S = 5.0
MAPPING = """dbc = "packtwin.dbc"
[pack]
chemistry = "lfp"
nominal_ah = 100.0
series = 16
[fields]
pack_v = { from = "S.V", resolution = 0.01 }
current_a = { from = "S.I" }
cell_v = { from = "S.C{}", count = 16 }
contactor_main = { from = "S.Main" }
"""
CELLS = {f"cell_v[{i}]": 3.3 for i in range(16)}


@pytest.fixture
def hearer(tmp_path: Path) -> Hearer:
    (tmp_path / "m.toml").write_text(MAPPING)
    return Hearer(load_mapping(tmp_path / "m.toml"))


@pytest.mark.parametrize("tau_s", [2, 10, 20, 60, 3600])
@pytest.mark.parametrize("falls_silent", [False, True])
def test_a_car_whose_side_bleeds_behind_the_open_contactor_is_not_doubted_all_night(
    hearer: Hearer, tau_s: int, falls_silent: bool
) -> None:
    """Down to half of the cells' sum it was compared and found wrong, and below that nothing ever ended the doubt."""
    for t_s in range(300):
        pack_v, is_closed = 52.8 * math.exp(-max(t_s - 60, 0) / tau_s), t_s < 60
        says = {"pack_v": round(pack_v, 2), "current_a": -3.0 * is_closed, "contactor_main": float(is_closed)}
        if falls_silent and t_s > 60:
            del says["contactor_main"]
        hearer.say(t_s + 0.1, says | CELLS)
        hearer.sample(t_s + 1)
    assert not hearer.doubts


@pytest.mark.parametrize("closed", [1.0, None])
def test_a_contactor_that_is_closed_or_never_heard_changes_nothing(hearer: Hearer, closed: float | None) -> None:
    for t_s in range(60):
        says = {"pack_v": 52.8 if t_s < 30 else 51.7, "current_a": 0.0} | CELLS
        hearer.say(t_s + 0.1, says if closed is None else says | {"contactor_main": closed})
        hearer.sample(t_s + 1)
    assert 30 < hearer.doubts[0][0] <= 30 + MAX_AGE_S and "pack_v" in hearer.last


def test_a_doubt_ends_when_the_contactor_opens_and_is_back_soon_after_it_has_closed(hearer: Hearer) -> None:
    for t_s in range(120):
        says = {"pack_v": 52.8 if t_s < 20 else 51.7, "current_a": 0.0, "contactor_main": float(not 40 <= t_s < 90)}
        hearer.say(t_s + 0.1, says | CELLS)
        hearer.sample(t_s + 1)
    doubted = [t_s for t_s, _ in hearer.doubts]
    begun, again = doubted[0], next(t_s for t_s in doubted if t_s > 41)
    assert 20 < begun <= 20 + MAX_AGE_S and 90 < again <= 90 + MAX_AGE_S
    assert doubted == [*range(int(begun), 41), *range(int(again), 121)]


@pytest.mark.parametrize("lost", ["cell_v[2]", "pack_v"])
def test_a_doubt_ends_when_nothing_can_be_compared_any_more(hearer: Hearer, lost: str) -> None:
    """`pack_v` that had come right again stayed `implausible` for ever, as one cell had fallen away meanwhile."""
    off = {"cell_v[2]": ("pack_v", 51.7), "pack_v": ("cell_v[7]", 4.5)}[lost]
    for t_s in range(120):
        says = {"pack_v": 52.8, "current_a": 0.0} | CELLS
        if 20 <= t_s < 50:
            says |= dict([off])
        if t_s >= 40:
            del says[lost]
        hearer.say(t_s + 0.1, says)
        hearer.sample(t_s + 1)
    doubted = [t_s for t_s, bad in hearer.doubts if bad == {off[0]: "implausible"}]
    assert len(doubted) == len(hearer.doubts) and 20 < doubted[0] <= 20 + MAX_AGE_S
    assert doubted == [*range(int(doubted[0]), int(doubted[-1]) + 1)], "without a gap"
    assert 40 + MAX_AGE_S <= doubted[-1] <= 40 + MAX_AGE_S + 2
