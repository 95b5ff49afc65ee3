"""Intervals that hold: the widths by which packs that were not learned from lay outside, with whole packs as units.

Romano et al., "Conformalized Quantile Regression", NeurIPS 2019, scaled by the predicted width. Rows of one pack err
alike, so what is held apart are whole packs, and the interval must also hold most of the life of most packs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cloud.training.dataset import Dataset, Floats, Ints
from cloud.training.fit import Models, Recipe, fit
from cloud.training.split import folds, parted

COVERAGE: Final = 0.9
"""Share of the rows that the interval holds, at least."""
WELL: Final = 0.8
PACKS_WELL: Final = 0.84
"""So many of the packs must have more than WELL of their rows inside."""
_STEP: Final = 0.0025
FLOOR_CYCLES: Final = 20.0
FOLDS: Final = 4


@dataclass(frozen=True, slots=True)
class Conformal:
    """lo, hi: how many (predicted) widths the interval grows at its ends; `floor_cycles`: the least width."""

    lo: float
    hi: float
    floor_cycles: float = FLOOR_CYCLES

    def as_manifest(self) -> dict[str, object]:
        """As the Bundle's manifest has it."""
        return {"kind": "cqr_scaled", "lo": round(self.lo, 6), "hi": round(self.hi, 6), "floor": self.floor_cycles}


@dataclass(frozen=True, slots=True, eq=False)
class CrossFit:
    """What models that have not seen its pack say of each row: quantiles float64[3, n], chance float64[n]."""

    quantiles: Floats
    chance: Floats


def cross_fit(data: Dataset, seed: int, recipe: Recipe | None = None, count: int = FOLDS) -> CrossFit:
    """Fits `count` times, each time without a part of the packs."""
    quantiles, chance = np.full((3, len(data)), np.nan), np.full(len(data), np.nan)
    for held_out in folds(data, count, seed):
        learned, _ = parted(data, held_out)
        models: Models = fit(learned, seed, recipe)
        places = np.flatnonzero(np.isin(data.pack, held_out))
        quantiles[:, places] = models.quantiles(data.rows[places])
        chance[places] = models.chance(data.rows[places])
    return CrossFit(quantiles, chance)


def calibrated(quantiles: Floats, rul_cycles: Floats, pack: Ints, floor_cycles: float = FLOOR_CYCLES) -> Conformal:
    """The constants from rows that were predicted without their packs: the narrowest that keep both promises above."""
    lo, _, hi = quantiles
    width = np.maximum(hi - lo, floor_cycles)
    below, above = np.sort((lo - rul_cycles) / width), np.sort((rul_cycles - hi) / width)
    numbers, inverse, counts = np.unique(pack, return_inverse=True, return_counts=True)
    share = min(COVERAGE * (1 + 1 / numbers.size), 1.0)
    while True:
        at = min(int(np.ceil((1 + share) / 2 * below.size)), below.size) - 1
        grow_lo, grow_hi = float(below[at]), float(above[at])
        inside = (rul_cycles >= lo - grow_lo * width) & (rul_cycles <= hi + grow_hi * width)
        if share >= 1 or (np.bincount(inverse, inside) / counts > WELL).mean() >= PACKS_WELL:
            return Conformal(grow_lo, grow_hi, floor_cycles)
        share = min(share + _STEP, 1.0)
