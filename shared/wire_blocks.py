"""Blocks of samples <-> their message (`wire.proto`): the columns become planes; many blocks are read at once.

A car that is watched sends one Sample a message, another one a minute of them. Either alone costs a hundred calls of
numpy on little arrays; blocks of one Layout and size share them, whoever sent them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from shared import planes
from shared.block import NO_TIME, Ints, Layout, SampleBlock
from shared.errors import WireError
from shared.fields import ALARMS, NULL, QUALITY_KEY, QUALITY_REASONS
from shared.wire_pb2 import Block as PbBlock

HEAD_ROWS: Final = 5  # seq step, mono step, t - mono, quality index, alarm index
MAX_TIME: Final = 2**62
_FLOAT32_EXPONENT: Final = 0x7F800000  # all ones: infinity or not a number
_MEDIAN_FROM_CELLS: Final = 3
_TOGETHER_VALUES: Final = 1 << 17
"""Values that are read at once: a MiB, which a processor has near at hand."""

_Asked = tuple[PbBlock, Layout]


def plane_rows(layout: Layout) -> int:
    """How many rows of planes a Layout has."""
    return HEAD_ROWS + layout.width + (1 if layout.cells >= _MEDIAN_FROM_CELLS else 0)


def put_block(message: PbBlock, block: SampleBlock, layout_index: int) -> None:
    """Fills the message with the block, whose Layout is the Batch's `layout_index`th."""
    rows = len(block)
    unit = math.gcd(int(np.gcd.reduce(block.mono_ns)), 1_000_000_000) or 1
    mono = block.mono_ns // unit
    message.pack_id = block.pack_id
    message.layout = layout_index
    message.rows = rows
    message.first_seq, message.first_mono, message.mono_unit_ns = int(block.seq[0]), int(mono[0]), unit
    matrix = np.zeros((plane_rows(block.layout), rows), np.int64)
    if rows > 1:
        message.seq_step, message.mono_step = int(block.seq[1] - block.seq[0]), int(mono[1] - mono[0])
        np.subtract(block.seq[1:] - message.seq_step, block.seq[:-1], out=matrix[0, 1:])
        np.subtract(mono[1:] - message.mono_step, mono[:-1], out=matrix[1, 1:])
    undated = block.t_ns == NO_TIME
    offset = block.t_ns - block.mono_ns
    message.t_offset_ns = int(offset[undated.argmin()]) if not undated.all() else 0
    matrix[2] = np.where(undated, 0, offset - message.t_offset_ns)
    matrix[3], matrix[4] = block.quality_index, block.alarm_index
    data = matrix[HEAD_ROWS : HEAD_ROWS + block.layout.width]
    data[:] = block.rows
    missing = block.rows == NULL
    null: planes.Mask | None = None
    if undated.any() or missing.any():
        null = np.zeros(matrix.shape, np.bool_)
        null[2] = undated
        null[HEAD_ROWS : HEAD_ROWS + block.layout.width] = missing
    _fold(matrix, missing if null is not None else None, block.layout)
    slices = block.layout.slices
    message.planes = planes.encode(matrix, null, [_under_head(at) for at in (slices["cells"], slices["temps"])])
    for quality in block.qualities[1:]:
        reasons = message.qualities.add().reasons
        for key, reason in quality.items():
            reasons[key] = QUALITY_REASONS.index(reason)
    for codes in block.alarms[1:]:
        message.alarms.add(codes=codes)


def read_blocks(asked: Sequence[_Asked]) -> list[SampleBlock | WireError]:
    """For each message, with the Layout that it names, its block or why it is none; 1 <= message.rows <= MAX_ROWS."""
    found: dict[int, SampleBlock | WireError] = {}
    alike: dict[tuple[int, int], list[int]] = {}
    for i, (message, layout) in enumerate(asked):
        alike.setdefault((id(layout), message.rows), []).append(i)
    for group in alike.values():
        message, layout = asked[group[0]]
        together = max(1, _TOGETHER_VALUES // (message.rows * plane_rows(layout)))
        for at in range(0, len(group), together):
            chosen = group[at : at + together]
            found.update(zip(chosen, _read_or_say([asked[i][0] for i in chosen], layout), strict=True))
    return [found[i] for i in range(len(asked))]


def _read_or_say(messages: Sequence[PbBlock], layout: Layout) -> Sequence[SampleBlock | WireError]:
    try:
        return _read(messages, layout)
    except WireError as error:
        if len(messages) == 1:
            return [error]
        return [_read_or_say([message], layout)[0] for message in messages]


def _read(messages: Sequence[PbBlock], layout: Layout) -> list[SampleBlock]:
    """All of them, or the WireError of one."""
    rows, columns = messages[0].rows, plane_rows(layout)
    heads = [_head(message) for message in messages]
    raws = [planes.decompress(message.planes, planes.most_bytes(columns, rows)) for message in messages]
    matrix, null = planes.decode_many(raws, columns, rows)
    end = HEAD_ROWS + layout.width
    if null is not None and (null[:, [0, 1, 3, 4]].any() or null[:, end:].any()):
        raise WireError("malformed", "a block without seq or mono_ns")
    missing = null[:, HEAD_ROWS:end] if null is not None else None
    data = _unfolded(matrix, missing, layout)
    _require_possible(data, missing, layout, messages)
    seq, mono_ns, t_ns = _positions(np.array(heads).T[:, :, None], matrix[:, :2])
    noted = matrix[:, 2:HEAD_ROWS].any(axis=(1, 2))
    if noted.any():  # rarely: the clock was set, something is missing, an alarm stands
        if np.abs(matrix[:, 2]).max() >= MAX_TIME:
            raise WireError("malformed", "t_ns is out of range")
        t_ns += matrix[:, 2]
        for k in np.flatnonzero(noted).tolist():
            _require_indices(matrix[k, 3], len(messages[k].qualities), "quality")
            _require_indices(matrix[k, 4], len(messages[k].alarms), "alarm")
    if null is not None:
        t_ns[null[:, 2]] = NO_TIME
    return [
        SampleBlock(
            message.pack_id,
            layout,
            seq[k],
            mono_ns[k],
            t_ns[k],
            data[k],
            matrix[k, 3],
            matrix[k, 4],
            ({}, *(_quality(dict(q.reasons)) for q in message.qualities)),
            ((), *(_alarms(tuple(a.codes)) for a in message.alarms)),
        )
        for k, message in enumerate(messages)
    ]


def _require_possible(data: Ints, missing: planes.Mask | None, layout: Layout, messages: Sequence[PbBlock]) -> None:
    """Also makes NULL of what is missing."""
    low, span = layout.limits
    impossible = (data - low).view(np.uint64) > span
    bits = layout.float32
    if bits.size:
        impossible[:, bits] |= data[:, bits] & _FLOAT32_EXPONENT == _FLOAT32_EXPONENT
    if missing is not None:
        impossible &= ~missing
        np.copyto(data, NULL, where=missing)
    if impossible.any():
        block, column, _ = np.argwhere(impossible)[0].tolist()
        name = layout.columns[column].name
        raise WireError(
            "malformed", f"{name} of {messages[block].pack_id} holds an impossible value or is not a number"
        )


def _head(message: PbBlock) -> tuple[int, ...]:
    """(first_seq, first_mono, seq_step, mono_step, t_offset_ns, mono_unit_ns)."""
    firsts = (message.first_seq, message.first_mono, message.seq_step, message.mono_step, message.t_offset_ns)
    unit_ns = message.mono_unit_ns
    if not 1 <= unit_ns <= 1_000_000_000 or max(firsts) >= MAX_TIME or firsts[-1] <= -MAX_TIME:
        raise WireError("malformed", "a block with an impossible first seq or mono_ns")
    return (*firsts, unit_ns)


def _positions(heads: Ints, steps: Ints) -> tuple[Ints, Ints, Ints]:
    """seq, mono_ns and what t_ns mostly is, of each row, from the steps: distances from the first step.

    heads: (6, n, 1), as `_head` has them; steps: (n, 2, rows). They ascend, or `check` refuses them.
    """
    first_seq, first_mono, seq_step, mono_step, offset_ns, unit_ns = heads
    seq, mono = steps[:, 0], steps[:, 1]
    seq[:, 1:] += seq_step
    mono[:, 1:] += mono_step
    seq[:, :1], mono[:, :1] = first_seq, first_mono
    seq, mono = seq.cumsum(axis=1), mono.cumsum(axis=1)
    last = seq[:, -1].max() < MAX_TIME and (mono[:, -1:] < MAX_TIME // unit_ns).all()
    if seq[:, 0].min() < 0 or mono[:, 0].min() < 0 or not last:
        raise WireError("malformed", "seq or mono_ns runs out of range")
    mono_ns = mono * unit_ns
    return seq, mono_ns, mono_ns + offset_ns


def _under_head(at: slice) -> slice:
    return slice(HEAD_ROWS + at.start, HEAD_ROWS + at.stop)


def _fold(matrix: Ints, missing: planes.Mask | None, layout: Layout) -> None:
    """Makes columns small: a minimum becomes value - min, a maximum max - value, a cell its distance to the median."""
    data, at = matrix[HEAD_ROWS:], layout.slices
    for k, position in enumerate(layout.spanned):
        low = at["spans"].start + 2 * k
        data[low] = data[position] - data[low]
        data[low + 1] -= data[position]
    if layout.cells >= _MEDIAN_FROM_CELLS:
        cells = present = data[at["cells"]]
        if missing is not None:
            absent = missing[at["cells"]]
            present = np.where(absent, cells.max(axis=0), cells)
            present[:, absent.all(axis=0)] = 0
        median = np.partition(present, layout.cells // 2, axis=0)[layout.cells // 2]
        matrix[-1] = median
        cells -= median


def _unfolded(matrix: Ints, missing: planes.Mask | None, layout: Layout) -> Ints:
    """The scaled integers (n, layout.width, rows) again, in their place in the matrices."""
    data, at = matrix[:, HEAD_ROWS : HEAD_ROWS + layout.width], layout.slices
    if layout.cells >= _MEDIAN_FROM_CELLS:
        data[:, at["cells"]] += matrix[:, -1:]
    spanned = list(layout.spanned)
    if spanned:
        base = data[:, spanned]
        if missing is not None:
            base[missing[:, spanned]] = NULL
        spans = data[:, at["spans"]]
        np.subtract(base, spans[:, ::2], out=spans[:, ::2])
        spans[:, 1::2] += base
    return data


def _require_indices(column: Ints, count: int, what: str) -> None:
    if column.min() < 0 or column.max() > count:
        raise WireError("malformed", f"a row points to {what} {int(column.max())}, there are {count}")


def _quality(reasons: dict[str, int]) -> dict[str, str]:
    for key, index in reasons.items():
        if index >= len(QUALITY_REASONS) or not QUALITY_KEY.fullmatch(key):
            raise WireError("malformed", f"quality {key[:80]!r} with reason {index} is unknown")
    return {key: QUALITY_REASONS[index] for key, index in reasons.items()}


def _alarms(codes: tuple[str, ...]) -> tuple[str, ...]:
    for code in codes:
        if code not in ALARMS:
            raise WireError("malformed", f"alarm {code[:80]!r} is not in the list")
    return codes
