"""Training on small fleets of simulated lives: honest splits, byte-equal results, one sentence for what cannot be."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud.__main__ import main
from cloud.training import dataset, gate, scores
from cloud.training.conformal import calibrated
from cloud.training.fit import Recipe
from cloud.training.run import Order, train
from firmware_bridge import lives
from shared import bundle as bundles
from shared.feature_table import NAMES

QUICK = Recipe(trees=25, chance_trees=15, depth=3, rate=0.25)


@pytest.fixture(scope="module")
def fleet() -> dataset.Dataset:
    return dataset.simulated(60, 5)


@pytest.fixture(scope="module")
def trained(fleet: dataset.Dataset) -> Any:
    return train(fleet, Order(name="rul", counter=3, recipe=QUICK))


def test_no_frozen_pack_is_learned_from(fleet: dataset.Dataset) -> None:
    learned, apart = gate.frozen(fleet)
    assert not set(learned.known_packs()) & set(apart.known_packs())
    assert len(apart.known_packs()) >= 5
    assert all(gate.is_frozen(fleet.packs[k]) for k in apart.known_packs())


def test_a_training_gives_a_bundle_that_answers(fleet: dataset.Dataset, trained: Any) -> None:
    found = bundles.read(trained.body)
    assert found.manifest.model_id == "rul-3" and found.manifest.data["simulated"] is True
    _, apart = gate.frozen(fleet.labelled())
    (lo, middle, hi), chance = gate.said(found, apart)
    assert (lo <= middle).all() and (middle <= hi).all() and (chance >= 0).all() and (chance <= 1).all()
    assert scores.r2(apart.rul_cycles, middle) > 0.2
    counts = trained.card["data"]
    assert counts["packs"] == 60 == counts["packs_labelled"] + counts["packs_unlabelled"]
    assert counts["packs_learned"] + counts["packs_frozen"] == counts["packs_labelled"]


def test_trained_twice_gives_the_same_bytes(fleet: dataset.Dataset, trained: Any) -> None:
    again = train(fleet, Order(name="rul", counter=3, recipe=QUICK))
    assert again.body == trained.body
    assert again.card == trained.card and again.plots == trained.plots


def test_labels_mixed_up_teach_nothing(fleet: dataset.Dataset) -> None:
    known = fleet.labelled()
    order = np.random.default_rng(3).permutation(len(known))
    mixed = replace(known, rul_cycles=known.rul_cycles[order], eol_100=known.eol_100[order])
    card = train(mixed, Order(name="rul", counter=1, recipe=QUICK)).card["judged"]
    assert card["r2"] <= 0.05
    assert 0.35 < card["auc"] < 0.65  # few packs; the benchmark has hundreds


def test_a_challenger_must_be_surely_better(fleet: dataset.Dataset, trained: Any) -> None:
    champion = bundles.read(trained.body)
    _, apart = gate.frozen(fleet.labelled())
    assert not gate.compare(champion, champion, apart).better
    worse = train(fleet, Order(name="rul", counter=4, recipe=Recipe(trees=2, chance_trees=2, depth=2, rate=0.1)))
    assert not gate.compare(champion, bundles.read(worse.body), apart).better
    assert gate.compare(bundles.read(worse.body), champion, apart).better


def test_the_interval_grows_until_whole_packs_lie_inside() -> None:
    rng = np.random.default_rng(4)
    pack = np.repeat(np.arange(200), 30)
    truth = 500 + 100 * rng.standard_normal(200)[pack] + 20 * rng.standard_normal(pack.size)
    narrow = np.stack([np.full(pack.size, 480.0), np.full(pack.size, 500.0), np.full(pack.size, 520.0)])
    found = calibrated(narrow, truth, pack)
    inside = (truth >= 480 - found.lo * 40) & (truth <= 520 + found.hi * 40)
    assert 0.88 <= inside.mean() <= 0.93


# --- what cannot be learned from -------------------------------------------------------------------------------------


def table(folder: Path, fleet: dataset.Dataset, **changed: Any) -> Path:
    """The fleet as CSV; changed: column -> function of its values, or None to leave it out."""
    folder.mkdir(exist_ok=True)
    columns: dict[str, Any] = {"pack_id": [fleet.packs[k] for k in fleet.pack], "cycle": fleet.cycle}
    columns |= dict(zip(NAMES, fleet.rows.T, strict=True))
    columns |= {"rul_cycles": fleet.rul_cycles, "eol_100": fleet.eol_100}
    for name, change in changed.items():
        if change is None:
            del columns[name]
        else:
            columns[name] = change(columns[name])
    with (folder / "lives.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(
            ["" if isinstance(v, float) and np.isnan(v) else v for v in row]
            for row in zip(*columns.values(), strict=True)
        )
    return folder


def nothing(values: Any) -> Any:
    return np.full(len(values), np.nan)


@pytest.mark.parametrize(
    ("changed", "packs", "says"),
    [
        ({"r_step_mohm": None}, 40, "r_step_mohm missing"),
        ({"rul_cycles": None, "eol_100": None}, 40, "rul_cycles, eol_100 missing"),
        ({"eol_100": np.zeros_like}, 40, "the same in every row"),
        ({}, 8, "packs have a known end; at least 20"),
        (dict.fromkeys(NAMES, nothing), 40, "no feature has a value"),
        ({"rul_cycles": nothing}, 40, "no row says how many cycles"),
        ({"r_step_mohm": lambda v: v * 1000}, 40, "another unit"),
        ({"rul_cycles": lambda v: v * 1000}, 40, "in cycles"),
        ({"rul_cycles": lambda v: v / 1000}, 40, "contradict"),
        ({"rul_cycles": lambda v: v * 0 + 500, "eol_100": lambda v: v}, 40, "the same in every row"),
        ({"soh_bms": lambda v: v * 1000}, 40, "soh_bms"),
        ({"cell_dev_slope_300": lambda v: v * 1000}, 40, "cell_dev_slope_300"),
        ({"cycles": lambda v: v / 1000}, 40, "the median of cycles"),
        ({"eol_100": lambda v: v + 1}, 40, "0, 1 and empty"),
        ({"eol_100": lambda v: 1 - v}, 40, "contradict"),
        ({"cycle": lambda v: ["many"] * len(v)}, 40, "no number"),
        ({"cycle": lambda v: v * 1000}, 40, "cycle must be a number"),
        ({"cycle": lambda v: v / 1000}, 40, "are both in cycles"),
        ({"cycle": lambda v: -v}, 40, "cycle must be a number"),
        ({"cycle": nothing}, 40, "cycle must be a number"),
        ({"soh_bms": lambda v: v + np.where(np.arange(len(v)) == 3, np.inf, 0)}, 40, "infinite"),
    ],
)
def test_what_cannot_be_learned_from_is_one_sentence(
    tmp_path: Path, fleet: dataset.Dataset, capsys: Any, changed: dict[str, Any], packs: int, says: str
) -> None:
    folder = table(tmp_path / "lives", fleet.of_packs(range(packs)), **changed)
    assert main(["train", "--source", "folder", str(folder), "--models", str(tmp_path / "models")]) == 2
    told = capsys.readouterr().err
    assert says in told and len(told.strip().splitlines()) == 1 and "Traceback" not in told
    assert not list(tmp_path.glob("models/*.bundle"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--source", "folder"],
        ["--source", "moon"],
        ["--source", "folder", "no-such-folder"],
        ["--name", "../x"],
        ["--packs", "0"],
        ["--seed", "-1"],
        ["--chemistry", "alkaline"],
        ["--against", "no-such.bundle"],
    ],
)
def test_wrong_arguments_are_one_sentence(tmp_path: Path, capsys: Any, arguments: list[str]) -> None:
    assert main(["train", *arguments, "--models", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_of_lives_becomes_a_bundle_whatever_the_store_of_runs_does(
    tmp_path: Path, fleet: dataset.Dataset, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = table(tmp_path / "lives", fleet)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["train", "--source", "folder", str(folder), "--models", "models"]) == 0
    card = json.loads((tmp_path / "models" / "rul-1.card.json").read_text())
    assert card["data"]["packs"] == 60
    assert "rul-1.bundle" in capsys.readouterr().out
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["train", "--source", "folder", str(folder), "--models", "models"]) == 0
    assert (tmp_path / "models" / "rul-2.bundle").exists() and (tmp_path / ".local/mlflow/mlflow.db").exists()


def test_rows_of_simulated_lives_are_those_of_their_records() -> None:
    life = lives.draw(1, 3)[0]
    whole = dataset.of_lives([life], every_cycles=None)
    assert np.array_equal(whole.rows, life.features, equal_nan=True)
    few = whole.thinned(100.0)
    assert len(few) == np.unique(np.floor(life.cycles / 100)).size and (np.diff(np.floor(few.cycle / 100)) >= 1).all()
