"""How good predictions are: pooled over rows, by pack, and how sure one can be of a difference."""

from __future__ import annotations

from typing import Final

import numpy as np

from cloud.training.dataset import Floats, Ints

_DRAWS: Final = 1000


def r2(truth: Floats, said: Floats) -> float:
    """Share of the variance that is explained; 1 = all, <= 0 = no better than the mean."""
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((truth - said) ** 2).sum()) / spread if spread else float("nan")


def rmse(truth: Floats, said: Floats) -> float:
    """Root mean square error."""
    return float(np.sqrt(((truth - said) ** 2).mean()))


def mae(truth: Floats, said: Floats) -> float:
    """Mean absolute error."""
    return float(np.abs(truth - said).mean())


def auc(truth: Floats, chance: Floats) -> float:
    """Probability that a row near the end was given the higher chance; 0.5 = no skill."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, chance))


def covered(truth: Floats, lo: Floats, hi: Floats, pack: Ints, well: float = 0.8) -> tuple[float, float]:
    """(share of rows inside, share of packs with more than `well` of their rows inside)."""
    inside = (truth >= lo) & (truth <= hi)
    by_pack = np.array([inside[pack == k].mean() for k in np.unique(pack)])
    return float(inside.mean()), float((by_pack > well).mean())


def by_pack(values: Floats, pack: Ints) -> Floats:
    """The mean of `values` of each pack."""
    _, inverse, counts = np.unique(pack, return_inverse=True, return_counts=True)
    mean: Floats = np.bincount(inverse, values) / counts
    return mean


def interval(values: Floats, seed: int = 0) -> tuple[float, float, float]:
    """Mean of one number a pack, and the 95 % interval of it by drawing packs with replacement."""
    rng = np.random.default_rng(seed)
    draws = values[rng.integers(0, values.size, (_DRAWS, values.size))].mean(axis=1)
    lo, hi = np.quantile(draws, [0.025, 0.975])
    return float(values.mean()), float(lo), float(hi)


def better_by(truth: Floats, ours: Floats, theirs: Floats, pack: Ints) -> tuple[float, float, float]:
    """How much smaller our absolute error is [cycles], mean over packs, with its 95 % interval (packs are units)."""
    return interval(by_pack(np.abs(truth - theirs) - np.abs(truth - ours), pack))
