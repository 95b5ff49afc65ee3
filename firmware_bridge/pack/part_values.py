"""What the simulated pack says by the names of a Part, whatever language it then speaks. Pure.

The pack has 96 cells and 16 sensors; a language that carries fewer is told of the first of them, one that has places
for more is told of the first ones again, and the voltage is that of all that it is told of.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from firmware_bridge.pack.bms import CHARGE_TO_V
from firmware_bridge.pack.car import CHARGER_W, Car
from firmware_bridge.pack.cells import BLEED_A, NOMINAL_AH, SERIES
from firmware_bridge.protocol import ALARM, EXTRA, Value
from shared.fields import ALARM_CODES

_EMPTY_V: Final = 3.0
_MOS_ABOVE_C: Final = 6.0
_MODULES: Final = 1
_FULL_FROM_SOC: Final = 0.97


def part_values(car: Car, cells: int, temps: int) -> dict[str, Value]:
    """The values at the end of the car's last tick, as of a pack of so many cells and sensors."""
    bms, faults = car.bms, car.faults
    cell_v = np.resize(bms.cell_v, cells).tolist()
    temp_c = np.resize(bms.temp_c, temps).tolist()
    values: dict[str, Value] = {
        "pack_v": _pack_v(car, cells),
        "current_a": bms.current_a,
        "soc_bms": bms.soc + faults.of("soc_bms"),
        "soh_bms": bms.soh + faults.of("soh_bms"),
        "cycles": bms.cycles + faults.of("cycles"),
        "throughput_ah": bms.throughput_ah + faults.of("throughput_ah"),
        "energy_kwh": (bms.energy_kwh * cells / SERIES) + faults.of("energy_kwh"),
        "charge_limit_a": bms.charge_limit_a + faults.of("charge_limit_a"),
        "discharge_limit_a": bms.discharge_limit_a + faults.of("discharge_limit_a"),
        "insulation_kohm": bms.insulation_kohm,
        "ambient_c": car.ambient_c + faults.of("ambient_c"),
        "coolant_in_c": car.cooling.coolant_in_c + faults.of("coolant_in_c"),
        "coolant_out_c": car.cooling.coolant_out_c + faults.of("coolant_out_c"),
        "speed_kmh": max(3.6 * car.demand.speed_mps + faults.of("speed_kmh"), 0.0),
        "odometer_km": car.odometer_km + faults.of("odometer_km"),
        "state": "fault" if bms.fault else car.demand.state,
        "balancing": sum(1 << i for i in np.resize(bms.balancing, cells).nonzero()[0].tolist()),
    }
    values.update({f"cell_v[{i}]": volts for i, volts in enumerate(cell_v)})
    values.update({f"temp_c[{i}]": celsius for i, celsius in enumerate(temp_c)})
    return values | _switches(car) | _alarms(car) | _extras(car, cell_v, temp_c)


def _pack_v(car: Car, cells: int) -> float:
    """The voltage of those cells, with its share of what the sensor of all of them is wrong by."""
    fault_v = car.faults.of("pack_v")
    wrong_v = car.bms.pack_v - fault_v - float(car.cells.cell_v.sum())
    return float(np.resize(car.cells.cell_v, cells).sum() + wrong_v * cells / SERIES + fault_v)


def _switches(car: Car) -> dict[str, Value]:
    bms = car.bms
    return {
        "contactor_main": bms.contactors.main,
        "contactor_precharge": bms.contactors.precharge,
        "charge_mos": bms.charge_limit_a > 0 and not bms.fault,
        "discharge_mos": bms.discharge_limit_a > 0 and not bms.fault,
    }


def _alarms(car: Car) -> dict[str, Value]:
    """Each code, and each as a warning; of a code that stands as an alarm the warning has been left behind."""
    found: dict[str, Value] = {}
    standing = zip(ALARM_CODES, car.bms.alarms.alarms.tolist(), car.bms.alarms.warnings.tolist(), strict=True)
    for code, is_alarm, is_warning in standing:
        found[f"{ALARM}{code}"] = is_alarm
        found[f"{ALARM}{code}:warning"] = is_warning and not is_alarm
    return found


def _extras(car: Car, cell_v: list[float], temp_c: list[float]) -> dict[str, Value]:
    """What BMSs tell beside a Sample's fields, by the names of `protocol.EXTRAS` and of the languages' own extras."""
    bms = car.bms
    full_ah = bms.soh * NOMINAL_AH
    soc = bms.soc + car.faults.of("soc_bms")
    lowest, highest = min(cell_v), max(cell_v)
    coldest, hottest = min(temp_c, default=20.0), max(temp_c, default=20.0)
    found: dict[str, Value] = {
        "mos_temp_c": hottest + _MOS_ABOVE_C,
        "remaining_ah": max(soc, 0.0) * full_ah,
        "full_ah": full_ah,
        "nominal_ah": NOMINAL_AH,
        "cell_min_v": lowest,
        "cell_max_v": highest,
        "charge_v_limit": CHARGE_TO_V * len(cell_v),
        "discharge_v_limit": _EMPTY_V * len(cell_v),
        "balance_a": BLEED_A if bms.balancing[: len(cell_v)].any() else 0.0,
        "sw_version": "2.1",
        "hw_version": "11.A",
        "model": "PT16S",
        "temp_min_c": coldest,
        "temp_max_c": hottest,
        "modules": float(_MODULES),
        "is_charging": car.demand.state in CHARGER_W,
        "is_full": soc > _FULL_FROM_SOC,
    }
    return {EXTRA + name: value for name, value in found.items()}
