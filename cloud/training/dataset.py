"""Rows to learn from: features of packs over their lives, and how long each still lasted. Whole packs stay together."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
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

LEAST_PACKS: Final = 20
ROWS_PER_PACK: Final = 60
"""Rows of one life that are learned from, evenly over it: neighbours say the same, and no pack counts more."""
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

    def thinned(self, most: int = ROWS_PER_PACK) -> Dataset:
        """At most so many rows of each pack, evenly over its record."""
        kept = []
        for number in np.unique(self.pack):
            places = np.flatnonzero(self.pack == number)
            kept.append(places[np.unique(np.linspace(0, places.size - 1, most).astype(np.intp))])
        return self.take(np.sort(np.concatenate(kept))) if kept else self

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


def simulated(packs: int, seed: int, law: lives.Law | None = None, rows: int | None = ROWS_PER_PACK) -> Dataset:
    """Lives of `firmware_bridge lives`; rows: at most so many a pack, None = all."""
    return of_lives(lives.each(packs, seed, law), rows)


def of_lives(found: Iterator[lives.Life] | Sequence[lives.Life], rows: int | None = ROWS_PER_PACK) -> Dataset:
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
        parts.append(one if rows is None else one.thinned(rows))
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


# --- what cannot be learned from -------------------------------------------------------------------------------------


def require_sound(data: Dataset, *, least_packs: int = LEAST_PACKS) -> Dataset:
    """The labelled rows. ConfigError, one sentence, when nothing honest can be learned from them."""
    if np.isinf(data.rows).any():
        raise ConfigError("a feature is infinite; leave a value empty where there is no estimate")
    known = data.labelled()
    if not len(known) or not np.isfinite(known.rows).any():
        what = "no row says how many cycles were left" if not len(known) else "no feature has a value in any row"
        raise ConfigError(f"{what}; there is nothing to learn from")
    _require_units(known)
    packs = known.known_packs().size
    if packs < least_packs:
        raise ConfigError(f"only {packs} packs have a known end; at least {least_packs} are needed")
    classes = Counter(known.eol_100[np.isfinite(known.eol_100)].tolist())
    if set(classes) - {0.0, 1.0}:
        raise ConfigError("eol_100 holds something other than 0, 1 and empty")
    if len(classes) < 2:
        raise ConfigError("eol_100 is the same in every row; both packs near their end and far from it are needed")
    return known


def _require_units(data: Dataset) -> None:
    for spec, column in zip(data.table, data.rows.T, strict=True):
        seen = column[np.isfinite(column)]
        if seen.size and not spec.lo <= float(np.median(seen)) <= spec.hi:
            raise ConfigError(
                f"{spec.name}: the median {np.median(seen):g} lies outside {spec.lo:g} .. {spec.hi:g} {spec.unit}; "
                "is it in another unit?"
            )
    if float(np.median(data.rul_cycles)) > 20_000:
        raise ConfigError(f"rul_cycles: the median is {np.median(data.rul_cycles):g}; is it in cycles?")
