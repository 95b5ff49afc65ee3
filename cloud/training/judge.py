"""How good a model is on packs that it has not learned from, beside what it must beat."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cloud.training import scores
from cloud.training.baselines import BASELINES
from cloud.training.dataset import Dataset, Floats


@dataclass(frozen=True, slots=True)
class Judged:
    """RUL errors in cycles; coverage: of the interval over rows; packs_covered: packs with > 80 % of theirs in it."""

    packs: int
    rows: int
    r2: float
    rmse: float
    mae: float
    coverage: float
    packs_covered: float
    width: float
    auc: float
    brier: float
    baselines: dict[str, dict[str, float]]

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return asdict(self)

    def numbers(self) -> dict[str, float]:
        """The single numbers that there are, rounded, for manifest and MLflow."""
        told = asdict(self)
        del told["baselines"]
        return {name: round(float(value), 4) for name, value in told.items() if np.isfinite(value)}


def judged(data: Dataset, quantiles: Floats, chance: Floats, learned: Dataset) -> Judged:
    """data: labelled rows; quantiles: lo, middle, hi [cycles] float64[3, n]; learned: what baselines are made of."""
    truth, (lo, middle, hi) = data.rul_cycles, quantiles
    coverage, packs_covered = scores.covered(truth, lo, hi, data.pack)
    both = len(np.unique(data.eol_100)) == 2
    beside = {}
    for name, make in BASELINES.items():
        theirs = make(learned)(data)
        gain, gain_lo, gain_hi = scores.better_by(truth, middle, theirs, data.pack)
        beside[name] = {
            "r2": scores.r2(truth, theirs),
            "mae": scores.mae(truth, theirs),
            "gain": gain,
            "gain_lo": gain_lo,
            "gain_hi": gain_hi,
        }
    return Judged(
        packs=int(data.known_packs().size),
        rows=len(data),
        r2=scores.r2(truth, middle),
        rmse=scores.rmse(truth, middle),
        mae=scores.mae(truth, middle),
        coverage=coverage,
        packs_covered=packs_covered,
        width=float((hi - lo).mean()),
        auc=scores.auc(data.eol_100, chance) if both else float("nan"),
        brier=float(((data.eol_100 - chance) ** 2).mean()),
        baselines=beside,
    )
