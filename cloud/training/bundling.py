"""Fitted models -> the bytes of a Bundle: exported behind the parity gate, with ranges, constants and golden rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from cloud.training import export
from cloud.training.conformal import Conformal
from cloud.training.dataset import Dataset
from cloud.training.fit import CHANCE, Models
from shared import bundle as bundles
from shared.bundle import OUTPUTS, FeatureRange, Golden, Manifest, Output
from shared.feature_table import schema_id

GOLDEN_ROWS: Final = 256
_BEYOND: Final = 0.1
"""A row is still in the domain when it lies beyond the rows by this share of their range."""


def bundled(  # noqa: PLR0913
    models: Models,
    data: Dataset,
    conformal: Conformal,
    *,
    name: str,
    counter: int,
    chemistry: tuple[str, ...],
    licence: str,
    metrics: Mapping[str, Any],
    seed: int = 0,
) -> bytes:
    """The bundle. data: what was learned from. ExportError when a graph does not say what its model says."""
    rows = data.rows.astype(np.float32)
    files = {f"{output}.onnx": export.to_onnx(models.boosters[output], rows, seed) for output in OUTPUTS}
    rng = np.random.default_rng(seed)
    golden = rows[rng.integers(0, len(rows), GOLDEN_ROWS)].copy()
    golden[rng.random(golden.shape) < 0.05] = np.nan
    manifest = Manifest(
        model_id=bundles.model_id(name, counter),
        counter=counter,
        feature_schema=schema_id(data.table),
        features=tuple(_ranges(data)),
        outputs={
            output: Output(
                f"{output}.onnx", "1" if output == CHANCE else "cycles", "none" if output == CHANCE else "sqrt"
            )
            for output in OUTPUTS
        },
        chemistry=chemistry,
        conformal=conformal.as_manifest(),
        data={"hash": data.digest(), "licence": licence, "simulated": data.simulated},
        metrics=dict(metrics),
    )
    said = {output: export.run(files[f"{output}.onnx"], golden).astype(np.float32) for output in OUTPUTS}
    return bundles.build(manifest, files, Golden(golden, said))


def _ranges(data: Dataset) -> list[FeatureRange]:
    """Where the rows lie and a little beyond; a feature that never had a value keeps the table's range."""
    found = []
    for spec, column in zip(data.table, data.rows.T, strict=True):
        seen = column[np.isfinite(column)]
        lo, hi = (float(seen.min()), float(seen.max())) if seen.size else (spec.lo, spec.hi)
        beyond = _BEYOND * (hi - lo)
        found.append(FeatureRange(spec.name, spec.unit, max(lo - beyond, spec.lo), min(hi + beyond, spec.hi)))
    return found
