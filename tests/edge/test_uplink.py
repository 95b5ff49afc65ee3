"""The uplink: live first, a backlog beside it, every failure survived, nothing settled without a Receipt."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from fakes.car import Car
from fakes.clock import SECOND_NS
from fakes.outbox import event, measured

from edge.transport import Forbidden, Refused, Unavailable
from edge.uplink import halves
from shared.batch import Batch


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car(tmp_path)


@pytest.mark.parametrize(("mode", "batches"), [("live", 60), ("normal", 12), ("economy", 1)])
def test_a_mode_sends_as_often_as_it_says(tmp_path: Path, mode: str, batches: int) -> None:
    car = Car(tmp_path, mode)
    car.drive(1)
    sent = len(car.cloud.batches)
    car.drive(60)
    assert abs(len(car.cloud.batches) - sent - batches) <= 1


def test_the_cloud_may_ask_for_live_and_let_go_again(car: Car) -> None:
    car.transport.desired_mode = "live"
    car.drive(11)
    assert car.uplink.state.mode == "live"
    car.transport.desired_mode = "normal"
    car.drive(11)
    assert car.uplink.state.mode == "normal"
    car.cloud.mode = "live"
    car.transport.desired_mode = None
    car.drive(6)
    assert car.uplink.state.mode == "live"


def test_what_the_device_was_set_to_is_what_normal_means(tmp_path: Path) -> None:
    car = Car(tmp_path, "live")
    car.transport.desired_mode = "economy"
    car.drive(11)
    assert car.uplink.state.mode == "live"
    car.transport.desired_mode = "normal"
    car.drive(11)
    assert car.uplink.state.mode == "live"


def test_economy_keeps_flash_quiet_for_longer_and_normal_restores_it(car: Car) -> None:
    car.transport.desired_mode = "economy"
    car.drive(11)
    assert car.outbox.flush_s == 90.0
    car.transport.desired_mode = "normal"
    car.drive(61)
    assert car.outbox.flush_s == 10.0


def test_a_backlog_drains_in_order_beside_live_rows(car: Car) -> None:
    car.transport.away = True
    car.drive(700)
    car.transport.away = False
    car.drive(70)
    assert car.outbox.books().pending <= 5
    sent = [int(seq) for batch in car.cloud.batches for block in batch.blocks for seq in block.seq]
    assert sorted(sent) == list(range(len(sent))) and len(sent) >= 765
    assert sent[0] > 600, "the newest go first"
    backlog = [seq for seq in sent if seq < 690]
    assert backlog == sorted(backlog)
    sizes = [len(batch) for batch in car.cloud.batches if batch.seqs()[0] < 600]
    assert min(sizes[:-1], default=60) >= 60


def test_a_receipt_that_was_lost_costs_a_repetition_and_nothing_else(car: Car) -> None:
    car.transport.deaf = True
    car.drive(40)
    assert car.outbox.books().acked == 0
    car.transport.deaf = False
    car.drive(70)
    car.drive(70, samples=False)
    books = car.outbox.books()
    assert books.acked == 110 == len(car.cloud.rows[car.outbox.boot])
    assert car.cloud.twice == 0


def test_one_bad_record_is_isolated_and_the_others_arrive(car: Car) -> None:
    def failure(batch: Batch) -> Exception | None:
        return Refused("malformed", "the cloud answered 400") if 7 in batch.seqs() else None

    car.transport.failure = failure
    car.drive(30)
    books = car.outbox.books()
    assert (books.refused, books.imbalance()) == (1, (0, 0))
    assert sorted(car.cloud.rows[car.outbox.boot]) == [seq for seq in range(books.acked + 1) if seq != 7]


def test_a_body_too_large_is_halved_until_it_fits(car: Car) -> None:
    car.transport.failure = lambda batch: Refused("too_large", "413") if len(batch) > 3 else None
    car.drive(30)
    assert car.outbox.books().refused == 0
    assert len(car.cloud.rows[car.outbox.boot]) >= 25


def test_a_network_that_dies_between_two_halves_keeps_what_was_answered(car: Car) -> None:
    car.drive(1)
    calls: list[int] = []

    def failure(batch: Batch) -> Exception | None:
        calls.append(len(batch))
        if len(batch) > 3:
            return Refused("too_large", "413")
        return Unavailable("gone") if len(calls) > 3 else None

    car.transport.failure = failure
    car.drive(8)
    books = car.outbox.books()
    assert 0 < books.acked - 1 < 8
    assert books.imbalance() == (0, 0)
    car.transport.failure = lambda batch: None
    car.drive(70)
    assert car.cloud.twice == 0
    assert len(car.cloud.rows[car.outbox.boot]) >= 75


@pytest.mark.parametrize("error", [Forbidden("401: check the token"), Unavailable("503", 30.0)])
def test_waiting_loses_nothing_and_is_said_once(car: Car, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    car.transport.failure = lambda batch: error
    with caplog.at_level(logging.WARNING):
        car.drive(200)
    assert len([r for r in caplog.records if r.name == "edge.uplink"]) == 1
    assert car.uplink.state.problem == str(error)
    assert car.outbox.books().pending == 200
    car.transport.failure = lambda batch: None
    car.drive(70)
    assert car.uplink.state.problem is None
    assert car.outbox.books().pending <= 5


def test_it_backs_off_up_to_a_minute_and_starts_over_after_a_success(car: Car) -> None:
    car.transport.away = True
    waits = []
    for _ in range(8):
        car.outbox.put([measured(car.clock.now_ns, t_ns=1)])
        waits.append(car.uplink.step(car.clock.mono_ns()).wait_s)
        car.clock.forward(waits[-1])
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    car.transport.away = False
    car.drive(2)
    car.transport.away = True
    car.outbox.put([measured(car.clock.forward(20), t_ns=1)])
    assert car.uplink.step(car.clock.mono_ns()).wait_s == 2.0


def test_retry_after_is_respected(car: Car) -> None:
    car.drive(6)
    car.transport.failure = lambda batch: Unavailable("503", 45.0)
    car.outbox.put([measured(car.clock.forward(5))])
    progress = [car.uplink.step(car.clock.mono_ns()) for _ in range(3)]
    assert max(p.wait_s for p in progress) == 45.0


def test_a_receipt_that_accepts_nothing_does_not_make_it_spin(car: Car) -> None:
    car.drive(6)
    accept = car.cloud.receive
    car.cloud.receive = lambda batch: accept(batch).__class__(accepted=(), t_ns=1)  # type: ignore[method-assign]
    car.outbox.put([measured(car.clock.forward(5))])
    steps = [car.uplink.step(car.clock.mono_ns()).wait_s for _ in range(5)]
    assert max(steps) > 0.5
    assert car.outbox.books().pending == 1


def test_records_wait_for_the_clouds_time_and_then_all_go_dated(tmp_path: Path) -> None:
    car = Car(tmp_path, know_time=False)
    car.clock.wall_error_ns = -(10**18)
    car.drive(30)
    assert car.cloud.batches == []
    car.transport.date_ns = car.clock.true_t_ns
    car.drive(12)
    rows = car.cloud.rows[car.outbox.boot]
    assert len(rows) >= 35
    assert all(abs(t - mono - car.clock.true_offset_ns) < 2 * SECOND_NS for _, mono, t in rows.values())


def test_without_any_time_they_go_after_two_minutes_of_contact(tmp_path: Path) -> None:
    """A cloud whose answers always take too long teaches no time; its data must arrive all the same."""
    car = Car(tmp_path, know_time=False)
    car.transport.on_send = lambda: car.clock.forward(2.5) and None
    car.drive(100)
    assert car.cloud.batches == []
    car.drive(60)
    assert len(car.cloud.rows[car.outbox.boot]) > 100
    assert all(t < 0 for _, _, t in car.cloud.rows[car.outbox.boot].values())


def test_events_travel_with_the_samples(car: Car) -> None:
    car.outbox.put([event(1)])
    car.drive(7)
    assert [r.id for r in car.cloud.others[car.outbox.boot].values()] == ["e1"]


def test_halves_are_the_batch(car: Car) -> None:
    car.outbox.put([measured(5), event(6), measured(7), event(8), measured(9)])
    taken = car.outbox.take(10, newest=True, undated=True)
    assert taken is not None
    first, second = halves(taken.batch)
    assert [*first.seqs(), *second.seqs()] == [0, 1, 2, 3, 4]
