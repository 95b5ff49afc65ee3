"""Sessions are what a known pack really is, end when they should, and say why something is not known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np
import pytest
from fakes.small_pack import CHARGE, DOWN, EMPTY_V, FACTS, FULL_TURN, FULL_V, REST, SECOND_NS, SmallPack
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.batch import require_possible
from shared.block import Layout, pack_row
from shared.features import Meter, PackFacts, Reader, Reading
from shared.fields import SCALARS, resolution
from shared.records import SESSION_REASONS, Sample, Session
from shared.session_meter import MeterStateError

WINDOW_AH = 0.25 / (FULL_V - EMPTY_V) * FACTS.nominal_ah


def measured(readings: Iterable[Reading], facts: PackFacts = FACTS) -> list[Session]:
    meter = Meter(facts)
    return [session for reading in readings if (session := meter.feed(reading))]


def only(readings: Iterable[Reading], facts: PackFacts = FACTS) -> Session:
    (session,) = measured(readings, facts)
    return session


def turn(pack: SmallPack, **changes: object) -> Session:
    return only(replace(reading, **changes) for reading in pack.run(FULL_TURN))


# --- what it measures ---


@pytest.mark.parametrize("temp_c", [5.0, 25.0, 40.0])
def test_a_known_pack_is_measured_as_it_is(temp_c: float) -> None:
    session = turn(SmallPack(temp_c=temp_c))
    mean_mohm = 1.5 * (11 + 1.3) / 12
    assert session.r_step_mohm == pytest.approx(mean_mohm, rel=0.01)
    assert session.r_step_max_mohm == pytest.approx(1.5 * 1.3, rel=0.02)
    assert session.temp_mean_c == pytest.approx(temp_c)
    assert session.temp_spread_c == pytest.approx(2.0)
    assert session.hot_h == pytest.approx(session.duration_s / 3600 if temp_c > 35 else 0.0, abs=1e-3)
    if temp_c >= 10:
        assert session.window_ah == pytest.approx(WINDOW_AH, rel=0.01)
    else:
        assert (session.window_ah, session.reasons["window_ah"]) == (None, "temperature")
    assert (session.soh_bms, session.cycles, session.age_days) == (0.93, 100.0, pytest.approx(1.24, abs=0.02))
    assert session.moved_ah == pytest.approx(72.2 + 42.7, rel=0.01)
    assert session.mono_ns == 5 * SECOND_NS + round((session.duration_s + 1) * SECOND_NS)


def test_the_deviating_cell_is_seen_at_rest_only() -> None:
    pack = SmallPack(worst=1.0, noise_v=0.0)
    pack.offset_v[5] = -0.021
    assert turn(pack).cell_dev_mv == pytest.approx(21.0, abs=1.0)


def test_a_weak_cell_counts_whole_and_a_reading_gone_wrong_hardly() -> None:
    assert turn(SmallPack(worst=2.4)).r_step_max_mohm == pytest.approx(1.5 * 2.4, rel=0.02)
    readings = list(SmallPack().run(FULL_TURN))
    for reading in readings[50:2000:97]:
        reading.cell_v[7] = 0.0
    session = only(readings)
    assert session.r_step_max_mohm == pytest.approx(1.95, rel=0.05)


def test_a_cell_that_is_missing_now_and_then_spoils_nothing() -> None:
    readings = list(SmallPack().run(FULL_TURN))
    for k, reading in enumerate(readings):
        reading.cell_v[k % 12] = np.nan if k % 3 == 0 and reading.state == "drive" else reading.cell_v[k % 12]
    session = only(readings)
    assert session.r_step_mohm == pytest.approx(1.5375, rel=0.02)
    assert session.window_ah == pytest.approx(WINDOW_AH, rel=0.01)


# --- when a Session ends ---


def test_a_session_ends_with_a_charge_once_a_full_cycle_has_moved() -> None:
    pack = SmallPack()
    half = [("drive", -50.0, 1440), ("charge_ac", 24.0, 3000), ("park", 0.0, 100)]  # moves 40 Ah of the 100
    sessions = measured(pack.run(half * 7))
    assert [round(session.moved_ah or 0.0) for session in sessions] == [120, 120]


def test_short_stops_of_a_charge_do_not_end_it_and_recuperation_is_none() -> None:
    pack = SmallPack()
    stuttering = [("charge_ac", 12.0, 500), ("park", 0.0, 40)] * 26
    assert len(measured(pack.run([*DOWN, *REST, *stuttering, *REST]))) == 1
    hills = [(None, -60.0, 40), (None, 50.0, 30)] * 400
    assert measured(SmallPack().run(hills)) == []


def test_without_a_state_the_current_says_what_a_charge_is() -> None:
    assert len(measured(replace(reading, state=None) for reading in SmallPack().run(FULL_TURN))) == 1


def test_a_bus_that_falls_silent_at_the_end_of_a_charge_ends_it() -> None:
    assert len(measured(SmallPack().run([*DOWN, *REST, *CHARGE, (None, None, 100)]))) == 1


def test_a_session_ends_after_14_days_though_nothing_moved() -> None:
    pack = SmallPack()
    readings = []
    for _ in range(15 * 24):
        readings.append(pack.second("off", 0.0))
        pack.mono_ns += 3599 * SECOND_NS
        pack.t_ns += 3599 * SECOND_NS
    session = only(readings)
    assert session.duration_s == 14 * 86_400
    assert (session.moved_ah, session.r_step_mohm) == (0.0, None)
    assert session.reasons == {
        "throughput_ah": "absent", "r_step_mohm": "no_step", "r_step_max_mohm": "no_step", "cell_dev_mv": "no_rest",
        "temp_mean_c": "absent", "temp_spread_c": "absent", "hot_h": "absent", "window_ah": "no_charge",
    }  # fmt: skip


def test_the_bms_own_count_tells_what_was_not_read() -> None:
    pack = SmallPack()
    pack.throughput_ah, pack.cycles = 5000.0, None
    readings = list(pack.run(FULL_TURN))
    unread = [r for k, r in enumerate(readings) if not 100 <= k < 2000]
    session = only(unread)
    assert session.moved_ah == pytest.approx(72.2 + 42.7, rel=0.01)
    assert session.cycles == pytest.approx(session.throughput_ah / 100)  # type: ignore[operator]


# --- why there is none ---


def reason(name: str, readings: Iterable[Reading], facts: PackFacts = FACTS) -> str:
    session = only(readings, facts)
    assert getattr(session, name) is None
    return session.reasons[name]


def test_each_way_to_have_no_window_has_its_reason() -> None:
    fast = [*DOWN, *REST, ("charge_dc", 40.0, 3840), *REST]
    assert reason("window_ah", SmallPack().run(fast)) == "fast_charge"
    uneven = [*DOWN, *REST, ("charge_ac", 12.0, 5000), ("charge_ac", 7.0, 12_000), *REST]
    assert reason("window_ah", SmallPack().run(uneven)) == "uneven_charge"
    high = [("drive", -50.0, 720), ("charge_ac", 12.0, 3000), *REST] * 6
    assert reason("window_ah", SmallPack().run(high)) == "short_window"
    assert reason("window_ah", SmallPack(temp_c=3.0).run(FULL_TURN)) == "temperature"
    assert reason("window_ah", SmallPack().run(FULL_TURN), replace(FACTS, chemistry="lead")) == "short_window"


def test_each_way_to_have_no_step_has_its_reason() -> None:
    smooth = 2 * [("drive", -5.0, 20_000), ("charge_ac", 7.0, 400), ("charge_ac", 12.0, 8_000), *REST]
    assert reason("r_step_mohm", SmallPack().run(smooth)) == "no_step"
    assert reason("r_step_mohm", SmallPack(temp_c=-12.0).run(FULL_TURN)) == "temperature"
    assert reason("r_step_mohm", (replace(r, temp_c=np.array([])) for r in SmallPack().run(FULL_TURN))) == "temperature"
    assert reason("r_step_mohm", (replace(r, cell_v=np.array([])) for r in SmallPack().run(FULL_TURN))) == "absent"
    assert reason("r_step_max_mohm", list(SmallPack().run(FULL_TURN))[::3]) == "no_step"  # too far apart


def test_what_the_bms_or_the_clock_does_not_say_is_absent() -> None:
    session = turn(SmallPack(), soh_bms=None, cycles=None, t_ns=None)
    assert {name: session.reasons[name] for name in ("soh_bms", "cycles", "throughput_ah", "age_days")} == {
        "soh_bms": "absent", "cycles": "absent", "throughput_ah": "absent", "age_days": "no_time",
    }  # fmt: skip
    assert reason("age_days", SmallPack().run(FULL_TURN), replace(FACTS, commissioned_t_ns=None)) == "absent"


# --- going on after a stop ---


def test_stopped_and_begun_again_at_any_moment_it_measures_the_same() -> None:
    readings = list(SmallPack().run(FULL_TURN * 2))
    whole = measured(readings)
    meter, told = Meter(FACTS), []
    for k, reading in enumerate(readings):
        if k % 1777 == 1776:
            meter = Meter(FACTS, meter.to_bytes())
        if session := meter.feed(reading):
            told.append(session)
    assert len(told) == len(whole) == 2
    for one, other in zip(told, whole, strict=True):
        assert (one.mono_ns, one.duration_s) == (other.mono_ns, other.duration_s)
        for name in ("r_step_mohm", "r_step_max_mohm", "moved_ah", "cell_dev_mv"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=2e-3), name


def test_a_host_that_booted_meanwhile_counts_by_utc() -> None:
    readings = list(SmallPack().run(FULL_TURN))
    again = [replace(r, mono_ns=r.mono_ns - 4000 * SECOND_NS) if k >= 5000 else r for k, r in enumerate(readings)]
    assert only(again).duration_s == only(readings).duration_s


def test_the_same_reading_twice_counts_once() -> None:
    readings = list(SmallPack().run(FULL_TURN))
    doubled = [reading for reading in readings for _ in range(2)]
    assert measured(doubled) == measured(readings)


def test_state_of_another_pack_or_torn_is_told() -> None:
    body = Meter(FACTS).to_bytes()
    for torn in (b"", body[:9], body[:-1], b"XXXX" + body[4:], Meter(replace(FACTS, series=8)).to_bytes()):
        with pytest.raises(MeterStateError):
            Meter(FACTS, torn)


def test_the_state_is_small() -> None:
    meter = Meter(replace(FACTS, series=192))
    assert len(meter.to_bytes()) <= 4096


# --- readings ---


def test_a_row_of_the_outbox_reads_as_its_sample() -> None:
    names = ("current_a", "soh_bms", "cycles", "throughput_ah", "state", "pack_v")
    steps = {spec.name: resolution(spec.step) for spec in SCALARS}
    layout = Layout(scalars=tuple((name, steps[name]) for name in names), cells=3, temps=2)
    samples = [
        Sample(pack_id="P", seq=0, mono_ns=7, t_ns=9, current_a=-12.3, soh_bms=0.931, cycles=412.7, throughput_ah=9.001,
               state="charge_dc", pack_v=400.0, cell_v=(3.701, None, 3.999), temp_c=(-7.5, 21.0)),
        Sample(pack_id="P", seq=0, mono_ns=7, cell_v=(None, None, None), temp_c=(None, None)),
    ]  # fmt: skip
    for sample in samples:
        row, _ = pack_row(sample, layout)
        one = Reader(layout).read(row.astype("<i4").tobytes(), sample.mono_ns, sample.t_ns)
        other = Reading.of_sample(sample)
        for item in fields(Reading):
            assert np.array_equal(
                np.array(getattr(one, item.name)), np.array(getattr(other, item.name)), equal_nan=item.type == "Floats"
            ), item.name


floats = st.one_of(st.none(), st.floats(-1e5, 1e5), st.sampled_from((0.0, 7.0, -60.0, 12.0)))
cells = st.lists(st.one_of(st.just(math.nan), st.floats(-10, 20)), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 400_000), st.booleans(), floats, cells, st.lists(st.floats(-100, 300), max_size=3),
            st.sampled_from((None, "drive", "charge_ac", "off")), floats, floats,
        ),
        min_size=20, max_size=60,
    )
)  # fmt: skip
def test_whatever_it_is_told_a_session_can_be_sent_and_gives_a_reason_for_what_it_lacks(rows: list[tuple]) -> None:  # type: ignore[type-arg]
    meter, mono_ns = Meter(FACTS), 0
    for after_s, dated, current_a, cell_v, temp_c, state, cycles, throughput_ah in rows:
        mono_ns = (mono_ns + after_s * SECOND_NS) % (10**15)
        reading = Reading(
            mono_ns=mono_ns, t_ns=mono_ns if dated else None, current_a=current_a, cell_v=np.array(cell_v),
            temp_c=np.array(temp_c), state=state, cycles=cycles, throughput_ah=throughput_ah,
        )  # fmt: skip
        session = meter.feed(reading)
        meter = Meter(FACTS, meter.to_bytes()) if after_s % 7 == 0 else meter
        if session is not None:
            require_possible(session)
            missing = {item.name for item in fields(Session) if getattr(session, item.name) is None} - {"t_ns"}
            assert session.reasons.keys() == missing
            assert set(session.reasons.values()) <= set(SESSION_REASONS)
            values = [getattr(session, item.name) for item in fields(Session)]
            assert all(math.isfinite(value) for value in values if isinstance(value, float))
