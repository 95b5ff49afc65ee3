"""What a model must beat: the mean remaining life at that many cycles, a linear model, and counting cycles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from cloud.training.dataset import Dataset, Floats

_BIN_CYCLES: Final = 50.0
Predict = Callable[[Dataset], Floats]


def mean_at_cycle(learned: Dataset) -> Predict:
    """The mean RUL of the packs that had done as many cycles."""
    place = np.floor(learned.cycle / _BIN_CYCLES).astype(np.intp)
    count = np.bincount(place)
    total = np.bincount(place, learned.rul_cycles)
    known = np.flatnonzero(count)
    middle, mean = (known + 0.5) * _BIN_CYCLES, total[known] / count[known]
    return lambda data: np.interp(data.cycle, middle, mean)


def cycle_count(learned: Dataset) -> Predict:
    """The mean life less the cycles done, never below 0."""
    lives = [float((part := learned.of_packs([k])).cycle[-1] + part.rul_cycles[-1]) for k in learned.known_packs()]
    life = float(np.mean(lives))
    return lambda data: np.maximum(life - data.cycle, 0.0)


def linear(learned: Dataset) -> Predict:
    """Ridge on sqrt(RUL), missing values at their median."""
    from sklearn.linear_model import RidgeCV

    with np.errstate(all="ignore"):
        middle = np.nan_to_num(_nanmedian(learned.rows))
    filled = np.where(np.isnan(learned.rows), middle, learned.rows)
    mean, spread = filled.mean(axis=0), filled.std(axis=0) + 1e-9
    model: Any = RidgeCV(np.logspace(-2, 5, 15)).fit((filled - mean) / spread, np.sqrt(learned.rul_cycles))

    def predict(data: Dataset) -> Floats:
        rows = (np.where(np.isnan(data.rows), middle, data.rows) - mean) / spread
        said: Floats = np.maximum(model.predict(rows), 0.0) ** 2
        return said

    return predict


BASELINES: Final[dict[str, Callable[[Dataset], Predict]]] = {
    "mean at cycle": mean_at_cycle,
    "linear": linear,
    "cycle count": cycle_count,
}


def _nanmedian(rows: Floats) -> Floats:
    """Median of each column without NaN; NaN for a column of nothing."""
    ranked = np.sort(rows, axis=0)
    count = np.isfinite(ranked).sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, np.maximum(count - 1, 0))
    columns = np.arange(rows.shape[1])
    middle: Floats = (ranked[low, columns] + ranked[high, columns]) / 2
    return np.where(count > 0, middle, np.nan)
