"""The wire: what goes in comes out exactly; golden bytes decode for ever; garbage is refused with a reason."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import wire
from shared.batch import Batch, ranges
from shared.block import Extra, Layout, block_of, layout_of, pack_row
from shared.errors import WireError
from shared.fields import ALARM_CODES, FLOAT32, NULL, QUALITY_REASONS, Resolution, resolution
from shared.records import Estimate, Event, Gap, Receipt, Rejected, Report, Sample, Session
from shared.wire_json import batch_json, decode_batch_json
from shared.wire_pb2 import Batch as PbBatch

DATA = Path(__file__).parents[1] / "data"
GOLDEN = DATA / "wire-v1.bin"
GOLDEN_SESSIONS = DATA / "wire-v1-sessions.bin"
T0 = 1_790_000_000_000_000_000


def a_sample(k: int = 0, **changes: object) -> Sample:
    sample = Sample(
        pack_id="BATTERY_001",
        seq=k,
        mono_ns=(1000 + k) * 10**9,
        t_ns=T0 + k * 10**9,
        pack_v=391.4 - k,
        current_a=-2.3,
        pack_v_min=390.1 - k,
        pack_v_max=391.5 - k,
        current_a_min=-40.0,
        current_a_max=12.5,
        soc_bms=0.869,
        soh_bms=0.935,
        odometer_km=23145.237,
        state="drive",
        contactor_main=True,
        contactor_precharge=False,
        cell_v=(3.851, None, 3.868, 3.874),
        temp_c=(21.0, -7.5),
        balancing=(1 << 95) | 5,
        alarms=("cell_imbalance:warning", "low_soc"),
        quality={"cell_v[1]": "stale"},
        extra={"motor_rpm": 5300.0, "aux": 13.8},
    )
    return dataclasses.replace(sample, **changes)


EXTRAS = (Extra("motor_rpm", "rpm", resolution(1.0)), Extra("aux", "V", resolution(0.01)))


def a_batch(rows: int = 3) -> Batch:
    samples = [a_sample(k) for k in range(rows)]
    layout = layout_of(samples[0], {}, EXTRAS)
    packed = [pack_row(sample, layout) for sample in samples]
    block = block_of(
        "BATTERY_001",
        layout,
        [s.seq for s in samples],
        [s.mono_ns for s in samples],
        [s.t_ns for s in samples],
        b"".join(row.tobytes() for row, _ in packed),
        [quality for _, quality in packed],
        [s.alarms for s in samples],
    )
    at = {"mono_ns": 5 * 10**12, "t_ns": T0}
    return Batch(
        device="edge-01",
        boot=0xFEDC_BA98_7654_3210,
        blocks=(block,),
        estimates=(Estimate(seq=rows, **at, pack_id="P", rul_cycles=812.5, in_domain=False, r0_mohm=(1.25, 1.5)),),
        events=(Event(seq=rows + 1, **at, id="e1", code="low_soc", severity="warning", pack_id="P", cell=3),),
        reports=(Report(seq=rows + 2, mono_ns=1, model_id="m", counter=7, step="seen", numbers={"a": 0.5}),),
        gaps=(Gap(seq=rows + 3, mono_ns=1, of_boot=9, first_seq=4, last_seq=9, cause="power_cut", stored=((4, 5),)),),
    )


def a_session(seq: int) -> Session:
    return Session(
        pack_id="P", seq=seq, mono_ns=5 * 10**12, t_ns=T0, duration_s=86_400.5, cycles=412.7, throughput_ah=0.0,
        r_step_mohm=0.4312, simulated=True, reasons={"window_ah": "short_window", "soh_bms": "absent"},
    )  # fmt: skip


def with_sessions() -> Batch:
    bare = Session(pack_id="P", seq=8, mono_ns=6, duration_s=0.0)
    return dataclasses.replace(a_batch(), sessions=(a_session(7), bare))


def rows_of(batch: Batch) -> list[Sample]:
    return [sample for block in batch.blocks for sample in block.samples()]


def test_samples_come_back_equal() -> None:
    assert rows_of(wire.decode_batch(wire.encode_batch(a_batch()))) == [a_sample(k) for k in range(3)]


def test_all_other_records_come_back_equal() -> None:
    batch = a_batch()
    back = wire.decode_batch(wire.encode_batch(batch))
    assert (back.device, back.boot) == (batch.device, batch.boot)
    assert (back.estimates, back.events, back.reports, back.gaps) == (
        batch.estimates, batch.events, batch.reports, batch.gaps)  # fmt: skip


def test_json_and_protobuf_say_the_same() -> None:
    batch = a_batch()
    back = decode_batch_json(batch_json(batch))
    assert rows_of(back) == rows_of(batch)
    assert list(back.singles()) == list(batch.singles())


def test_golden_bytes_of_version_1_decode_for_ever() -> None:
    back = wire.decode_batch(GOLDEN.read_bytes())
    assert rows_of(back) == [a_sample(k) for k in range(3)]
    assert list(back.singles()) == list(a_batch().singles())


def test_sessions_come_back_equal_both_ways() -> None:
    batch = with_sessions()
    for back in (wire.decode_batch(wire.encode_batch(batch)), decode_batch_json(batch_json(batch))):
        assert back.sessions == batch.sessions
        assert len(back) == len(batch) == 9
        assert back.seqs().tolist() == list(range(9))


def test_golden_bytes_with_sessions_decode_for_ever() -> None:
    assert wire.decode_batch(GOLDEN_SESSIONS.read_bytes()).sessions == with_sessions().sessions


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"duration_s": -1.0}, "impossible duration"),
        ({"duration_s": math.nan}, "not a number"),
        ({"pack_id": "no spaces"}, "not an id"),
        ({"r_step_mohm": math.inf}, "not a number"),
        ({"reasons": {f"f{k}": "absent" for k in range(65)}}, "more than 64 reasons"),
        ({"reasons": {"cycles": "\x00"}}, "not printable"),
    ],
)
def test_an_impossible_session_is_refused(changes: dict[str, object], said: str) -> None:
    batch = dataclasses.replace(a_batch(), sessions=(dataclasses.replace(a_session(7), **changes),))
    with pytest.raises(WireError, match=said):
        wire.decode_batch(wire.encode_batch(batch))


def test_undated_rows_stay_undated() -> None:
    batch = a_batch()
    undated = dataclasses.replace(batch.blocks[0], t_ns=np.array([T0, -(2**63), T0], np.int64))
    back = wire.decode_batch(wire.encode_batch(dataclasses.replace(batch, blocks=(undated,))))
    assert [s.t_ns for s in rows_of(back)] == [T0, None, T0]


def test_receipts_come_back_equal() -> None:
    receipt = Receipt(accepted=((0, 4), (7, 7)), rejected=(Rejected(5, 6, "too_old"),), t_ns=T0, mode="live")
    assert wire.decode_receipt(wire.encode_receipt(receipt)) == receipt


STEPS = st.sampled_from([resolution(s) for s in (0.1, 0.01, 0.001, 0.5, 0.005, 1 / 128, 10.0)] + [FLOAT32])


@given(st.data())
def test_any_layout_and_any_scaled_integers_come_back(data: st.DataObject) -> None:
    layout = Layout(
        scalars=tuple((name, resolution(0.01)) for name in data.draw(st.sets(st.sampled_from(["pack_v", "cycles"])))),
        cells=data.draw(st.integers(0, 6)),
        temps=data.draw(st.integers(0, 2)),
        extras=tuple(Extra(f"x{i}", "", step) for i, step in enumerate(data.draw(st.lists(STEPS, max_size=3)))),
    )
    count = data.draw(st.integers(1, 5))
    low, span = (bounds[:, 0].tolist() for bounds in layout.limits)
    floats = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda x: int(np.float32(x).view(np.int32)))
    values = [floats if i in layout.float32 else st.integers(low[i], low[i] + span[i]) for i in range(layout.width)]
    table = [[data.draw(st.one_of(st.just(NULL), each)) for each in values] for _ in range(count)]
    seq = sorted(data.draw(st.sets(st.integers(0, 2**60), min_size=count, max_size=count)))
    block = block_of(
        "P", layout, seq, seq, [None] * count, np.array(table, "<i4").tobytes(), [None] * count, [()] * count
    )
    back = wire.decode_batch(wire.encode_batch(Batch(device="d", boot=1, blocks=(block,)))).blocks[0]
    assert back.layout == layout
    np.testing.assert_array_equal(back.rows, block.rows)
    np.testing.assert_array_equal(back.seq, block.seq)


@given(st.decimals(-200, 200, places=3))
def test_a_value_at_its_resolution_reads_back_as_the_same_number(value: object) -> None:
    number = float(str(value))
    sample = Sample(pack_id="P", seq=0, mono_ns=0, ambient_c=None, cell_v=(), extra={"x": number})
    layout = layout_of(sample, {}, [Extra("x", "", resolution(0.001))])
    row, quality = pack_row(sample, layout)
    assert not quality
    assert layout.floats(row.astype(np.int64).reshape(-1, 1))[0, 0] == number


def test_what_no_number_can_hold_becomes_none_with_a_reason() -> None:
    sample = a_sample(cell_v=(99.0, math.nan), temp_c=(), odometer_km=1e9)
    row, quality = pack_row(sample, layout_of(sample, {}, EXTRAS))
    layout = layout_of(sample, {}, EXTRAS)
    assert quality["cell_v[0]"] == "out_of_range"
    assert quality["cell_v[1]"] == "stale" == a_sample().quality["cell_v[1]"]
    assert quality["odometer_km"] == "out_of_range"
    assert row[layout.index["odometer_km"]] == NULL


@given(st.binary(max_size=300))
def test_random_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        wire.decode_batch(body)
    assert caught.value.reason in ("malformed", "unknown_schema")


def test_an_extra_that_is_not_a_number_is_refused() -> None:
    layout = Layout(extras=(Extra("x"),))
    nan = np.float32("nan").tobytes()
    block = block_of("P", layout, [0], [0], [None], nan, [None], [()])
    with pytest.raises(WireError, match="not a number"):
        wire.decode_batch(wire.encode_batch(Batch(device="d", boot=1, blocks=(block,))))


@settings(max_examples=500)
@given(st.integers(0, 10**9), st.data())
def test_a_mutated_batch_is_refused_or_is_a_valid_batch(at: int, data: st.DataObject) -> None:
    body = bytearray(GOLDEN.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        body[(at + data.draw(st.integers(0, 99))) % len(body)] = data.draw(st.integers(0, 255))
    try:
        batch = wire.decode_batch(bytes(body))
    except WireError:
        return
    list(rows_of(batch))


MUTATIONS = {
    "rows": lambda m: setattr(m.blocks[0], "rows", 4),
    "no rows": lambda m: setattr(m.blocks[0], "rows", 0),
    "layout": lambda m: setattr(m.blocks[0], "layout", 9),
    "unit": lambda m: setattr(m.blocks[0], "mono_unit_ns", 0),
    "cells": lambda m: setattr(m.layouts[0], "cells", 5),
    "too many cells": lambda m: setattr(m.layouts[0], "cells", 2**31),
    "field number": lambda m: setattr(m.layouts[0], "scalars", b"\x01\x01"),
    "resolution": lambda m: m.layouts[0].steps.extend([1, 0, 0]),
    "extra name": lambda m: m.layouts[0].extra_names.__setitem__(0, "no name"),
    "device": lambda m: setattr(m, "device", "../etc"),
    "pack": lambda m: setattr(m.blocks[0], "pack_id", ""),
    "same seq twice": lambda m: setattr(m.events[0].head, "seq", 0),
    "quality reason": lambda m: m.blocks[0].qualities[0].reasons.__setitem__("pack_v", 77),
    "quality gone": lambda m: m.blocks[0].ClearField("qualities"),
    "alarm": lambda m: m.blocks[0].alarms[0].codes.append("fire"),
    "too many estimated cells": lambda m: m.estimates[0].cell_soc.extend([0.5] * 2000),
    "counter": lambda m: setattr(m.reports[0], "counter", 2**63),
    "gap cause": lambda m: setattr(m.gaps[0], "cause", "bored"),
    "nan": lambda m: setattr(m.estimates[0], "soc", math.nan),
    "empty": lambda m: [m.ClearField(name) for name in ("blocks", "estimates", "events", "reports", "gaps")],
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_impossible_batch_is_malformed(name: str) -> None:
    message = PbBatch.FromString(wire.encode_batch(a_batch()))
    MUTATIONS[name](message)
    with pytest.raises(WireError) as caught:
        wire.decode_batch(message.SerializeToString())
    assert caught.value.reason == "malformed"
    assert str(caught.value)


def test_layouts_of_more_columns_than_a_server_can_afford_are_too_large() -> None:
    """A layout of thousands of columns is a few bytes: 20 kB of them once took ten seconds to decode."""
    message = PbBatch.FromString(wire.encode_batch(a_batch()))
    for cells in range(1024):
        message.layouts.add(cells=cells, temps=1024)
    with pytest.raises(WireError, match="columns") as caught:
        wire.decode_batch(message.SerializeToString())
    assert caught.value.reason == "too_large"


def test_more_notes_than_rows_can_point_to_are_too_large() -> None:
    message = PbBatch.FromString(wire.encode_batch(a_batch()))
    for _ in range(100_001):
        message.blocks[0].alarms.add()
    with pytest.raises(WireError) as caught:
        wire.decode_batch(message.SerializeToString())
    assert caught.value.reason == "too_large"


def test_another_schema_is_named() -> None:
    message = PbBatch.FromString(wire.encode_batch(a_batch()))
    message.schema = 2
    with pytest.raises(WireError, match="schema 2"):
        wire.decode_batch(message.SerializeToString())


def test_ranges_join_what_follows() -> None:
    assert ranges(np.array([0, 1, 2, 5, 7, 8], np.int64)) == [(0, 2), (5, 5), (7, 8)]
    assert ranges(np.array([], np.int64)) == []


def test_steps_are_exact_decimals() -> None:
    assert resolution(0.0078125) == Resolution(78125, 7)
    assert resolution(0.5) == Resolution(5, 1)
    assert resolution(10) == Resolution(10, 0)
    for bad in (0.0, -0.1, 1e-12, math.inf, math.nan):
        with pytest.raises(ValueError, match="resolution"):
            resolution(bad)


def test_the_lists_on_the_wire_keep_their_order() -> None:
    """Quality reasons travel by position: a new one may only be appended."""
    reasons = "absent stale invalid out_of_range short_frame not_supported implausible stuck"
    assert QUALITY_REASONS[:8] == tuple(reasons.split())
    assert len(ALARM_CODES) == len(set(ALARM_CODES)) == 30
