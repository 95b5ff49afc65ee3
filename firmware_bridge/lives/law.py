"""How cells age: the calendar and cycle law of Schmalstieg et al. 2014 as a state that any conditions drive on.

J. Schmalstieg, S. Kaebitz, M. Ecker, D. U. Sauer, "A holistic aging model for Li(NiMnCo)O2 based 18650 lithium-ion
batteries", Journal of Power Sources 257 (2014) 325-334, doi 10.1016/j.jpowsour.2014.02.012. What we add to it, and why,
stands in docs/reference/lives.md.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from firmware_bridge.pack.cells import Floats

REFERENCE_C: Final = 25.0
_KELVIN: Final = 273.15
_REFERENCE_V: Final = 3.7
_BEST_V: Final = 3.667  # where cycling costs the least capacity
_BEST_RESISTANCE_V: Final = 3.725
_TESTED_C: Final = 35.0  # the paper cycled its cells at 35 degC and 1C
_YEAR_DAYS: Final = 365.0
_THOUSAND_EFC: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Law:
    """The law's parameters. Losses and growths are shares of the fresh value; `_1y`: after a year, `_1000`: 1000 EFC.

    Written so that each may be off by a fifth and still mean something: sizes at a reference instead of prefactors.
    """

    pace: float = 0.78  # the paper's cell was an early one; all its rates times this
    # calendar: loss = cal_loss_1y * (days / 365)^cal_power at 25 degC and 3.7 V
    cal_loss_1y: float = 0.02395
    cal_loss_per_v: float = 1.8137  # share of it that a volt of storage voltage adds
    cal_loss_k: float = 6976.0  # Arrhenius temperature
    cal_resistance_1y: float = 0.05065
    cal_resistance_per_v: float = 1.6577
    cal_resistance_k: float = 5986.0
    cal_power: float = 0.75
    # cycling: loss = (a + b depth + c (V - 3.667)^2) * (EFC / 1000)^cyc_power at 35 degC and 1C
    cyc_loss_1000: float = 0.04984
    cyc_loss_per_depth: float = 0.26761
    cyc_loss_per_v2: float = 0.48184
    cyc_power: float = 0.5
    # growth = (a + b depth + c (V - 3.725)^2) * EFC / 1000
    cyc_resistance_1000: float = -0.06540
    cyc_resistance_per_depth: float = 1.20314
    cyc_resistance_per_v2: float = 0.92579
    # ours, see the reference: what temperature and current do to cycling
    cyc_k: float = 2600.0
    per_c: float = 0.6488  # Naumann 2020: (0.0630 C + 0.0971), as a share
    # ours: stress by lithium plating, in EFC charged at 25 degC and 1C; after a budget of it capacity falls faster
    plating_k: float = 4500.0
    plating_power: float = 1.2
    knee_loss_1000: float = 0.25
    knee_resistance_1000: float = 0.80

    def drawn(self, seed: int, share: float = 0.2) -> Law:
        """Another law: each parameter times a number from 1 - share to 1 + share, all by `seed`."""
        rng = np.random.default_rng([seed, 0x1A3])
        return Law(**{f.name: float(getattr(self, f.name) * rng.uniform(1 - share, 1 + share)) for f in fields(self)})


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """What cells go through in one step; arrays of one shape, [packs, cells] or what broadcasts to it."""

    days: Floats
    efc: Floats
    rest_c: Floats  # temperature while nothing flows, which is most of the time
    rest_v: Floats
    use_c: Floats  # temperature while current flows
    use_v: Floats
    depth: Floats  # of the cycles, 0..1 of the capacity that the cell has
    charge_rate: Floats  # 1/h: current of charging / the capacity that the cell has


class Wear:
    """How far cells have aged: sums that any `Use` adds to, in place of formulas of time and throughput.

    A loss y = k x^p under constant conditions is y = z^p with z the sum of k^(1/p) dx, whatever the conditions.
    """

    def __init__(self, law: Law, loss_rate: Floats, resistance_rate: Floats, budget: Floats) -> None:
        """Fresh cells. The rates are factors, `budget` is the plating stress before the knee; all [packs, cells]."""
        self._law = law
        self._loss_rate = loss_rate
        self._resistance_rate = resistance_rate
        self._budget = budget
        shape = np.broadcast_shapes(loss_rate.shape, resistance_rate.shape, budget.shape)
        self._calendar, self._cycles = np.zeros(shape), np.zeros(shape)
        self._calendar_resistance, self._cycle_resistance = np.zeros(shape), np.zeros(shape)
        self.plating = np.zeros(shape)

    @property
    def loss(self) -> Floats:
        """Share of the fresh capacity that is lost, 0..0.9."""
        law = self._law
        past_knee = law.knee_loss_1000 * np.maximum(self.plating - self._budget, 0.0) / _THOUSAND_EFC
        slow = self._calendar**law.cal_power + self._cycles**law.cyc_power
        loss: Floats = np.minimum(law.pace * self._loss_rate * slow + past_knee, 0.9)
        return loss

    @property
    def growth(self) -> Floats:
        """Share by which the resistance has grown; it feels the knee a little before capacity does."""
        law = self._law
        past_knee = law.knee_resistance_1000 * np.maximum(self.plating - 0.85 * self._budget, 0.0) / _THOUSAND_EFC
        slow = self._calendar_resistance**law.cal_power + self._cycle_resistance
        growth: Floats = law.pace * self._resistance_rate * slow + past_knee
        return growth

    def step(self, use: Use) -> None:
        """Ages the cells by one `Use`."""
        law, years, thousands = self._law, use.days / _YEAR_DAYS, use.efc / _THOUSAND_EFC
        over_v = use.rest_v - _REFERENCE_V
        stored = law.cal_loss_1y * np.maximum(1 + law.cal_loss_per_v * over_v, 0.0) * _hot(law.cal_loss_k, use.rest_c)
        self._calendar += stored ** (1 / law.cal_power) * years
        stored = law.cal_resistance_1y * np.maximum(1 + law.cal_resistance_per_v * over_v, 0.0)
        stored = stored * _hot(law.cal_resistance_k, use.rest_c)
        self._calendar_resistance += stored ** (1 / law.cal_power) * years
        harder = _hot(law.cyc_k, use.use_c, _TESTED_C) * (1 + law.per_c * use.charge_rate) / (1 + law.per_c)
        off_v2 = (use.use_v - _BEST_V) ** 2
        cycled = law.cyc_loss_1000 + law.cyc_loss_per_depth * use.depth + law.cyc_loss_per_v2 * off_v2
        self._cycles += (cycled * harder) ** (1 / law.cyc_power) * thousands
        off_v2 = (use.use_v - _BEST_RESISTANCE_V) ** 2
        cycled = law.cyc_resistance_1000 + law.cyc_resistance_per_depth * use.depth + law.cyc_resistance_per_v2 * off_v2
        self._cycle_resistance += np.maximum(cycled, 0.0) * harder * thousands
        self.plating += use.charge_rate**law.plating_power / _hot(law.plating_k, use.use_c) * use.efc


def _hot(activation_k: float, temp_c: Floats, reference_c: float = REFERENCE_C) -> Floats:
    """Arrhenius factor at `temp_c`, 1 at `reference_c`."""
    factor: Floats = np.exp(activation_k * (1 / (reference_c + _KELVIN) - 1 / (temp_c + _KELVIN)))
    return factor
