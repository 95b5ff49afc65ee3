"""Simulated lives: the published law holds, packs differ and end, records look like what a Meter would have noted."""

from __future__ import annotations

import csv
import gzip
import math
import os
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.__main__ import main
from firmware_bridge.lives import Law, Life, draw
from firmware_bridge.lives.ageing import Course
from firmware_bridge.lives.law import Use, Wear
from firmware_bridge.lives.life import courses_of
from firmware_bridge.lives.packs import Pack
from shared.features import NAMES, life_matrix
from shared.record_lines import from_line, to_line
from shared.records import SESSION_REASONS, Event, Session

ONE = np.ones((1, 1))


def use(**changes: float) -> Use:
    """Driven a lot at 35 degC and 1C; each value [1, 1]."""
    usual = {
        "days": 365.0, "efc": 500.0, "rest_c": 35.0, "rest_v": 3.75, "use_c": 35.0, "use_v": 3.8, "depth": 0.6,
        "charge_rate": 1.0,
    }  # fmt: skip
    return Use(**{name: value * ONE for name, value in (usual | changes).items()})


def worn(*uses: Use, law: Law | None = None, budget: float = 1e9) -> tuple[float, float]:
    wear = Wear(law or Law(pace=1.0), ONE, ONE, budget * ONE)
    for one in uses:
        wear.step(one)
    return float(wear.loss[0, 0]), float(wear.growth[0, 0])


@pytest.fixture(scope="module")
def lives() -> list[Life]:
    return draw(60, seed=1)


# the law


@pytest.mark.parametrize(
    ("days", "efc", "volts", "depth"), [(365, 500, 3.8, 0.6), (2000, 1500, 3.65, 0.3), (50, 9, 4, 1)]
)
def test_under_constant_conditions_it_is_the_formula_of_the_paper(
    days: float, efc: float, volts: float, depth: float
) -> None:
    """Schmalstieg et al. 2014, for their 2.15 Ah cell cycled at 35 degC and 1C; written down anew."""
    moved_ah, kelvin = 2 * 2.15 * efc, 273.15 + 35.0
    alpha = (7.543 * 3.75 - 23.75) * 1e6 * math.exp(-6976 / kelvin)
    beta = 7.348e-3 * (volts - 3.667) ** 2 + 7.600e-4 + 4.081e-3 * depth
    alpha_r = (5.270 * 3.75 - 16.32) * 1e5 * math.exp(-5986 / kelvin)
    beta_r = 2.153e-4 * (volts - 3.725) ** 2 - 1.521e-5 + 2.798e-4 * depth
    loss, growth = worn(use(days=days, efc=efc, use_v=volts, depth=depth))
    assert loss == pytest.approx(alpha * days**0.75 + beta * math.sqrt(moved_ah), rel=2e-3)
    assert growth == pytest.approx(alpha_r * days**0.75 + beta_r * moved_ah, rel=2e-3)


def test_many_small_steps_are_one_large_step_and_their_order_does_not_matter() -> None:
    small = use(days=3.65, efc=5.0)
    assert worn(*[small] * 100) == pytest.approx(worn(use()), rel=1e-9)
    hot, cold = use(rest_c=40.0, use_c=45.0), use(rest_c=5.0, use_c=10.0)
    assert worn(hot, cold) == pytest.approx(worn(cold, hot), rel=1e-12)


@pytest.mark.parametrize(
    "harder",
    [{"rest_c": 45.0}, {"rest_v": 4.0}, {"use_c": 45.0}, {"depth": 0.9}, {"charge_rate": 2.0}, {"efc": 700.0}],
)
def test_heat_charge_depth_and_current_cost_capacity_and_resistance(harder: dict[str, float]) -> None:
    usual, more = worn(use()), worn(use(**harder))
    assert more[0] > usual[0]
    assert more[1] > usual[1]


def test_a_knee_comes_when_the_plating_budget_is_spent_and_resistance_feels_it_first() -> None:
    law = Law()
    for efc, knee in ((600.0, (False, False)), (760.0, (False, True)), (1200.0, (True, True))):
        # At 35 degC an EFC at 1C is 0.61 of the stress that it is at 25.
        with_budget, without = worn(use(efc=efc), law=law, budget=500.0), worn(use(efc=efc), law=law)
        assert (with_budget[0] > without[0], with_budget[1] > without[1]) == knee
    cold = worn(use(use_c=0.0), law=law, budget=500.0)
    assert cold[0] > worn(use(use_c=0.0), law=law)[0]


def test_another_law_has_every_parameter_within_a_fifth_and_comes_back_by_its_seed() -> None:
    one = Law().drawn(7)
    assert one == Law().drawn(7) != Law().drawn(8)
    for parameter in fields(Law):
        usual, other = getattr(Law(), parameter.name), getattr(one, parameter.name)
        assert 0.8 <= other / usual <= 1.2
        assert other != usual
    assert Law().drawn(7, share=0.0) == Law()


# packs


def test_the_weakest_cell_decides() -> None:
    pack = Pack.drawn(np.random.default_rng(1))
    pack = replace(pack, capacity_ah=np.full(96, 180.0))
    loss = np.linspace(0.0, 0.1, 5)[:, None] * np.ones(96)
    loss[:, 40] *= 3
    course = Course(loss, np.zeros_like(loss))
    assert course.soh(pack)[-1] == pytest.approx(0.7)
    assert course.end_efc(pack) == pytest.approx(12.0 * 4 * 2 / 3)


def test_lives_are_as_long_as_real_ones_and_one_in_ten_is_not_seen_to_its_end() -> None:
    ends = [life.eol_cycles for life in draw(200, seed=4)]
    seen = np.array([end for end in ends if end is not None])
    assert 0.04 <= 1 - seen.size / len(ends) <= 0.16
    assert 1100 <= np.median(seen) <= 1700
    assert np.quantile(seen, 0.05) > 550
    assert 2300 < np.quantile(seen, 0.95) < 3300


def test_packs_differ_by_their_use(lives: list[Life]) -> None:
    ends = {
        name: np.median([life.eol_cycles for life in lives if life.profile == name and life.eol_cycles])
        for name in ("fast charger", "taxi", "van", "commuter")
    }
    assert ends["fast charger"] < ends["taxi"] < ends["van"]
    days = {name: np.median([_age_days(life) for life in lives if life.profile == name]) for name in ends}
    assert days["taxi"] < days["van"] < days["commuter"]


def _age_days(life: Life) -> float:
    return float(life.record.columns["duration_s"].sum()) / 86400


def test_some_packs_have_a_knee_and_others_none() -> None:
    rngs = [np.random.default_rng([9, number]) for number in range(60)]
    packs = [Pack.drawn(rng) for rng in rngs]
    _, courses = courses_of(packs, rngs, Law())
    bends = []
    for pack, course in zip(packs, courses, strict=True):
        end = course.end_efc(pack)
        if end is not None:
            soh = np.interp(np.array([0.35, 0.6, 0.85, 1.0]) * end, course.efc(), course.soh(pack))
            bends.append((soh[2] - soh[3]) / 0.15 / ((soh[0] - soh[1]) / 0.25))
    assert 0.1 < np.mean(np.array(bends) > 1.5) < 0.6
    assert min(bends) < 0.9


def test_the_same_seed_is_the_same_lives_however_many_are_drawn(lives: list[Life]) -> None:
    again = draw(3, seed=1)
    for one, two in zip(lives, again, strict=False):
        assert one.eol_cycles == two.eol_cycles
        assert one.features.tobytes() == two.features.tobytes()
        assert one.sessions == two.sessions
    assert draw(1, seed=2)[0].features.tobytes() != again[0].features.tobytes()


# what is on record


def test_a_record_is_possible_ordered_and_says_why_something_is_missing(lives: list[Life]) -> None:
    why: set[tuple[str, str]] = set()
    for life in lives[:12]:
        sessions = life.sessions
        assert [session.seq for session in sessions] == list(range(len(life)))
        assert all(a.mono_ns < b.mono_ns for a, b in pairwise(sessions))
        for session in sessions:
            assert session.simulated
            missing = {f.name for f in fields(Session) if getattr(session, f.name) is None}
            assert missing == set(session.reasons)
            assert set(session.reasons.values()) <= set(SESSION_REASONS)
            assert 0 < session.duration_s <= 14 * 86400
            why |= set(session.reasons.items())
        for session in sessions[::50]:
            assert from_line(to_line(session), "a line") == session
    assert {("window_ah", "short_window"), ("window_ah", "fast_charge"), ("r_step_mohm", "no_step")} <= why
    assert {("cell_dev_mv", "no_rest"), ("cycles", "absent"), ("age_days", "no_time")} <= why


def test_the_table_is_what_the_edge_makes_of_the_sessions(lives: list[Life]) -> None:
    for life in lives[:3]:
        assert life_matrix(life.sessions).tobytes() == life.features.tobytes()


def test_sessions_are_one_or_two_cycles_apart(lives: list[Life]) -> None:
    apart = np.concatenate([np.diff(life.cycles) for life in lives])
    assert 1.0 <= np.median(apart) <= 1.5
    assert np.quantile(apart, 0.99) < 2.5


def test_labels_count_down_to_the_end_and_censored_packs_have_none(lives: list[Life]) -> None:
    for life in lives:
        if life.eol_cycles is None:
            assert np.isnan(life.rul_cycles).all() and np.isnan(life.eol_100).all()
            assert not any(isinstance(record, Event) for record in life.records())
            continue
        assert life.rul_cycles == pytest.approx(life.eol_cycles - life.cycles, abs=0.11)
        assert 0 <= life.rul_cycles[-1] < 5
        assert ((life.eol_100 == 1) == (life.rul_cycles <= 100)).all()
        *_, end = life.records()
        assert isinstance(end, Event)
        assert (end.code, end.value, end.threshold, end.pack_id) == ("end_of_life", life.eol_cycles, 0.8, life.pack_id)
    assert any(life.eol_cycles is None for life in lives)


def test_the_bms_is_biased_quantised_and_stale(lives: list[Life]) -> None:
    told = [life.record.columns["soh_bms"] for life in lives]
    known = [column for column in told if not np.isnan(column).any()]
    assert 0 < len(told) - len(known) < 10  # a few never tell
    for column in known:
        assert np.allclose(column * 200, np.round(column * 200))
        assert (np.diff(column) == 0).mean() > 0.9
    last = np.array([column[-1] for life, column in zip(lives, told, strict=True) if life.eol_cycles])
    assert abs(np.nanmedian(last) - 0.80) < 0.015  # all of them are at 0.80 in truth
    assert 0.015 < np.nanstd(last) < 0.05


# what can be learned from it


Rows = tuple[np.ndarray, np.ndarray]


def skill(train: Rows, test: Rows, names: tuple[str, ...], permuted: bool = False) -> float:
    """R2 of a linear model of rul_cycles on unseen packs; missing values are the median, and say that they miss."""
    at = [NAMES.index(name) for name in names]
    (x, y), (x_test, y_test) = train, test
    x, x_test = x[:, at], x_test[:, at]
    if permuted:
        y = np.random.default_rng(0).permutation(y)
    middle = np.nanmedian(x, axis=0)
    scale = np.nanstd(x, axis=0)

    def design(values: np.ndarray) -> np.ndarray:
        missing = np.isnan(values)
        known = np.where(missing, 0.0, np.clip((values - middle) / scale, -4, 4))
        return np.hstack([known, known**2, missing, np.ones((len(values), 1))])

    a = design(x)
    weights = np.linalg.solve(a.T @ a + 10.0 * np.eye(a.shape[1]), a.T @ y)
    errors = y_test - design(x_test) @ weights
    return 1.0 - float((errors**2).sum() / ((y_test - y_test.mean()) ** 2).sum())


def rows(lives: list[Life]) -> Rows:
    seen = [life for life in lives if life.eol_cycles is not None]
    return (
        np.concatenate([life.features[20::10] for life in seen]),
        np.concatenate([life.rul_cycles[20::10] for life in seen]),
    )


def test_remaining_life_can_be_learned_without_the_bms_and_not_from_permuted_labels() -> None:
    train, test = rows(draw(120, seed=11)), rows(draw(60, seed=12))
    unaided = tuple(name for name in NAMES if name not in ("cycles", "cycles_per_day") and "soh_bms" not in name)
    every = skill(train, test, NAMES)
    assert 0.5 < every < 0.95
    assert every > skill(train, test, unaided) > 0.4
    assert skill(train, test, ("cycles",)) < every - 0.2
    assert skill(train, test, NAMES, permuted=True) < 0.05


# the command


def test_the_command_writes_the_same_table_and_records_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        assert main(["lives", "--packs", "3", "--seed", "5", "--sessions", "-o", str(tmp_path / name)]) == 0
    files = sorted(os.listdir(tmp_path / "a"))
    assert files == ["LIFE_0001.jsonl.gz", "LIFE_0002.jsonl.gz", "LIFE_0003.jsonl.gz", "lives.csv"]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    said = capsys.readouterr()
    assert "3 simulated packs" in said.out
    assert "3 of 3 lives" in said.err
    with (tmp_path / "a" / "lives.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    drawn = draw(3, seed=5)
    assert len(lines) == sum(len(life) for life in drawn)
    assert list(lines[0]) == ["pack_id", "cycle", *NAMES, "rul_cycles", "eol_100"]
    table = np.array([[float(row[name] or "nan") for name in NAMES] for row in lines])
    assert np.allclose(table, np.concatenate([life.features for life in drawn]), rtol=1e-6, equal_nan=True)
    with gzip.open(tmp_path / "a" / "LIFE_0002.jsonl.gz") as packed:
        records = [from_line(line, "a line") for line in packed]
    assert records == list(drawn[1].records())


def test_another_law_and_another_day_give_other_files(tmp_path: Path) -> None:
    usual, other = tmp_path / "usual", tmp_path / "other"
    assert main(["lives", "--packs", "2", "-o", str(usual)]) == 0
    assert main(["lives", "--packs", "2", "--law-share", "0.2", "--until", "2026-11-25", "-o", str(other)]) == 0
    assert (usual / "lives.csv").read_bytes() != (other / "lives.csv").read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--packs", "0"], ["--packs", "x"], ["--seed", "-1"], ["--law-share", "1"], ["--law-share", "nan"],
        ["--until", "tomorrow"], ["--past", "0"], ["--past", "1000"], ["--past", "3", "--packs", "3"],
        ["--past", "3", "--sessions"],
    ],
)  # fmt: skip
def test_bad_usage_is_one_sentence_and_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lives", *arguments, "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


def test_without_a_folder_to_write_into_it_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["lives", "--packs", "1", "-o", str(tmp_path / "file" / "out")]) == 2
    assert main(["lives", "--packs", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_table_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lives.csv").mkdir()
    assert main(["lives", "--packs", "1", "-o", str(tmp_path)]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["lives.csv"]


@pytest.mark.slow
def test_three_hundred_lives_take_less_than_a_minute(tmp_path: Path) -> None:
    before_s = os.times().user
    assert main(["lives", "--packs", "300", "-o", str(tmp_path)]) == 0
    assert os.times().user - before_s < 60
