"""Champion against challenger, on frozen whole packs that neither has learned from."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from cloud.training import export, scores
from cloud.training.dataset import Dataset, Floats
from shared.bundle import OUTPUTS, Bundle, answer

_EVERY: Final = 5
_SHARES: Final = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Verdict:
    """scores: mean pinball loss [cycles] over packs, smaller is better; gain: by how much, with its 95 % interval."""

    better: bool
    champion: str | None
    champion_score: float | None
    challenger_score: float
    gain: float | None
    gain_lo: float | None
    gain_hi: float | None
    frozen_packs: int

    def as_json(self) -> dict[str, Any]:
        """For NAME-COUNTER.verdict.json."""
        return asdict(self)

    def sentence(self) -> str:
        """For a person."""
        if self.champion_score is None:
            return f"challenger {self.challenger_score:.1f} cycles; no champion to compare with"
        return (
            f"champion {self.champion} {self.champion_score:.1f}, challenger {self.challenger_score:.1f} cycles of "
            f"pinball loss on {self.frozen_packs} frozen packs (gain {self.gain:.2f}, 95 % {self.gain_lo:.2f} .. "
            f"{self.gain_hi:.2f})"
        )


def is_frozen(pack_id: str) -> bool:
    """Whether a pack is for judging only, for ever: one in five, by its name."""
    return hashlib.sha256(pack_id.encode()).digest()[0] % _EVERY == 0


def frozen(data: Dataset) -> tuple[Dataset, Dataset]:
    """(rows to learn from, rows to judge on)."""
    apart = np.array([is_frozen(name) for name in data.packs], np.bool_)[data.pack]
    return data.take(~apart), data.take(apart)


def said(bundle: Bundle, data: Dataset) -> tuple[Floats, Floats]:
    """What the bundle answers, as the edge would: (lo, middle, hi [cycles] float64[3, n], chance float64[n])."""
    rows = data.rows.astype(np.float32)
    raw = {name: export.run(bundle.onnx(name), rows) for name in OUTPUTS}
    answers = answer(bundle.manifest, raw, data.rows)
    told = np.array([(one.rul_cycles_lo, one.rul_cycles, one.rul_cycles_hi, one.p_eol_100) for one in answers]).T
    return told[:3], told[3]


def pinball(truth: Floats, quantiles: Floats) -> Floats:
    """Loss [cycles] of each row: it rewards a middle that is near and an interval that is as narrow as it can be."""
    over = truth - quantiles
    share = np.array(_SHARES)[:, None]
    loss: Floats = np.maximum(share * over, (share - 1) * over).sum(axis=0)
    return loss


def compare(champion: Bundle | None, challenger: Bundle, judged: Dataset) -> Verdict:
    """Better = surely better: the interval of the gain over packs lies above 0. No champion, or one of another table
    of features, loses."""
    ours = pinball(judged.rul_cycles, said(challenger, judged)[0])
    mine = float(scores.by_pack(ours, judged.pack).mean())
    packs = int(judged.known_packs().size)
    if champion is None or champion.manifest.feature_schema != challenger.manifest.feature_schema:
        return Verdict(True, None, None, mine, None, None, None, packs)
    theirs = pinball(judged.rul_cycles, said(champion, judged)[0])
    gain, lo, hi = scores.interval(scores.by_pack(theirs - ours, judged.pack))
    before = float(scores.by_pack(theirs, judged.pack).mean())
    return Verdict(lo > 0, champion.manifest.model_id, before, mine, gain, lo, hi, packs)
