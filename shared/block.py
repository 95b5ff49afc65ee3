"""Samples of one pack in columns of scaled integers: the form in which they are stored, sent and written to tables.

A Layout says which columns there are; `pack_row` and `samples` go between a Sample and its row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.fields import (
    BALANCING_WORD_BITS,
    BY_NAME,
    CELL_V,
    FLOAT32,
    INT_MAX,
    NULL,
    SCALARS,
    STATES,
    TEMP_C,
    FieldSpec,
    Resolution,
    resolution,
)
from shared.records import Sample

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CELL_STEP: Final = resolution(CELL_V.step)
TEMP_STEP: Final = resolution(TEMP_C.step)
NO_TIME: Final = -(2**63)
"""Stands for None in `t_ns` columns."""
_WORD_MASK: Final = (1 << BALANCING_WORD_BITS) - 1
_EXTRA_LIMIT: Final = 3.4e38


@dataclass(frozen=True, slots=True)
class Extra:
    """A further mapped signal: its name, its declared unit, its resolution (FLOAT32 = none declared)."""

    name: str
    unit: str = ""
    step: Resolution = FLOAT32


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a row: its name (`cell_v[3]` for arrays), its step, and the values that are possible."""

    name: str
    step: Resolution
    lo: float
    hi: float
    kind: str = "float"


@dataclass(frozen=True)
class Layout:
    """Which columns a pack's samples have. Equal layouts make equal rows; hashable."""

    scalars: tuple[tuple[str, Resolution], ...] = ()
    cells: int = 0
    cell_step: Resolution = CELL_STEP
    temps: int = 0
    temp_step: Resolution = TEMP_STEP
    balancing_words: int = 0
    extras: tuple[Extra, ...] = ()

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:  # a layout is looked up far more often than it is made
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    @cached_property
    def spanned(self) -> tuple[int, ...]:
        """Positions among the scalars of those whose minimum and maximum travel too."""
        return tuple(i for i, (name, _) in enumerate(self.scalars) if BY_NAME[name].spans)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """All columns in the order of a row: scalars, min/max pairs, balancing words, extras, cells, temperatures."""
        columns = [_scalar_column(BY_NAME[name], step) for name, step in self.scalars]
        for i in self.spanned:
            base = columns[i]
            columns += [Column(f"{base.name}_{end}", base.step, base.lo, base.hi) for end in ("min", "max")]
        one = Resolution(1, 0)
        columns += [Column(f"balancing#{i}", one, 0, _WORD_MASK, "bits") for i in range(self.balancing_words)]
        columns += [Column(f"extra.{e.name}", e.step, -_EXTRA_LIMIT, _EXTRA_LIMIT) for e in self.extras]
        columns += [Column(f"cell_v[{i}]", self.cell_step, CELL_V.lo, CELL_V.hi) for i in range(self.cells)]
        columns += [Column(f"temp_c[{i}]", self.temp_step, TEMP_C.lo, TEMP_C.hi) for i in range(self.temps)]
        return tuple(columns)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Column name -> its position in a row."""
        return {column.name: i for i, column in enumerate(self.columns)}

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """Where the groups stand in a row: `scalars spans balancing extras cells temps`."""
        sizes = {
            "scalars": len(self.scalars),
            "spans": 2 * len(self.spanned),
            "balancing": self.balancing_words,
            "extras": len(self.extras),
            "cells": self.cells,
            "temps": self.temps,
        }
        slices, at = {}, 0
        for name, size in sizes.items():
            slices[name] = slice(at, at + size)
            at += size
        return slices

    @property
    def width(self) -> int:
        """The number of columns of a row."""
        return len(self.columns)

    @cached_property
    def limits(self) -> tuple[Ints, npt.NDArray[np.uint64]]:
        """(lowest possible scaled integer, distance from it to the highest) of each column, shape (width, 1)."""
        lo = np.array([_limit(column, "lo") for column in self.columns], np.int64).reshape(-1, 1)
        hi = np.array([_limit(column, "hi") for column in self.columns], np.int64).reshape(-1, 1)
        return lo, (hi - lo).view(np.uint64)

    @cached_property
    def float32(self) -> npt.NDArray[np.intp]:
        """Positions of the columns that hold bit patterns of float32."""
        return np.flatnonzero([column.step == FLOAT32 for column in self.columns])

    @cached_property
    def _scale(self) -> tuple[Floats, Floats]:
        steps = [column.step for column in self.columns]
        mantissa = np.array([step.mantissa for step in steps], np.float64).reshape(-1, 1)
        divisor = np.array([10.0**step.exponent for step in steps], np.float64).reshape(-1, 1)
        return mantissa, divisor

    def floats(self, rows: Ints, at: slice = slice(None), *, complete: bool = False) -> Floats:
        """The values of scaled integers (width, n) of the columns `at` as float64, correctly rounded; NaN for NULL.

        complete: it is known that there is no NULL.
        """
        mantissa, divisor = self._scale
        values = rows * mantissa[at]
        values /= divisor[at]
        bits = np.flatnonzero(mantissa[at, 0] == 0)
        if bits.size:
            values[bits] = rows[bits].astype(np.int32).view(np.float32)
        if not complete:
            values[rows == NULL] = np.nan
        return values


def _scalar_column(spec: FieldSpec, step: Resolution) -> Column:
    return Column(spec.name, step, spec.lo, spec.hi, spec.kind)


def _limit(column: Column, bound: str) -> int:
    if column.step == FLOAT32:
        return NULL + 1 if bound == "lo" else INT_MAX
    ratio: float = 10.0**column.step.exponent / column.step.mantissa
    if bound == "lo":
        return max(math.ceil(column.lo * ratio - 1e-6), NULL + 1)
    return min(math.floor(column.hi * ratio + 1e-6), INT_MAX)


@dataclass(frozen=True, slots=True, eq=False)
class SampleBlock:
    """Samples of one pack in columns; n = len(seq) >= 1, seq strictly ascending.

    rows: scaled integers, int64 (layout.width, n), NULL = None. t_ns: NO_TIME = None.
    qualities[quality_index[k]] and alarms[alarm_index[k]] belong to row k.
    """

    pack_id: str
    layout: Layout
    seq: Ints
    mono_ns: Ints
    t_ns: Ints
    rows: Ints
    quality_index: Ints
    alarm_index: Ints
    qualities: tuple[Mapping[str, str], ...] = ({},)
    alarms: tuple[tuple[str, ...], ...] = ((),)

    def __len__(self) -> int:
        return len(self.seq)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> SampleBlock:
        """The chosen rows (boolean mask or ascending positions) as a block."""
        return SampleBlock(
            self.pack_id,
            self.layout,
            self.seq[chosen],
            self.mono_ns[chosen],
            self.t_ns[chosen],
            self.rows[:, chosen],
            self.quality_index[chosen],
            self.alarm_index[chosen],
            self.qualities,
            self.alarms,
        )

    def dicts(self) -> Iterator[dict[str, Any]]:
        """Each row by Sample's names with plain values, as JSON shows it; extras and arrays included."""
        layout, at = self.layout, self.layout.slices
        floats = layout.floats(self.rows)
        plain = floats.astype(np.object_)
        plain[np.isnan(floats)] = None
        names = [column.name for column in layout.columns[: at["balancing"].start]]
        decoders = [_PLAIN.get(column.kind) for column in layout.columns[: len(names)]]
        for k, row in enumerate(plain.T.tolist()):
            record: dict[str, Any] = {
                "pack_id": self.pack_id,
                "seq": int(self.seq[k]),
                "mono_ns": int(self.mono_ns[k]),
                "t_ns": None if self.t_ns[k] == NO_TIME else int(self.t_ns[k]),
            }
            for name, value, decoder in zip(names, row, decoders, strict=False):
                record[name] = decoder(value) if decoder and value is not None else value
            if layout.balancing_words:
                record["balancing"] = _bits(self.rows[at["balancing"], k].tolist())
            record["cell_v"] = row[at["cells"]]
            record["temp_c"] = row[at["temps"]]
            record["alarms"] = list(self.alarms[self.alarm_index[k]])
            record["quality"] = dict(self.qualities[self.quality_index[k]])
            record["extra"] = {e.name: v for e, v in zip(layout.extras, row[at["extras"]], strict=True)}
            yield record

    def samples(self) -> Iterator[Sample]:
        """Each row as a Sample."""
        for record in self.dicts():
            for name in ("cell_v", "temp_c", "alarms"):
                record[name] = tuple(record[name])
            yield Sample(**record)


_PLAIN: Final[dict[str, Any]] = {"state": lambda n: STATES[int(n)], "bool": bool}


def _bits(words: Sequence[int]) -> int | None:
    if NULL in words:
        return None
    return sum(word << (i * BALANCING_WORD_BITS) for i, word in enumerate(words))


def scaled(value: float, step: Resolution) -> int | None:
    """`value` as a scaled integer, rounded to the step once; None when no int32 can hold it or it is no number."""
    if not math.isfinite(value):
        return None
    if step == FLOAT32:
        if abs(value) > _EXTRA_LIMIT:
            return None
        bits = int(np.float32(value + 0.0).view(np.int32))
        return 0 if bits == NULL else bits  # -0.0 is 0
    n = round(value * 10**step.exponent / step.mantissa)
    return n if NULL < n <= INT_MAX else None


def pack_row(sample: Sample, layout: Layout) -> tuple[npt.NDArray[np.int32], dict[str, str]]:
    """A Sample as its row of scaled integers, and its quality with `out_of_range` added for what no number can hold."""
    row = np.full(layout.width, NULL, np.int32)
    quality = dict(sample.quality)
    at = layout.slices

    def put(i: int, value: float | None) -> None:
        column = layout.columns[i]
        if value is None:
            return
        n = scaled(value, column.step)
        if n is None or not column.lo <= value <= column.hi:
            quality.setdefault(column.name, "out_of_range" if math.isfinite(value) else "invalid")
        else:
            row[i] = n

    for i in range(at["spans"].stop):
        name = layout.columns[i].name
        value = getattr(sample, name)
        put(i, STATES.index(value) if name == "state" and value is not None else value)
    for name, values in (("extras", [sample.extra.get(e.name) for e in layout.extras]),
                         ("cells", sample.cell_v), ("temps", sample.temp_c)):  # fmt: skip
        for i, value in enumerate(values):
            put(at[name].start + i, value)
    if sample.balancing is not None and layout.balancing_words:
        words = [sample.balancing >> (i * BALANCING_WORD_BITS) & _WORD_MASK for i in range(layout.balancing_words)]
        row[at["balancing"]] = words
    return row, quality


def layout_of(sample: Sample, steps: Mapping[str, Resolution], extras: Sequence[Extra] = ()) -> Layout:
    """The Layout that holds just what `sample` has; `steps` overrides the table's resolutions by field name."""
    present = [spec for spec in SCALARS if any(getattr(sample, name) is not None for name in spec.names)]
    top = sample.balancing.bit_length() if sample.balancing is not None else 0
    return Layout(
        scalars=tuple((spec.name, steps.get(spec.name, resolution(spec.step))) for spec in present),
        cells=len(sample.cell_v),
        cell_step=steps.get("cell_v", CELL_STEP),
        temps=len(sample.temp_c),
        temp_step=steps.get("temp_c", TEMP_STEP),
        balancing_words=0 if sample.balancing is None else max(1, -(-top // BALANCING_WORD_BITS)),
        extras=tuple(extras),
    )


def union_layout(layouts: Sequence[Layout]) -> Layout:
    """The smallest Layout that holds the rows of all of them; of a field's resolutions the first."""
    scalars = {name: step for layout in layouts for name, step in layout.scalars}
    return Layout(
        scalars=tuple((spec.name, scalars[spec.name]) for spec in SCALARS if spec.name in scalars),
        cells=max(layout.cells for layout in layouts),
        cell_step=layouts[0].cell_step,
        temps=max(layout.temps for layout in layouts),
        temp_step=layouts[0].temp_step,
        balancing_words=max(layout.balancing_words for layout in layouts),
        extras=tuple({extra.name: extra for layout in layouts for extra in layout.extras}.values()),
    )


def block_of(  # noqa: PLR0913, PLR0917 - one argument per stored column
    pack_id: str,
    layout: Layout,
    seq: Sequence[int],
    mono_ns: Sequence[int],
    t_ns: Sequence[int | None],
    bodies: bytes,
    quality: Sequence[Mapping[str, str] | None],
    alarms: Sequence[tuple[str, ...]],
) -> SampleBlock:
    """A block from stored rows: `bodies` = the int32 rows (little-endian) one after another."""
    rows = np.frombuffer(bodies, "<i4").reshape(len(seq), layout.width).T.astype(np.int64)
    qualities: dict[tuple[tuple[str, str], ...], int] = {(): 0}
    alarm_sets: dict[tuple[str, ...], int] = {(): 0}
    quality_index = [qualities.setdefault(tuple((q or {}).items()), len(qualities)) for q in quality]
    alarm_index = [alarm_sets.setdefault(a, len(alarm_sets)) for a in alarms]
    return SampleBlock(
        pack_id,
        layout,
        np.array(seq, np.int64),
        np.array(mono_ns, np.int64),
        np.array([NO_TIME if t is None else t for t in t_ns], np.int64),
        rows,
        np.array(quality_index, np.int64),
        np.array(alarm_index, np.int64),
        tuple(dict(q) for q in qualities),
        tuple(alarm_sets),
    )
