"""Batch and Receipt <-> protobuf bytes (`wire.proto`). Encoding what was decoded gives the same records, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from google.protobuf.message import DecodeError

from shared import planes
from shared.batch import MAX_BODY_BYTES, MAX_COLUMNS, MAX_ROWS, MAX_VALUES, SCHEMA, Batch, check
from shared.block import CELL_STEP, NO_TIME, TEMP_STEP, Extra, Ints, Layout, SampleBlock
from shared.errors import WireError
from shared.fields import (
    ALARMS,
    BY_NAME,
    BY_NUMBER,
    CELL_V,
    EXTRA_NAME,
    MAX_CELLS,
    MAX_EXTRAS,
    MAX_TEMPS,
    MAX_UNIT_CHARS,
    NULL,
    QUALITY_KEY,
    QUALITY_REASONS,
    TEMP_C,
    Resolution,
    resolution,
)
from shared.records import Estimate, Event, Gap, Receipt, Rejected, Report, Session
from shared.wire_pb2 import Batch as PbBatch
from shared.wire_pb2 import Block as PbBlock
from shared.wire_pb2 import Layout as PbLayout
from shared.wire_pb2 import Receipt as PbReceipt

HEAD_ROWS: Final = 5  # seq step, mono step, t - mono, quality index, alarm index
MAX_TIME: Final = 2**62
_FLOAT32_EXPONENT: Final = 0x7F800000  # all ones: infinity or not a number
_MEDIAN_FROM_CELLS: Final = 3
_LEAST_COLUMNS: Final = 8


def encode_batch(batch: Batch) -> bytes:
    """The body of an upload."""
    message = PbBatch(schema=SCHEMA, device=batch.device, boot=batch.boot)
    layouts: list[Layout] = []
    for block in batch.blocks:
        if block.layout not in layouts:
            layouts.append(block.layout)
        _put_block(message.blocks.add(), block, layouts.index(block.layout))
    for layout in layouts:
        message.layouts.add().MergeFromString(encode_layout(layout))
    for estimate in batch.estimates:
        _put_record(message.estimates.add(), estimate, _ESTIMATE)
    for event in batch.events:
        _put_record(message.events.add(), event, _EVENT)
    for report in batch.reports:
        _put_record(message.reports.add(), report, _REPORT)
    for gap in batch.gaps:
        added = message.gaps.add()
        _put_record(added, gap, _GAP)
        for first, last in gap.stored:
            added.stored.add(first=first, last=last)
    for session in batch.sessions:
        _put_record(message.sessions.add(), session, _SESSION)
    return bytes(message.SerializeToString())


def decode_batch(body: bytes) -> Batch:
    """The Batch of an upload, fully validated; WireError with its reason otherwise."""
    if len(body) > MAX_BODY_BYTES:
        raise WireError("too_large", f"a body of {len(body)} bytes, at most {MAX_BODY_BYTES}")
    message = PbBatch()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise WireError("malformed", "the body is not a packtwin Batch") from error
    if message.schema != SCHEMA:
        raise WireError("unknown_schema", f"schema {message.schema} is not known here (known: {SCHEMA})")
    if (columns := sum(map(declared_columns, message.layouts))) > MAX_COLUMNS:
        raise WireError("too_large", f"layouts of {columns} columns in a batch, at most {MAX_COLUMNS}")
    layouts = [decode_layout(pb.SerializeToString(deterministic=True)) for pb in message.layouts]
    rows = values = notes = 0
    for block in message.blocks:
        if not 1 <= block.rows <= MAX_ROWS or block.layout >= len(layouts):
            raise WireError("malformed", f"a block of {block.rows} rows with layout {block.layout} of {len(layouts)}")
        rows += block.rows
        values += block.rows * plane_rows(layouts[block.layout])
        notes += len(block.qualities) + len(block.alarms)
    if max(rows, notes) > MAX_ROWS or values > MAX_VALUES:
        raise WireError("too_large", f"a batch of {rows} rows, {values} values; at most {MAX_ROWS}, {MAX_VALUES}")
    return check(
        Batch(
            device=message.device,
            boot=message.boot,
            blocks=tuple(_block(pb, layouts) for pb in message.blocks),
            estimates=tuple(Estimate(**_record(pb, _ESTIMATE)) for pb in message.estimates),
            events=tuple(Event(**_record(pb, _EVENT)) for pb in message.events),
            reports=tuple(Report(**_record(pb, _REPORT)) for pb in message.reports),
            gaps=tuple(
                Gap(**_record(pb, _GAP), stored=tuple((r.first, r.last) for r in pb.stored)) for pb in message.gaps
            ),
            sessions=tuple(Session(**_record(pb, _SESSION)) for pb in message.sessions),
        )
    )


def encode_receipt(receipt: Receipt) -> bytes:
    """The body of the answer."""
    message = PbReceipt(t_ns=receipt.t_ns, mode=receipt.mode)
    for first, last in receipt.accepted:
        message.accepted.add(first=first, last=last)
    for item in receipt.rejected:
        message.rejected.add(first=item.first, last=item.last, reason=item.reason)
    return bytes(message.SerializeToString())


def decode_receipt(body: bytes) -> Receipt:
    """The Receipt of an answer; WireError if it is none."""
    message = PbReceipt()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise WireError("malformed", "the answer is not a packtwin Receipt") from error
    return Receipt(
        accepted=tuple((r.first, r.last) for r in message.accepted),
        rejected=tuple(Rejected(r.first, r.last, r.reason) for r in message.rejected),
        t_ns=message.t_ns,
        mode=message.mode if message.HasField("mode") else None,
    )


@lru_cache(maxsize=512)
def encode_layout(layout: Layout) -> bytes:
    """A Layout alone, as the outbox keeps it."""
    message = PbLayout()
    arrays = (("cell_v", layout.cell_step), ("temp_c", layout.temp_step))
    message.scalars = bytes(BY_NAME[name].number for name, _ in layout.scalars)
    for name, step in (*layout.scalars, *arrays):
        if step != resolution(BY_NAME[name].step):
            message.steps.extend((BY_NAME[name].number, step.mantissa, step.exponent))
    message.cells, message.temps, message.balancing_words = layout.cells, layout.temps, layout.balancing_words
    for i, extra in enumerate(layout.extras):
        message.extra_names.append(extra.name)
        message.extra_steps.extend((extra.step.mantissa, extra.step.exponent))
        if extra.unit:
            message.extra_units[i] = extra.unit
    return bytes(message.SerializeToString(deterministic=True))


@lru_cache(maxsize=512)
def decode_layout(body: bytes) -> Layout:
    """The Layout of `encode_layout`; WireError if it is impossible. Equal bytes give the same object."""
    message = PbLayout()
    message.ParseFromString(body)
    return _layout(message)


# --- samples ---------------------------------------------------------------------------------------------------------


def _put_block(message: PbBlock, block: SampleBlock, layout_index: int) -> None:
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


def _block(message: PbBlock, layouts: list[Layout]) -> SampleBlock:
    rows = message.rows
    layout = layouts[message.layout]
    firsts = (message.first_seq, message.first_mono, message.seq_step, message.mono_step, abs(message.t_offset_ns))
    if not 1 <= message.mono_unit_ns <= 1_000_000_000 or max(firsts) >= MAX_TIME:
        raise WireError("malformed", "a block with an impossible first seq or mono_ns")
    matrix, null = planes.decode(message.planes, plane_rows(layout), rows)
    seq, mono = _positions(message, matrix[:2])
    if null is not None and (null[[0, 1, 3, 4]].any() or null[HEAD_ROWS + layout.width :].any()):
        raise WireError("malformed", "a block without seq or mono_ns")
    data, impossible = unfolded(matrix, null, layout)
    if impossible.any():
        column = int(np.flatnonzero(impossible.any(axis=1))[0])
        name = layout.columns[column].name
        raise WireError("malformed", f"{name} of {message.pack_id} holds an impossible value or is not a number")
    limit = MAX_TIME // message.mono_unit_ns
    if seq[0] < 0 or seq[-1] >= MAX_TIME or mono[0] < 0 or mono[-1] >= limit:  # `check`: they ascend
        raise WireError("malformed", "seq or mono_ns runs out of range")
    mono_ns = mono * message.mono_unit_ns
    t_ns = mono_ns + message.t_offset_ns
    if matrix[2:HEAD_ROWS].any():  # rarely: the clock was set, something is missing, an alarm stands
        if np.abs(matrix[2]).max() >= MAX_TIME:
            raise WireError("malformed", "t_ns is out of range")
        t_ns += matrix[2]
        _require_indices(matrix[3], len(message.qualities), "quality")
        _require_indices(matrix[4], len(message.alarms), "alarm")
    if null is not None:
        t_ns[null[2]] = NO_TIME
    return SampleBlock(
        message.pack_id,
        layout,
        seq,
        mono_ns,
        t_ns,
        data,
        matrix[3],
        matrix[4],
        ({}, *(_quality(dict(q.reasons)) for q in message.qualities)),
        ((), *(_alarms(tuple(a.codes)) for a in message.alarms)),
    )


def unfolded(matrix: Ints, null: planes.Mask | None, layout: Layout) -> tuple[Ints, planes.Mask]:
    """(scaled integers (layout.width, n), which of them no Sample can have), of what `planes` gives; in its place."""
    data = matrix[HEAD_ROWS : HEAD_ROWS + layout.width]
    missing = null[HEAD_ROWS : HEAD_ROWS + layout.width] if null is not None else None
    _unfold(matrix, layout, missing)
    low, span = layout.limits
    impossible = (data - low).view(np.uint64) > span
    bits = layout.float32
    if bits.size:
        impossible[bits] |= data[bits] & _FLOAT32_EXPONENT == _FLOAT32_EXPONENT
    if missing is not None:
        impossible &= ~missing
        np.copyto(data, NULL, where=missing)
    return data, impossible


def plane_rows(layout: Layout) -> int:
    """How many rows of planes a Layout has."""
    return HEAD_ROWS + layout.width + (1 if layout.cells >= _MEDIAN_FROM_CELLS else 0)


def _under_head(at: slice) -> slice:
    return slice(HEAD_ROWS + at.start, HEAD_ROWS + at.stop)


def _positions(message: PbBlock, steps: Ints) -> Ints:
    """seq and mono of each row from the steps, which stand as distances from the first step."""
    steps[0, 1:] += message.seq_step
    steps[1, 1:] += message.mono_step
    steps[:, 0] = message.first_seq, message.first_mono
    total: Ints = steps.cumsum(axis=1)
    return total


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


def _unfold(matrix: Ints, layout: Layout, missing: planes.Mask | None) -> None:
    data, at = matrix[HEAD_ROWS:], layout.slices
    if layout.cells >= _MEDIAN_FROM_CELLS:
        data[at["cells"]] += matrix[-1]
    for k, position in enumerate(layout.spanned):
        low = at["spans"].start + 2 * k
        base = data[position] if missing is None else np.where(missing[position], NULL, data[position])
        data[low] = base - data[low]
        data[low + 1] += base


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


def declared_columns(message: PbLayout) -> int:
    """About how many columns the Layout asks for, before any is made; what is impossible is judged by `_layout`."""
    named = 3 * len(message.scalars) + len(message.steps) + len(message.extra_names)
    return min(_LEAST_COLUMNS + named + message.cells + message.temps + message.balancing_words, 4 * MAX_CELLS)


def _layout(message: PbLayout) -> Layout:
    numbers = tuple(message.scalars)
    if len(set(numbers)) != len(numbers) or not set(numbers) <= BY_NUMBER.keys():
        raise WireError("malformed", "a layout with unknown or repeated fields")
    if message.cells > MAX_CELLS or message.temps > MAX_TEMPS or message.balancing_words > MAX_CELLS:
        raise WireError("malformed", f"a layout of {message.cells} cells and {message.temps} temperatures")
    triples = zip(message.steps[::3], message.steps[1::3], message.steps[2::3], strict=False)
    steps = {number: _step(mantissa, exponent, 1) for number, mantissa, exponent in triples}
    fixed = [n for n in steps if n in BY_NUMBER and BY_NUMBER[n].kind != "float"]
    if len(message.steps) % 3 or fixed:
        raise WireError("malformed", "a layout with a resolution that belongs to no field")
    return Layout(
        scalars=tuple((BY_NUMBER[n].name, steps.get(n, resolution(BY_NUMBER[n].step))) for n in numbers),
        cells=message.cells,
        cell_step=steps.get(CELL_V.number, CELL_STEP),
        temps=message.temps,
        temp_step=steps.get(TEMP_C.number, TEMP_STEP),
        balancing_words=message.balancing_words,
        extras=_extras(message),
    )


def _extras(message: PbLayout) -> tuple[Extra, ...]:
    names, pairs, units = message.extra_names, message.extra_steps, dict(message.extra_units)
    if len(names) > MAX_EXTRAS or len(set(names)) != len(names) or len(pairs) != 2 * len(names):
        raise WireError("malformed", f"a layout of {len(names)} extras, or the same one twice")
    for name in names:
        if not EXTRA_NAME.fullmatch(name):
            raise WireError("malformed", f"extra {name[:80]!r} is not a name")
    if any(i >= len(names) or len(unit) > MAX_UNIT_CHARS for i, unit in units.items()):
        raise WireError("malformed", "a unit that is too long or belongs to no extra")
    return tuple(
        Extra(name, units.get(i, ""), _step(pairs[2 * i], pairs[2 * i + 1], 0)) for i, name in enumerate(names)
    )


def _step(mantissa: int, exponent: int, least: int) -> Resolution:
    if not least <= mantissa < 2**31 or exponent > (9 if mantissa else 0):
        raise WireError("malformed", f"a resolution of {mantissa}e-{exponent}")
    return Resolution(mantissa, exponent)


# --- single records: the fields of the record and of the message have the same names ---------------------------------

_ESTIMATE: Final = tuple(name for name in Estimate.__slots__ if name not in ("seq", "mono_ns", "t_ns"))
_EVENT: Final = tuple(name for name in Event.__slots__ if name not in ("seq", "mono_ns", "t_ns"))
_REPORT: Final = tuple(name for name in Report.__slots__ if name not in ("seq", "mono_ns", "t_ns"))
_SESSION: Final = tuple(name for name in Session.__slots__ if name not in ("seq", "mono_ns", "t_ns"))
_GAP: Final = tuple(name for name in Gap.__slots__ if name not in ("seq", "mono_ns", "t_ns", "stored"))


def _put_record(message: Any, record: Any, names: Iterable[str]) -> None:
    message.head.seq, message.head.mono_ns = record.seq, record.mono_ns
    if record.t_ns is not None:
        message.head.t_ns = record.t_ns
    for name in names:
        value = getattr(record, name)
        if isinstance(value, tuple):
            getattr(message, name).extend(value)
        elif isinstance(value, dict):
            getattr(message, name).update(value)
        elif value is not None:
            setattr(message, name, value)


def _record(message: Any, names: Iterable[str]) -> dict[str, Any]:
    head = message.head
    values: dict[str, Any] = {
        "seq": head.seq,
        "mono_ns": head.mono_ns,
        "t_ns": head.t_ns if head.HasField("t_ns") else None,
    }
    if values["t_ns"] is not None and abs(head.t_ns) >= MAX_TIME:
        raise WireError("malformed", "t_ns is out of range")
    for name in names:
        field = message.DESCRIPTOR.fields_by_name[name]
        value = getattr(message, name)
        if field.message_type is not None:
            value = dict(value)
        elif field.is_repeated:
            value = tuple(value)
        elif field.has_presence and not message.HasField(name):
            value = None
        if isinstance(value, float) and not math.isfinite(value):
            raise WireError("malformed", f"{name} of seq {head.seq} is not a number")
        values[name] = value
    return values
