"""Many bodies at once: what `decode_batch` says of each, but Batches of one Sample share the work on their planes.

A car that is watched sends one Sample a message. Each alone costs some forty calls of numpy on arrays of one element;
here those whose planes are laid out alike become the columns of one matrix. What is not that plain goes the usual way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from shared import planes, wire
from shared.batch import MAX_BODY_BYTES, MAX_COLUMNS, SCHEMA, Batch, check
from shared.block import Layout, SampleBlock
from shared.errors import WireError
from shared.wire_pb2 import Batch as PbBatch
from shared.wire_pb2 import Block as PbBlock

Decoded = Batch | WireError

_LEAST: Final = 4
"""Fewer alike are not worth it."""
_KINDS: Final = ("estimates", "events", "reports", "gaps", "sessions")
_NO_QUALITIES: Final[tuple[dict[str, str], ...]] = ({},)
_NO_ALARMS: Final[tuple[tuple[str, ...], ...]] = ((),)


@dataclass(frozen=True, slots=True)
class _Plain:
    """A body that holds one Sample and nothing else: where it stood, and its planes without their zstd."""

    at: int
    message: PbBatch
    block: PbBlock
    layout: Layout
    raw: bytes


def decode_batches(bodies: Sequence[bytes]) -> list[Decoded]:
    """For each body its Batch, or the WireError that `decode_batch` raises for it."""
    found: list[Decoded | None] = [None] * len(bodies)
    groups: dict[tuple[int, bytes, int], list[_Plain]] = {}
    for at, body in enumerate(bodies):
        plain = _plain(at, body)
        if plain is not None:
            columns = wire.plane_rows(plain.layout)
            groups.setdefault((id(plain.layout), plain.raw[:columns], len(plain.raw)), []).append(plain)
    for group in groups.values():
        if len(group) >= _LEAST:
            for plain, batch in zip(group, _batches(group), strict=True):
                found[plain.at] = batch
    return [_alone(body) if batch is None else batch for body, batch in zip(bodies, found, strict=True)]


def _alone(body: bytes) -> Decoded:
    try:
        return wire.decode_batch(body)
    except WireError as error:
        return error


def _plain(at: int, body: bytes) -> _Plain | None:
    """The body if it is one dated Sample without any notes; None = it is more, or something is wrong with it."""
    if len(body) > MAX_BODY_BYTES:
        return None
    message = PbBatch()
    try:
        message.ParseFromString(body)
        if message.schema != SCHEMA or len(message.blocks) != 1 or len(message.layouts) != 1:
            return None
        block = message.blocks[0]
        if (
            block.rows != 1
            or block.layout
            or block.qualities
            or block.alarms
            or any(len(getattr(message, kind)) for kind in _KINDS)
        ):
            return None
        if wire.declared_columns(message.layouts[0]) > MAX_COLUMNS:
            return None
        layout = wire.decode_layout(message.layouts[0].SerializeToString(deterministic=True))
        return _Plain(at, message, block, layout, planes.decompress(block.planes))
    except (DecodeError, WireError):
        return None


def _batches(group: Sequence[_Plain]) -> list[Batch | None]:
    """The Batches of bodies whose planes are laid out alike; None for those that must be looked at alone."""
    layout = group[0].layout
    try:
        matrix, null = planes.decode_single([plain.raw for plain in group], wire.plane_rows(layout))
        firsts = [(p.block.first_seq, p.block.first_mono, p.block.mono_unit_ns, p.block.t_offset_ns) for p in group]
        seq, mono, unit, offset = np.array(firsts, np.int64).T
    except (WireError, OverflowError):
        return [None] * len(group)
    if null is not None and (null[: wire.HEAD_ROWS].any() or null[wire.HEAD_ROWS + layout.width :].any()):
        return [None] * len(group)
    rows, impossible = wire.unfolded(matrix, null, layout)
    limit = wire.MAX_TIME
    bad = impossible.any(axis=0) | matrix[2 : wire.HEAD_ROWS].any(axis=0)
    bad |= (seq < 0) | (seq >= limit) | (offset <= -limit) | (offset >= limit) | (unit < 1) | (unit > 1_000_000_000)
    bad |= (mono < 0) | (mono >= limit // np.maximum(unit, 1))
    mono_ns = mono * unit
    t_ns = mono_ns + offset
    zeros = np.zeros(1, np.int64)
    found: list[Batch | None] = []
    for k, (plain, is_bad) in enumerate(zip(group, bad.tolist(), strict=True)):
        if is_bad:
            found.append(None)
            continue
        own = slice(k, k + 1)
        message, block = plain.message, plain.block
        sample = SampleBlock(
            block.pack_id, layout, seq[own], mono_ns[own], t_ns[own], rows[:, own], zeros, zeros, _NO_QUALITIES,
            _NO_ALARMS,
        )  # fmt: skip
        found.append(_checked(Batch(device=message.device, boot=message.boot, blocks=(sample,))))
    return found


def _checked(batch: Batch) -> Batch | None:
    try:
        return check(batch)
    except WireError:
        return None
