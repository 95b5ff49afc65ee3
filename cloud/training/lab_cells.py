"""Real cells of a laboratory as rows to learn from: a second table of features, for benchmarks only.

It takes the per-cycle tables of `pinn4soh_features` (16 features of the end of a charge and the measured capacity) to
what a forecast needs: what they are, how they changed since the first cycles, how fast they change. Row k is made of
cycles <= k only. Nothing that was learned from these cells ships: their licence is not settled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cloud.training.dataset import Dataset, Floats
from shared.errors import ConfigError
from shared.feature_table import FeatureSpec

SHAPES: Final = ("mean", "std", "kurtosis", "skewness", "slope", "entropy")
MEASURED: Final = (
    *(f"voltage_{shape}" for shape in SHAPES),
    *("CC_Q", "CC_charge_time"),
    *(f"current_{shape}" for shape in SHAPES),
    *("CV_Q", "CV_charge_time"),
)
CAPACITY: Final = "capacity"
SMOOTH: Final = 5
FIRST: Final = 15
BACK: Final = (20, 50, 100)
FIRST_ROW: Final = 20
"""Rows before it are not judged; contract, section 7."""
_NEAR_CYCLES: Final = 100.0


@dataclass(frozen=True, slots=True)
class LabSet:
    """One set of cells. every: which rows are judged; until_last: the record ends where the life does."""

    name: str
    nominal_ah: float
    every: int
    until_last: bool


SETS: Final = {
    "hust": LabSet("hust", 1.1, 10, True),
    "xjtu": LabSet("xjtu", 2.0, 5, False),
}


def table() -> tuple[FeatureSpec, ...]:
    """The second table: level, change and slopes of every measured column, and the count of cycles."""
    specs = [FeatureSpec("cycles", "1", 0.0, 20000.0, "row of the record")]
    for name in (*MEASURED, CAPACITY):
        unit = "Ah" if name in (CAPACITY, "CC_Q", "CV_Q") else "1"
        specs.append(FeatureSpec(name, unit, -1e6, 1e6, f"median of {SMOOTH} cycles"))
        specs.append(FeatureSpec(f"{name}_change", unit, -1e6, 1e6, f"against the median of the first {FIRST} cycles"))
        specs.extend(FeatureSpec(f"{name}_slope_{back}", unit, -1e6, 1e6, f"over {back} cycles") for back in BACK)
    return tuple(specs)


def read(folder: Path, which: str) -> Dataset:
    """The judged rows of the cells whose end of life is on record. ConfigError when the file is not there."""
    import pyarrow.parquet

    file, lab = folder / f"{which}.parquet", SETS[which]
    try:
        columns = pyarrow.parquet.read_table(file).to_pydict()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    cells = np.array([f"{batch}/{cell}" for batch, cell in zip(columns["batch"], columns["cell"], strict=True)])
    parts = [_cell(columns, np.flatnonzero(cells == name), lab) for name in np.unique(cells)]
    known = [(str(name), part) for name, part in zip(np.unique(cells), parts, strict=True) if part is not None]
    return Dataset(
        table=table(),
        packs=tuple(name for name, _ in known),
        pack=np.concatenate([np.full(len(part[0]), number) for number, (_, part) in enumerate(known)]),
        cycle=np.concatenate([part[0] for _, part in known]),
        rows=np.concatenate([part[1] for _, part in known]),
        rul_cycles=np.concatenate([part[2] for _, part in known]),
        eol_100=np.concatenate([(part[2] <= _NEAR_CYCLES).astype(np.float64) for _, part in known]),
    )


def features(row: Floats, measured: Floats) -> Floats:
    """float64[n, F] in the order of `table`. row: float64[n]; measured: float64[n, 17], NaN = none. Causal."""
    level = _smoothed(measured)
    change = np.full_like(level, np.nan)
    if len(level) >= FIRST:
        change[FIRST - 1 :] = level[FIRST - 1 :] - _median(measured[:FIRST].T)
    parts = [level, change]
    for back in BACK:
        slope = np.full_like(level, np.nan)
        slope[back:] = (level[back:] - level[:-back]) / back
        parts.append(slope)
    each = np.stack(parts, axis=2).reshape(len(row), -1)  # by column: level, change, slopes
    return np.concatenate((row[:, None], each), axis=1)


def end_row(row: Floats, capacity_ah: Floats, lab: LabSet) -> float | None:
    """The row at which the cell's life ended, contract section 7; None = not on record."""
    if lab.until_last:
        return float(row[-1]) + 1
    below = np.flatnonzero(capacity_ah <= 0.8 * lab.nominal_ah)
    if below.size:
        return float(row[below[0]])
    return float(row[-1]) + 1 if np.median(capacity_ah[-SMOOTH:]) < 0.825 * lab.nominal_ah else None


def _cell(columns: dict[str, list[Any]], places: np.ndarray[Any, Any], lab: LabSet) -> tuple[Floats, ...] | None:
    """(cycle, features, RUL) of one cell's judged rows."""
    row = np.array([columns["row"][i] for i in places], np.float64)
    places, row = places[np.argsort(row, kind="stable")], np.sort(row)
    measured = np.array([[columns[name][i] for i in places] for name in (*MEASURED, CAPACITY)], np.float64).T
    end = end_row(row, measured[:, -1], lab)
    if end is None:
        return None
    made = features(row, np.where(np.isfinite(measured), measured, np.nan))
    judged = (row >= FIRST_ROW) & (row % lab.every == 0) & (row < end)
    return row[judged], made[judged], end - row[judged]


def _smoothed(values: Floats) -> Floats:
    """The median of the last SMOOTH rows, of fewer at the beginning."""
    padded = np.concatenate((np.full((SMOOTH - 1, values.shape[1]), np.nan), values))
    return _median(np.lib.stride_tricks.sliding_window_view(padded, SMOOTH, axis=0))


def _median(windows: Floats) -> Floats:
    """Along the last axis, without NaN; NaN where there is nothing else."""
    ranked = np.sort(windows, axis=-1)
    count = np.isfinite(ranked).sum(axis=-1)
    most = np.maximum(count - 1, 0)
    low = np.take_along_axis(ranked, (most // 2)[..., None], -1)[..., 0]
    high = np.take_along_axis(ranked, np.minimum(count // 2, most)[..., None], -1)[..., 0]
    middle: Floats = (low + high) / 2
    return np.where(count > 0, middle, np.nan)
