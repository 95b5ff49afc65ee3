"""Planes: any matrix of integers comes back, anything else is refused with a WireError."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shared import planes
from shared.errors import WireError


def decode(data: bytes, columns: int, rows: int) -> tuple[planes.Ints, planes.Mask | None]:
    """One matrix, as the wire reads it."""
    values, null = planes.decode_many([planes.decompress(data, planes.most_bytes(columns, rows))], columns, rows)
    return values[0], None if null is None else null[0]


SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


@given(SHAPES.flatmap(lambda shape: st.tuples(hnp.arrays(np.int64, shape), hnp.arrays(np.bool_, shape))))
def test_every_matrix_and_null_mask_comes_back(pair: tuple[np.ndarray, np.ndarray]) -> None:
    values, null = pair
    back, mask = decode(planes.encode(values, null), *values.shape)
    np.testing.assert_array_equal(mask if mask is not None else np.zeros_like(null), null)
    np.testing.assert_array_equal(back[~null], values[~null])


def test_columns_alike_share_a_width_and_still_come_back() -> None:
    values = np.array([[1, 2, 3], [1, 900, 3], [5, 5, 5]], np.int64)
    back, mask = decode(planes.encode(values, None, [slice(0, 3)]), 3, 3)
    assert mask is None
    np.testing.assert_array_equal(back, values)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data, 3, 4)


@given(st.binary(max_size=200), st.integers(1, 6), st.integers(1, 6))
def test_well_compressed_random_planes_decode_or_are_refused(data: bytes, columns: int, rows: int) -> None:
    try:
        values, _ = decode(planes.compress(data), columns, rows)
    except WireError as error:
        assert error.reason == "malformed"
    else:
        assert values.shape == (columns, rows)


def test_a_frame_that_claims_gigabytes_is_refused_before_it_is_unpacked() -> None:
    bomb = planes.compress(bytes(planes.MAX_BYTES + 1))
    assert len(bomb) < 100_000
    with pytest.raises(WireError, match="limit"):
        decode(bomb, 1, 1)
