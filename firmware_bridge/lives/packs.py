"""The packs of a fleet: how their cells differ, who uses them and where, and what their BMS makes of their age."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_bridge.pack.cells import SERIES, TEMPS, Floats

Range = tuple[float, float]

FRESH_AH: Final = 183.6
"""Mean capacity of fresh cells: so far above nominal that the weakest of a pack is about nominal."""
_CAPACITY, _RESISTANCE = 0.008, 0.04  # spread of fresh cells
_PACK_RATE, _CELL_RATE = 0.07, 0.035  # spread (log) of how fast packs and cells age
_SHARED_RATE, _GROWING = 0.8, 1.3  # correlation of fading and growing resistance
_BUDGET_EFC, _BUDGET_SPREAD = 1200.0, 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A way to use a car. Ranges are (least, most) over packs; `share` of the fleet."""

    name: str
    share: float
    efc_per_day: Range
    depth: Range  # SoC swing of a usual charge, 0..1
    top: Range  # SoC at which charging usually ends
    fast: Range  # share of charges that are fast
    fast_rate: Range  # 1/h
    slow_rate: Range  # 1/h
    busy_h_per_efc: float  # hours in which current flows


PROFILES: Final = (
    Profile(
        name="commuter",
        share=0.24,
        efc_per_day=(0.35, 0.80),
        depth=(0.25, 0.45),
        top=(0.75, 0.95),
        fast=(0.0, 0.15),
        fast_rate=(0.6, 1.1),
        slow_rate=(0.06, 0.17),
        busy_h_per_efc=15.0,
    ),
    Profile(
        name="van",
        share=0.26,
        efc_per_day=(0.35, 0.75),
        depth=(0.40, 0.65),
        top=(0.85, 1.0),
        fast=(0.0, 0.3),
        fast_rate=(0.5, 0.9),
        slow_rate=(0.06, 0.25),
        busy_h_per_efc=15.0,
    ),
    Profile(
        name="taxi",
        share=0.30,
        efc_per_day=(0.8, 2.3),
        depth=(0.40, 0.60),
        top=(0.80, 0.95),
        fast=(0.3, 0.8),
        fast_rate=(0.9, 1.3),
        slow_rate=(0.12, 0.25),
        busy_h_per_efc=11.0,
    ),
    Profile(
        name="fast charger",
        share=0.20,
        efc_per_day=(0.35, 1.0),
        depth=(0.45, 0.65),
        top=(0.75, 0.90),
        fast=(0.7, 0.97),
        fast_rate=(1.0, 1.4),
        slow_rate=(0.06, 0.17),
        busy_h_per_efc=10.0,
    ),
)
_CLIMATES: Final = ((0.15, 6.0, 10.0), (0.4, 11.0, 8.0), (0.28, 17.0, 8.0), (0.17, 23.0, 7.0))  # share, mean, swing


_YEAR_DAYS: Final = 365.25
_MANAGED: Final = ([-20.0, 0.0, 10.0, 20.0, 30.0, 40.0], [22.0, 23.5, 24.9, 26.3, 29.3, 34.0])
"""Outside air [degC] -> cells in use [degC] under the simulated car's own cooling loop, as it turns out to be."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Climate:
    """Where a pack lives and how its temperature is kept; every field is a number, or float64[packs] for many."""

    ambient_c: Floats | float
    season_c: Floats | float
    born_share: Floats | float  # when in the year it began, 0 = the coldest day
    managed: Floats | float  # how well its temperature is kept, 0..1
    warmer_c: Floats | float  # than the air, while it is used and not managed

    def outside_c(self, age_days: Floats) -> Floats:
        """Mean outside air [degC] at that age, without the weather."""
        year = np.asarray(age_days / _YEAR_DAYS + self.born_share)
        air_c: Floats = self.ambient_c - self.season_c * np.cos(2 * np.pi * year)
        return air_c

    def in_use_c(self, air_c: Floats, growth: Floats) -> Floats:
        """Mean temperature [degC] of the cells while current flows; grown resistance makes more heat."""
        kept_c = np.interp(air_c, *_MANAGED)
        temp_c: Floats = self.managed * kept_c + (1 - self.managed) * (air_c + self.warmer_c * (1 + 0.5 * growth))
        return temp_c


@dataclass(frozen=True, slots=True, kw_only=True)
class Bms:
    """How a BMS tells SoH: 1 - gain x loss + offset, in steps, once in a while."""

    gain: float
    offset: float
    noise: float
    step: float
    every_efc: float
    silent: bool  # it tells none at all


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pack:
    """One pack and its use, fixed for life. Cell arrays are float64[96], in the pack's order."""

    profile: str
    capacity_ah: Floats  # fresh
    resistance: Floats  # fresh, factor on the typical resistance
    loss_rate: Floats
    resistance_rate: Floats
    budget_efc: Floats  # plating stress before the knee
    efc_per_day: float
    depth: float
    top: float
    fast: float
    fast_rate: float
    slow_rate: float
    busy_h_per_efc: float
    climate: Climate
    gradient_c: float  # between its coolest and its warmest cell while it is used
    sensor_offset_c: Floats  # of each temperature sensor, float64[16]
    uneven_mv: float  # how far cells stand apart at rest for other reasons than capacity
    activation_k: float  # of its resistance
    bms: Bms
    watched: float  # share of its life that is on record; 1 = to the end

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Pack:
        """Any pack of the fleet."""
        profile = PROFILES[int(rng.choice(len(PROFILES), p=[p.share for p in PROFILES]))]
        climate = _CLIMATES[int(rng.choice(len(_CLIMATES), p=[share for share, *_ in _CLIMATES]))]
        managed, fast = float(rng.uniform(0.2, 1.0)), float(rng.uniform(*profile.fast))
        return cls(
            profile=profile.name,
            **cells_drawn(rng),
            efc_per_day=float(np.exp(rng.uniform(*np.log(profile.efc_per_day)))),
            depth=float(rng.uniform(*profile.depth)),
            top=float(rng.uniform(*profile.top)),
            fast=fast,
            fast_rate=float(rng.uniform(*profile.fast_rate)),
            slow_rate=float(rng.uniform(*profile.slow_rate)),
            busy_h_per_efc=profile.busy_h_per_efc,
            climate=Climate(
                ambient_c=climate[1] + 1.5 * float(rng.standard_normal()),
                season_c=climate[2],
                born_share=float(rng.uniform()),
                managed=managed,
                warmer_c=3.0 + 7.0 * fast,
            ),
            gradient_c=float(rng.uniform(0.5, 1.5) + 5.0 * (1 - managed) * rng.uniform()),
            sensor_offset_c=sensors_drawn(rng),
            uneven_mv=3.2 * float(np.exp(0.2 * rng.standard_normal())),
            activation_k=2400.0 + 150.0 * float(rng.standard_normal()),
            bms=bms_drawn(rng),
            watched=float(rng.uniform(0.25, 0.98)) if rng.random() < 0.04 else 1.0,
        )


def cells_drawn(rng: np.random.Generator) -> dict[str, Floats]:
    """The cells' part of a Pack: what factory and place give them."""
    pack_rate, cell_rate = rng.standard_normal(3), rng.standard_normal((2, SERIES)).clip(-2.5, 2.5)
    own = np.sqrt(1 - _SHARED_RATE**2)
    fading, growing = pack_rate[0], _SHARED_RATE * pack_rate[0] + own * pack_rate[1]
    cell_growing = _SHARED_RATE * cell_rate[0] + own * cell_rate[1]
    budget = _BUDGET_EFC * np.exp(_BUDGET_SPREAD * pack_rate[2] + 0.1 * rng.standard_normal(SERIES))
    return {
        "capacity_ah": FRESH_AH * (1 + _CAPACITY * rng.standard_normal(SERIES).clip(-2.5, 2.5)),
        "resistance": (1 + 0.02 * rng.standard_normal())
        * (1 + _RESISTANCE * rng.standard_normal(SERIES).clip(-2.5, 2.5)),
        "loss_rate": np.exp(_PACK_RATE * fading + _CELL_RATE * cell_rate[0]),
        "resistance_rate": np.exp(_GROWING * _PACK_RATE * growing + _GROWING * _CELL_RATE * cell_growing),
        "budget_efc": budget,
    }


def sensors_drawn(rng: np.random.Generator) -> Floats:
    """Offsets [K] of the temperature sensors, float64[16]."""
    offsets: Floats = 0.3 * rng.standard_normal(TEMPS)
    return offsets


def bms_drawn(rng: np.random.Generator, silent: float = 0.04) -> Bms:
    """Any BMS: most are off by a point or two, and tell what they found weeks ago; `silent`: share that never does."""
    return Bms(
        gain=float(np.exp(0.12 * rng.standard_normal())),
        offset=0.008 * float(rng.standard_normal()),
        noise=0.004,
        step=float(rng.choice([0.005, 0.01])),
        every_efc=float(np.exp(rng.uniform(np.log(25.0), np.log(150.0)))),
        silent=bool(rng.random() < silent),
    )
