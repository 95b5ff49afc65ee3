"""The simulated pack: physics that closes, a BMS that behaves, faults that show."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from firmware_bridge.pack import vehicle
from firmware_bridge.pack.alarms import Alarms
from firmware_bridge.pack.car import TICK_S, Car
from firmware_bridge.pack.cells import NOMINAL_AH, SERIES, Cells, Spread, ocv_v, soc_at_v
from firmware_bridge.pack.contactors import Contactors
from firmware_bridge.pack.faults import Faults, Target
from firmware_bridge.pack.signals import NAMES, values
from shared.errors import ConfigError
from shared.fields import ALARM_CODES

NO_BLEED = np.zeros(SERIES, np.bool_)
NO_COOLING = np.zeros(SERIES)


def cells_at(soc: float, temp_c: float = 25.0) -> Cells:
    rng = np.random.default_rng(1)
    capacity_ah, resistance = rng.uniform(166.0, 176.0, SERIES), rng.uniform(0.95, 1.15, SERIES)
    return Cells(Spread.drawn(rng, soc, capacity_ah, resistance), temp_c)


def run(car: Car, seconds: float, each: Callable[[Car], None] | None = None) -> Car:
    for _ in range(round(seconds / TICK_S)):
        car.step()
        if each:
            each(car)
    return car


def value(car: Car, signal: str) -> float:
    return float(values(car)[NAMES.index(signal)])


def standing(flags: np.ndarray) -> set[str]:
    return {code for code, flag in zip(ALARM_CODES, flags, strict=True) if flag}


# cells


def test_ocv_rises_with_charge_and_has_an_inverse() -> None:
    soc = np.linspace(0, 1, 501)
    assert (np.diff(ocv_v(soc)) > 0).all()
    assert [soc_at_v(float(v)) for v in ocv_v(soc)] == pytest.approx(soc.tolist(), abs=1e-9)


def test_charge_in_less_charge_out_is_what_the_cells_hold() -> None:
    cells, rng = cells_at(0.5), np.random.default_rng(2)
    before, moved_ah = cells.soc.copy(), 0.0
    for current_a in rng.uniform(-300, 300, 5000):
        cells.begin()
        cells.step(TICK_S, float(current_a), NO_BLEED, NO_COOLING)
        moved_ah += float(current_a) * TICK_S / 3600
    held_ah = (cells.soc - before) * cells.spread.capacity_ah + cells.spread.self_discharge_a * 500 / 3600
    assert held_ah == pytest.approx(np.full(SERIES, moved_ah), abs=1e-6 * NOMINAL_AH)


def test_energy_in_is_energy_held_and_heat() -> None:
    cells = cells_at(0.5)
    in_j = heat_j = held_j = 0.0
    for step in range(36_000):  # an hour of charging and discharging by turns, with long enough halves for the RC pairs
        current_a = 150.0 if (step // 3000) % 2 else -120.0
        cells.begin()
        middle = cells.soc.copy()
        cells.step(TICK_S, current_a, NO_BLEED, cells.heat_w)
        into_a = current_a - cells.spread.self_discharge_a
        in_j += float((cells.cell_v * into_a).sum()) * TICK_S
        heat_j += float(cells.heat_w.sum()) * TICK_S
        held_j += float((ocv_v((middle + cells.soc) / 2) * into_a).sum()) * TICK_S
    assert in_j == pytest.approx(held_j + heat_j, abs=0.01 * heat_j)
    assert heat_j > 1e6


def test_half_the_step_gives_the_same_voltage_within_a_millivolt() -> None:
    coarse, fine = cells_at(0.6), cells_at(0.6)
    for step in range(600):
        current_a = 200.0 * np.sin(step / 40)
        coarse.begin()
        coarse.step(TICK_S, current_a, NO_BLEED, NO_COOLING)
        for _ in range(2):
            fine.begin()
            fine.step(TICK_S / 2, current_a, NO_BLEED, NO_COOLING)
        assert np.abs(coarse.cell_v - fine.cell_v).max() < 1e-3


def test_the_current_for_a_power_gives_that_power() -> None:
    cells = cells_at(0.7)
    cells.begin()
    for power_w in (-120_000.0, -500.0, 0.0, 60_000.0):
        current_a = cells.current_a(power_w)
        cells.step(1e-9, current_a, NO_BLEED, NO_COOLING)
        assert float(cells.cell_v.sum()) * current_a == pytest.approx(power_w, rel=1e-9, abs=1e-6)
    assert cells.current_a(-1e9) > -20_000  # more than it can give: the most there is, not a NaN


def test_cold_cells_resist_more() -> None:
    drops = []
    for temp_c in (-10.0, 25.0):
        cells = cells_at(0.5, temp_c)
        cells.begin()
        rest_v = cells.cell_v.copy()
        cells.step(TICK_S, -200.0, NO_BLEED, NO_COOLING)
        drops.append(float((rest_v - cells.cell_v).mean()))
    assert drops[0] > 2 * drops[1] > 0.1


# vehicle


def test_both_cycles_are_those_of_the_standards() -> None:
    for cycle, last_s, km, top_kmh in (("udds", 1369, 11.99, 91.25), ("wltc", 1800, 23.27, 131.3)):
        trace = vehicle.speed_trace_mps(cycle)
        assert vehicle.duration_s(cycle) == last_s
        assert trace.sum() / 1000 == pytest.approx(km, abs=0.05)
        assert trace.max() * 3.6 == pytest.approx(top_kmh, abs=0.1)


def test_a_wltc_takes_what_such_a_car_takes() -> None:
    battery_j = sum(
        vehicle.traction(*vehicle.at("wltc", t / 10), regen_available_w=60_000.0).battery_w * 0.1 for t in range(18_000)
    )
    assert 11.0 < battery_j / 3.6e6 / 0.2327 < 17.0  # kWh/100 km, without what else runs in the car


def test_regeneration_is_no_more_than_the_pack_takes() -> None:
    assert vehicle.traction(20.0, -2.0, 10_000.0).battery_w == pytest.approx(-10_000.0)
    assert vehicle.traction(20.0, -2.0, 0.0).battery_w == 0.0


# the car as a whole


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_same_seed_is_the_same_car(number: int) -> None:
    one, two = run(Car(7, number), 30), run(Car(7, number), 30)
    assert values(one).tobytes() == values(two).tobytes()
    assert values(one).tobytes() != values(run(Car(8, number), 30)).tobytes()


def test_three_cars_at_once_show_a_driving_a_charging_and_a_parked_one() -> None:
    cars = [run(Car(1, number), 1.0) for number in range(3)]
    assert [car.demand.state for car in cars] == ["drive", "charge_dc", "off"]
    assert cars[0].demand.speed_mps > 3
    assert cars[1].bms.current_a > 100
    run(cars[2], 60)
    assert cars[2].demand.state == "drive"


def stays_sane(car: Car, hours: float) -> set[str]:
    """Runs the car and looks at every cell each second; returns the states seen."""
    states = set()
    for _ in range(round(hours * 3600)):
        run(car, 1.0)
        states.add(car.demand.state)
        assert car.cells.cell_v.min() > 2.7
        assert car.cells.cell_v.max() < 4.25
        assert car.cells.soc.min() > 0.02
        assert car.cells.soc.max() < 1.0
        assert car.cells.temp_c.min() > -30
        assert car.cells.temp_c.max() < 55
        assert abs(car.bms.soc - float(car.cells.soc.mean())) < 0.05
        assert not car.bms.fault
    return states


@pytest.mark.parametrize("number", [0, 1, 2])
def test_cells_stay_sane_for_some_minutes(number: int) -> None:
    stays_sane(Car(1, number), 0.1)


@pytest.mark.slow
def test_cells_stay_sane_for_a_day_of_driving_parking_and_charging() -> None:
    car = Car(1, 1)
    charge_ah, seconds = car.cells.soc * car.cells.spread.capacity_ah, 24 * 3600
    counted_ah = car.bms.throughput_ah
    assert {"off", "park", "drive", "charge_dc"} <= stays_sane(car, 24)
    changed_ah = car.cells.soc * car.cells.spread.capacity_ah - charge_ah
    spread_ah = float(np.ptp(changed_ah + car.cells.spread.self_discharge_a * seconds / 3600))
    assert spread_ah <= 0.2 * 24  # in series all got the same but for what was bled
    assert car.bms.throughput_ah - counted_ah > 50


def test_charging_ends_in_constant_voltage_below_the_limit() -> None:
    car = Car(3, 1)
    car.itinerary.phase = car.itinerary.phase.__class__("charge_dc", 1e9)
    car.cells.soc += 0.97 - car.cells.soc.mean()
    car.bms.soc = 0.70  # a BMS that believes there is room: only the voltage can stop it
    run(car, 240)
    assert car.bms.cell_max_v < 4.18
    assert car.current_a < 0.5 * NOMINAL_AH


def test_contactors_close_only_after_precharge() -> None:
    switch = Contactors(closed=False, pack_v=0.0)
    states = []
    for _ in range(20):
        switch.step(TICK_S, True, 360.0)
        states.append((switch.precharge, switch.main))
    assert states[0] == (True, False)
    assert (True, True) in states
    assert states[-1] == (False, True)
    first_closed = next(at for at, (_, main) in enumerate(states) if main)
    assert 2 <= first_closed <= 10
    switch.step(TICK_S, False, 360.0)
    assert not switch.main and not switch.precharge and 0 < switch.link_v < 360.0


def test_a_parked_car_opens_its_contactors_and_closes_them_by_precharge() -> None:
    seen: list[tuple[bool, bool]] = []
    car = run(Car(1, 2), 40, lambda c: seen.append((c.bms.contactors.precharge, c.bms.contactors.main)))
    assert (False, False) in seen
    assert seen.index((True, False)) > seen.index((False, False))
    assert car.bms.contactors.main
    assert not car.bms.alarms.alarms.any()


# faults and alarms


def test_a_cell_fault_moves_that_cell_alone_and_raises_imbalance() -> None:
    plain, faulty = Car(1, 2), Car(1, 2)
    faulty.faults.put(Target.parse("cell_v[17]"), 0.05)
    run(plain, 3), run(faulty, 3)
    difference = faulty.bms.cell_v - plain.bms.cell_v
    assert difference[17] == pytest.approx(0.05, abs=1e-6)  # it is now balanced, too: the BMS believes what it measures
    assert np.delete(difference, 17) == pytest.approx(np.zeros(95), abs=1e-6)
    assert value(faulty, "Cell018_V") - value(plain, "Cell018_V") == pytest.approx(0.05, abs=1e-6)
    assert standing(faulty.bms.alarms.warnings) == {"cell_imbalance"}
    assert standing(plain.bms.alarms.warnings) == set()
    assert faulty.bms.pack_v == pytest.approx(plain.bms.pack_v, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "signal", "offset", "shown"),
    [
        ("pack_v", "PackVoltage", 7.0, 7.0),
        ("current_a", "PackCurrent", -20.0, -20.0),
        ("temp_c[3]", "Temp04", 10.0, 10.0),
        ("soc_bms", "SoC", -0.1, -10.0),
        ("insulation_kohm", "Insulation", -1000.0, -1000.0),
        ("coolant_in_c", "CoolantIn", 5.0, 5.0),
        ("speed_kmh", "VehicleSpeed", 12.0, 12.0),
        ("odometer_km", "Odometer", 100.0, 100.0),
        ("cycles", "Cycles", 3.0, 3.0),
    ],
)
def test_any_field_can_have_a_fault_and_lose_it(field: str, signal: str, offset: float, shown: float) -> None:
    plain, faulty = Car(1, 2), Car(1, 2)
    faulty.faults.put(Target.parse(field), offset)
    run(plain, 0.1), run(faulty, 0.1)
    assert value(faulty, signal) - value(plain, signal) == pytest.approx(shown, abs=0.01)
    assert faulty.faults.standing() == {field: offset}
    faulty.faults.clear(None)
    run(plain, 0.1), run(faulty, 0.1)
    assert value(faulty, signal) == pytest.approx(value(plain, signal), abs=0.05)


def test_clearing_one_fault_leaves_the_others() -> None:
    faults = Faults()
    faults.put(Target.parse("cell_v[1]"), 0.1)
    faults.put(Target.parse("cell_v[2]"), 0.2)
    faults.clear(Target.parse("cell_v[1]"))
    assert faults.standing() == {"cell_v[2]": 0.2}
    assert faults.cell_v.nonzero()[0].tolist() == [2]


@pytest.mark.parametrize(
    "text", ["cell_v", "cell_v[96]", "cell_v[-1]", "temp_c[16]", "pack_v[0]", "colour", "", "state"]
)
def test_a_field_that_cannot_have_a_fault_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Target.parse(text)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), 5.1, -1e9])
def test_an_absurd_offset_is_refused(offset: float) -> None:
    with pytest.raises(ConfigError, match="out of reason"):
        Faults().put(Target.parse("cell_v[0]"), offset)


def test_over_voltage_stops_the_car_and_clearing_the_fault_lets_it_go_on() -> None:
    car = run(Car(1, 0), 5)
    assert car.demand.speed_mps > 3
    car.faults.put(Target.parse("cell_v[5]"), 1.0)
    run(car, 20)
    assert "cell_over_voltage" in standing(car.bms.alarms.alarms)
    assert (car.demand.state, car.demand.speed_mps, car.bms.contactors.main) == ("fault", 0.0, False)
    assert car.current_a == value(car, "MotorTorque") == 0.0
    car.faults.clear(None)
    run(car, 60)
    assert car.demand.state != "fault"
    assert car.bms.contactors.main
    assert not car.bms.alarms.alarms.any()


@pytest.mark.parametrize(
    ("field", "offset", "code"),
    [
        ("pack_v", 10.0, "voltage_sensor_fault"),
        ("insulation_kohm", -2950.0, "insulation"),
        ("temp_c[3]", 30.0, "temp_sensor_fault"),
        ("current_a", 20.0, "current_sensor_fault"),
        ("cell_v[9]", 0.2, "cell_imbalance"),
    ],
)
def test_faults_raise_their_alarms(field: str, offset: float, code: str) -> None:
    car = Car(2, 2)
    run(car, 2)
    car.bms.insulation_kohm = car.bms._insulation_kohm = 2960.0
    car.faults.put(Target.parse(field), offset)
    seen: set[str] = set()
    run(car, 8, lambda c: seen.update(standing(c.bms.alarms.alarms)))
    assert code in seen


def test_an_alarm_needs_half_a_second_and_goes_after_two() -> None:
    calm = {
        "cell_max_v": 3.7, "cell_min_v": 3.7, "pack_v": 355.0, "charging_max_c": 20.0, "charging_min_c": 20.0,
        "temp_max_c": 20.0, "temp_min_c": 20.0, "ambient_c": 20.0, "over_charge_limit_a": -9.0,
        "over_discharge_limit_a": -9.0, "rest_spread_v": 0.01, "temp_spread_c": 1.0, "soc": 0.5,
        "insulation_kohm": 2000.0, "current_while_open_a": 0.0, "sum_disagrees_v": 0.0, "temp_outlier_c": 0.5,
        "precharge_s": 0.0,
    }  # fmt: skip
    alarms = Alarms()
    for _ in range(4):
        alarms.step(TICK_S, calm | {"cell_max_v": 4.3})
    assert not alarms.warnings.any()
    for _ in range(2):
        alarms.step(TICK_S, calm | {"cell_max_v": 4.3})
    assert standing(alarms.alarms) == standing(alarms.warnings) == {"cell_over_voltage"}
    assert alarms.stops_the_car
    for _ in range(19):
        alarms.step(TICK_S, calm)
    assert alarms.alarms.any()
    for _ in range(2):
        alarms.step(TICK_S, calm)
    assert not alarms.warnings.any() and not alarms.stops_the_car
