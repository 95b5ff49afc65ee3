"""One training: rows in, a bundle with its card out. Judged on frozen packs, which it never learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from cloud.training import card, gate
from cloud.training.bundling import bundled
from cloud.training.conformal import FOLDS, calibrated, cross_fit
from cloud.training.dataset import Dataset
from cloud.training.fit import Recipe, fit
from cloud.training.judge import Judged, judged
from cloud.training.sound import require_sound
from shared import bundle as bundles
from shared.bundle import Bundle
from shared.errors import ConfigError

STEPS: Final = ("intervals", "models", "export", "judge")
_LEAST_FROZEN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to make. chemistry: of the packs that the model is for; licence: of the data."""

    name: str
    counter: int
    seed: int = 0
    chemistry: tuple[str, ...] = ("nmc",)
    licence: str = "unknown"
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The bundle's bytes, its card as JSON-able dict, the card's plots as SVG, and what the gate says."""

    body: bytes
    card: dict[str, Any]
    plots: dict[str, str]
    verdict: gate.Verdict


def train(
    data: Dataset, order: Order, champion: Bundle | None = None, told: Callable[[str], None] = lambda _: None
) -> Trained:
    """Trains on the labelled packs of `data` that are not frozen. ConfigError when nothing honest can be learned.

    told: is called before each of STEPS.
    """
    known = require_sound(data)
    learned, apart = gate.frozen(known.thinned())
    if apart.known_packs().size < _LEAST_FROZEN or len(np.unique(learned.eol_100)) < 2:
        raise ConfigError(f"too few of the {known.known_packs().size} packs can be kept apart for judging; add packs")
    told("intervals")
    crossed = cross_fit(learned, order.seed, order.recipe, FOLDS)
    conformal = calibrated(crossed.quantiles, learned.rul_cycles, learned.pack)
    told("models")
    models = fit(learned, order.seed, order.recipe)
    counts = _counts(data, known, learned, apart)

    def build(metrics: dict[str, Any]) -> bytes:
        return bundled(
            models,
            learned,
            conformal,
            name=order.name,
            counter=order.counter,
            chemistry=order.chemistry,
            licence=order.licence,
            metrics=metrics,
            seed=order.seed,
        )

    told("export")
    challenger = bundles.read(build({}))
    told("judge")
    quantiles, chance = gate.said(challenger, apart)
    found: Judged = judged(apart, quantiles, chance, learned)
    body = build(found.numbers() | {"packs_learned": counts["packs_learned"]})
    told_card = {
        "model_id": challenger.manifest.model_id,
        "counter": order.counter,
        "feature_schema": challenger.manifest.feature_schema,
        "chemistry": list(order.chemistry),
        "seed": order.seed,
        "conformal": conformal.as_manifest(),
        "bytes": len(body),
        "judged": found.as_json(),
        "data": counts | {"hash": learned.digest(), "licence": order.licence, "simulated": data.simulated},
    }
    verdict = gate.compare(champion, bundles.read(body), apart)
    return Trained(body, told_card, card.plots(apart, quantiles, chance), verdict)


def _counts(data: Dataset, known: Dataset, learned: Dataset, apart: Dataset) -> dict[str, int]:
    packs = int(data.known_packs().size)
    labelled = int(known.known_packs().size)
    return {
        "packs": packs,
        "packs_labelled": labelled,
        "packs_unlabelled": packs - labelled,
        "packs_learned": int(learned.known_packs().size),
        "packs_frozen": int(apart.known_packs().size),
        "rows_learned": len(learned),
    }
