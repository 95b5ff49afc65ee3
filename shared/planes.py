"""A matrix of integers as byte planes: per column the first value, then deltas, in as few bytes as it needs.

Layout of the bytes before zstd, c columns of n rows:
    c code bytes: delta width code | first width code << 3 | null code << 6   (width codes 0 1 2 3 4 = 0 1 2 4 8 bytes)
    null bitmaps, ceil(n / 8) bytes for each column of null code 2            (0 = no null, 1 = all null, 2 = bitmap)
    first values, then deltas: for each width the columns of that width, low byte of all, then the next byte of all ...
Equal bytes end up side by side, which is what zstd lives on. No Python loop per row or column.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

from shared.dictionary import DICTIONARY
from shared.errors import WireError

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_BYTES: Final = 64 << 20
_WIDTHS: Final = (0, 1, 2, 4, 8)
_UNSIGNED: Final = tuple(np.dtype(f"<u{width or 1}") for width in _WIDTHS)
_SIGNED: Final = tuple(np.dtype(f"<i{width or 1}") for width in _WIDTHS)
_LIMITS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)
"""Highest zigzag value of width codes 0, 1, 2, 3."""
_WIDTH_CODES: Final = np.arange(len(_WIDTHS), dtype=np.uint8).reshape(-1, 1)
_CODES: Final = np.arange(256)
_DELTA_CODE, _FIRST_CODE, _NULL_CODE = (bits.astype(np.uint8) for bits in (_CODES & 7, _CODES >> 3 & 7, _CODES >> 6))
_POSSIBLE: Final = (np.maximum(_DELTA_CODE, _FIRST_CODE) < len(_WIDTHS)) & (_NULL_CODE < 3)
_local = threading.local()  # a zstd context must not be used by two threads at once


def _codec() -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
    try:
        pair: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] = _local.pair
    except AttributeError:
        known = zstandard.ZstdCompressionDict(DICTIONARY)
        pair = (
            zstandard.ZstdCompressor(level=1, dict_data=known, write_checksum=False, write_dict_id=False),
            zstandard.ZstdDecompressor(dict_data=known),
        )
        _local.pair = pair
    return pair


def compress(data: bytes) -> bytes:
    """`data` as one zstd frame that states its content size."""
    return _codec()[0].compress(data)


def decompress(data: bytes, limit: int = MAX_BYTES) -> bytes:
    """The content of one zstd frame of at most `limit` bytes; WireError otherwise."""
    try:
        size = zstandard.frame_content_size(data)
        if size < 0 or size > limit:
            reason = "too_large" if size > MAX_BYTES else "malformed"
            raise WireError(reason, f"a zstd frame of {size} bytes, limit {limit}")
        return _codec()[1].decompress(data, max_output_size=max(size, 1), allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise WireError("malformed", f"zstd: {error}") from error


def encode(values: Ints, null: Mask | None, alike: Iterable[slice] = ()) -> bytes:
    """Compressed planes of `values`, int64 (columns, rows); `null` marks cells whose value means nothing.

    Columns that are `alike` get one common width: their code bytes then cost next to nothing.
    """
    columns, rows = values.shape
    null_code = np.zeros(columns, np.intp)
    bitmaps = b""
    if null is not None and null.any():
        counts = np.count_nonzero(null, axis=1)
        null_code = np.where(counts == 0, 0, np.where(counts == rows, 1, 2))
        bitmaps = np.packbits(null[null_code == 2], axis=1).tobytes()
        values = _filled(values, null)
    coded = _zigzag(values)
    first, deltas = coded[:, :1], coded[:, 1:]
    first_code = np.searchsorted(_LIMITS, first[:, 0], side="left")
    delta_code = np.searchsorted(_LIMITS, deltas.max(axis=1), side="left") if rows > 1 else np.zeros_like(first_code)
    for group in alike:
        if group.start < group.stop:
            first_code[group] = first_code[group].max()
            delta_code[group] = delta_code[group].max()
    codes = (delta_code | first_code << 3 | null_code << 6).astype(np.uint8)
    parts = [codes.tobytes(), bitmaps, *_planes(first, first_code), *_planes(deltas, delta_code)]
    return compress(b"".join(parts))


def most_bytes(columns: int, rows: int) -> int:
    """No planes of so many columns and rows are longer before zstd."""
    return min(columns * (1 + -(-rows // 8) + rows * _WIDTHS[-1]), MAX_BYTES)


def decode_many(raws: Sequence[bytes], columns: int, rows: int) -> tuple[Ints, Mask | None]:
    """(values, null) as given to `encode`, of n decompressed matrices of one shape: (n, columns, rows) each.

    Null cells hold the value before them. WireError if one is no such matrix.

    A matrix alone costs some forty calls of numpy on little arrays; so many at once cost no more.
    """
    n = len(raws)
    if min(map(len, raws)) < columns:
        raise WireError("malformed", f"planes of {min(map(len, raws))} bytes for {columns} columns")
    codes = np.frombuffer(b"".join([raw[:columns] for raw in raws]), np.uint8)
    first_code, delta_code, null_code = (table.take(codes) for table in (_FIRST_CODE, _DELTA_CODE, _NULL_CODE))
    if not _POSSIBLE.take(codes).all() or (rows == 1 and delta_code.any()):
        raise WireError("malformed", "planes with an unknown width code")
    at = [columns] * n
    null: Mask | None = None
    if null_code.any():
        null = np.zeros((n * columns, rows), np.bool_)
        bitmap_bytes = -(-rows // 8)
        some = null_code == 2
        bits = _regions(raws, at, (some.reshape(n, -1).sum(axis=1) * bitmap_bytes).tolist())
        null[some] = np.unpackbits(bits.reshape(-1, bitmap_bytes), axis=1, count=rows)
        null[null_code == 1] = True
        null = null.reshape(n, columns, rows)
    values = np.zeros((n * columns, rows), np.int64)
    _fill(values[:, :1], raws, at, first_code)
    if rows > 1:
        _fill(values[:, 1:], raws, at, delta_code)
    for raw, end in zip(raws, at, strict=True):
        if len(raw) != end:
            raise WireError("malformed", f"planes of {len(raw)} bytes, {end} expected")
    if rows > 1:
        np.cumsum(values, axis=1, out=values)
    return values.reshape(n, columns, rows), null


def _filled(values: Ints, null: Mask) -> Ints:
    """`values` with each null cell holding the last value before it (0 at the start), so that its delta is 0."""
    last = np.where(null, -1, np.arange(values.shape[1]))
    np.maximum.accumulate(last, axis=1, out=last)
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    filled[last < 0] = 0
    return filled


def _zigzag(values: Ints) -> npt.NDArray[np.uint64]:
    """First values and deltas, column by column, as unsigned numbers: 0 -1 1 -2 2 ... become 0 1 2 3 4 ..."""
    steps = np.empty_like(values)
    steps[:, 0] = values[:, 0]
    np.subtract(values[:, 1:], values[:, :-1], out=steps[:, 1:])
    return ((steps << 1) ^ (steps >> 63)).view(np.uint64)


def _planes(coded: npt.NDArray[np.uint64], code: npt.NDArray[np.intp]) -> list[bytes]:
    parts = []
    for index, count in enumerate(np.bincount(code).tolist()):
        width = _WIDTHS[index]
        if count and width:
            narrow = coded[code == index].astype(f"<u{width}")
            if width > 1:
                narrow = narrow.view(np.uint8).reshape(*narrow.shape, width).transpose(2, 0, 1)
            parts.append(narrow.tobytes())
    return parts


def _fill(values: Ints, raws: Sequence[bytes], at: list[int], code: npt.NDArray[np.uint8]) -> None:
    """Puts the planes that stand at `at` of each into the columns of `values`, and moves `at` behind them."""
    rows, n = values.shape[1], len(raws)
    by_width = code.argsort(kind="stable")
    counts = (code.reshape(n, 1, -1) == _WIDTH_CODES).sum(axis=2)
    done = 0
    for index, count in enumerate(counts.sum(axis=0).tolist()):
        width, chosen = _WIDTHS[index], by_width[done : done + count]
        done += count
        if not count or not width:
            continue
        octets = _regions(raws, at, (counts[:, index] * rows).tolist(), width)
        coded = octets if width == 1 else octets.reshape(width, -1).T.copy().view(_UNSIGNED[index])[:, 0]
        signs = coded & 1
        np.negative(signs, out=signs)
        signs ^= coded >> 1
        values[chosen] = signs.view(_SIGNED[index]).reshape(-1, rows)


def _regions(raws: Sequence[bytes], at: list[int], sizes: Sequence[int], times: int = 1) -> npt.NDArray[np.uint8]:
    """So many bytes of each from `at` on, side by side, and that so many times; `at` is moved behind them."""
    if len(raws) == 1:  # they stand side by side
        begin, at[0] = at[0], at[0] + sizes[0] * times
        found = np.frombuffer(raws[0], np.uint8)[begin : at[0]]
    else:
        pieces = []
        for _ in range(times):
            ends = [begin + size for begin, size in zip(at, sizes, strict=True)]
            pieces += [raw[begin:end] for raw, begin, end in zip(raws, at, ends, strict=True)]
            at[:] = ends
        found = np.frombuffer(b"".join(pieces), np.uint8)
    if found.size != times * sum(sizes):
        raise WireError("malformed", "planes end too early")
    return found
