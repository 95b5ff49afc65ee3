"""A fitted booster as an ONNX graph, or a refusal: the converter gets some models silently wrong, it is never trusted.

Only what was proven is converted (WHITELIST), and every graph must agree with its booster on rows of every kind: real
ones, such with holes, and such on every threshold and one step to either side of it.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xgboost

from shared.errors import PacktwinError

Singles = npt.NDArray[np.float32]

WHITELIST: Final = {
    ("3.2.0", "gbtree", "reg:quantileerror"),
    ("3.2.0", "gbtree", "reg:squarederror"),
    ("3.2.0", "gbtree", "binary:logistic"),
}
"""(xgboost, booster, objective) whose conversion was compared, number by number."""
LEAST_ROWS: Final = 10_000
RELATIVE: Final = 1e-5
CHANCE: Final = 1e-6
_OPSET: Final = 15
_NAME: Final = "packtwin"


class ExportError(PacktwinError):
    """The model cannot be published: its graph would not say what the model says."""


def to_onnx(booster: xgboost.Booster, data_rows: Singles, seed: int = 0) -> bytes:
    """The graph, float32[n, F] in, the last output is the answer. data_rows: real rows to compare on, [n, F].

    ExportError for a model that is not on the WHITELIST, or whose graph disagrees with it.
    """
    objective = require_known(booster)
    body = _converted(booster, data_rows.shape[1])
    require_parity(booster, body, parity_rows(booster, data_rows, seed), chance=objective == "binary:logistic")
    return body


def require_known(booster: xgboost.Booster) -> str:
    """The objective. ExportError unless the booster is of a kind whose conversion is proven."""
    config: dict[str, Any] = json.loads(booster.save_config())
    learner = config["learner"]
    kind = (xgboost.__version__, learner["gradient_booster"]["name"], learner["objective"]["name"])
    if kind not in WHITELIST:
        raise ExportError(f"xgboost {kind[0]} with booster {kind[1]} and objective {kind[2]} is not proven to convert")
    told = learner["learner_model_param"]
    model: dict[str, Any] = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    if int(told["num_target"]) > 1 or int(told["num_class"]) > 0 or len(_quantiles(learner)) > 1:
        raise ExportError("a model with several outputs does not convert; fit one model for each")
    if int(model["gbtree_model_param"]["num_parallel_tree"]) > 1:
        raise ExportError("a model with num_parallel_tree > 1 is not proven to convert; leave it at 1")
    if booster.attr("best_iteration") not in (None, str(booster.num_boosted_rounds() - 1)):
        raise ExportError("a model stopped early holds trees that it does not use; cut it with model[: best + 1]")
    if any(kind not in ("float", "q", None) for kind in booster.feature_types or ()):
        raise ExportError("a model with categories does not convert; give it numbers")
    return str(kind[2])


def _quantiles(learner: dict[str, Any]) -> list[Any]:
    told = learner["objective"].get("quantile_loss_param", {}).get("quantile_alpha", "[]")
    found = json.loads(told) if isinstance(told, str) else told
    return found if isinstance(found, list) else [found]


def _converted(booster: xgboost.Booster, features: int) -> bytes:
    import onnxmltools
    from onnxmltools.convert.common.data_types import FloatTensorType

    model = onnxmltools.convert_xgboost(
        booster, name=_NAME, initial_types=[("rows", FloatTensorType([None, features]))], target_opset=_OPSET
    )
    model.producer_version = ""
    return bytes(model.SerializeToString(deterministic=True))


def parity_rows(booster: xgboost.Booster, data_rows: Singles, seed: int) -> Singles:
    """At least LEAST_ROWS rows: real ones, with holes, of nothing, and on each threshold and one ulp beside it."""
    rng = np.random.default_rng(seed)
    real = data_rows[rng.integers(0, len(data_rows), LEAST_ROWS // 2)]
    holes = data_rows[rng.integers(0, len(data_rows), LEAST_ROWS // 2)].copy()
    holes[rng.random(holes.shape) < rng.random((len(holes), 1))] = np.nan
    model = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]
    splits = {
        (feature, float(np.float32(at)))
        for tree in model["trees"]
        for feature, at, left in zip(
            tree["split_indices"], tree["split_conditions"], tree["left_children"], strict=True
        )
        if left != -1
    }
    features = np.array([feature for feature, _ in sorted(splits)], np.intp)
    places = np.array([at for _, at in sorted(splits)], np.float32)
    edges = []
    for beside in (places, np.nextafter(places, np.float32(-np.inf)), np.nextafter(places, np.float32(np.inf))):
        rows = data_rows[rng.integers(0, len(data_rows), len(splits))].copy()
        rows[np.arange(len(splits)), features] = beside
        edges.append(rows)
    nothing = np.full((1, data_rows.shape[1]), np.nan, np.float32)
    return np.concatenate([real, holes, nothing, *edges]).astype(np.float32)


def require_parity(booster: xgboost.Booster, body: bytes, rows: Singles, *, chance: bool) -> float:
    """The largest difference. ExportError when graph and booster disagree by more than the contract allows."""
    theirs = run(body, rows)
    ours = booster.inplace_predict(rows).astype(np.float64).reshape(-1)
    if theirs.shape != ours.shape or not np.isfinite(theirs).all():
        raise ExportError(f"the graph gives {theirs.shape} finite numbers where the model gives {ours.shape}")
    apart = np.abs(theirs - ours)
    allowed = np.full(apart.shape, CHANCE) if chance else RELATIVE * np.maximum(np.abs(ours), 1.0)
    if (apart > allowed).any():
        worst = int(np.argmax(apart / allowed))
        raise ExportError(
            f"the graph says {theirs[worst]:.7g} where the model says {ours[worst]:.7g} "
            f"({int((apart > allowed).sum())} of {len(rows)} rows disagree); it is not published"
        )
    return float(apart.max())


def run(body: bytes, rows: Singles) -> npt.NDArray[np.float64]:
    """What the graph says: float64[n]; of a classifier the second class's probability."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it keeps, and may send, a record of its use
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
    said = np.asarray(session.run(None, {session.get_inputs()[0].name: rows})[-1], np.float64)
    return said[:, -1] if said.ndim == 2 and said.shape[1] == 2 else said.reshape(-1)
