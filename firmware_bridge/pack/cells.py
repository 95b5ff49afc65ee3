"""The battery itself: 96 NMC cells in series, each with its own capacity, resistance, charge and temperature.

Equivalent circuit: OCV(SoC) + R0 + two RC pairs, exact for a constant current over a step; current > 0 charges.
The numbers are ours, of the order of a 180 Ah automotive NMC/graphite cell; they are fitted to no particular product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SERIES: Final = 96
PARALLEL: Final = 1
TEMPS: Final = 16
"""Temperature sensors, one a module of six cells."""
NOMINAL_AH: Final = 180.0
NOMINAL_V: Final = 353.0
SELF_DISCHARGE_A: Final = 0.0075  # 3 % a month
BLEED_A: Final = 0.2
BALANCED_AT: Final = 0.8

_SOC, _OCV_V = np.array(
    [
        *((0.00, 2.950), (0.01, 3.120), (0.03, 3.290), (0.05, 3.385), (0.08, 3.455), (0.12, 3.505), (0.16, 3.545)),
        *((0.20, 3.577), (0.25, 3.607), (0.30, 3.630), (0.36, 3.653), (0.42, 3.677), (0.48, 3.706), (0.54, 3.745)),
        *((0.60, 3.797), (0.66, 3.853), (0.72, 3.908), (0.78, 3.963), (0.84, 4.020), (0.90, 4.076), (0.94, 4.112)),
        *((0.97, 4.139), (1.00, 4.180)),
    ]
).T
R0_OHM: Final = 0.40e-3
R1_OHM, TAU1_S = 0.11e-3, 12.0
R2_OHM, TAU2_S = 0.14e-3, 110.0
ACTIVATION_K: Final = 2400.0  # Arrhenius temperature of all three resistances, E / R
_HEAT_CAPACITY_J_PER_K: Final = 2700.0
_NEIGHBOUR_W_PER_K: Final = 1.2


def ocv_v(soc: Floats) -> Floats:
    """Open-circuit voltage [V] of a cell at `soc` (0..1; held at the ends), shape of `soc`."""
    volts: Floats = np.interp(soc, _SOC, _OCV_V)
    return volts


def soc_at_v(rest_v: float) -> float:
    """SoC (0..1) of a cell that rests at `rest_v`: the inverse of `ocv_v`."""
    return float(np.interp([rest_v], _OCV_V, _SOC)[0])


@dataclass(frozen=True, slots=True, eq=False)
class Spread:
    """How the cells of one pack differ; each float64[96]."""

    capacity_ah: Floats
    resistance: Floats  # factor on all three resistances
    self_discharge_a: Floats
    soc: Floats  # at the start

    @classmethod
    def drawn(cls, rng: np.random.Generator, soc: float, capacity_ah: Floats, resistance: Floats) -> Spread:
        """Such cells at mean `soc`, last balanced at BALANCED_AT to within 0.15 %; self-discharge differs, too."""
        apart = capacity_ah.mean() / capacity_ah
        return cls(
            capacity_ah=capacity_ah,
            resistance=resistance,
            self_discharge_a=SELF_DISCHARGE_A * (1 + 0.15 * _drawn(rng)),
            soc=np.clip(BALANCED_AT - (BALANCED_AT - soc) * apart + 0.0015 * _drawn(rng), 0.0, 1.0),
        )


class Cells:
    """State of all cells. Call `begin` for what holds at the step's start, choose a current, then `step`."""

    def __init__(self, spread: Spread, temp_c: float) -> None:
        self.spread = spread
        self.soc = spread.soc.copy()
        self.temp_c = np.full(SERIES, temp_c) + 0.3 * np.sin(np.linspace(0.0, np.pi, SERIES))
        self.cell_v = ocv_v(self.soc)
        self.heat_w = np.zeros(SERIES)
        self._v1 = np.zeros(SERIES)
        self._v2 = np.zeros(SERIES)
        self._r = self._resistance()
        self._emf_v = self.cell_v

    def begin(self) -> None:
        """Works out the EMF and resistance of each cell as they are now."""
        self._r = self._resistance()
        self._emf_v = ocv_v(self.soc) + self._v1 + self._v2

    def current_a(self, power_w: float) -> float:
        """The current [A] at which the pack takes `power_w` (> 0 charges); the most it can give if that is too much."""
        emf_v, r_ohm = float(self._emf_v.sum()), R0_OHM * float(self._r.sum())
        return (math.sqrt(max(emf_v * emf_v + 4 * r_ohm * power_w, 0.0)) - emf_v) / (2 * r_ohm)

    def step(self, dt_s: float, current_a: float, bleed: npt.NDArray[np.bool_], cooling_w: Floats) -> None:
        """Moves on by `dt_s` at constant current. `bleed[i]`: cell i is bled; `cooling_w[i]`: heat taken from it."""
        r0_ohm, r1_ohm, r2_ohm = R0_OHM * self._r, R1_OHM * self._r, R2_OHM * self._r
        self.cell_v = self._emf_v + r0_ohm * current_a
        self.heat_w = current_a * current_a * r0_ohm + self._v1**2 / r1_ohm + self._v2**2 / r2_ohm
        keep1, keep2 = np.exp(-dt_s / TAU1_S), np.exp(-dt_s / TAU2_S)
        self._v1 = self._v1 * keep1 + r1_ohm * (current_a * (1 - keep1))
        self._v2 = self._v2 * keep2 + r2_ohm * (current_a * (1 - keep2))
        into_a = current_a - self.spread.self_discharge_a - BLEED_A * bleed
        self.soc += into_a * dt_s / (3600 * self.spread.capacity_ah)
        between_w = _NEIGHBOUR_W_PER_K * np.diff(self.temp_c)
        flow_w = self.heat_w - cooling_w
        flow_w[:-1] += between_w
        flow_w[1:] -= between_w
        self.temp_c += flow_w * (dt_s / _HEAT_CAPACITY_J_PER_K)

    def _resistance(self) -> Floats:
        """Factor on the resistances: the cell's own, its temperature (1 at 25 C) and the rise when nearly empty."""
        cold = np.exp(ACTIVATION_K * (1 / (self.temp_c + 273.15) - 1 / 298.15))
        factor: Floats = self.spread.resistance * cold * (1 + 0.8 * np.exp(-self.soc / 0.06))
        return factor


def _drawn(rng: np.random.Generator) -> Floats:
    """Standard normal numbers cut at 2.5, one a cell: a factory sorts the rest out."""
    return np.clip(rng.standard_normal(SERIES), -2.5, 2.5)
