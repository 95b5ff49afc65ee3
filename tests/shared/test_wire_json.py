"""JSON uploads: values as written, every refusal names its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import WireError
from shared.records import Receipt, Rejected
from shared.wire_json import decode_batch_json, receipt_json


def document(**sample: Any) -> dict[str, Any]:
    row = {"pack_id": "P1", "seq": 0, "mono_ns": 5, **sample}
    return {"schema": 1, "device": "d1", "boot": "00000000000000ff", "samples": [row]}


def decode(value: Any) -> Any:
    return decode_batch_json(json.dumps(value).encode())


def test_a_minimal_upload() -> None:
    batch = decode(document(pack_v=391.36, soc_bms=0.5))
    (sample,) = batch.blocks[0].samples()
    assert (batch.device, batch.boot) == ("d1", 255)
    assert (sample.pack_v, sample.soc_bms, sample.current_a, sample.t_ns) == (391.36, 0.5, None, None)


@given(st.lists(st.decimals(0, 5, places=6), min_size=1, max_size=5), st.decimals(-900, 900, places=4))
def test_values_come_back_as_written(cells: list[Any], current: Any) -> None:
    cell_v = [float(str(cell)) for cell in cells]
    batch = decode(document(cell_v=cell_v, current_a=float(str(current)), extra={"x": float(str(current))}))
    (sample,) = batch.blocks[0].samples()
    assert list(sample.cell_v) == cell_v
    assert sample.current_a == sample.extra["x"] == float(str(current))


def test_samples_of_several_packs_with_different_fields_share_one_batch() -> None:
    doc = document(cell_v=[3.8, None], quality={"cell_v[1]": "absent"})
    doc["samples"] += [
        {"pack_id": "P2", "seq": 2, "mono_ns": 7, "balancing": "0x800000000000000000000001"},
        {"pack_id": "P1", "seq": 1, "mono_ns": 6, "state": "charge_dc", "contactor_main": True},
    ]
    first, second = decode(doc).blocks
    assert [s.cell_v for s in first.samples()] == [(3.8, None), (None, None)]
    assert [s.state for s in first.samples()] == [None, "charge_dc"]
    assert [s.balancing for s in second.samples()] == [(1 << 95) | 1]


BAD = {
    "unknown key 'colour'": {**document(), "colour": 1},
    "device": {**document(), "device": "no spaces"},
    "boot": {**document(), "boot": "12"},
    "samples is not a list": {**document(), "samples": {}},
    r"samples\[0\] has 'volts'": document(volts=3),
    r"samples\[0\].pack_v is not a number": document(pack_v="3"),
    r"samples\[0\].pack_v is not a number ": document(pack_v=True),
    r"samples\[0\].seq": document(seq=-1),
    "seq or mono_ns does not ascend": {**document(), "samples": [document()["samples"][0]] * 2},
    r"cell_v\[0\] of seq 0 holds an impossible value": document(cell_v=[50]),
    r"samples\[0\].state is none of": document(state="flying"),
    r"samples\[0\].alarms has 'fire'": document(alarms=["fire"]),
    r"samples\[0\].quality has 'pack_v'": document(quality={"pack_v": "tired"}),
    r"samples\[0\].contactor_main": document(contactor_main=1),
    "without records": {**document(), "samples": []},
    r"events\[0\] has no": {**document(), "events": [{"seq": 3}]},
    r"reports\[0\] is not an object": {**document(), "reports": [3]},
}


@pytest.mark.parametrize("sentence", BAD)
def test_a_refusal_names_its_place(sentence: str) -> None:
    with pytest.raises(WireError, match=sentence.strip()) as caught:
        decode(BAD[sentence])
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b'{"schema":NaN}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_batch_json(body)
    assert caught.value.reason == "malformed"


def test_more_different_columns_than_a_server_can_afford_are_too_large() -> None:
    doc = document()
    doc["samples"] = [
        {"pack_id": f"P{i}", "seq": i, "mono_ns": 1, "cell_v": [3.6] * (850 + i), "balancing": "0x" + "f" * 250}
        for i in range(150)
    ]
    with pytest.raises(WireError) as caught:
        decode(doc)
    assert caught.value.reason == "too_large"
    doc["samples"] = [{**sample, "cell_v": [3.6] * 900} for sample in doc["samples"]]
    layouts = {id(block.layout) for block in decode(doc).blocks}
    assert len(layouts) == 1  # equal ones cost once


@pytest.mark.parametrize("schema", [None, 0, 2, "1", True])
def test_another_schema_is_unknown(schema: Any) -> None:
    with pytest.raises(WireError) as caught:
        decode({**document(), "schema": schema})
    assert caught.value.reason == "unknown_schema"


def test_the_receipt_has_the_names_of_the_contract() -> None:
    receipt = Receipt(accepted=((0, 3),), rejected=(Rejected(4, 4, "bad_time"),), t_ns=7)
    assert json.loads(receipt_json(receipt)) == {
        "accepted": [[0, 3]],
        "rejected": [{"first": 4, "last": 4, "reason": "bad_time"}],
        "t_ns": 7,
    }
