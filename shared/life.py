"""The arithmetic of the features, on columns with one entry per Session: the whole life at once or a single row.

`History` and `life_matrix` both end in `features_of`, and what they hand to it is made of medians, differences and
running sums in the Sessions' order only; so the two agree to the last bit. What a row needs has a twin for columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.feature_table import (
    FIRST,
    LATEST_START_CYCLES,
    LEAST_AGE_DAYS,
    LEAST_FIRST,
    LEAST_VALID,
    LONG_CYCLES,
    MOST_BACK,
    NAMES,
    SHORT_CYCLES,
    SMOOTH,
    TABLE,
    WIDEST,
)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

INPUTS: Final = (
    "cycles",
    "age_days",
    "soh_bms",
    "r_step_mohm",
    "r_step_max_mohm",
    "cell_dev_mv",
    "temp_mean_c",
    "temp_spread_c",
    "hot_h",
    "window_ah",
    "duration_s",
)
"""What of a Session the features are made of."""
LEVELS: Final = ("soh_bms", "r_step_mohm", "r_spread", "cell_dev_mv", "temp_mean_c", "temp_spread_c", "window_ah")
BASED: Final = ("soh_bms", "r_step_mohm", "window_ah")
"""Those that have a baseline."""
SLOPED: Final = ("soh_bms", "r_step_mohm", "cell_dev_mv", "window_ah")
SUMS: Final = ("heat_c_s", "weight_s", "hot_s", "seen_s")
BACK: Final = {"100": SHORT_CYCLES, "300": LONG_CYCLES}
SLOPES: Final = {
    "soh_bms_slope_300": ("soh_bms", "300", False),
    "r_step_slope_100": ("r_step_mohm", "100", True),
    "r_step_slope_300": ("r_step_mohm", "300", True),
    "cell_dev_slope_300": ("cell_dev_mv", "300", False),
    "window_slope_100": ("window_ah", "100", True),
    "window_slope_300": ("window_ah", "300", True),
}
"""Feature -> (of which level, over which cycles, relative)."""
_LO: Final = np.array([spec.lo for spec in TABLE])
_HI: Final = np.array([spec.hi for spec in TABLE])
_HOUR_S: Final = 3600.0


def raw_columns(inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """The columns of which LEVELS are taken, from INPUTS; each float64[n]. No -0.0: a median could show its place."""
    raw = {name: inputs[name] + 0.0 for name in LEVELS if name in inputs}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        spread = inputs["r_step_max_mohm"] / inputs["r_step_mohm"] - 1.0
    raw["r_spread"] = np.where(np.isfinite(spread), spread, np.nan)
    return raw


def raw_row(known: Mapping[str, float]) -> dict[str, float]:
    """As `raw_columns`, of one Session."""
    raw = {name: known[name] + 0.0 for name in LEVELS if name in known}
    mean = known["r_step_mohm"]
    spread = known["r_step_max_mohm"] / mean - 1.0 if mean else math.nan
    raw["r_spread"] = spread if math.isfinite(spread) else math.nan
    return raw


def middle(windows: Floats, least: int) -> Floats:
    """The median of what is a number along the last axis; NaN where fewer than `least` are."""
    ranked = np.sort(windows, axis=-1)  # NaN goes to the end
    count = np.isfinite(ranked).sum(axis=-1)
    low = np.maximum(count - 1, 0) // 2
    high = np.minimum(count // 2, np.maximum(count - 1, 0))
    pick = np.take_along_axis
    two = pick(ranked, low[..., None], -1)[..., 0], pick(ranked, high[..., None], -1)[..., 0]
    return np.where(count >= least, (two[0] + two[1]) / 2.0, np.nan)


def middle_of(values: Iterable[float], least: int) -> float:
    """As `middle`, of a few numbers."""
    ranked = sorted(value for value in values if math.isfinite(value))
    count = len(ranked)
    return (ranked[(count - 1) // 2] + ranked[count // 2]) / 2.0 if count >= least else math.nan


def levels(raw: Floats) -> Floats:
    """The level at each row of one column: the median of its last SMOOTH rows."""
    padded = np.concatenate((np.full(SMOOTH - 1, np.nan), raw))
    windows = np.lib.stride_tricks.sliding_window_view(padded, SMOOTH) if raw.size else np.empty((0, SMOOTH))
    return middle(windows, LEAST_VALID)


def baselines(raw: Floats) -> Floats:
    """The baseline as it was known at each row of one column."""
    valid = np.flatnonzero(np.isfinite(raw))[:FIRST]
    known = np.full(raw.shape, np.nan)
    for count in range(LEAST_FIRST, valid.size + 1):
        known[valid[count - 1] :] = middle_of(raw[valid[:count]].tolist(), LEAST_FIRST)
    return known


def axis_of(cycles: Floats) -> Floats:
    """Cycles that never fall, for searching; -inf before any is known."""
    return np.maximum.accumulate(np.where(np.isfinite(cycles), cycles, -np.inf))


def rows_back(axis: Floats, cycles: float) -> Ints:
    """For each row the last one that lies at least `cycles` back; -1 where none does or it is too far away."""
    at = np.searchsorted(axis, axis - cycles, side="right") - 1
    then = axis[np.maximum(at, 0)]
    far = ~np.isfinite(then) | (then < axis - WIDEST * cycles) | (np.arange(axis.size) - at > MOST_BACK)
    return np.where((at < 0) | far, -1, at)


def features_of(parts: Mapping[str, Floats]) -> Floats:
    """float64[n, F] from the parts (each float64[n]); NaN = no estimate.

    Parts: `cycles age_days soh_bms` as they are now; `level.X`; `base.X`; `then.X.W`, the level at the row W cycles
    back; `span.W`, how many cycles really lie between; `heat_c_s weight_s hot_s seen_s`, sums over the record so far.
    """
    cycles, age = parts["cycles"], parts["age_days"]
    out: dict[str, Floats] = {"cycles": cycles, "age_days": age, "soh_bms": parts["soh_bms"]}
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        out["cycles_per_day"] = np.where(age >= LEAST_AGE_DAYS, cycles / age, np.nan)
        out["soh_bms_drop"] = parts["base.soh_bms"] - parts["level.soh_bms"]
        out["r_step_growth"] = parts["level.r_step_mohm"] / parts["base.r_step_mohm"] - 1.0
        out["window_share"] = parts["level.window_ah"] / parts["base.window_ah"]
        out["temp_life_c"] = parts["heat_c_s"] / parts["weight_s"]
        out["hot_share"] = parts["hot_s"] / parts["seen_s"]
        for name in ("r_step_mohm", "r_spread", "cell_dev_mv", "temp_mean_c", "temp_spread_c"):
            out[name] = parts[f"level.{name}"]
        for name, (of, over, relative) in SLOPES.items():
            then = parts[f"then.{of}.{over}"]
            change = (parts[f"level.{of}"] - then) / parts[f"span.{over}"] * 100.0
            out[name] = change / then if relative else change
    values = np.stack([out[name] for name in NAMES], axis=1)
    values[~((values >= _LO) & (values <= _HI))] = np.nan
    return values


def life_parts(inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """The parts of every row of a whole life from its INPUTS, each float64[n]."""
    raw = raw_columns(inputs)
    parts = {name: inputs[name] for name in ("cycles", "age_days", "soh_bms")}
    level = {name: levels(raw[name]) for name in LEVELS}
    axis = axis_of(inputs["cycles"])
    early = starts_early(axis)
    parts |= {f"level.{name}": column for name, column in level.items()}
    for name in BASED:
        parts[f"base.{name}"] = np.where(early, baselines(raw[name]), np.nan)
    for over, cycles in BACK.items():
        at = rows_back(axis, cycles)
        parts[f"span.{over}"] = axis - np.where(at < 0, np.nan, axis[at])
        for name in SLOPED:
            parts[f"then.{name}.{over}"] = np.where(at < 0, np.nan, level[name][at])
    return parts | sums(inputs)


def starts_early(axis: Floats) -> npt.NDArray[np.bool_]:
    """At each row: the first cycles known are near the pack's beginning, so its first values are a baseline."""
    first = np.flatnonzero(np.isfinite(axis))[:1]
    early = np.zeros(axis.shape, np.bool_)
    if first.size and axis[first[0]] <= LATEST_START_CYCLES:
        early[first[0] :] = True
    return early


def sums(inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """Running sums over the Sessions: temperature x time and its time, hot time and its time."""
    seconds, temp_c, hot_h = inputs["duration_s"], inputs["temp_mean_c"], inputs["hot_h"]
    warm, hot = np.isfinite(temp_c), np.isfinite(hot_h)
    with np.errstate(invalid="ignore", over="ignore"):
        columns = (temp_c * seconds, seconds, hot_h * _HOUR_S, seconds)
        added = [np.where(there, column, 0.0) for column, there in zip(columns, (warm, warm, hot, hot), strict=True)]
        return {name: np.cumsum(column) + 0.0 for name, column in zip(SUMS, added, strict=True)}  # + 0.0: no -0.0


def sums_row(known: Mapping[str, float]) -> dict[str, float]:
    """What one Session adds to the `sums`."""
    seconds, temp_c, hot_h = known["duration_s"], known["temp_mean_c"], known["hot_h"]
    warm, hot = math.isfinite(temp_c), math.isfinite(hot_h)
    added = (temp_c * seconds, seconds, hot_h * _HOUR_S, seconds)
    return {
        name: value if there else 0.0 for name, value, there in zip(SUMS, added, (warm, warm, hot, hot), strict=True)
    }
