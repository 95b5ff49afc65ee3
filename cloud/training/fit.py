"""Fitting: three quantiles of sqrt(RUL), one model each, and the chance of the end within 100 cycles. Deterministic.

One model per quantile because the converter to ONNX gets several at once wrong; sqrt because errors near the end
matter most.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost

from cloud.training.dataset import Dataset, Floats

QUANTILES: Final = {"rul_cycles_lo": 0.05, "rul_cycles": 0.5, "rul_cycles_hi": 0.95}
CHANCE: Final = "p_eol_100"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How the trees grow. The defaults make four models of about 400 kB together."""

    trees: int = 200
    chance_trees: int = 120
    depth: int = 5
    rate: float = 0.06
    rows: float = 0.7
    columns: float = 0.6
    least_weight: float = 5.0
    bins: int = 64
    median: str = "reg:quantileerror"  # or reg:squarederror

    def parameters(self, seed: int) -> dict[str, Any]:
        """What xgboost is told; one thread, because the order of sums decides the last bits."""
        return {
            "max_depth": self.depth,
            "eta": self.rate,
            "subsample": self.rows,
            "colsample_bytree": self.columns,
            "min_child_weight": self.least_weight,
            "max_bin": self.bins,
            "tree_method": "hist",
            "nthread": 1,
            "seed": seed,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The boosters by output: three of sqrt(RUL), one of the chance (None = not asked for)."""

    boosters: Mapping[str, xgboost.Booster]

    def quantiles(self, rows: Floats) -> Floats:
        """lo, middle, hi [cycles], sorted: float64[3, n]."""
        found = np.stack([self.boosters[name].inplace_predict(rows.astype(np.float32)) for name in QUANTILES])
        return np.sort(np.maximum(found.astype(np.float64), 0.0) ** 2, axis=0)

    def chance(self, rows: Floats) -> Floats:
        """The chance of the end within 100 cycles, float64[n]."""
        found: Floats = self.boosters[CHANCE].inplace_predict(rows.astype(np.float32)).astype(np.float64)
        return found


def fit(data: Dataset, seed: int, recipe: Recipe | None = None, *, chance: bool = True) -> Models:
    """Fits on labelled rows; every row weighs the same. Two models at a time, each on one thread."""
    recipe = recipe or Recipe()
    jobs: dict[str, dict[str, Any]] = {name: _quantile(quantile) for name, quantile in QUANTILES.items()}
    if recipe.median != "reg:quantileerror":
        jobs["rul_cycles"] = {"objective": recipe.median, "base_score": 0.0}
    if chance:
        jobs[CHANCE] = {"objective": "binary:logistic"}
    with ThreadPoolExecutor(2) as pool:
        running = {name: pool.submit(_fit, data, {**recipe.parameters(seed), **told}, recipe, name)
                   for name, told in jobs.items()}  # fmt: skip
        return Models({name: job.result() for name, job in running.items()})


def _fit(data: Dataset, told: dict[str, Any], recipe: Recipe, name: str) -> xgboost.Booster:
    label, trees = (data.eol_100, recipe.chance_trees) if name == CHANCE else (np.sqrt(data.rul_cycles), recipe.trees)
    given = xgboost.QuantileDMatrix(data.rows.astype(np.float32), label, max_bin=recipe.bins, nthread=1)
    return xgboost.train(told, given, trees)


def _quantile(quantile: float) -> dict[str, Any]:
    """From 0 the graph adds up in the same order as the model: with another start their last bits drift apart."""
    return {"objective": "reg:quantileerror", "quantile_alpha": quantile, "base_score": 0.0}
