"""The battery management system: what it measures, with its errors, and what it concludes from that."""

from __future__ import annotations

from bisect import bisect
from typing import Final

import numpy as np

from firmware_bridge.lives.cars import Past
from firmware_bridge.pack.alarms import Alarms
from firmware_bridge.pack.cells import NOMINAL_AH, NOMINAL_V, SERIES, TEMPS, Cells, Floats, soc_at_v
from firmware_bridge.pack.contactors import Contactors
from firmware_bridge.pack.faults import Faults

CHARGE_TO_V: Final = 4.17
_DISCHARGE_TO_V: Final = 3.0
_PER_MODULE: Final = SERIES // TEMPS

_CELL_NOISE_V, _CELL_OFFSET_V = 0.0006, 0.0008
_PACK_NOISE_V: Final = 0.05
_CURRENT_NOISE_A: Final = 0.04
_TEMP_NOISE_C: Final = 0.03
_BALANCE_ABOVE_V: Final = 0.006
_AT_REST_A: Final = 3.0
_CALM_A: Final = 60.0

_CHARGE_BY_TEMP: Final = ([-10.0, 0.0, 10.0, 20.0, 46.0, 52.0, 58.0], [0.0, 0.15, 0.5, 1.0, 1.0, 0.4, 0.0])
_CHARGE_BY_SOC: Final = ([0.5, 0.7, 0.8, 0.9, 1.0], [1.6, 1.1, 0.8, 0.35, 0.0])  # C
_DISCHARGE_BY_TEMP: Final = ([-30.0, -10.0, 10.0, 50.0, 62.0], [0.1, 0.5, 1.0, 1.0, 0.0])
_DISCHARGE_BY_SOC: Final = ([0.0, 0.03, 0.10, 0.25], [0.0, 0.4, 1.6, 2.8])  # C


class Bms:
    """What the BMS knows after each `step`; everything in it carries its errors and the faults put on it."""

    def __init__(self, rng: np.random.Generator, cells: Cells, past: Past, faults: Faults) -> None:
        """A BMS that is awake, and has counted and claimed so far what it did in `past`."""
        self._rng = rng
        self._faults = faults
        self._cell_offset_v = _CELL_OFFSET_V * rng.standard_normal(SERIES)
        self._temp_offset_c = past.pack.sensor_offset_c
        self._current_gain = 1 + 0.002 * float(rng.standard_normal())
        self._current_offset_a = 0.05 * float(rng.standard_normal())
        self._rest_s = 0.0
        self._full_v_limit_a = 2 * NOMINAL_AH
        self._rest_spread_v = 0.0
        self._usable_ah = past.usable_ah * (1 + 0.01 * float(rng.standard_normal()))
        self.soh = past.soh_told
        self.soc = min(max(float(cells.soc.mean()) + 0.01 * float(rng.standard_normal()), 0.0), 1.0)
        self.alarms = Alarms()
        pack_v = float(cells.cell_v.sum())
        self.contactors = Contactors(True, pack_v)
        self.balancing = np.zeros(SERIES, np.bool_)
        self.insulation_kohm = self._insulation_kohm = float(rng.uniform(2000.0, 4000.0))
        self.throughput_ah = past.throughput_ah
        self.energy_kwh = self.throughput_ah * NOMINAL_V / 1000
        self.charge_limit_a = self.discharge_limit_a = 0.0
        self.fault = False
        self._measure(cells, 0.0)
        self._limit()

    @property
    def cycles(self) -> float:
        """Equivalent full cycles."""
        return self.throughput_ah / 2 / NOMINAL_AH

    @property
    def usable_kwh(self) -> float:
        """Energy [kWh] left by the BMS's own SoC and SoH."""
        return self.soc * self.soh * NOMINAL_AH * NOMINAL_V / 1000

    def step(self, dt_s: float, cells: Cells, current_a: float, ambient_c: float) -> None:
        """Measures and concludes, after `current_a` flowed for `dt_s`."""
        self._measure(cells, current_a)
        self._count(dt_s)
        self._limit()
        self._balance()
        self.alarms.step(dt_s, self._watched(ambient_c))
        self.fault = self.alarms.stops_the_car

    def _measure(self, cells: Cells, current_a: float) -> None:
        noise, faults = self._rng.standard_normal(SERIES + TEMPS + 3), self._faults
        modules_c = cells.temp_c.reshape(TEMPS, _PER_MODULE).mean(axis=1)
        self.cell_v: Floats = cells.cell_v + self._cell_offset_v + _CELL_NOISE_V * noise[:SERIES] + faults.cell_v
        self.temp_c: Floats = (
            modules_c + self._temp_offset_c + _TEMP_NOISE_C * noise[SERIES : SERIES + TEMPS] + faults.temp_c
        )
        pack_v, current, insulation = noise[-3:].tolist()
        self.pack_v = float(cells.cell_v.sum()) + _PACK_NOISE_V * pack_v + faults.of("pack_v")
        self.current_a = (
            current_a * self._current_gain
            + self._current_offset_a
            + _CURRENT_NOISE_A * current
            + faults.of("current_a")
        )
        self._insulation_kohm += 0.02 * (3000.0 - self._insulation_kohm) * 0.1 + 4.0 * insulation
        self.insulation_kohm = self._insulation_kohm + faults.of("insulation_kohm")
        self.cell_min_v, self.cell_max_v = float(self.cell_v.min()), float(self.cell_v.max())
        self.temp_min_c, self.temp_max_c = float(self.temp_c.min()), float(self.temp_c.max())

    def _count(self, dt_s: float) -> None:
        """Counts charge, and at rest leans on the voltage: otherwise the sensor's offset would add up for ever."""
        moved_ah = self.current_a * dt_s / 3600
        self.soc += moved_ah / self._usable_ah
        self._rest_s = self._rest_s + dt_s if abs(self.current_a) < _AT_REST_A else 0.0
        if self._rest_s > 5.0:
            self.soc += (soc_at_v(self.pack_v / SERIES) - self.soc) * 0.002 * dt_s
        self.soc = min(max(self.soc, 0.0), 1.0)
        self.throughput_ah += abs(moved_ah)
        self.energy_kwh += abs(moved_ah) * self.pack_v / 1000

    def _limit(self) -> None:
        """Limits by temperature and SoC; near full and near empty the outermost cell decides."""
        coldest_c, hottest_c = self.temp_min_c, self.temp_max_c
        by_temp = min(_between(coldest_c, _CHARGE_BY_TEMP), _between(hottest_c, _CHARGE_BY_TEMP))
        by_table_a = NOMINAL_AH * by_temp * _between(self.soc, _CHARGE_BY_SOC)
        # Holds the highest cell at CHARGE_TO_V: an integral controller, so that charging ends in constant voltage.
        self._full_v_limit_a += 150.0 * (CHARGE_TO_V - self.cell_max_v)
        self._full_v_limit_a = min(max(self._full_v_limit_a, 0.0), by_table_a)
        self.charge_limit_a = self._full_v_limit_a
        by_temp = min(_between(coldest_c, _DISCHARGE_BY_TEMP), _between(hottest_c, _DISCHARGE_BY_TEMP))
        by_cell = min(max((self.cell_min_v - _DISCHARGE_TO_V) / 0.2, 0.0), 1.0)
        self.discharge_limit_a = NOMINAL_AH * by_temp * by_cell * _between(self.soc, _DISCHARGE_BY_SOC)

    def _balance(self) -> None:
        """Bleeds the cells that stand out, while charge is high enough for voltage to say something of charge."""
        calm = abs(self.current_a) < _CALM_A and self.soc > 0.5
        above = self.cell_v > self.cell_min_v + _BALANCE_ABOVE_V
        keep = self.cell_v > self.cell_min_v + _BALANCE_ABOVE_V / 2
        self.balancing = (above | (self.balancing & keep)) & calm

    def _watched(self, ambient_c: float) -> dict[str, float]:
        """The values that the alarm table looks at."""
        median_c = float(np.sort(self.temp_c)[TEMPS // 2])
        if abs(self.current_a) < _CALM_A:
            self._rest_spread_v = self.cell_max_v - self.cell_min_v
        charging = self.current_a > 2.0
        return {
            "cell_max_v": self.cell_max_v,
            "cell_min_v": self.cell_min_v,
            "pack_v": self.pack_v,
            "charging_max_c": self.temp_max_c if charging else median_c,
            "charging_min_c": self.temp_min_c if charging else 20.0,
            "temp_max_c": self.temp_max_c,
            "temp_min_c": self.temp_min_c,
            "ambient_c": ambient_c,
            "over_charge_limit_a": self.current_a - self.charge_limit_a,
            "over_discharge_limit_a": -self.current_a - self.discharge_limit_a,
            "rest_spread_v": self._rest_spread_v,
            "temp_spread_c": self.temp_max_c - self.temp_min_c,
            "soc": self.soc,
            "insulation_kohm": self.insulation_kohm,
            "current_while_open_a": 0.0 if self.contactors.negative else abs(self.current_a),
            "sum_disagrees_v": abs(float(self.cell_v.sum()) - self.pack_v),
            "temp_outlier_c": max(self.temp_max_c - median_c, median_c - self.temp_min_c),
            "precharge_s": 0.0 if self.contactors.main else self.contactors.precharge_s,
        }


def _between(x: float, table: tuple[list[float], list[float]]) -> float:
    """`table` (knots, values) at `x`, linear between the knots, held at the ends (np.interp is slow for one number)."""
    knots, values = table
    at = bisect(knots, x)
    if at in (0, len(knots)):
        return values[min(at, len(knots) - 1)]
    share = (x - knots[at - 1]) / (knots[at] - knots[at - 1])
    return values[at - 1] + share * (values[at] - values[at - 1])
