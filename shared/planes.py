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
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import zstandard

from shared.dictionary import DICTIONARY
from shared.errors import WireError

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_BYTES: Final = 64 << 20
_WIDTHS: Final = (0, 1, 2, 4, 8)
_LIMITS: Final = np.array([0, 0xFF, 0xFFFF, 0xFFFFFFFF], np.uint64)
"""Highest zigzag value of width codes 0, 1, 2, 3."""
_CODES: Final = np.arange(256)
_DELTA_CODE, _FIRST_CODE, _NULL_CODE = _CODES & 7, _CODES >> 3 & 7, _CODES >> 6
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
            raise WireError("malformed" if size < 0 else "too_large", f"a zstd frame of {size} bytes, limit {limit}")
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


def decode(data: bytes, columns: int, rows: int) -> tuple[Ints, Mask | None]:
    """(values, null) as given to `encode`; null cells hold the value before them. WireError on anything else."""
    raw = np.frombuffer(decompress(data), np.uint8)
    if raw.size < columns:
        raise WireError("malformed", f"planes of {raw.size} bytes for {columns} columns")
    codes = raw[:columns]
    delta_code, null_code = _DELTA_CODE.take(codes), _NULL_CODE.take(codes)
    if not _POSSIBLE.take(codes).all() or (rows == 1 and delta_code.any()):
        raise WireError("malformed", "planes with an unknown width code")
    null: Mask | None = None
    at = columns
    if null_code.any():
        row_bytes = -(-rows // 8)
        some = null_code == 2
        size = int(np.count_nonzero(some)) * row_bytes
        if raw.size < at + size:
            raise WireError("malformed", "planes end inside their null bitmaps")
        null = np.zeros((columns, rows), np.bool_)
        null[some] = np.unpackbits(raw[at : at + size].reshape(-1, row_bytes), axis=1, count=rows)
        null[null_code == 1] = True
        at += size
    values = np.zeros((columns, rows), np.int64)
    at = _fill(values[:, :1], raw, at, _FIRST_CODE.take(codes))
    if rows > 1:
        at = _fill(values[:, 1:], raw, at, delta_code)
    if at != raw.size:
        raise WireError("malformed", f"planes of {raw.size} bytes, {at} expected")
    np.cumsum(values, axis=1, out=values)
    return values, null


def decode_single(raws: Sequence[bytes], columns: int) -> tuple[Ints, Mask | None]:
    """(values (columns, n), null (columns, 1)) of n matrices of one row each.

    raws: decompressed, of one size and with the same code bytes. WireError if they are no such planes.
    """
    n = len(raws)
    # Byte after byte, of all n: so they lie as the planes of one matrix of n rows would.
    raw = np.ascontiguousarray(np.frombuffer(b"".join(raws), np.uint8).reshape(n, -1).T)
    codes = raw[:columns, 0]
    null_code = _NULL_CODE.take(codes)
    if not _POSSIBLE.take(codes).all() or _DELTA_CODE.take(codes).any() or (null_code == 2).any():
        raise WireError("malformed", "planes of more than one row, or with an unknown width code")
    values = np.zeros((columns, n), np.int64)
    if _fill(values, raw.reshape(-1), columns * n, _FIRST_CODE.take(codes)) != raw.size:
        raise WireError("malformed", f"planes of {len(raws[0])} bytes, others expected")
    return values, (null_code == 1).reshape(-1, 1) if null_code.any() else None


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


def _fill(values: Ints, raw: npt.NDArray[np.uint8], at: int, code: npt.NDArray[np.intp]) -> int:
    """Puts the planes that stand at `at` into the columns of `values`; where they end."""
    rows = values.shape[1]
    by_width = code.argsort(kind="stable")
    done = 0
    for index, count in enumerate(np.bincount(code).tolist()):
        width, chosen = _WIDTHS[index], by_width[done : done + count]
        done += count
        if not count or not width:
            continue
        end = at + count * rows * width
        if raw.size < end:
            raise WireError("malformed", "planes end too early")
        coded: npt.NDArray[Any] = raw[at:end].reshape(width, count, rows)
        coded = coded[0] if width == 1 else np.ascontiguousarray(coded.transpose(1, 2, 0)).view(f"<u{width}")[:, :, 0]
        signs = coded & 1
        np.negative(signs, out=signs)
        signs ^= coded >> 1
        values[chosen] = signs.view(f"<i{width}")
        at = end
    return at
