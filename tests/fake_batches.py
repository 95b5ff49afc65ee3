"""Batches as a device would send them, built by numpy: plausible, seeded, of any size."""

from __future__ import annotations

import numpy as np

from shared.batch import Batch
from shared.block import NO_TIME, Layout, SampleBlock
from shared.fields import NULL, SCALARS, resolution

SECOND_NS = 1_000_000_000
T0_NS = 1_780_000_000 * SECOND_NS
"""A moment (2026-05-28) from which the tests count; their clock stands a day later."""
NOW_NS = T0_NS + 86_400 * SECOND_NS
SCALAR_NAMES = tuple(spec.name for spec in SCALARS)


def layout(cells: int = 96, temps: int = 16, names: tuple[str, ...] = SCALAR_NAMES) -> Layout:
    """A Layout with the table's resolutions."""
    steps = {spec.name: resolution(spec.step) for spec in SCALARS}
    return Layout(scalars=tuple((name, steps[name]) for name in names), cells=cells, temps=temps, balancing_words=4)


def block(
    pack_id: str,
    n: int,
    *,
    seq: int = 0,
    t_ns: int | None = T0_NS,
    every_ns: int = SECOND_NS,
    seed: int = 0,
    of: Layout | None = None,
) -> SampleBlock:
    """`n` samples of one pack, `every_ns` apart; t_ns None = undated."""
    of = of or layout()
    random = np.random.default_rng(seed)
    rows = np.zeros((of.width, n), np.int64)
    for i, column in enumerate(of.columns):
        low, high = max(column.lo, -50.0), min(column.hi, 400.0)
        steps = column.step.mantissa / 10**column.step.exponent if column.step.mantissa else 1.0
        if column.kind == "bits":
            rows[i] = random.integers(0, 2**30, n)
        else:
            rows[i] = random.integers(int(low / steps) + 1, int(high / steps) + 1 if high > low else 2, n)
    for k, position in enumerate(of.spanned):
        low_at = of.slices["spans"].start + 2 * k
        column = of.columns[position]
        scale = 10**column.step.exponent / column.step.mantissa
        least, most = int(np.ceil(column.lo * scale)), int(column.hi * scale)
        rows[low_at] = np.maximum(rows[position] - 3, least)
        rows[low_at + 1] = np.minimum(rows[position] + 3, most)
    mono_ns = 5 * SECOND_NS + (seq + np.arange(n)) * every_ns
    times = np.full(n, NO_TIME) if t_ns is None else t_ns + np.arange(n) * every_ns
    zeros = np.zeros(n, np.int64)
    return SampleBlock(pack_id, of, seq + np.arange(n), mono_ns, times, rows, zeros, zeros)


def with_nulls(original: SampleBlock, share: float, seed: int = 1) -> SampleBlock:
    """The block with this share of its values None, anywhere."""
    rows = original.rows.copy()
    rows[np.random.default_rng(seed).random(rows.shape) < share] = NULL
    return SampleBlock(
        original.pack_id, original.layout, original.seq, original.mono_ns, original.t_ns, rows,
        original.quality_index, original.alarm_index, original.qualities, original.alarms,
    )  # fmt: skip


def batch(device: str, *blocks: SampleBlock, boot: int = 7, **records: tuple[object, ...]) -> Batch:
    """A Batch of these blocks."""
    return Batch(device=device, boot=boot, blocks=blocks, **records)  # type: ignore[arg-type]
