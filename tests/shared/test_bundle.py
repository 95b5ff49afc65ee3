"""A bundle's bytes depend on its contents only, and nothing of a bad one gets past `read` and `answer`."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fakes.bundles import DEFECTS, make_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import bundle as bundles
from shared.bundle import OUTPUTS, BundleError, Golden, Manifest, Output, answer
from shared.feature_table import NAMES
from shared.manifest import REASONS, from_json, to_json

GOOD = make_bundle(3, "rul")


def files_of(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return target.getvalue()


def reason(body: bytes) -> str:
    with pytest.raises(BundleError) as error:
        bundles.read(body)
    assert "\n" not in str(error.value)
    return error.value.reason


def manifest_with(**changes: Any) -> bytes:
    """The good bundle with other values in its manifest; a value of ... takes the key away."""
    files = files_of(GOOD)
    told = {**json.loads(files["manifest.json"]), **changes}
    files["manifest.json"] = json.dumps({k: v for k, v in told.items() if v is not ...}).encode()
    return zipped(files)


def with_golden(**changes: Any) -> bytes:
    """The good bundle with other golden rows, their sha256 right."""
    golden = json.dumps({**json.loads(files_of(GOOD)["golden.json"]), **changes}).encode()
    told = json.loads(files_of(GOOD)["manifest.json"])["sha256"]
    body = manifest_with(sha256={**told, "golden.json": hashlib.sha256(golden).hexdigest()})
    return zipped({**files_of(body), "golden.json": golden})


def test_what_is_built_reads_back_and_its_bytes_are_the_same_each_time() -> None:
    read = bundles.read(GOOD)
    assert make_bundle(3, "rul") == GOOD
    assert (read.manifest.model_id, read.manifest.counter, read.manifest.name) == ("rul-3", 3, "rul")
    assert [feature.name for feature in read.manifest.features] == list(NAMES)
    assert from_json(to_json(read.manifest)) == read.manifest
    files = {name: body for name, body in read.files.items() if name.endswith(".onnx")}
    shuffled = dict(reversed(files.items()))
    assert bundles.build(dataclasses.replace(read.manifest, sha256={}), shuffled, read.golden) == GOOD


def test_golden_rows_keep_their_bits_and_their_nans() -> None:
    random = np.random.default_rng(5)
    read = bundles.read(GOOD)
    rows = random.normal(0, 1e3, (200, len(NAMES))).astype(np.float32)
    rows[random.random(rows.shape) < 0.2] = np.nan
    outputs = {name: random.normal(0, 30, 200).astype(np.float32) for name in OUTPUTS}
    body = bundles.build(read.manifest, {f"{name}.onnx": read.onnx(name) for name in OUTPUTS}, Golden(rows, outputs))
    golden = bundles.read(body).golden
    assert golden.rows.tobytes() == rows.tobytes()
    assert all(golden.outputs[name].tobytes() == values.tobytes() for name, values in outputs.items())


def test_renumbered_is_the_same_model_under_another_counter() -> None:
    body = bundles.renumbered(manifest_with(of_a_newer_writer=[1]), 12)
    read = bundles.read(body)
    assert (read.manifest.model_id, read.manifest.counter) == ("rul-12", 12)
    assert json.loads(read.files.get("manifest.json", files_of(body)["manifest.json"]))["of_a_newer_writer"] == [1]
    assert {n: b for n, b in files_of(body).items() if n != "manifest.json"} == {
        n: b for n, b in files_of(GOOD).items() if n != "manifest.json"
    }
    assert bundles.renumbered(GOOD, 3) == GOOD


@pytest.mark.parametrize("defect", [name for name in DEFECTS if name in ("manifest", "too_large")])
def test_a_defect_that_bytes_show_is_found_by_reading(defect: str) -> None:
    assert reason(make_bundle(defect=defect)) == DEFECTS[defect]


def test_every_defect_of_the_fakes_ends_in_a_reason_of_the_closed_list() -> None:
    assert set(DEFECTS.values()) <= set(REASONS)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": "rul-4"},
        {"model_id": "../rul-3"},
        {"model_id": "a" * 60 + "-3"},
        {"model_id": ...},
        {"counter": "3"},
        {"counter": True},
        {"counter": 0, "model_id": "rul-0"},
        {"features": []},
        {"features": [{"name": "a", "unit": "1", "lo": 0, "hi": 1}] * 2},
        {"features": [{"name": "a", "unit": "1", "lo": 2, "hi": 1}]},
        {"features": [{"name": "a", "unit": "1", "lo": 0, "hi": 10**400}]},
        {"outputs": {}},
        {"outputs": {name: {"file": "../x.onnx", "unit": "1", "transform": "none"} for name in OUTPUTS}},
        {"outputs": {name: {"file": f"{name}.onnx", "unit": "1", "transform": "cube"} for name in OUTPUTS}},
        {"outputs": {name: {"file": f"{name}.onnx", "unit": "1", "transform": "sqrt"} for name in OUTPUTS}},
        {"chemistry": []},
        {"chemistry": "nmc"},
        {"hardware": 7},
        {"conformal": {"kind": "magic"}},
        {"conformal": {"kind": "cqr_scaled", "lo": 1.0}},
        {"conformal": {"kind": "cqr_scaled", "lo": 1.0, "hi": 1.0, "floor": -1.0}},
        {"data": {"hash": "0", "licence": "none"}},
        {"sha256": {}},
        {"feature_schema": ""},
    ],
)
def test_a_manifest_that_says_something_impossible_is_refused(changes: dict[str, Any]) -> None:
    assert reason(manifest_with(**changes)) == "manifest"


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": []},
        {"rows": [[1.0]]},
        {"rows": "none"},
        {"rows": [["x"] * len(NAMES)] * 3},
        {"outputs": {name: [1.0, 2.0] for name in OUTPUTS}},
        {"outputs": {name: [1.0, None, 2.0] for name in OUTPUTS}},
        {"outputs": {}},
    ],
)
def test_golden_rows_of_another_shape_are_refused(changes: dict[str, Any]) -> None:
    assert reason(with_golden(**changes)) == "manifest"


def test_files_that_the_manifest_does_not_name_are_refused() -> None:
    files = files_of(GOOD)
    assert reason(zipped({**files, "more.onnx": b"x"})) == "manifest"
    assert reason(zipped({**files, "../evil.onnx": b"x"})) == "manifest"
    assert reason(zipped({name: body for name, body in files.items() if name != "rul_cycles.onnx"})) == "manifest"
    assert reason(zipped({name: body for name, body in files.items() if name != "manifest.json"})) == "manifest"


@pytest.mark.parametrize("body", [b"", b"PK", b"no zip at all", b"\x00" * 5000, GOOD[:-30], GOOD[: len(GOOD) // 2]])
def test_what_is_no_bundle_is_refused(body: bytes) -> None:
    assert reason(body) == "manifest"


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a": NaN}', b"9" * 6000, b"\xff\xfe", b"null", b"[]"])
def test_a_manifest_that_is_no_object_is_refused(text: bytes) -> None:
    assert reason(zipped({**files_of(GOOD), "manifest.json": text})) == "manifest"


def test_a_zip_bomb_is_refused_before_it_is_inflated() -> None:
    bomb = zipped({**files_of(GOOD), "rul_cycles.onnx": bytes(200_000_000)})
    assert len(bomb) < bundles.MAX_BYTES
    assert reason(bomb) == "too_large"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_altered_byte_is_refused_or_changes_nothing_that_counts(at: int, by: int) -> None:
    altered = GOOD[:at] + bytes([GOOD[at] ^ by]) + GOOD[at + 1 :]
    try:
        read = bundles.read(altered)
    except BundleError as error:
        assert error.reason in ("manifest", "too_large")
    else:
        assert read.files == bundles.read(GOOD).files


def test_a_model_that_would_be_too_large_is_not_built() -> None:
    with pytest.raises(BundleError) as error:
        make_bundle(pad_bytes=5_100_000)
    assert error.value.reason == "too_large"
    assert 4_000_000 < len(make_bundle(pad_bytes=4_000_000)) < 4_100_000


def test_numbers_that_are_none_are_not_written() -> None:
    read = bundles.read(GOOD)
    files = {f"{name}.onnx": read.onnx(name) for name in OUTPUTS}
    with pytest.raises(BundleError):
        bundles.build(dataclasses.replace(read.manifest, metrics={"mae": float("nan")}), files, read.golden)
    infinite = Golden(read.golden.rows, {**read.golden.outputs, "rul_cycles": np.full(3, np.inf, np.float32)})
    with pytest.raises(BundleError):
        bundles.build(read.manifest, files, infinite)


# Answers


def model(transform: str = "none", conformal: Mapping[str, Any] | None = None) -> Manifest:
    good = bundles.read(GOOD).manifest
    outputs = {name: Output(f"{name}.onnx", "cycles", "none" if name == "p_eol_100" else transform) for name in OUTPUTS}
    return dataclasses.replace(good, outputs=outputs, conformal=conformal or {"kind": "none"})


def raw(lo: float, middle: float, hi: float, chance: float = 0.25) -> dict[str, np.ndarray]:
    return {name: np.array([value]) for name, value in zip(OUTPUTS, (lo, middle, hi, chance), strict=True)}


INSIDE = np.array([[(feature.lo + feature.hi) / 2 for feature in model().features]])


@pytest.mark.parametrize(
    ("transform", "told"), [("none", 400.0), ("sqrt", 20.0), ("log", float(np.log1p(400.0)))], ids=str
)
def test_a_transform_is_undone_once(transform: str, told: float) -> None:
    (said,) = answer(model(transform), raw(told, told, told), INSIDE)
    assert said.rul_cycles == pytest.approx(400.0)
    assert (said.p_eol_100, said.in_domain) == (0.25, True)


def test_quantiles_that_cross_are_sorted() -> None:
    (said,) = answer(model(), raw(300, 500, 200), INSIDE)
    assert (said.rul_cycles_lo, said.rul_cycles, said.rul_cycles_hi) == (200, 300, 500)


@pytest.mark.parametrize(
    ("conformal", "lo", "hi"),
    [
        ({"kind": "cqr_scaled", "lo": 0.5, "hi": 1.0}, 100.0, 600.0),
        ({"kind": "cqr_scaled", "lo": 5.0, "hi": 0.0}, 0.0, 400.0),
        ({"kind": "cqr_scaled", "lo": -5.0, "hi": -5.0}, 250.0, 250.0),
        ({"kind": "cqr_scaled", "lo": 0.1, "hi": 0.1, "floor": 1000.0}, 100.0, 500.0),
    ],
)
def test_the_conformal_correction_goes_by_the_width(conformal: dict[str, Any], lo: float, hi: float) -> None:
    (said,) = answer(model(conformal=conformal), raw(200, 250, 400), INSIDE)
    assert (said.rul_cycles_lo, said.rul_cycles, said.rul_cycles_hi) == pytest.approx((lo, 250, hi))


def test_a_little_below_the_end_of_life_is_said_as_nothing_left() -> None:
    (said,) = answer(model("sqrt"), raw(-3, -2, 1), INSIDE)
    assert (said.rul_cycles_lo, said.rul_cycles, said.rul_cycles_hi) == (0, 0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_answer_that_is_no_number_is_refused(output: str, value: float) -> None:
    with pytest.raises(BundleError) as error:
        answer(model(), {**raw(1, 2, 3), output: np.array([value])}, INSIDE)
    assert error.value.reason == "not_finite"


@pytest.mark.parametrize(
    ("transform", "values"),
    [("none", raw(1, 2, 30_000)), ("none", raw(-60, 2, 3)), ("log", raw(1, 2, 1000)), ("none", raw(1, 2, 3, 1.01)),
     ("none", raw(1, 2, 3, -0.01))],
)  # fmt: skip
def test_an_answer_out_of_the_physical_range_is_refused(transform: str, values: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError) as error:
        answer(model(transform), values, INSIDE)
    assert error.value.reason == "out_of_range"


def test_a_row_is_in_domain_where_every_known_feature_is_in_the_trained_range() -> None:
    rows = np.repeat(INSIDE, 4, axis=0)
    rows[1, 2] = np.nan
    rows[2, 2] = model().features[2].hi + 1
    rows[3] = np.nan
    said = answer(model(), {name: np.repeat(values, 4) for name, values in raw(1, 2, 3).items()}, rows)
    assert [one.in_domain for one in said] == [True, True, False, False]
