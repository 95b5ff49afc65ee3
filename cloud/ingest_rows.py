"""Sample rows as PostgreSQL's COPY BINARY, built by numpy: one record template per shape of row, no loop per row.

A row is a fixed-stride record as long as the same values are absent in all rows of its group. Where that varies (a
sensor that comes and goes), every row gets a slot for every value and the slots of absent ones are squeezed out.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.block import Floats, Ints, Layout, SampleBlock
from shared.fields import BALANCING_WORD_BITS, INT_MAX, NULL, SCALARS, resolution

HEADER: Final = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
TRAILER: Final = b"\xff\xff"
PIECE_ROWS: Final = 512
"""Rows built and sent at once: while the server stores one piece, the next is built."""
EPOCH_US: Final = 946_684_800_000_000
"""PostgreSQL counts microseconds from 2000-01-01."""

_FLOATS: Final = tuple(name for s in SCALARS if s.kind == "float" for name in (s.name,))
_SPANS: Final = tuple(name for s in SCALARS for name in s.names[1:])
_EXTREMES: Final = {"cells": ("cell_min_v", "cell_max_v"), "temps": ("temp_min_c", "temp_max_c")}
_FLAGS: Final = tuple(s.name for s in SCALARS if s.kind == "bool")
_ARRAYS: Final = ("cell_mv", "cell_v", "temp_dc", "temp_c", "extra")
_SMALL: Final = {("cells", resolution(0.001)): "cell_mv", ("temps", resolution(0.1)): "temp_dc"}
"""Arrays of the usual resolution are small integers: a fifth of the bytes of a row of 96 cells."""
_FINE: Final = {"cells": "cell_v", "temps": "temp_c", "extras": "extra"}
_KINDS: Final[dict[str, str]] = (
    dict.fromkeys((*_FLOATS, *_SPANS, *chain(*_EXTREMES.values())), ">f8")
    | {"state": ">i2"}
    | dict.fromkeys(_FLAGS, "u1")
)
"""Nullable scalar columns and their binary types."""
_INTS: Final = {"mono_ns": ">i8", "boot": ">i8", "seq": ">i8", "pack_key": ">i4", "device_key": ">i4"}
_WHEN: Final = {True: {"t": ">i8", "t_ns": ">i8"}, False: {"not_before": ">i8", "not_after": ">i8"}}
_FLOAT8_OID: Final = 701
_TEXT_OID: Final = 25
_INT2_OID: Final = 21
_ELEMENTS: Final = {
    _INT2_OID: np.dtype([("length", ">i4"), ("value", ">i2")]),
    _FLOAT8_OID: np.dtype([("length", ">i4"), ("value", ">f8")]),
}
_ARRAY_HEAD: Final = np.dtype([("dims", ">i4"), ("nulls", ">i4"), ("oid", ">i4"), ("size", ">i4"), ("lower", ">i4")])


def columns(dated: bool) -> tuple[str, ...]:
    """The columns that the rows have, in order: of `sample` when dated, else of `sample_undated`."""
    return (*_WHEN[dated], *_INTS, *_KINDS, "extra_layout", "balancing", *_ARRAYS, "alarms", "quality")


def arrays_of(layout: Layout) -> dict[str, tuple[slice, int]]:
    """The array columns that rows of this layout fill: where their values stand in a row, and their element type."""
    found = {}
    for group, step in (("cells", layout.cell_step), ("temps", layout.temp_step), ("extras", None)):
        at = layout.slices[group]
        if at.start < at.stop:
            small = _SMALL.get((group, step)) if step else None
            found[small or _FINE[group]] = (at, _INT2_OID if small else _FLOAT8_OID)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Samples of any packs and devices that share a Layout; arrays have one element (`rows`: one column) per sample."""

    layout: Layout
    extra_layout: int | None
    pack_key: Ints
    device_key: Ints
    boot: Ints
    seq: Ints
    mono_ns: Ints
    t_ns: Ints
    rows: Ints
    quality: Ints
    alarm: Ints
    qualities: Sequence[Mapping[str, str]]
    alarms: Sequence[tuple[str, ...]]

    def take(self, chosen: npt.NDArray[Any] | slice) -> Rows:
        """The chosen rows."""
        return Rows(
            self.layout,
            self.extra_layout,
            self.pack_key[chosen],
            self.device_key[chosen],
            self.boot[chosen],
            self.seq[chosen],
            self.mono_ns[chosen],
            self.t_ns[chosen],
            self.rows[:, chosen],
            self.quality[chosen],
            self.alarm[chosen],
            self.qualities,
            self.alarms,
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose a block is, in the database's keys; boot as two's complement."""

    device_key: int
    boot: int
    pack_key: int


def gather(parts: Sequence[tuple[Origin, SampleBlock]], extra_layouts: Mapping[Layout, int]) -> Iterator[Rows]:
    """The blocks as Rows of one Layout, where possible of at most PIECE_ROWS, in order; made when asked for."""
    by_layout: dict[Layout, list[tuple[Origin, SampleBlock]]] = {}
    for part in parts:
        by_layout.setdefault(part[1].layout, []).append(part)
    for layout, members in by_layout.items():
        start, rows = 0, 0
        for i, (_, block) in enumerate(members):
            if rows and rows + len(block) > PIECE_ROWS:
                yield _joined(layout, members[start:i], extra_layouts.get(layout))
                start, rows = i, 0
            rows += len(block)
        yield _joined(layout, members[start:], extra_layouts.get(layout))


def _joined(layout: Layout, members: Sequence[tuple[Origin, SampleBlock]], extra_layout: int | None) -> Rows:
    blocks = [block for _, block in members]
    sizes = [len(block) for block in blocks]
    qualities, quality = _interned([b.quality_index for b in blocks], [b.qualities for b in blocks])
    alarms, alarm = _interned([b.alarm_index for b in blocks], [b.alarms for b in blocks])
    keys = np.array([(origin.pack_key, origin.device_key, origin.boot) for origin, _ in members])
    pack_key, device_key, boot = np.repeat(keys, sizes, axis=0).T
    return Rows(
        layout,
        extra_layout,
        pack_key,
        device_key,
        boot,
        np.concatenate([b.seq for b in blocks]),
        np.concatenate([b.mono_ns for b in blocks]),
        np.concatenate([b.t_ns for b in blocks]),
        np.concatenate([b.rows for b in blocks], axis=1),
        quality,
        alarm,
        qualities,
        alarms,
    )


def _interned(indices: Sequence[Ints], tables: Sequence[Sequence[Any]]) -> tuple[list[Any], Ints]:
    """One table for all blocks, entry 0 the empty one, and each row's index into it."""
    index = np.concatenate(indices)
    if not index.any():
        return [tables[0][0]], index
    entries: list[Any] = [tables[0][0]]
    known: dict[Any, int] = {}
    parts = []
    for old, table in zip(indices, tables, strict=True):
        moved = [0]
        for entry in table[1:]:
            key = tuple(entry.items()) if isinstance(entry, Mapping) else entry
            if key not in known:
                known[key] = len(entries)
                entries.append(entry)
            moved.append(known[key])
        parts.append(np.array(moved)[old])
    return entries, np.concatenate(parts)


def encode(rows: Rows, bounds_us: tuple[int, int] | None = None) -> Iterator[bytes | memoryview]:
    """The rows' COPY BINARY records in pieces, without HEADER and TRAILER.

    All are dated (`columns(True)`), or, with `bounds_us` (microseconds since 1970), none (`columns(False)`).
    """
    groups = rows.quality * len(rows.alarms) + rows.alarm
    if groups.any():
        for group in np.unique(groups).tolist():
            yield from _encode_group(rows.take(np.flatnonzero(groups == group)), bounds_us)
    else:
        yield from _encode_group(rows, bounds_us)


def _encode_group(rows: Rows, bounds_us: tuple[int, int] | None) -> Iterator[bytes | memoryview]:
    for start in range(0, rows.seq.size, PIECE_ROWS):
        yield _encode_piece(rows.take(slice(start, start + PIECE_ROWS)), bounds_us)


def _encode_piece(rows: Rows, bounds_us: tuple[int, int] | None) -> bytes | memoryview:
    null = rows.rows == NULL
    complete = not null.any()
    scalars, arrays = _scalars(rows, complete), arrays_of(rows.layout)
    missing = {} if complete else {name: np.isnan(column) for name, column in scalars.items()}
    balancing, unbalanced = _balancing(rows)
    # A piece has either one shape, or the slots of what is absent in some rows only are squeezed out at the end.
    absent = frozenset(name for name, mask in missing.items() if mask.all())
    shape = _shape(
        rows.layout,
        bounds_us is None,
        frozenset(scalars.keys() - absent),
        rows.extra_layout,
        None if balancing is None or unbalanced.all() else balancing.shape[1],
        _alarm_bytes(rows.alarms[rows.alarm[0]]),
        _quality_bytes(rows.qualities[rows.quality[0]]),
    )
    record = np.empty(rows.seq.size, shape.dtype)
    record.view(np.uint8).reshape(rows.seq.size, -1)[:] = shape.template
    if bounds_us is None:
        record["t"] = rows.t_ns // 1000 - EPOCH_US
        record["t_ns"] = rows.t_ns
    else:
        record["not_before"], record["not_after"] = (bound - EPOCH_US for bound in bounds_us)
    for name in _INTS:
        record[name] = getattr(rows, name)
    for name, column in scalars.items():
        if name not in absent:
            is_whole = not complete and (name in _FLAGS or name == "state")
            record[name] = np.where(missing[name], 0, column) if is_whole else column
    for name, (at, oid) in arrays.items():
        record[name]["value"] = (
            rows.rows[at] if oid == _INT2_OID else rows.layout.floats(rows.rows[at], at, complete=complete)
        ).T
    if balancing is not None and "balancing" in shape.dtype.fields:  # type: ignore[operator]
        record["balancing"] = balancing
    some = {name: mask for name, mask in missing.items() if name not in absent and mask.any()}
    holes = {} if complete else {name: null[at].T for name, (at, _) in arrays.items()}
    holes = {name: mask for name, mask in holes.items() if mask.any()}
    if unbalanced.any() and not unbalanced.all():
        some["balancing"] = unbalanced
    return _squeezed(record, some, holes) if some or holes else record.view(np.uint8).data


def _squeezed(record: Any, some: dict[str, npt.NDArray[np.bool_]], holes: dict[str, npt.NDArray[np.bool_]]) -> bytes:
    """The records without the value bytes of what is absent, and with lengths that say so."""
    kept = np.ones(record.view(np.uint8).size, np.uint8).view(record.dtype)
    for name, mask in some.items():
        record[f"{name}#"][mask] = -1
        if name == "balancing":
            record["balancing_bits"][mask] = 0
            kept["balancing_bits"][mask] = 0
        kept[name][mask] = np.zeros(1, record.dtype[name])[0]
    for name, mask in holes.items():
        record[f"{name}#"] -= record[name].dtype["value"].itemsize * mask.sum(axis=1, dtype=np.int32)
        record[f"{name}_head"]["nulls"] = mask.any(axis=1)
        record[name]["length"][mask] = -1
        kept[name]["value"][mask] = 0
    return record.view(np.uint8)[kept.view(np.bool_)].tobytes()  # type: ignore[no-any-return]


def _scalars(rows: Rows, complete: bool) -> dict[str, Floats]:
    """Every nullable scalar column that the layout can fill, NaN = None; with the lowest and highest of the arrays.

    complete: there is no NULL.
    """
    layout = rows.layout
    plain = slice(0, layout.slices["spans"].stop)
    found = dict(
        zip(
            (c.name for c in layout.columns[plain]),
            layout.floats(rows.rows[plain], plain, complete=complete),
            strict=True,
        )
    )
    for group, names in _EXTREMES.items():
        at = layout.slices[group]
        if at.start < at.stop:
            values = rows.rows[at]
            if complete:
                low = values.min(axis=0)
            else:
                low = np.where(values == NULL, INT_MAX, values).min(axis=0)
                low[low == INT_MAX] = NULL
            first = slice(at.start, at.start + 1)  # all of a group have one resolution
            for name, extreme in zip(names, (low, values.max(axis=0)), strict=True):
                found[name] = layout.floats(extreme.reshape(1, -1), first, complete=complete)[0]
    return found


def readings(rows: Rows, names: Iterable[str]) -> dict[str, Floats]:
    """These scalar columns of the rows (also `cell_min_v` and its like); NaN = None."""
    found = _scalars(rows, complete=False)
    return {name: found[name] if name in found else np.full(rows.seq.size, np.nan) for name in names}


def _balancing(rows: Rows) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.bool_]]:
    """(bytes of the bit sets (n, size), position 0 first, or None; which rows have none)."""
    words = rows.rows[rows.layout.slices["balancing"]].T
    if not words.shape[1]:
        return None, np.ones(0, np.bool_)
    if not words.any():  # most of the time
        return np.zeros((len(words), -(-words.shape[1] * BALANCING_WORD_BITS // 8)), np.uint8), np.zeros(1, np.bool_)
    octets = words.astype("<u4", order="C").view(np.uint8).reshape(*words.shape, 4)
    bits = np.unpackbits(octets, axis=2, bitorder="little")[:, :, :BALANCING_WORD_BITS]
    return np.packbits(bits.reshape(len(words), -1), axis=1), (words == NULL).any(axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    dtype: np.dtype[Any]
    template: npt.NDArray[np.uint8]


@lru_cache(maxsize=1024)
def _shape(
    layout: Layout,
    dated: bool,
    present: frozenset[str],
    extra_layout: int | None,
    balancing_bytes: int | None,
    alarms: bytes | None,
    quality: bytes | None,
) -> _Shape:
    """The record of a row: all lengths and constants filled in, values to be set. `<name>#` is a value's length."""
    fields: list[tuple[str, Any]] = [("columns#", ">i2")]
    constants: dict[str, Any] = {"columns#": len(columns(dated))}

    def put(name: str, value_type: Any, value: Any = None, more: int = 0) -> None:
        fields.append((f"{name}#", ">i4"))
        if value_type is None:
            constants[f"{name}#"] = -1
            return
        constants[f"{name}#"] = np.dtype(value_type).itemsize + more
        fields.append((name, value_type))
        if value is not None:
            constants[name] = value

    for name, kind in (*_WHEN[dated].items(), *_INTS.items()):
        put(name, kind)
    for name, kind in _KINDS.items():
        put(name, kind if name in present else None)
    put("extra_layout", None if extra_layout is None else ">i4", extra_layout)
    if balancing_bytes is None:
        put("balancing", None)
    else:
        bits = layout.balancing_words * BALANCING_WORD_BITS
        fields += [("balancing#", ">i4"), ("balancing_bits", ">i4"), ("balancing", "u1", (balancing_bytes,))]  # type: ignore[list-item]
        constants |= {"balancing#": 4 + balancing_bytes, "balancing_bits": bits}
    arrays = arrays_of(layout)
    for name in _ARRAYS:
        if name not in arrays:
            put(name, None)
            continue
        at, oid = arrays[name]
        size, element = at.stop - at.start, _ELEMENTS[oid]
        fields += [(f"{name}#", ">i4"), (f"{name}_head", _ARRAY_HEAD), (name, element, (size,))]  # type: ignore[list-item]
        constants[f"{name}#"] = _ARRAY_HEAD.itemsize + size * element.itemsize
        constants[f"{name}_head"] = (1, 0, oid, size, 1)
    for name, value in (("alarms", alarms), ("quality", quality)):
        put(name, None if value is None else f"V{len(value)}", value)
    dtype = np.dtype(fields)
    template = np.zeros(1, dtype)
    for name, value in constants.items():
        template[name] = np.frombuffer(value, f"V{len(value)}") if isinstance(value, bytes) else value
    for name, (_, oid) in arrays.items():
        template[name]["length"] = _ELEMENTS[oid]["value"].itemsize
    return _Shape(dtype, template.view(np.uint8))


def _alarm_bytes(codes: tuple[str, ...]) -> bytes | None:
    if not codes:
        return None
    texts = [code.encode() for code in codes]
    head = struct.pack(">iiiii", 1, 0, _TEXT_OID, len(texts), 1)
    return head + b"".join(struct.pack(">i", len(text)) + text for text in texts)


def _quality_bytes(quality: Mapping[str, str]) -> bytes | None:
    return b"\x01" + json.dumps(dict(quality), separators=(",", ":")).encode() if quality else None
