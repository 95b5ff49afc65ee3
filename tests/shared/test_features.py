"""Features: the same bits however they are made, nothing from the future, a reason for each that there is not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fakes.sessions import life
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.feature_table import LONG_CYCLES, MOST_BACK, FeatureSpec
from shared.features import NAMES, TABLE, Features, FeatureStateError, History, life_columns, life_matrix, schema_id
from shared.life import INPUTS
from shared.records import Session

AT = {name: i for i, name in enumerate(NAMES)}
odd_numbers = st.one_of(
    st.none(), st.sampled_from((0.0, -0.0, 1.0, 100.0, 1e300, -1e300, 5e-324)), st.floats(-1e6, 1e6)
)
odd_sessions = st.builds(
    Session,
    pack_id=st.just("P"),
    seq=st.just(0),
    mono_ns=st.just(0),
    duration_s=st.sampled_from((0.0, 60.0, 86_400.0, 1e9)),
    cycles=st.one_of(st.none(), st.integers(0, 5000).map(float), st.just(-0.0)),
    **{name: odd_numbers for name in INPUTS if name not in ("duration_s", "cycles")},  # type: ignore[arg-type]
)


def fed_singly(sessions: list[Session]) -> np.ndarray:
    history, rows = History(), []
    for session in sessions:
        history.add(session)
        rows.append(history.vector().values)
    return np.array(rows).reshape(-1, len(NAMES))


def after(sessions: list[Session]) -> Features:
    history = History()
    for session in sessions:
        history.add(session)
    return history.vector()


# --- the same bits ---


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, 1), (2, 2), (12, 3), (400, 4), (1500, 5)])
def test_fed_singly_and_the_whole_life_at_once_are_bit_equal(count: int, seed: int) -> None:
    sessions = life(count, seed)
    assert fed_singly(sessions).tobytes() == life_matrix(sessions).tobytes()


@settings(max_examples=200, deadline=None)
@given(st.lists(odd_sessions, max_size=40))
def test_they_are_bit_equal_whatever_a_session_says(sessions: list[Session]) -> None:
    assert fed_singly(sessions).tobytes() == life_matrix(sessions).tobytes()


def test_columns_and_sessions_give_the_same() -> None:
    sessions = life(100, 6)
    columns = {
        name: np.array([math.nan if (v := getattr(s, name)) is None else v for s in sessions]) for name in INPUTS
    }
    assert life_columns(columns).tobytes() == life_matrix(sessions).tobytes()


def test_a_row_knows_nothing_of_what_comes_later() -> None:
    sessions = life(600, 7)
    whole = life_matrix(sessions)
    for stop in (1, 13, 250, 599):
        assert life_matrix(sessions[:stop]).tobytes() == whole[:stop].tobytes()


def test_kept_and_restored_at_any_session_it_goes_on_with_the_same_bits() -> None:
    sessions = life(700, 8)
    history, rows = History(), []
    for session in sessions:
        history.add(session)
        history = History.from_bytes(history.to_bytes())
        rows.append(history.vector().values)
    assert np.array(rows).tobytes() == life_matrix(sessions).tobytes()


# --- what they mean ---


def test_features_of_a_steady_life_are_what_the_table_says() -> None:
    sessions = [
        Session(
            pack_id="P", seq=k, mono_ns=k, duration_s=86_400.0, cycles=float(k), age_days=k + 1.0,
            soh_bms=1 - k / 10_000, r_step_mohm=0.4 + k / 1000,
            r_step_max_mohm=0.5 + k / 800, cell_dev_mv=5 + k / 100, temp_mean_c=20.0,
            temp_spread_c=2.0, hot_h=6.0, window_ah=70 - k / 100,
        )
        for k in range(500)
    ]  # fmt: skip
    level_k, base_k, then_k = 495, 4.5, 395
    expected = {
        "cycles": 499.0,
        "age_days": 500.0,
        "cycles_per_day": 499 / 500,
        "soh_bms": 1 - 0.0499,
        "soh_bms_drop": (level_k - base_k) / 10_000,
        "soh_bms_slope_300": -0.01,
        "r_step_mohm": 0.4 + 0.495,
        "r_step_growth": 0.895 / 0.4045 - 1,
        "r_step_slope_100": 0.1 / (0.4 + then_k / 1000),
        "r_step_slope_300": 0.1 / (0.4 + 0.195),
        "r_spread": (0.5 + 495 / 800) / 0.895 - 1,
        "cell_dev_mv": 9.95,
        "cell_dev_slope_300": 1.0,
        "temp_mean_c": 20.0,
        "temp_life_c": 20.0,
        "temp_spread_c": 2.0,
        "hot_share": 0.25,
        "window_share": (70 - 4.95) / (70 - 0.045),
        "window_slope_100": -1 / (70 - 3.95),
        "window_slope_300": -1 / (70 - 1.95),
    }
    assert dict(zip(NAMES, after(sessions).values, strict=True)) == pytest.approx(expected, rel=1e-9)


def test_what_the_bms_says_now_goes_before_the_last_session() -> None:
    history = History()
    for session in life(50, 9, holes=0.0):
        history.add(session)
    before, now = history.vector(), history.vector(cycles=60.0, soh_bms=0.5, age_days=100.0)
    changed = {name for name in NAMES if before.values[AT[name]] != now.values[AT[name]]}
    changed -= set(before.reasons)
    assert changed == {"cycles", "soh_bms", "age_days", "cycles_per_day"}
    assert now.values[AT["cycles_per_day"]] == 0.6


def test_throughput_moves_the_cycles_on_where_the_bms_counts_none() -> None:
    history = History()
    history.add(Session(pack_id="P", seq=0, mono_ns=0, duration_s=1.0, cycles=100.0, throughput_ah=36_000.0))
    assert history.vector(throughput_ah=36_180.0).values[AT["cycles"]] == pytest.approx(100.5)
    assert history.vector(throughput_ah=36_180.0, cycles=7.0).values[AT["cycles"]] == 7.0


def test_values_lie_in_the_tables_range_or_are_none() -> None:
    for seed in range(3):
        values = life_matrix(life(400, seed))
        for spec, column in zip(TABLE, values.T, strict=True):
            known = column[np.isfinite(column)]
            assert known.size and known.min() >= spec.lo and known.max() <= spec.hi, spec.name
            assert not np.isinf(column).any()


# --- why there is none ---


@settings(max_examples=100, deadline=None)
@given(st.lists(odd_sessions, max_size=15))
def test_each_feature_has_a_value_or_a_reason(sessions: list[Session]) -> None:
    features = after(sessions)
    assert features.reasons.keys() == {NAMES[i] for i in np.flatnonzero(np.isnan(features.values))}
    assert all(features.reasons.values())


def test_reasons_say_what_is_missing() -> None:
    assert set(after([]).reasons.values()) == {"absent", "no_session"}
    young = after(life(5, 1, holes=0.0)).reasons
    assert {young[name] for name in ("r_step_slope_100", "window_slope_300")} == {"short_history"}
    assert young["cycles_per_day"] == "young"
    unmeasured = [replace(s, window_ah=None, reasons={"window_ah": "fast_charge"}) for s in life(400, 2, holes=0.0)]
    told = after(unmeasured).reasons
    assert {name: told[name] for name in told if name.startswith("window")} == {
        "window_share": "fast_charge", "window_slope_100": "fast_charge", "window_slope_300": "fast_charge",
    }  # fmt: skip
    late = [replace(s, cycles=(s.cycles or 0.0) + 101.0) for s in life(400, 2, holes=0.0)]
    assert {name for name, why in after(late).reasons.items() if why == "late_start"} == {
        "soh_bms_drop", "r_step_growth", "window_share",
    }  # fmt: skip
    wild = [replace(s, temp_mean_c=4000.0) for s in life(20, 2, holes=0.0)]
    assert after(wild).reasons["temp_mean_c"] == "out_of_range"


def test_a_hole_in_the_record_gives_no_slope_and_a_long_one_forgets_nothing_else() -> None:
    sessions = life(400, 3, holes=0.0)
    moved = [replace(s, cycles=(s.cycles or 0.0) + 3 * LONG_CYCLES) for s in sessions[300:]]
    features = after([*sessions[:300], *moved[:20]])
    assert features.reasons["r_step_slope_100"] == features.reasons["r_step_slope_300"] == "short_history"
    assert "r_step_growth" not in features.reasons


def test_a_pack_that_hardly_moves_has_no_slope_from_beyond_the_window() -> None:
    sessions = [replace(s, cycles=k / 10) for k, s in enumerate(life(MOST_BACK * 2, 3, holes=0.0))]
    assert "r_step_slope_100" in after(sessions).reasons


# --- state ---


def test_the_state_is_small_and_does_not_grow() -> None:
    history, sizes = History(), []
    for session in life(3000, 4):
        history.add(session)
        sizes.append(len(history.to_bytes()))
    assert max(sizes) <= 40_000
    assert max(sizes) - max(sizes[:1000]) < 200


def test_torn_or_foreign_state_is_told() -> None:
    history = History()
    for session in life(30, 5):
        history.add(session)
    body = history.to_bytes()
    for torn in (b"", body[:5], body[:40], body[:-8], body + bytes(8), b"XXXX" + body[4:]):
        with pytest.raises(FeatureStateError):
            History.from_bytes(torn)
    with pytest.raises(FeatureStateError, match="another table"):
        History.from_bytes(body.replace(schema_id().encode(), b"0" * 16))


def test_the_schema_id_follows_every_word_of_the_table() -> None:
    assert schema_id() == schema_id(TABLE) == schema_id(tuple(TABLE))
    assert len(schema_id()) == 16 and int(schema_id(), 16) >= 0
    one = FeatureSpec("a", "V", 0.0, 1.0, "none when it rains")
    others = [
        replace(one, name="b"), replace(one, unit="mV"), replace(one, lo=-1.0), replace(one, hi=2.0),
        replace(one, gate="none when it snows"),
    ]  # fmt: skip
    tables = [(one,), (one, one), *((other,) for other in others)]
    assert len({schema_id(table) for table in tables}) == len(tables)
