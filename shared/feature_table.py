"""The one table of features: what a model may be told of a pack, in which unit, in which range, and when there is none.

A feature's `gate` says how it is made and when there is no estimate, with the numbers that decide it. The table's id is
a hash of all of that, so a model never meets features that were made in another way than those it learned from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

SMOOTH: Final = 9
"""A level is the median over this many Sessions (those of them that have the value)."""
LEAST_VALID: Final = 3
FIRST: Final = 10
"""The baseline is the median of this many first values of a pack's record."""
LEAST_FIRST: Final = 5
LATEST_START_CYCLES: Final = 100.0
"""A record that begins later in the pack's life has no baseline."""
SHORT_CYCLES: Final = 100.0
LONG_CYCLES: Final = 300.0
"""A slope is the difference of levels now and so many cycles ago."""
MOST_BACK: Final = 512
"""How many Sessions a slope may look back."""
WIDEST: Final = 2.0
"""A slope over more than this times its cycles (a hole in the record) is none."""
LEAST_AGE_DAYS: Final = 30.0
HOT_C: Final = 35.0

STEP_C: Final = 0.15
"""The least current step, as a share of the nominal Ah an hour."""
STEP_S: Final = (0.5, 1.5)
"""How far apart the two readings of a step may be."""
STEP_SUM: Final = 0.7
"""What the squares of a Session's steps (in units of the nominal current) must add up to."""
STEP_TEMP_C: Final = (0.0, 50.0)
ARRHENIUS_K: Final = 2400.0
"""Activation temperature of the resistance: about 20 kJ/mol, as published for the ohmic part of lithium cells."""
REST_C: Final = 0.02
REST_S: Final = 60.0
LOOK_EVERY_S: Final = 1800.0
LEAST_CHARGE_S: Final = 300.0
CHARGE_ENDED_S: Final = 60.0
ARMED_S: Final = 60.0
"""How long a charge must have run below the window before it counts."""
WINDOW_C: Final = (0.02, 0.5)
"""The charging currents at which the window counts: above, polarisation moves it too far."""
WINDOW_EVEN: Final = 0.10
WINDOW_TEMP_C: Final = (10.0, 45.0)
WINDOW_V: Final = {
    "nmc": (3.70, 3.95),
    "nca": (3.70, 3.95),
    "lmo": (3.90, 4.05),
    "lfp": (3.36, 3.42),
    "lto": (2.30, 2.45),
}
"""Mean cell voltage [V] between which the charge is counted, by chemistry."""
STEP_LEAST_V: Final = {"nmc": 3.45, "nca": 3.45, "lmo": 3.60, "lfp": 3.10, "lto": 2.10}
"""Below this median cell voltage the resistance rises with emptiness, which says nothing of age."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """One feature. lo, hi: outside of them there is no estimate; gate: how it is made and when there is none."""

    name: str
    unit: str
    lo: float
    hi: float
    gate: str


_LEVEL: Final = f"median of the last {SMOOTH} Sessions, at least {LEAST_VALID} with a value"
_SINCE: Final = (
    f"against the median of the first {FIRST} values (at least {LEAST_FIRST}); "
    f"none when the record begins after {LATEST_START_CYCLES:g} cycles"
)
_STEP: Final = (
    f"least squares over current steps >= {STEP_C:g} C between readings {STEP_S[0]:g}..{STEP_S[1]:g} s apart, "
    f"at {STEP_TEMP_C[0]:g}..{STEP_TEMP_C[1]:g} degC and above a cell voltage of "
    f"{', '.join(f'{name} {volts:g}' for name, volts in STEP_LEAST_V.items())} V, corrected to 25 degC with "
    f"{ARRHENIUS_K:g} K; the squares add up to >= {STEP_SUM:g}"
)
_WINDOW: Final = (
    f"Ah charged between the mean cell voltages {', '.join(f'{k} {a:g}-{b:g}' for k, (a, b) in WINDOW_V.items())} V "
    f"by a charge that ran {ARMED_S:g} s below, at {WINDOW_C[0]:g}..{WINDOW_C[1]:g} C, "
    f"even to {100 * WINDOW_EVEN:g} % and at {WINDOW_TEMP_C[0]:g}..{WINDOW_TEMP_C[1]:g} degC"
)


def _slope(cycles: float) -> str:
    return (
        f"level now - level {cycles:g} cycles ago, per 100 cycles; none before {cycles:g} cycles are on record, "
        f"over more than {WIDEST * cycles:g} or more than {MOST_BACK} Sessions"
    )


TABLE: Final[tuple[FeatureSpec, ...]] = (
    FeatureSpec("cycles", "1", 0.0, 20000.0, "equivalent full cycles as the BMS says, or its throughput / 2 / nominal"),
    FeatureSpec("age_days", "d", 0.0, 15000.0, "since the day of commissioning; none when that or the time is unknown"),
    FeatureSpec("cycles_per_day", "1/d", 0.0, 20.0, f"cycles / age_days; none before {LEAST_AGE_DAYS:g} days"),
    FeatureSpec("soh_bms", "1", 0.2, 1.2, "what the BMS claims now"),
    FeatureSpec("soh_bms_drop", "1", -0.3, 0.8, f"soh_bms: what it was less its level now, {_SINCE}"),
    FeatureSpec("soh_bms_slope_300", "1/100", -0.3, 0.3, f"soh_bms: {_slope(LONG_CYCLES)}"),
    FeatureSpec("r_step_mohm", "mohm", 0.01, 200.0, f"{_STEP}; mean over cells; {_LEVEL}"),
    FeatureSpec("r_step_growth", "1", -0.7, 9.0, f"r_step_mohm: relative change of its level {_SINCE}"),
    FeatureSpec("r_step_slope_100", "1/100", -0.5, 2.0, f"r_step_mohm, relative: {_slope(SHORT_CYCLES)}"),
    FeatureSpec("r_step_slope_300", "1/100", -0.5, 2.0, f"r_step_mohm, relative: {_slope(LONG_CYCLES)}"),
    FeatureSpec("r_spread", "1", 0.0, 5.0, f"worst cell's step resistance / mean - 1; {_LEVEL}"),
    FeatureSpec(
        "cell_dev_mv",
        "mV",
        0.0,
        1000.0,
        f"greatest |cell - pack median| after {REST_S:g} s below {REST_C:g} C, median of a Session's looks "
        f"({LOOK_EVERY_S:g} s apart); {_LEVEL}",
    ),
    FeatureSpec("cell_dev_slope_300", "mV/100", -200.0, 200.0, f"cell_dev_mv: {_slope(LONG_CYCLES)}"),
    FeatureSpec("temp_mean_c", "degC", -40.0, 80.0, f"mean of the sensors weighted with |current|; {_LEVEL}"),
    FeatureSpec("temp_life_c", "degC", -40.0, 80.0, "temp_mean_c of all Sessions on record, weighted by duration"),
    FeatureSpec("temp_spread_c", "K", 0.0, 60.0, f"hottest - coldest sensor, mean over time; {_LEVEL}"),
    FeatureSpec("hot_share", "1", 0.0, 1.0, f"share of the recorded time seen above {HOT_C:g} degC"),
    FeatureSpec("window_share", "1", 0.1, 2.0, f"{_WINDOW}, its level {_SINCE}: their ratio"),
    FeatureSpec("window_slope_100", "1/100", -0.5, 0.5, f"window_ah, relative: {_slope(SHORT_CYCLES)}"),
    FeatureSpec("window_slope_300", "1/100", -0.5, 0.5, f"window_ah, relative: {_slope(LONG_CYCLES)}"),
)
NAMES: Final = tuple(spec.name for spec in TABLE)


def schema_id(table: tuple[FeatureSpec, ...] = TABLE) -> str:
    """16 hex digits that name the table: its rows in their order, every word and number of them."""
    text = "\n".join(f"{s.name}\t{s.unit}\t{s.lo!r}\t{s.hi!r}\t{s.gate}" for s in table)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
