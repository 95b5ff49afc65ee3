"""Batch and Receipt <-> protobuf bytes (`wire.proto`). Encoding what was decoded gives the same records, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError

from shared.batch import MAX_BODY_BYTES, MAX_COLUMNS, MAX_ROWS, MAX_VALUES, SCHEMA, Batch, check
from shared.block import CELL_STEP, TEMP_STEP, Extra, Layout, SampleBlock
from shared.errors import WireError
from shared.fields import (
    BY_NAME,
    BY_NUMBER,
    CELL_V,
    EXTRA_NAME,
    MAX_CELLS,
    MAX_EXTRAS,
    MAX_TEMPS,
    MAX_UNIT_CHARS,
    TEMP_C,
    Resolution,
    resolution,
)
from shared.records import Capture, Estimate, Event, Gap, Receipt, Rejected, Report, Session
from shared.wire_blocks import MAX_TIME, plane_rows, put_block, read_blocks
from shared.wire_pb2 import Batch as PbBatch
from shared.wire_pb2 import Block as PbBlock
from shared.wire_pb2 import Layout as PbLayout
from shared.wire_pb2 import Receipt as PbReceipt

Decoded = Batch | WireError
R = TypeVar("R")

_LEAST_COLUMNS: Final = 8


def encode_batch(batch: Batch) -> bytes:
    """The body of an upload."""
    message = PbBatch(schema=SCHEMA, device=batch.device, boot=batch.boot)
    layouts: list[Layout] = []
    for block in batch.blocks:
        if block.layout not in layouts:
            layouts.append(block.layout)
        put_block(message.blocks.add(), block, layouts.index(block.layout))
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
    for capture in batch.captures:
        _put_record(message.captures.add(), capture, _CAPTURE)
    return bytes(message.SerializeToString())


def decode_batch(body: bytes) -> Batch:
    """The Batch of an upload, fully validated; WireError with its reason otherwise."""
    (found,) = decode_batches([body])
    if isinstance(found, WireError):
        raise found
    return found


def decode_batches(bodies: Sequence[bytes]) -> list[Decoded]:
    """For each body its Batch, fully validated, or the WireError that says why it is none."""
    opened = [_opened(body) for body in bodies]
    asked = [pair for one in opened if not isinstance(one, WireError) for pair in one[1]]
    blocks = iter(read_blocks(asked))
    return [one if isinstance(one, WireError) else _batch(one[0], list(islice(blocks, len(one[1])))) for one in opened]


def _opened(body: bytes) -> tuple[PbBatch, list[tuple[PbBlock, Layout]]] | WireError:
    """The message, its blocks not read yet, each with its Layout."""
    try:
        return _open(body)
    except WireError as error:
        return error


def _open(body: bytes) -> tuple[PbBatch, list[tuple[PbBlock, Layout]]]:
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
    blocks = list(message.blocks)
    rows = values = notes = 0
    for block in blocks:
        if not 1 <= block.rows <= MAX_ROWS or block.layout >= len(layouts):
            raise WireError("malformed", f"a block of {block.rows} rows with layout {block.layout} of {len(layouts)}")
        rows += block.rows
        values += block.rows * plane_rows(layouts[block.layout])
        notes += len(block.qualities) + len(block.alarms)
    if max(rows, notes) > MAX_ROWS or values > MAX_VALUES:
        raise WireError("too_large", f"a batch of {rows} rows, {values} values; at most {MAX_ROWS}, {MAX_VALUES}")
    return message, [(block, layouts[block.layout]) for block in blocks]


def _batch(message: PbBatch, read: Sequence[SampleBlock | WireError]) -> Decoded:
    blocks = []
    for block in read:
        if isinstance(block, WireError):
            return block
        blocks.append(block)
    try:
        return check(
            Batch(
                device=message.device,
                boot=message.boot,
                blocks=tuple(blocks),
                estimates=_records(message.estimates, Estimate, _ESTIMATE),
                events=_records(message.events, Event, _EVENT),
                reports=_records(message.reports, Report, _REPORT),
                gaps=tuple(
                    Gap(**_record(pb, _GAP), stored=tuple((r.first, r.last) for r in pb.stored)) for pb in message.gaps
                ),
                sessions=_records(message.sessions, Session, _SESSION),
                captures=_records(message.captures, Capture, _CAPTURE),
            )
        )
    except WireError as error:
        return error


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


# --- layouts ---------------------------------------------------------------------------------------------------------


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
_CAPTURE: Final = tuple(name for name in Capture.__slots__ if name not in ("seq", "mono_ns", "t_ns"))
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


def _records(messages: Sequence[Any], kind: type[R], names: Iterable[str]) -> tuple[R, ...]:
    return tuple(kind(**_record(message, names)) for message in messages) if messages else ()


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
