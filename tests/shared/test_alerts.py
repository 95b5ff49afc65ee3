"""Bands and the Events that they raise: once, with hysteresis, and over restarts."""

from __future__ import annotations

import json

import pytest

from shared.alerts import BANDS, CODES, Watch
from shared.records import Event

RUL, FAILURE = BANDS["rul_band"], BANDS["failure_probability_band"]
T_NS = 1_770_000_000_000_000_000


@pytest.mark.parametrize(
    ("value", "expected"), [(501.0, None), (500.0, "warning"), (100.0, "warning"), (99.9, "critical")]
)
def test_rul_is_worse_the_lower_and_both_limits_are_warning(value: float, expected: str | None) -> None:
    assert RUL.severity(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.29, None), (0.3, "warning"), (0.6, "warning"), (0.61, "critical")])
def test_failure_is_worse_the_higher(value: float, expected: str | None) -> None:
    assert FAILURE.severity(value) == expected


def test_a_band_worsens_at_its_limit_and_eases_only_behind_it() -> None:
    assert RUL.severity(510.0, "warning") == "warning"
    assert RUL.severity(526.0, "warning") is None
    assert RUL.severity(105.0, "critical") == "critical"
    assert RUL.severity(111.0, "critical") == "warning"
    assert RUL.severity(600.0, "critical") is None
    assert FAILURE.severity(0.27, "warning") == "warning"
    assert FAILURE.severity(0.24, "warning") is None
    assert FAILURE.severity(0.56, "critical") == "critical"


def look(watch: Watch, value: float | None, second: int, *, dated: bool = True) -> Event | None:
    mono_ns = second * 1_000_000_000
    changed = watch.look("P", "rul_band", value, mono_ns, T_NS + mono_ns if dated else None)
    events = watch.untold
    watch.told()
    assert len(events) == changed
    return events[0] if events else None


def test_an_event_is_raised_once_worsens_under_its_id_and_is_cleared() -> None:
    watch = Watch(1)
    assert look(watch, 800.0, 1) is None
    raised = look(watch, 480.0, 2)
    assert raised is not None and (raised.severity, raised.value, raised.threshold) == ("warning", 480.0, 500.0)
    assert raised.code in CODES and raised.cleared_t_ns is None
    assert look(watch, 470.0, 3) is None and look(watch, None, 4) is None
    worse = look(watch, 90.0, 5)
    assert worse is not None and (worse.id, worse.severity) == (raised.id, "critical")
    cleared = look(watch, 700.0, 6)
    assert cleared is not None and cleared.id == raised.id and cleared.cleared_t_ns == T_NS + 6_000_000_000
    assert cleared.since_t_ns == raised.t_ns
    again = look(watch, 480.0, 7)
    assert again is not None and again.id != raised.id


def test_without_a_known_time_nothing_is_cleared() -> None:
    watch = Watch(1)
    look(watch, 480.0, 1, dated=False)
    assert look(watch, 700.0, 2, dated=False) is None and watch.severity("P", "rul_band") == "warning"
    cleared = look(watch, 700.0, 3)
    assert cleared is not None and cleared.cleared_t_ns is not None


def test_a_restart_knows_what_stands_and_says_again_what_may_not_have_been_stored() -> None:
    before = Watch(1)
    before.look("P", "rul_band", 480.0, 10, T_NS)
    kept = json.loads(json.dumps(before.state))
    after = Watch(2, kept)
    assert after.untold == before.untold
    after.told()
    assert not after.look("P", "rul_band", 470.0, 20, T_NS)
    assert after.look("P", "rul_band", 700.0, 30, T_NS) and after.untold[0].id == before.untold[0].id


@pytest.mark.parametrize("state", [{}, {"untold": 1, "standing": {}}, {"untold": [], "standing": {"P/rul_band": {}}}])
def test_torn_state_is_refused(state: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Watch(1, state)
