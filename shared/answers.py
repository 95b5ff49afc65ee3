"""What the graphs of a Bundle say -> what a person is told: sorted, untransformed, conformal, judged.

In this order, once, for training and edge alike:
1. A graph's number that is not finite: BundleError not_finite.
2. The transform is undone: none y, sqrt y*|y|, log exp(y) - 1; then RUL is in cycles.
3. Outside the physical range (RUL RUL_CYCLES, probability 0..1, each with a little slack, then clipped): out_of_range.
4. The three quantiles are sorted, so that they never cross.
5. conformal `cqr_scaled`: lo' = lo - a*w, hi' = hi + b*w, where w = max(hi - lo, floor) [cycles]; clipped so that
   0 <= lo' <= middle <= hi'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.manifest import OUTPUTS, BundleError, Manifest

Floats = npt.NDArray[np.float64]

RUL_CYCLES: Final = (0.0, 20_000.0)
"""No pack known lasts longer."""
RUL_SLACK_CYCLES: Final = 50.0
"""A regression may undershoot the end of life by so much; it is said as 0."""
P_SLACK: Final = 1e-5
_RUL: Final = OUTPUTS[:3]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a bundle says of one pack. RUL in cycles, lo..hi holds it with 90 %; p_eol_100: 0..1."""

    rul_cycles: float
    rul_cycles_lo: float
    rul_cycles_hi: float
    p_eol_100: float
    in_domain: bool


def answer(manifest: Manifest, raw: Mapping[str, npt.ArrayLike], rows: npt.ArrayLike) -> list[Answer]:
    """One Answer a row. raw: what each graph gave, [n] by output; rows: the features, [n, F], NaN = no estimate.

    BundleError not_finite or out_of_range when any row's answer cannot be.
    """
    given = {name: np.asarray(raw[name], np.float64).reshape(-1) for name in OUTPUTS}
    features = np.asarray(rows, np.float64)
    for name, values in given.items():
        if not np.isfinite(values).all():
            raise BundleError("not_finite", f"{manifest.model_id}: {name} is not a number")
    lo, middle, hi = quantiles_cycles(manifest, given)
    lo, hi = interval_cycles(manifest.conformal, lo, middle, hi)
    chance = given["p_eol_100"]
    if ((chance < -P_SLACK) | (chance > 1 + P_SLACK)).any():
        raise BundleError("out_of_range", f"{manifest.model_id}: p_eol_100 is no probability")
    columns = (middle, lo, hi, np.clip(chance, 0.0, 1.0), in_domain(manifest, features))
    return [Answer(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def undone(transform: str, values: Floats) -> Floats:
    """What the graph's numbers mean, in the unit of the output; may be infinite."""
    if transform == "none":
        return values
    with np.errstate(over="ignore"):
        squares: Floats = values * np.abs(values)
        return squares if transform == "sqrt" else np.expm1(values)


def quantiles_cycles(manifest: Manifest, raw: Mapping[str, Floats]) -> tuple[Floats, Floats, Floats]:
    """lo, middle, hi [cycles] before conformal: untransformed, in range, sorted. BundleError out_of_range."""
    found = np.stack([undone(manifest.outputs[name].transform, raw[name]) for name in _RUL])
    least, most = RUL_CYCLES
    if not ((found >= least - RUL_SLACK_CYCLES) & (found <= most + RUL_SLACK_CYCLES)).all():
        raise BundleError("out_of_range", f"{manifest.model_id}: a remaining life outside {least:g}..{most:g} cycles")
    lo, middle, hi = np.sort(np.clip(found, least, most), axis=0)
    return lo, middle, hi


def interval_cycles(conformal: Mapping[str, Any], lo: Floats, middle: Floats, hi: Floats) -> tuple[Floats, Floats]:
    """lo, hi [cycles] after the conformal correction, around middle; see the module."""
    if conformal["kind"] != "cqr_scaled":
        return lo, hi
    width = np.maximum(hi - lo, float(conformal.get("floor", 0.0)))
    lower = np.clip(lo - float(conformal["lo"]) * width, RUL_CYCLES[0], middle)
    upper = np.clip(hi + float(conformal["hi"]) * width, middle, RUL_CYCLES[1])
    return lower, upper


def in_domain(manifest: Manifest, rows: Floats) -> npt.NDArray[np.bool_]:
    """bool[n]: whether every feature that there is lies where the model was trained; a row of nothing does not."""
    lo = np.array([feature.lo for feature in manifest.features])
    hi = np.array([feature.hi for feature in manifest.features])
    known = ~np.isnan(rows)
    inside = ~known | ((rows >= lo) & (rows <= hi))
    return np.asarray(inside.all(axis=1) & known.any(axis=1), np.bool_)
