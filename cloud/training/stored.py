"""The database's Sessions as rows to learn from; a pack is labelled only where an `end_of_life` Event says its end."""

from __future__ import annotations

from itertools import groupby
from typing import Final

import numpy as np

from cloud import db
from cloud.config import Config
from cloud.db import queries_training
from cloud.training.dataset import Dataset, joined
from shared.feature_table import TABLE
from shared.features import life_columns
from shared.life import INPUTS

NEAR_CYCLES: Final = 100.0


def from_database(config: Config) -> tuple[Dataset | None, tuple[str, ...]]:
    """(rows of every pack with Sessions, None = there are none; chemistries of those whose end is known)."""
    with db.connect(config.database, "packtwin-train") as conn:
        rows = queries_training.sessions(conn)
        ends = queries_training.ends(conn)
        chemistries = queries_training.chemistries(conn)
    parts = [_life(name, list(found), ends.get(name)) for name, found in groupby(rows, lambda row: row["pack_id"])]
    known = {chemistries[part.packs[0]] for part in parts if part.packs[0] in ends and part.packs[0] in chemistries}
    return joined(parts) if parts else None, tuple(sorted(known))


def _life(name: str, rows: list[dict[str, object]], end_cycles: float | None) -> Dataset:
    columns = {key: np.array([row[key] for row in rows], np.float64) for key in INPUTS}
    cycle = columns["cycles"]
    rul = np.full(cycle.shape, np.nan) if end_cycles is None else end_cycles - cycle
    one = Dataset(
        table=TABLE,
        packs=(name,),
        pack=np.zeros(len(rows), np.intp),
        cycle=cycle,
        rows=life_columns(columns),
        rul_cycles=rul,
        eol_100=np.where(np.isnan(rul), np.nan, (rul <= NEAR_CYCLES).astype(np.float64)),
        simulated=any(bool(row["simulated"]) for row in rows),
    )
    return one.take(np.isfinite(cycle))
