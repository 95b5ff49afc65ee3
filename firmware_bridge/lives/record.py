"""What the Meter of a real car would have noted of a life: Sessions with their noise, their gaps and the reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_bridge.lives.ageing import MOST_EFC, Course
from firmware_bridge.lives.packs import Pack
from firmware_bridge.pack.cells import (
    ACTIVATION_K,
    NOMINAL_AH,
    R0_OHM,
    R1_OHM,
    R2_OHM,
    Floats,
    ocv_v,
    soc_at_v,
)
from shared.feature_table import HOT_C, STEP_TEMP_C, WINDOW_TEMP_C, WINDOW_V
from shared.records import SESSION_REASONS

Reasons = npt.NDArray[np.int8]

MOST_DAYS: Final = 20 * 365.0
_LONGEST_DAYS: Final = 14.0  # a Session ends then, whatever has moved
_REGEN: Final = 1.25  # charge that moves in a cycle / what is charged from the plug
_KNOWN: Final = -1
_STEP_OHM: Final = 0.99 * R0_OHM  # what a Meter finds in drive cycles at 1 Hz: the slow parts relax against the steps
_STEADY_OHM: Final = R0_OHM + R1_OHM + R2_OHM
_KELVIN, _ROOM_K = 273.15, 298.15
_DECIMALS: Final = {
    "cycles": 1, "throughput_ah": 3, "age_days": 4, "moved_ah": 3, "r_step_mohm": 5, "r_step_max_mohm": 5,
    "cell_dev_mv": 3, "temp_mean_c": 3, "temp_spread_c": 3, "hot_h": 4, "window_ah": 4, "duration_s": 0,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Days:
    """When the Sessions of one pack ended, and how much had moved; float64[n]."""

    efc: Floats  # of the pack, at the end of each
    age_days: Floats  # likewise

    @classmethod
    def drawn(cls, pack: Pack, rng: np.random.Generator) -> Days:
        """More Sessions than any life lasts."""
        count = int(MOST_EFC)
        charge_efc = pack.depth * _REGEN * np.clip(1 + 0.12 * rng.standard_normal(count), 0.6, 1.5)
        efc = charge_efc * np.ceil(1 / charge_efc)
        days = efc / pack.efc_per_day * np.exp(0.25 * rng.standard_normal(count) - 0.03)
        days += np.where(rng.random(count) < 0.01, rng.exponential(8.0, count), 0.0)  # holidays, repairs
        kept = np.minimum(_LONGEST_DAYS / days, 1.0)
        efc, age_days = np.cumsum(efc * kept), np.cumsum(days * kept)
        within = max(int(((efc < MOST_EFC) & (age_days < MOST_DAYS)).sum()), 1)
        return cls(efc[:within], age_days[:within])

    def age_at(self, efc: Floats) -> Floats:
        """Age [days] when `efc` had moved; beyond the last Session: that of the last."""
        age: Floats = np.interp(efc, np.concatenate(([0.0], self.efc)), np.concatenate(([0.0], self.age_days)))
        return age

    def until(self, efc: float) -> Days:
        """Those that ended before `efc`."""
        count = int(np.searchsorted(self.efc, efc))
        return Days(self.efc[:count], self.age_days[:count])


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """The Sessions of one pack as columns: float64[n] by Session's names, NaN = None; why: int8[n], _KNOWN or a place
    in SESSION_REASONS."""

    columns: dict[str, Floats] = field(default_factory=dict)
    why: dict[str, Reasons] = field(default_factory=dict)

    def put(self, name: str, values: Floats, **missing: npt.NDArray[np.bool_]) -> None:
        """Adds a column; `missing`: reason -> where there is none because of it, the first that holds counts."""
        column, why = np.round(values, _DECIMALS.get(name, 6)), np.full(values.shape, _KNOWN, np.int8)
        for reason, where in missing.items():
            why[where & (why == _KNOWN)] = SESSION_REASONS.index(reason)
        column[why != _KNOWN] = np.nan
        self.columns[name], self.why[name] = column, why

    def rows(self) -> Iterator[dict[str, Any]]:
        """What is known of each Session, by its names; what is not is left out."""
        columns = zip(*(column.tolist() for column in self.columns.values()), strict=True)
        for values in columns:
            yield {name: value for name, value in zip(self.columns, values, strict=True) if value == value}  # noqa: PLR0124

    def reasons(self, row: int) -> dict[str, str]:
        """Field -> why it is None, of one Session."""
        return {name: SESSION_REASONS[why[row]] for name, why in self.why.items() if why[row] != _KNOWN}


def recorded(pack: Pack, course: Course, days: Days, rng: np.random.Generator) -> Record:
    """The Record of a pack that aged by `course` over `days`."""
    noted, count, grid = Record(), len(days.efc), course.efc()
    began_efc, began_days = np.concatenate(([0.0], days.efc[:-1])), np.concatenate(([0.0], days.age_days[:-1]))
    moved_efc, lasted_days = days.efc - began_efc, days.age_days - began_days
    air_c = pack.climate.outside_c((began_days + days.age_days) / 2) + 1.5 * rng.standard_normal(count)
    growth = np.interp(days.efc, grid, course.growth.mean(axis=1))
    use_c = pack.climate.in_use_c(air_c, growth)
    noted.put("duration_s", lasted_days * 86400)
    _count(noted, pack, days, moved_efc, rng)
    noted.put("soh_bms", _told_soh(pack, course, days.efc, rng), absent=np.full(count, pack.bms.silent))
    _heat(noted, pack, use_c, np.minimum(moved_efc * pack.busy_h_per_efc, lasted_days * 24), rng)
    _resistance(noted, pack, course, days.efc, use_c, rng)
    noted.put(
        "cell_dev_mv",
        _deviation_mv(pack, course, days.efc) * (1 + 0.08 * rng.standard_normal(count)),
        no_rest=rng.random(count) < 0.05,
    )
    _window(noted, pack, course, days.efc, moved_efc, use_c, rng)
    return noted


def _count(noted: Record, pack: Pack, days: Days, moved_efc: Floats, rng: np.random.Generator) -> None:
    count = len(days.efc)
    lost = rng.random(count) < 0.002  # the gateway had nothing to say
    undated = np.full(count, rng.random() < 0.03)
    noted.put("cycles", days.efc, absent=lost)
    noted.put("throughput_ah", days.efc * 2 * NOMINAL_AH, absent=lost)
    noted.put("moved_ah", moved_efc * 2 * NOMINAL_AH)
    noted.put("age_days", days.age_days, absent=undated, no_time=rng.random(count) < 0.004)


def _told_soh(pack: Pack, course: Course, efc: Floats, rng: np.random.Generator) -> Floats:
    """What the BMS says: it learns every so many cycles, and keeps to it until then."""
    bms = pack.bms
    learned = np.floor(efc / bms.every_efc).astype(np.intp)
    found_efc = bms.every_efc * np.arange(learned.max(initial=0) + 1)
    soh = np.interp(found_efc, course.efc(), course.soh(pack))
    told = 1 - bms.gain * (1 - soh) + bms.offset + bms.noise * rng.standard_normal(len(found_efc))
    told[0] = 1.0
    steps: Floats = np.minimum(bms.step * np.round(told / bms.step), 1.0)[learned]
    return steps


def _heat(noted: Record, pack: Pack, use_c: Floats, busy_h: Floats, rng: np.random.Generator) -> None:
    count = len(use_c)
    noted.put("temp_mean_c", use_c + 0.3 * rng.standard_normal(count))
    places = np.linspace(-0.5, 0.5, len(pack.sensor_offset_c))
    spread_c = float(np.ptp(pack.sensor_offset_c + pack.gradient_c * places))
    noted.put("temp_spread_c", spread_c + 0.1 * np.abs(rng.standard_normal(count)))
    swings_c = 1.0 + 4.0 * (1.2 - pack.climate.managed)
    noted.put("hot_h", busy_h / (1 + np.exp(1.7 * (HOT_C - use_c) / swings_c)))


def _resistance(
    noted: Record, pack: Pack, course: Course, efc: Floats, use_c: Floats, rng: np.random.Generator
) -> None:
    """Corrected to 25 degC by an activation that is not quite the pack's own."""
    count, grid = len(efc), course.efc()
    cells = 1000.0 * _STEP_OHM * pack.resistance * (1 + course.growth)
    left = np.exp((pack.activation_k - ACTIVATION_K) * (1 / (use_c + _KELVIN) - 1 / _ROOM_K))
    seen = left * (1 + 0.012 * rng.standard_normal(count))
    mean, worst = np.interp(efc, grid, cells.mean(axis=1)), np.interp(efc, grid, cells.max(axis=1))
    gaps = {
        "no_step": rng.random(count) < 0.03,
        "temperature": (use_c < STEP_TEMP_C[0]) | (use_c > STEP_TEMP_C[1]),
    }
    noted.put("r_step_mohm", mean * seen, **gaps)
    noted.put("r_step_max_mohm", worst * seen * (1.004 + 0.006 * rng.standard_normal(count)), **gaps)


def _deviation_mv(pack: Pack, course: Course, efc: Floats) -> Floats:
    """Cells that hold less (or more) stand apart the further the pack is from the SoC at which it is balanced."""
    capacity_ah = pack.capacity_ah * (1 - course.loss)
    median_ah = np.median(capacity_ah, axis=1)
    apart = np.maximum(1 - capacity_ah.min(axis=1) / median_ah, capacity_ah.max(axis=1) / median_ah - 1)
    low, high = np.array([max(pack.top - pack.depth, 0.02)]), np.array([pack.top])
    volts_per_soc = float(((ocv_v(high) - ocv_v(low)) / (high - low))[0])
    deviation_mv: Floats = np.hypot(pack.uneven_mv, 1000 * volts_per_soc * pack.depth / 3 * apart)
    return np.interp(efc, course.efc(), deviation_mv)


def _window(
    noted: Record, pack: Pack, course: Course, efc: Floats, moved_efc: Floats, use_c: Floats, rng: np.random.Generator
) -> None:
    """Only a slow charge that began below the window and went on beyond it shows it."""
    count, grid = len(efc), course.efc()
    charges = np.maximum(np.round(moved_efc / (pack.depth * _REGEN)), 1.0)
    slow = rng.binomial(charges.astype(np.intp), 1 - pack.fast)
    low_v, high_v = WINDOW_V["nmc"]
    own = pack.resistance.mean() * (1 + course.growth.mean(axis=1))
    over_v = pack.slow_rate * NOMINAL_AH * _STEADY_OHM * own
    begin, end = _soc_at(low_v - over_v), _soc_at(high_v - over_v)
    fits_ah = np.interp(efc, grid, (pack.capacity_ah * (1 - course.loss)).mean(axis=1) * (end - begin))
    # Of many charges the one that began the lowest counts; people do not plug in at the same SoC each time.
    lowest = (
        pack.top - pack.depth - 0.13 * (rng.standard_normal(count) + 0.7 * np.sqrt(2 * np.log(np.maximum(slow, 1))))
    )
    crosses = (lowest < np.interp(efc, grid, begin) - 0.004) & (pack.top > end.max())
    noted.put(
        "window_ah",
        fits_ah * (1 + 0.008 * rng.standard_normal(count)),
        fast_charge=slow == 0,
        temperature=(use_c < WINDOW_TEMP_C[0]) | (use_c > WINDOW_TEMP_C[1]),
        short_window=~crosses,
        uneven_charge=rng.random(count) < 0.05,
    )


def _soc_at(rest_v: Floats) -> Floats:
    return np.array([soc_at_v(v) for v in rest_v.tolist()])
