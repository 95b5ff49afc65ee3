"""The simulated cars are what their pasts left: a Meter on the running plant goes on where the past's Sessions end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.__main__ import main
from firmware_bridge.lives.cars import Past, past, pasts
from firmware_bridge.pack import car as car_module
from firmware_bridge.pack.car import Car
from firmware_bridge.pack.itinerary import Phase
from shared import session_meter
from shared.features import NAMES, History, Meter, PackFacts, Reading
from shared.record_lines import from_line
from shared.records import Session

SECOND_NS = 1_000_000_000
TOLERANCE = {
    "r_step_mohm": 0.03,
    "r_step_max_mohm": 0.04,
    "cell_dev_mv": 0.45,  # a BMS says whole millivolts, and there are few of them
    "temp_spread_c": 0.25,
    "window_ah": 0.02,
}
"""How far, as a share, a measured Session may lie from the past's last ones."""
TOLERANCE_C = 4.0  # of the mean temperature: the weather, and how much was charged fast


@pytest.fixture(autouse=True)
def steps_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(car_module, "TICK_S", 1.0)


def metered(car: Car, most_s: int) -> Session:
    """The first Session of the car, as an agent measures it: resolution of the wire, a Sample a second."""
    facts = PackFacts(pack_id="BATTERY", chemistry="nmc", series=96, nominal_ah=180.0)
    meter = Meter(facts)
    for second in range(1, most_s):
        car.step()
        bms = car.bms
        session = meter.feed(
            Reading(
                mono_ns=second * SECOND_NS,
                current_a=round(bms.current_a, 1),
                cell_v=np.round(bms.cell_v, 3),
                temp_c=np.round(bms.temp_c, 1),
                state=car.demand.state,
                soh_bms=bms.soh,
                cycles=round(bms.cycles, 1),
                throughput_ah=round(bms.throughput_ah, 3),
            )
        )
        if session is not None:
            return session
    raise AssertionError(f"no session within {most_s} s")


def goes_on(session: Session, before: Past) -> None:
    """The Session continues the past's record."""
    columns = before.life.record.columns
    for name, share in TOLERANCE.items():
        value = getattr(session, name)
        if value is not None:
            assert value == pytest.approx(np.nanmedian(columns[name][-30:]), rel=share), name
    assert session.temp_mean_c == pytest.approx(np.nanmedian(columns["temp_mean_c"][-30:]), abs=TOLERANCE_C)
    assert session.soh_bms == columns["soh_bms"][-1]
    assert session.cycles is not None
    assert 0.2 < session.cycles - columns["cycles"][-1] < 3


def drive_and_charge_slowly(car: Car) -> None:
    """Drives until nearly empty, then charges at home."""

    def following(soc: float) -> Phase:
        if car.itinerary.phase.kind != "park":
            return Phase("park", 130.0)
        return Phase("drive", 1800.0, "wltc") if soc > 0.36 else Phase("charge_ac", 4 * 3600.0)

    car.itinerary._next = following  # type: ignore[method-assign]


@pytest.mark.parametrize("number", [1, 2])
def test_a_drive_and_a_charge_measure_what_the_past_says(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the cars, a Session that ends with the first charge; whole ones of all cars take long (below)."""
    monkeypatch.setattr(session_meter, "SESSION_CYCLES", 0.25)
    car = Car(1, number)
    car.itinerary.phase = Phase("park", 25.0)
    car.cells.soc += 0.48 - car.cells.soc.mean()
    car.bms.soc = 0.48
    drive_and_charge_slowly(car)
    session = metered(car, 24_000)
    assert session.reasons == {"age_days": "no_time"}
    goes_on(session, car.past)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_whole_sessions_as_the_cars_drive_them_go_on_from_the_past(number: int) -> None:
    car = Car(1, number)
    session = metered(car, 40 * 3600)
    goes_on(session, car.past)
    columns = car.past.life.record.columns
    assert session.moved_ah == pytest.approx(np.median(columns["moved_ah"]), rel=0.25)
    assert session.duration_s == pytest.approx(np.median(columns["duration_s"][-30:]), rel=0.5)


# ages


def test_the_cars_are_young_in_the_middle_and_old() -> None:
    for number, (least, most) in enumerate([(0.04, 0.15), (0.39, 0.55), (0.74, 0.85)]):
        for seed in range(1, 6):
            before = past(seed, number)
            share = before.throughput_ah / 360 / before.end_efc
            assert least < share <= most
            assert 0.8 < before.soh < 1
            assert abs(before.soh_told - before.soh) < 0.06
    assert past(1, 0).soh > past(1, 1).soh > past(1, 2).soh


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_car_has_the_pack_and_the_counters_that_its_past_left(number: int) -> None:
    car = Car(3, number)
    last = car.past.life.sessions[-1]
    assert car.bms.throughput_ah == pytest.approx(last.throughput_ah, abs=0.01)
    assert car.bms.cycles == pytest.approx(last.cycles, abs=0.06)
    assert car.bms.soh == last.soh_bms
    assert car.cells.spread.capacity_ah.min() == car.past.usable_ah
    told_mohm = np.nanmedian(car.past.life.record.columns["r_step_mohm"][-9:])
    assert 0.4 * car.cells.spread.resistance.mean() == pytest.approx(told_mohm, rel=0.03)


def test_a_past_is_the_same_alone_and_among_others() -> None:
    for number, one in enumerate(pasts(2, range(4))):
        alone = past(2, number)
        assert one.capacity_ah.tobytes() == alone.capacity_ah.tobytes()
        assert one.life.sessions == alone.life.sessions


# files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("pasts")
    assert main(["lives", "--past", "3", "-o", str(path)]) == 0
    yield path


def records(path: Path) -> list[Session]:
    found = [from_line(line, "a line") for line in path.read_text().splitlines()]
    assert all(isinstance(record, Session) for record in found)
    return [record for record in found if isinstance(record, Session)]


def test_the_past_of_each_car_is_a_file_that_gives_it_features_at_once(folder: Path) -> None:
    for number in range(3):
        sessions = records(folder / f"BATTERY_{number + 1:03d}.jsonl")
        car, history = Car(1, number), History()
        for session in sessions:
            assert session.pack_id == f"BATTERY_{number + 1:03d}"
            assert session.simulated
            history.add(session)
        features = history.vector(cycles=car.bms.cycles, soh_bms=car.bms.soh)
        known = dict(zip(NAMES, features.values, strict=True))
        slopes = {name for name in features.reasons if number == 0 and "slope" in name}
        assert set(features.reasons) - {"window_share"} <= slopes | {"window_slope_100", "window_slope_300"}
        assert known["r_step_growth"] == pytest.approx(
            car.past.resistance.mean() / car.past.pack.resistance.mean() - 1, abs=0.04
        )


def test_pasts_are_the_same_again_and_end_on_the_day_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    assert main(["lives", "--past", "3", "-o", str(tmp_path / "again")]) == 0
    assert main(["lives", "--past", "1", "--until", "2026-11-25", "-o", str(tmp_path / "later")]) == 0
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    usual, later = records(folder / "BATTERY_001.jsonl"), records(tmp_path / "later" / "BATTERY_001.jsonl")
    assert later[-1].t_ns == 1_795_564_800 * SECOND_NS
    assert len({(b.t_ns or 0) - (a.t_ns or 0) for a, b in zip(usual, later, strict=True)}) == 1
