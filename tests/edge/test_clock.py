"""The trusted clock: what may be believed, and that steps of the host's clock do no harm."""

from __future__ import annotations

import itertools

import pytest
from fakes.clock import SECOND_NS, FakeClock

from edge.clock import Clock, kernel_boot_id, kernel_synchronised

HOUR_NS = 3600 * SECOND_NS
FIFTY_SIX_YEARS_NS = 56 * 365 * 24 * HOUR_NS


def learn(clock: FakeClock, round_trip_s: float = 0.05) -> bool:
    sent = clock.now_ns
    told = clock.true_t_ns + int(round_trip_s / 2 * SECOND_NS)
    received = clock.forward(round_trip_s)
    return clock.learn(told, sent, received)


def test_nothing_is_trusted_at_first() -> None:
    clock = FakeClock()
    assert (clock.t_ns(), clock.offset_ns(), clock.trusted, clock.source) == (None, None, False, "none")


def test_a_synchronised_kernel_is_believed_at_once() -> None:
    clock = FakeClock(synchronised=True)
    assert (clock.t_ns(), clock.source) == (clock.true_t_ns, "kernel")


def test_the_hosts_clock_is_believed_where_it_is_said_so() -> None:
    clock = FakeClock("system")
    assert (clock.t_ns(), clock.source) == (clock.true_t_ns, "system")


@pytest.mark.parametrize("error_ns", [-FIFTY_SIX_YEARS_NS, -HOUR_NS, 0, HOUR_NS])
def test_the_clouds_time_makes_a_wrong_host_clock_irrelevant(error_ns: int) -> None:
    clock = FakeClock()
    clock.wall_error_ns = error_ns
    assert learn(clock)
    assert clock.source == "cloud"
    assert abs((clock.t_ns() or 0) - clock.true_t_ns) < SECOND_NS // 20


@pytest.mark.parametrize("step_ns", [-HOUR_NS, HOUR_NS])
def test_a_step_of_the_hosts_clock_does_not_move_time(step_ns: int) -> None:
    clock = FakeClock()
    learn(clock)
    before = clock.t_ns()
    clock.wall_error_ns += step_ns
    clock.forward(1)
    assert clock.t_ns() == (before or 0) + SECOND_NS


def test_a_host_clock_that_was_to_be_believed_loses_against_the_cloud_when_it_is_plainly_wrong() -> None:
    clock = FakeClock("system")
    learn(clock)
    assert clock.source == "system"
    clock.wall_error_ns = HOUR_NS
    assert clock.source == "cloud"
    assert abs((clock.t_ns() or 0) - clock.true_t_ns) < SECOND_NS // 20


def test_an_answer_that_took_two_seconds_teaches_nothing() -> None:
    clock = FakeClock()
    assert not learn(clock, round_trip_s=2.0)
    assert not clock.trusted
    assert learn(clock, round_trip_s=1.99)
    assert clock.trusted


def test_impossible_answers_teach_nothing() -> None:
    clock = FakeClock()
    assert not clock.learn(0, clock.now_ns, clock.now_ns)
    assert not clock.learn(clock.true_t_ns, clock.now_ns, clock.now_ns - 1)
    assert not clock.trusted


def test_a_quick_answer_beats_a_slow_one_and_a_fresh_one_an_old_one() -> None:
    clock = FakeClock()
    learn(clock, round_trip_s=0.01)
    good = clock.offset_ns()
    clock.learn(clock.true_t_ns + SECOND_NS, clock.now_ns, clock.forward(1.5))
    assert clock.offset_ns() == good
    clock.forward(24 * 3600)
    clock.true_offset_ns += SECOND_NS  # the oscillator drifted
    learn(clock, round_trip_s=0.2)
    assert abs((clock.t_ns() or 0) - clock.true_t_ns) < SECOND_NS // 10


def test_time_runs_on_while_the_host_clock_jumps_about() -> None:
    clock = FakeClock()
    learn(clock)
    seen = []
    for step_ns in (0, HOUR_NS, -2 * HOUR_NS, HOUR_NS):
        clock.wall_error_ns += step_ns
        clock.forward(1)
        seen.append(clock.t_ns() or 0)
    assert [b - a for a, b in itertools.pairwise(seen)] == [SECOND_NS] * 3


def test_the_real_readers_work_here() -> None:
    clock = Clock("system")
    first = clock.mono_ns()
    assert clock.mono_ns() >= first > 0
    assert clock.source in ("system", "kernel")
    assert isinstance(kernel_synchronised(), bool)
    assert len(kernel_boot_id()) == 36


@pytest.mark.parametrize("cloud_t_ns", [1, -1, 2**62, 2**63 - 1, 253_370_937_539 * SECOND_NS])
def test_a_cloud_without_a_sane_clock_teaches_nothing(cloud_t_ns: int) -> None:
    """The year 9999 is more than SQLite and the wire can hold: believing it ended the agent."""
    clock = FakeClock()
    assert not clock.learn(cloud_t_ns, clock.now_ns, clock.now_ns)
    assert not clock.trusted
