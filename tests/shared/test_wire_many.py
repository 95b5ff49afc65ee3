"""Many bodies decoded at once say exactly what each says alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_batches import T0_NS, batch, block, layout, with_nulls
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import wire
from shared.batch import Batch
from shared.block import Extra, Layout
from shared.errors import WireError
from shared.fields import resolution
from shared.wire_pb2 import Batch as PbBatch

GOLDEN = (Path(__file__).parents[1] / "data" / "wire-v1.bin").read_bytes()
LAYOUTS = (
    layout(cells=96, temps=8),
    layout(cells=2, temps=0, names=("pack_v", "soc_bms")),
    Layout(extras=(Extra("x"), Extra("rpm", "rpm", resolution(1.0))), cells=4),
)


def alone(body: bytes) -> Batch | WireError:
    try:
        return wire.decode_batch(body)
    except WireError as error:
        return error


def plain(one: Batch | WireError) -> object:
    """Something to compare."""
    if isinstance(one, WireError):
        return (one.reason, str(one))
    names = ("seq", "mono_ns", "t_ns", "rows", "quality_index", "alarm_index")
    columns = [
        (b.pack_id, b.layout, b.qualities, b.alarms, [getattr(b, name).tolist() for name in names]) for b in one.blocks
    ]
    return (one.device, one.boot, columns, list(one.singles()))


def a_body(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(("one", "one", "one", "nulls", "undated", "some", "golden")))
    if kind == "golden":
        return GOLDEN
    of, seed, seq = draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 5)), draw(st.integers(0, 2**20))
    rows = 3 if kind == "some" else 1
    one = block(f"P{seed}", rows, seq=seq, t_ns=None if kind == "undated" else T0_NS, of=of, seed=seed)
    return wire.encode_batch(batch(f"d{seed}", with_nulls(one, 0.3) if kind == "nulls" else one))


@st.composite
def bodies(draw: st.DrawFn) -> list[bytes]:
    found = [a_body(draw) for _ in range(draw(st.integers(0, 12)))]
    found += [found[-1]] * draw(st.integers(0, 6)) if found else []
    for _ in range(draw(st.integers(0, 4)) if found else 0):  # damaged ones among them
        at = draw(st.integers(0, len(found) - 1))
        changed = bytearray(found[at])
        changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
        found[at] = bytes(changed)
    return found


@settings(max_examples=300, deadline=None)
@given(bodies())
def test_each_body_is_what_it_is_alone(many: list[bytes]) -> None:
    assert [plain(one) for one in wire.decode_batches(many)] == [plain(alone(body)) for body in many]


@pytest.mark.parametrize("field", ["first_seq", "first_mono", "mono_unit_ns", "t_offset_ns", "rows", "layout"])
@pytest.mark.parametrize("value", [0, 1, 2**31, 2**62 - 1, 2**62, 2**63 - 1])
def test_impossible_numbers_among_good_ones(field: str, value: int) -> None:
    body = wire.encode_batch(batch("d", block("p", 1, seq=5, of=LAYOUTS[1])))
    message = PbBatch()
    message.ParseFromString(body)
    if field in ("rows", "layout", "mono_unit_ns"):
        value = min(value, 2**32 - 1)
    setattr(message.blocks[0], field, value)
    many = [body] * 5 + [message.SerializeToString()]
    assert [plain(one) for one in wire.decode_batches(many)] == [plain(alone(body)) for body in many]


def test_a_value_that_no_sample_can_have_spoils_no_other() -> None:
    good = [wire.encode_batch(batch(f"d{i}", block("p", 1, of=LAYOUTS[1], seed=i))) for i in range(8)]
    wrong = block("p", 1, of=LAYOUTS[1])
    wrong.rows[0] = np.int64(2**30)
    many = [*good, *[wire.encode_batch(batch("bad", wrong))] * 5]
    found = wire.decode_batches(many)
    assert [isinstance(one, WireError) for one in found] == [False] * 8 + [True] * 5
    assert [plain(one) for one in found] == [plain(alone(body)) for body in many]
