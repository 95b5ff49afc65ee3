"""The parity gate: what is proven converts, each configuration that the converter gets silently wrong is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost

from cloud.training import export

FEATURES = 6


@pytest.fixture(scope="module")
def rows() -> Any:
    found = np.random.default_rng(1).normal(size=(1500, FEATURES)).astype(np.float32)
    found[np.random.default_rng(2).random(found.shape) < 0.1] = np.nan
    return found


def target(rows: Any) -> Any:
    return np.nan_to_num(rows[:, 0]) * 3 + np.nan_to_num(rows[:, 1]) ** 2 + 5


def fitted(rows: Any, label: Any, trees: int = 20, **told: Any) -> xgboost.Booster:
    told = {"max_depth": 4, "nthread": 1, "seed": 1, **told}
    return xgboost.train(told, xgboost.DMatrix(rows, label=label), trees)


@pytest.mark.parametrize(
    "told",
    [
        {"objective": "reg:quantileerror", "quantile_alpha": 0.05, "base_score": 0.0},
        {"objective": "reg:squarederror", "base_score": 0.0},
    ],
)
def test_a_proven_regressor_converts(rows: Any, told: dict[str, Any]) -> None:
    booster = fitted(rows, target(rows), 200, **told)
    body = export.to_onnx(booster, rows)
    checked = export.parity_rows(booster, rows, seed=9)
    assert len(checked) >= export.LEAST_ROWS and np.isnan(checked).all(axis=1).any()
    assert export.require_parity(booster, body, checked, chance=False) < 1e-4


def test_a_proven_classifier_converts(rows: Any) -> None:
    booster = fitted(rows, target(rows) > 6, 100, objective="binary:logistic")
    assert export.to_onnx(booster, rows)


def two_outputs(rows: Any) -> xgboost.Booster:
    return fitted(rows, np.stack([target(rows), -target(rows)], axis=1), objective="reg:squarederror")


def forest_stopped_early(rows: Any) -> xgboost.Booster:
    data = xgboost.DMatrix(rows, label=target(rows))
    told = {"objective": "reg:squarederror", "num_parallel_tree": 3, "nthread": 1}
    return xgboost.train(told, data, 30, evals=[(data, "same")], early_stopping_rounds=3, verbose_eval=False)


SILENTLY_WRONG = {
    "a logistic regressor": lambda rows: fitted(rows, target(rows) > 6, objective="reg:logistic"),
    "several quantiles": lambda rows: fitted(
        rows, target(rows), objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9]
    ),
    "several outputs": two_outputs,
    "survival": lambda rows: fitted(rows, target(rows), objective="survival:cox"),
    "dart": lambda rows: fitted(rows, target(rows), objective="reg:squarederror", booster="dart", rate_drop=0.3),
    "a forest stopped early": forest_stopped_early,
}


@pytest.mark.parametrize("name", SILENTLY_WRONG)
def test_what_the_converter_gets_silently_wrong_is_refused(rows: Any, name: str) -> None:
    with pytest.raises(export.ExportError, match=r"proven|does not convert"):
        export.to_onnx(SILENTLY_WRONG[name](rows), rows)


def test_a_graph_that_says_something_else_is_refused(rows: Any) -> None:
    told = {"objective": "reg:squarederror", "base_score": 0.0}
    one, other = fitted(rows, target(rows), **told), fitted(rows, target(rows) * 1.001, **told)
    body = export.to_onnx(one, rows)
    with pytest.raises(export.ExportError, match="disagree"):
        export.require_parity(other, body, export.parity_rows(other, rows, 0), chance=False)


def test_the_same_model_gives_the_same_bytes(rows: Any) -> None:
    told = {"objective": "reg:quantileerror", "quantile_alpha": 0.5, "base_score": 0.0}
    assert export.to_onnx(fitted(rows, target(rows), **told), rows) == export.to_onnx(
        fitted(rows, target(rows), **told), rows
    )
