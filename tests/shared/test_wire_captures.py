"""Parts of captures on the wire: bytes come back as they were, golden bytes for ever, what cannot be is refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from shared import wire
from shared.batch import MAX_PLAIN_BYTES, Batch
from shared.errors import WireError
from shared.records import MAX_PART_BYTES, MAX_PARTS, Capture
from shared.wire_json import batch_json, decode_batch_json

GOLDEN = Path(__file__).parents[1] / "data" / "wire-v1-captures.bin"
T0 = 1_790_000_000_000_000_000
# A frame as it was packed once; another zstd may pack the same text into other bytes.
DATA = bytes.fromhex("28b52ffd201ff9000028312e303030303030292063616e302031303023393345464643464333450a")


def packed(text: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(text)


def a_part(**changes: Any) -> Capture:
    known = Capture(
        pack_id="BATTERY_001", seq=3, mono_ns=4, t_ns=T0, id="3f81aa0011223344", part=1, parts=3, file="log",
        cause="cell_over_voltage", note="odd noise, 40 km/h", begin_t_ns=T0 - 10**10, end_t_ns=T0 - 1, data=DATA,
    )  # fmt: skip
    return replace(known, **changes)


def batch(*captures: Capture) -> Batch:
    return Batch(device="device-1", boot=2**64 - 3, captures=captures)


BOTH = (
    a_part(),
    a_part(seq=4, t_ns=None, part=2, file="state", cause="trigger", note=None, begin_t_ns=None, end_t_ns=None),
)


def test_parts_come_back_equal_both_ways() -> None:
    for back in (wire.decode_batch(wire.encode_batch(batch(*BOTH))), decode_batch_json(batch_json(batch(*BOTH)))):
        assert back.captures == BOTH and len(back) == 2 and back.seqs().tolist() == [3, 4]


def test_the_golden_bytes_decode_for_ever() -> None:
    assert wire.decode_batch(GOLDEN.read_bytes()).captures == BOTH


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"part": 3}, "part 3 of 3"),
        ({"part": 0, "parts": MAX_PARTS + 1}, f"part 0 of {MAX_PARTS + 1}"),
        ({"parts": 0, "part": 0}, "part 0 of 0"),
        ({"id": "no spaces"}, "no possible id"),
        ({"id": ""}, "no possible id"),
        ({"file": "../meta"}, "no possible id, file or cause"),
        ({"cause": ""}, "no possible id, file or cause"),
        ({"note": "two\nlines"}, "not printable"),
        ({"note": "x" * 300}, "too long"),
        ({"pack_id": "no spaces"}, "not an id"),
        ({"begin_t_ns": 2**62}, "impossible window"),
        ({"data": b""}, "0 bytes"),
        ({"data": bytes(MAX_PART_BYTES + 1)}, f"{MAX_PART_BYTES + 1} bytes"),
        ({"data": b"plain text"}, "no zstd frame"),
        ({"data": packed(bytes(MAX_PLAIN_BYTES + 1))}, f"unpack to {MAX_PLAIN_BYTES + 1} bytes"),
        ({"data": zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 99)}, "unpack to -1 bytes"),
    ],
)
def test_a_part_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    body = wire.encode_batch(batch(a_part(**changes)))
    with pytest.raises(WireError, match=said):
        wire.decode_batch(body)


@pytest.mark.parametrize("data", [5, "no base64!", "ä", None])
def test_data_that_are_no_base64_are_refused(data: Any) -> None:
    document = json.loads(batch_json(batch(a_part())))
    document["captures"][0]["data"] = data
    with pytest.raises(WireError, match=r"captures\[0\]"):
        decode_batch_json(json.dumps(document).encode())
    document["captures"][0]["data"] = base64.b64encode(DATA).decode()
    assert decode_batch_json(json.dumps(document).encode()).captures == (a_part(),)
