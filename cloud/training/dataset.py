"""Rows to learn from: features of packs over their lives, and how long each still lasted. Whole packs stay together."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_bridge import lives
from shared.errors import ConfigError
from shared.feature_table import NAMES, TABLE, FeatureSpec

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

EVERY_CYCLES: Final = 25.0
"""Rows of one life that are learned from lie so far apart: neighbours say the same."""
PACKS: Final = 1000
"""Simulated packs to learn from, if nothing else is said."""
PACKS_PER_LAW: Final = 10
LAW_SHARE: Final = 0.2
"""How far each parameter of the ageing law may be off: nobody knows a real fleet's law better."""
_LABELS: Final = ("rul_cycles", "eol_100")


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """n rows. rows: float64[n, F], NaN = no estimate; pack: which of `packs` a row is of; labels NaN = not known."""

    table: tuple[FeatureSpec, ...]
    packs: tuple[str, ...]
    pack: Ints
    cycle: Floats
    rows: Floats
    rul_cycles: Floats
    eol_100: Floats
    simulated: bool = False

    def __len__(self) -> int:
        return len(self.cycle)

    def take(self, chosen: npt.NDArray[np.bool_] | Ints) -> Dataset:
        """The chosen rows; packs keep their numbers."""
        return replace(
            self,
            pack=self.pack[chosen],
            cycle=self.cycle[chosen],
            rows=self.rows[chosen],
            rul_cycles=self.rul_cycles[chosen],
            eol_100=self.eol_100[chosen],
        )

    def of_packs(self, numbers: Sequence[int] | Ints) -> Dataset:
        """All rows of these packs."""
        return self.take(np.isin(self.pack, np.asarray(numbers)))

    def labelled(self) -> Dataset:
        """The rows before the end of packs whose end is known."""
        return self.take(np.isfinite(self.rul_cycles) & (self.rul_cycles > 0))

    def thinned(self, every_cycles: float = EVERY_CYCLES) -> Dataset:
        """The first row of each pack in every so many cycles. Rows must be in the order of pack and cycle."""
        place = np.floor(self.cycle / every_cycles)
        return self.take(np.diff(self.pack, prepend=-1).astype(np.bool_) | np.diff(place, prepend=-1).astype(np.bool_))

    def known_packs(self) -> Ints:
        """The packs that have rows here, ascending."""
        return np.unique(self.pack)

    def without(self, *names: str) -> Dataset:
        """The same with these features never known."""
        rows = self.rows.copy()
        rows[:, [i for i, spec in enumerate(self.table) if spec.name in names]] = np.nan
        return replace(self, rows=rows)

    def digest(self) -> str:
        """sha256 of all that is learned from."""
        told = hashlib.sha256("\n".join(self.packs).encode())
        for column in (self.pack.astype(np.int64), self.cycle, self.rows, self.rul_cycles, self.eol_100):
            told.update(np.ascontiguousarray(column).tobytes())
        return told.hexdigest()


def joined(parts: Sequence[Dataset]) -> Dataset:
    """The rows of all; packs of the same name in two parts are two packs."""
    shift, packs = 0, []
    for part in parts:
        packs.append(part.pack + shift)
        shift += len(part.packs)
    return Dataset(
        table=parts[0].table,
        packs=tuple(name for part in parts for name in part.packs),
        pack=np.concatenate(packs),
        cycle=np.concatenate([part.cycle for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        rul_cycles=np.concatenate([part.rul_cycles for part in parts]),
        eol_100=np.concatenate([part.eol_100 for part in parts]),
        simulated=any(part.simulated for part in parts),
    )


def simulated(
    packs: int, seed: int, law: lives.Law | None = None, every_cycles: float | None = EVERY_CYCLES
) -> Dataset:
    """Lives of `firmware_bridge lives`, under one law, or (None) under many that differ by up to LAW_SHARE.

    every_cycles: see `thinned`; None = every row.
    """
    return of_lives(_lived(packs, seed) if law is None else lives.each(packs, seed, law), every_cycles)


def _lived(packs: int, seed: int) -> Iterator[lives.Life]:
    for group, first in enumerate(range(0, packs, PACKS_PER_LAW)):
        own = int(np.random.SeedSequence([seed, group]).generate_state(1)[0])
        together = min(PACKS_PER_LAW, packs - first)
        for number, life in enumerate(lives.each(together, own, lives.Law().drawn(own, LAW_SHARE)), first + 1):
            yield replace(life, pack_id=f"LIFE_{number:04d}")


def of_lives(found: Iterable[lives.Life], every_cycles: float | None = EVERY_CYCLES) -> Dataset:
    """Simulated lives as rows."""
    parts = []
    for life in found:
        one = Dataset(
            table=TABLE,
            packs=(life.pack_id,),
            pack=np.zeros(len(life), np.intp),
            cycle=life.cycles,
            rows=life.features,
            rul_cycles=life.rul_cycles,
            eol_100=life.eol_100,
            simulated=True,
        )
        parts.append(one if every_cycles is None else one.thinned(every_cycles))
    return joined(parts)


# --- a folder of tables ----------------------------------------------------------------------------------------------


def from_folder(folder: Path) -> Dataset:
    """The `*.csv` and `*.parquet` of a folder: pack_id, cycle, the features by name, rul_cycles, eol_100.

    An empty label = not known. ConfigError, one sentence, for what cannot be learned from.
    """
    files = sorted([*folder.glob("*.csv"), *folder.glob("*.parquet")]) if folder.is_dir() else []
    if not files:
        raise ConfigError(f"{folder} has no *.csv or *.parquet; `firmware_bridge lives -o {folder}` makes some")
    columns: dict[str, list[Any]] = {name: [] for name in ("pack_id", "cycle", *NAMES, *_LABELS)}
    for file in files:
        table = _read_csv(file) if file.suffix == ".csv" else _read_parquet(file)
        absent = [name for name in columns if name not in table]
        if absent:
            raise ConfigError(f"{file}: the column{'s' * (len(absent) > 1)} {', '.join(absent)} missing; add it")
        for name, values in columns.items():
            values.extend(table[name])
    packs, pack = np.unique(np.array(columns.pop("pack_id"), np.str_), return_inverse=True)
    numbers = {name: _numbers(name, values, folder) for name, values in columns.items()}
    order = np.lexsort((numbers["cycle"], pack))
    found = Dataset(
        table=TABLE,
        packs=tuple(packs.tolist()),
        pack=pack.astype(np.intp),
        cycle=numbers["cycle"],
        rows=np.stack([numbers[name] for name in NAMES], axis=1),
        rul_cycles=numbers["rul_cycles"],
        eol_100=numbers["eol_100"],
    )
    return found.take(order)


def _read_csv(file: Path) -> dict[str, list[str]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            rows = csv.reader(text)
            head = next(rows, [])
            table = list(rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read as CSV: {error}") from error
    for number, row in enumerate(table, 2):
        if len(row) != len(head):
            raise ConfigError(f"{file} line {number} has {len(row)} fields, the first line has {len(head)}")
    return dict(zip(head, map(list, zip(*table, strict=True)), strict=True)) if table else {name: [] for name in head}


def _read_parquet(file: Path) -> dict[str, list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{file} cannot be read as Parquet: {' '.join(str(error).split())[:200]}") from error
    return {name: table[name].to_pylist() for name in table.column_names}


def _numbers(name: str, values: list[Any], folder: Path) -> Floats:
    try:
        return np.array([np.nan if value in ("", None) else float(value) for value in values], np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{folder}: the column {name} holds what is no number: {error}") from None
