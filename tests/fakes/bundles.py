"""Small bundles with real ONNX graphs, and one defect each where a test wants it.

Every graph is one tree on the first feature (NaN goes left): RUL is `rul_cycles` up to `turn`, half of that above; the
interval is -+20 %. The classifier is a TreeEnsembleClassifier as xgboost's export has it: label, then [n, 2].
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper

from shared import bundle as bundles
from shared.bundle import OUTPUTS, FeatureRange, Golden, Manifest, Output

DEFECTS: Final = {
    "manifest": "manifest",  # one byte of a graph is another one than the manifest's sha256 says
    "feature_schema": "feature_schema",
    "chemistry": "chemistry",  # for `alien` packs only
    "hardware": "hardware",
    "not_finite": "not_finite",  # every leaf of the RUL is NaN
    "golden": "golden",  # the golden rows are 1 % off
    "out_of_range": "out_of_range",  # a million cycles left
    "too_large": "too_large",  # 5.2 MB that no zip makes smaller
    "timeout": "timeout",  # an endless Loop
    "crash": "crash",  # a tree so deep that onnxruntime overruns its stack
    "memory": "crash",  # asks for a terabyte
    "garbage": "crash",  # a graph that is no ONNX, with the right sha256
}
"""Defect -> the reason of the closed list that it ends in."""
LIVE: Final = ("not_finite", "out_of_range", "timeout", "crash")
"""What a bundle can do that passes its probe and goes bad only when the first feature is above `live_above`."""
CHEMISTRIES: Final = bundles.CHEMISTRIES
_HUGE: Final = 1 << 40
_DEEP: Final = 60_000
_DOMAINS: Final = (("", 13), ("ai.onnx.ml", 3))


def make_bundle(  # noqa: PLR0913
    counter: int = 1,
    name: str = "fake",
    *,
    table: Sequence[Any] | None = None,
    feature_schema: str | None = None,
    chemistry: Sequence[str] = CHEMISTRIES,
    hardware: str = bundles.HARDWARE,
    simulated: bool = True,
    rul_cycles: float = 800.0,
    p_eol_100: float = 0.1,
    turn: float = 1000.0,
    conformal: Mapping[str, Any] | None = None,
    pad_bytes: int = 0,
    defect: str | None = None,
    live: str | None = None,
    live_above: float = 1e6,
) -> bytes:
    """The bytes of NAME-COUNTER.bundle. table: rows with name, unit, lo, hi (default: shared.features.TABLE).

    pad_bytes: so much larger, incompressible. defect: one of DEFECTS. live: one of LIVE.
    """
    assert defect is None or defect in DEFECTS, defect
    features = _features(table)
    manifest = Manifest(
        model_id=bundles.model_id(name, counter),
        counter=counter,
        feature_schema="0" * 16 if defect == "feature_schema" else feature_schema or _schema(table),
        features=features,
        outputs={
            out: Output(f"{out}.onnx", "1" if out == "p_eol_100" else "cycles", _transform(out)) for out in OUTPUTS
        },
        chemistry=("alien",) if defect == "chemistry" else tuple(chemistry),
        hardware="abacus" if defect == "hardware" else hardware,
        conformal=conformal or {"kind": "cqr_scaled", "lo": 0.0, "hi": 0.0},
        data={"hash": "0" * 64, "licence": "none", "simulated": simulated},
        metrics={"rul_mae_cycles": 1.0},
    )
    leaves = _leaves(1e6 if defect == "out_of_range" else rul_cycles, p_eol_100)
    golden = _golden(leaves, turn, features)
    files = {
        f"{out}.onnx": _graph(out, leaves[out], len(features), turn, defect, (live, live_above)) for out in OUTPUTS
    }
    if defect == "golden":
        golden = Golden(golden.rows, {out: np.float32(1.01) * values for out, values in golden.outputs.items()})
    size = pad_bytes or (5_200_000 if defect == "too_large" else 0)
    if size:
        files["rul_cycles.onnx"] = _padded(files["rul_cycles.onnx"], size)
    if defect == "too_large":
        return _zip({"golden.json": b"{}", "manifest.json": b"{}", **files})
    body = bundles.build(manifest, files, golden)
    return _altered(body) if defect == "manifest" else body


def expected(bundle: bytes, rows: np.ndarray) -> list[bundles.Answer]:
    """What a good bundle of `make_bundle` answers for these rows [n, F], without running it."""
    read = bundles.read(bundle)
    first = np.asarray(rows)[:, 0]
    left = np.isnan(first) | (first <= float(_turn_of(read)))
    raw = {out: np.where(left, *(float(v) for v in read.golden.outputs[out][:2])) for out in OUTPUTS}
    return bundles.answer(read.manifest, raw, rows)


def _turn_of(read: bundles.Bundle) -> float:
    graph = onnx.load_from_string(read.onnx("rul_cycles")).graph
    tree = next(node for node in graph.node if node.op_type == "TreeEnsembleRegressor")
    values = next(attribute for attribute in tree.attribute if attribute.name == "nodes_values")
    return float(values.floats[0])


def _features(table: Sequence[Any] | None) -> tuple[FeatureRange, ...]:
    if table is None:
        from shared.features import TABLE

        table = TABLE
    return tuple(FeatureRange(row.name, row.unit, row.lo, row.hi) for row in table)


def _schema(table: Sequence[Any] | None) -> str:
    from shared.features import schema_id

    return schema_id() if table is None else schema_id(tuple(table))


def _transform(output: str) -> str:
    return "none" if output == "p_eol_100" else "sqrt"


def _leaves(rul_cycles: float, chance: float) -> dict[str, tuple[float, float]]:
    """Output -> what its graph gives left and right of the turn, as float32."""
    shares = {"rul_cycles_lo": 0.8, "rul_cycles": 1.0, "rul_cycles_hi": 1.2}
    found = {out: np.sqrt([rul_cycles * share, rul_cycles * share / 2]) for out, share in shares.items()}
    found["p_eol_100"] = np.array([chance, min(2 * chance, 1.0)])
    return {out: (float(np.float32(a)), float(np.float32(b))) for out, (a, b) in found.items()}


def _golden(leaves: Mapping[str, tuple[float, float]], turn: float, features: Sequence[FeatureRange]) -> Golden:
    """Three rows: left, right, and nothing known."""
    rows = np.array([[(f.lo + f.hi) / 2 for f in features]] * 3, np.float32)
    rows[:, 0] = turn - 1, turn + 1, np.nan
    rows[2] = np.nan
    return Golden(rows, {out: np.array([a, b, a], np.float32) for out, (a, b) in leaves.items()})


def _graph(
    out: str, leaves: tuple[float, float], width: int, turn: float, defect: str | None, live: tuple[str | None, float]
) -> bytes:
    if out == "p_eol_100":
        return _classifier(leaves, width, turn)
    if defect == "garbage" and out == "rul_cycles":
        return b"this is no graph"
    if defect == "crash" and out == "rul_cycles":
        return _model([_tree("regressor", [1.0] * (_DEEP + 1), range(_DEEP), "x", "y")], width, "y")
    if defect == "not_finite":
        leaves = (float("nan"), float("nan"))
    kind, above = live
    nodes = [_tree("regressor", [leaves[0], leaves[1]], [turn], "x", "tree")]
    if defect == "timeout":
        nodes += _bad_when("timeout", -np.inf)
    elif defect == "memory":
        nodes += _bad_when("crash", -np.inf)
    elif kind:
        nodes += _bad_when(kind, above)
    else:
        nodes.append(helper.make_node("Identity", ["tree"], ["y"]))
    return _model(nodes, width, "y")


def _tree(kind: str, leaves: Sequence[float], turns: Sequence[float], given: str, made: str) -> onnx.NodeProto:
    """A chain of splits on feature 0: leaf i where it is <= turns[i], the last one elsewhere; NaN goes left."""
    count = len(turns)
    ids = list(range(2 * count + 1))  # 2i = split i (the last: a leaf), 2i + 1 = its left leaf
    splits = [i % 2 == 0 and i < 2 * count for i in ids]
    leaf_ids = [*range(1, 2 * count, 2), 2 * count]
    tree = {
        "nodes_treeids": [0] * len(ids),
        "nodes_nodeids": ids,
        "nodes_featureids": [0] * len(ids),
        "nodes_values": [float(turns[i // 2]) if split else 0.0 for i, split in zip(ids, splits, strict=True)],
        "nodes_modes": ["BRANCH_LEQ" if split else "LEAF" for split in splits],
        "nodes_truenodeids": [i + 1 if split else 0 for i, split in zip(ids, splits, strict=True)],
        "nodes_falsenodeids": [i + 2 if split else 0 for i, split in zip(ids, splits, strict=True)],
        "nodes_missing_value_tracks_true": [int(split) for split in splits],
    }
    if kind == "regressor":
        tree |= {
            "target_treeids": [0] * len(leaf_ids),
            "target_nodeids": leaf_ids,
            "target_ids": [0] * len(leaf_ids),
            "target_weights": [float(leaf) for leaf in leaves],
            "n_targets": 1,
        }
        return helper.make_node("TreeEnsembleRegressor", [given], [made], domain="ai.onnx.ml", **tree)
    tree |= {
        "class_treeids": [0] * len(leaf_ids),
        "class_nodeids": leaf_ids,
        "class_ids": [0] * len(leaf_ids),
        "class_weights": [float(leaf) for leaf in leaves],
        "classlabels_int64s": [0, 1],
        "post_transform": "LOGISTIC",
    }
    return helper.make_node("TreeEnsembleClassifier", [given], ["label", made], domain="ai.onnx.ml", **tree)


def _classifier(leaves: tuple[float, float], width: int, turn: float) -> bytes:
    odds = [float(np.log(p / (1 - p))) if 0 < p < 1 else 40.0 * (1 if p >= 1 else -1) for p in leaves]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, [None])
    return _model([_tree("classifier", odds, [turn], "x", "probabilities")], width, "probabilities", 2, [label])


def _bad_when(kind: str, above: float) -> list[onnx.NodeProto]:
    """tree -> y, gone bad when the first feature of any row is above `above` (never for NaN unless that is -inf)."""
    constant = _constant
    limit = np.float32(max(above, -3e38))
    nodes = [
        constant("zero", np.array([0], np.int64)),
        constant("limit", np.array([limit], np.float32)),
        helper.make_node("Gather", ["x", "zero"], ["first"], axis=1),
        helper.make_node("Greater", ["first", "limit"], ["rows_above"]),  # [n, 1]
    ]
    if kind in ("not_finite", "out_of_range"):
        bad = float("nan") if kind == "not_finite" else 1e5
        return [*nodes, constant("bad", np.array([bad], np.float32)),
                helper.make_node("Where", ["rows_above", "bad", "tree"], ["y"])]  # fmt: skip
    nodes += [
        helper.make_node("Cast", ["rows_above"], ["ones"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["ones"], ["any_one"], keepdims=0),
        helper.make_node("Cast", ["any_one"], ["any"], to=TensorProto.BOOL),
    ]
    if kind == "timeout":
        body = helper.make_graph(
            [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Identity", ["v_in"], ["v_out"])],
            "body",
            [helper.make_tensor_value_info("i", TensorProto.INT64, []),
             helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
             helper.make_tensor_value_info("v_in", TensorProto.FLOAT, [None, 1])],
            [helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
             helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [None, 1])],
        )  # fmt: skip
        return [*nodes, helper.make_node("Loop", ["", "any", "tree"], ["y"], body=body)]
    return [
        *nodes,
        constant("huge", np.array([_HUGE], np.int64)),
        constant("small", np.array([1], np.int64)),
        helper.make_node("Where", ["any", "huge", "small"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["block"]),
        helper.make_node("ReduceMax", ["block"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["tree", "nothing"], ["y"]),
    ]


def _constant(name: str, value: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value, name))


def _model(
    nodes: Sequence[onnx.NodeProto],
    width: int,
    output: str,
    columns: int = 1,
    first: Sequence[onnx.ValueInfoProto] = (),
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "fake",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [*first, helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, columns])],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _DOMAINS]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="fake")
    return bytes(model.SerializeToString(deterministic=True))


def _padded(graph: bytes, size: int) -> bytes:
    model = onnx.load_from_string(graph)
    noise = np.random.default_rng(1).integers(0, 256, size, np.uint8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(noise, "pad"))
    return bytes(model.SerializeToString(deterministic=True))


def _altered(body: bytes) -> bytes:
    """The same zip with another graph in it, its own checksums right, the manifest's sha256 wrong."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    golden = json.loads(files["golden.json"])
    golden["outputs"]["rul_cycles"][0] += 1.0
    return _zip({**files, "golden.json": json.dumps(golden).encode()})


def _zip(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return target.getvalue()
