"""What cannot be learned from is refused in one sentence, before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from cloud.training.dataset import Dataset, Floats
from shared.errors import ConfigError

LEAST_PACKS: Final = 20
NEAR_CYCLES: Final = 100.0
MOST_CYCLES: Final = 20_000.0
"""No pack known lasts longer."""
_OUTSIDE: Final = 0.01
"""A feature is made within its range or not at all; so many may lie outside before it must be another unit."""
_CONTRADICT: Final = 0.2
_APART: Final = 100.0


def require_sound(data: Dataset, *, least_packs: int = LEAST_PACKS) -> Dataset:
    """The labelled rows, values outside their feature's range taken as none. ConfigError when nothing honest can be
    learned from them."""
    if np.isinf(data.rows).any():
        raise ConfigError("a feature is infinite; leave a value empty where there is no estimate")
    if not (np.isfinite(data.cycle) & (data.cycle >= 0) & (data.cycle <= MOST_CYCLES)).all():
        raise ConfigError(f"cycle must be a number from 0 to {MOST_CYCLES:g} in every row; is it in another unit?")
    known = data.labelled()
    if not len(known) or not np.isfinite(known.rows).any():
        what = "no row says how many cycles were left" if not len(known) else "no feature has a value in any row"
        raise ConfigError(f"{what}; there is nothing to learn from")
    known = replace(known, rows=_within(known), eol_100=_near(known))
    _require_cycles(known)
    packs = known.known_packs().size
    if packs < least_packs:
        raise ConfigError(f"only {packs} packs have a known end; at least {least_packs} are needed")
    if np.unique(known.eol_100).size < 2:
        raise ConfigError("eol_100 is the same in every row; both packs near their end and far from it are needed")
    return known


def _within(data: Dataset) -> Floats:
    """The rows without what lies outside its feature's range; ConfigError where that is more than a slip."""
    rows = data.rows.copy()
    for spec, column in zip(data.table, rows.T, strict=True):
        seen = column[np.isfinite(column)]
        outside = (seen < spec.lo) | (seen > spec.hi)
        if seen.size and outside.mean() > _OUTSIDE:
            raise ConfigError(
                f"{spec.name}: {100 * outside.mean():.0f} % of its values (median {np.median(seen):g}) lie outside "
                f"{spec.lo:g} .. {spec.hi:g} {spec.unit}; is it in another unit?"
            )
        column[(column < spec.lo) | (column > spec.hi)] = np.nan
    return rows


def _near(data: Dataset) -> Floats:
    """eol_100, where it is empty what rul_cycles says; ConfigError where the two do not go together."""
    told = np.isfinite(data.eol_100)
    if set(np.unique(data.eol_100[told]).tolist()) - {0.0, 1.0}:
        raise ConfigError("eol_100 holds something other than 0, 1 and empty")
    follows = (data.rul_cycles <= NEAR_CYCLES).astype(np.float64)
    both = np.unique(data.eol_100[told]).size == 2
    against = float((data.eol_100[told] != follows[told]).mean()) if both else 0.0
    if against > _CONTRADICT:
        raise ConfigError(
            f"eol_100 and rul_cycles contradict each other in {100 * against:.0f} % of rows; is rul_cycles in cycles?"
        )
    return np.where(told, data.eol_100, follows)


def _require_cycles(data: Dataset) -> None:
    """That cycle, rul_cycles and the feature cycles are all in cycles."""
    left, done = float(np.median(data.rul_cycles)), float(np.median(data.cycle))
    if left > MOST_CYCLES:
        raise ConfigError(f"rul_cycles: the median is {left:g}; is it in cycles?")
    if data.rul_cycles.min() == data.rul_cycles.max():
        raise ConfigError("rul_cycles is the same in every row; there is nothing to learn from")
    if not 1 / _APART <= done / left <= _APART:
        raise ConfigError(f"the median of cycle is {done:g}, that of rul_cycles {left:g}; are both in cycles?")
    names = [spec.name for spec in data.table]
    counted = data.rows[:, names.index("cycles")] if "cycles" in names else np.full(len(data), np.nan)
    if np.isfinite(counted).any() and done > 0:
        ratio = float(np.median(counted[np.isfinite(counted)])) / done
        if not 1 / _APART <= ratio <= _APART:
            raise ConfigError(f"the median of cycles is {ratio:.2g} times that of cycle; are both in cycles?")
