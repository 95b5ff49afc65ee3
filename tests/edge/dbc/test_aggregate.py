"""The Aggregate of a batch says what its values say one by one; J1939 groups and long payloads find their message."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import cantools
import numpy as np
import pytest
from fakes.dbc_frames import payloads
from fakes.made_up_dbc import made_up

from edge.dbc.aggregate import aggregate, values_of
from edge.dbc.flat import GROUP, LAYOUT, QUALITIES, FlatDecoder
from edge.dbc.load import load
from edge.dbc.model import Database
from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch

HEAD = 'VERSION ""\nBS_:\nBU_:\n'


def database(folder: Path, text: str) -> Database:
    path = folder / "t.dbc"
    path.write_text(HEAD + text)
    return load(path)


def batch_of(*frames: tuple[int, bytes]) -> FrameBatch:
    return FrameBatch.of("c", [(i, can_id, payload) for i, (can_id, payload) in enumerate(frames)])


def one_by_one(decoder: FlatDecoder, batch: FrameBatch) -> dict[int, dict[str, Any]]:
    """What an Aggregate must say, by a loop over all values."""
    told: dict[int, dict[str, Any]] = defaultdict(lambda: {"good": []})
    found = decoder.decode(batch)
    lost = set(found.frame[found.quality == GROUP].tolist())
    for frame, signal, value, quality in zip(found.frame, found.signal, found.value, found.quality, strict=True):
        if int(frame) in lost:
            continue
        told[int(signal)] |= {"frame": int(frame), "last": float(value), "quality": int(quality)}
        if QUALITIES[quality] in ("", "layout"):
            told[int(signal)]["good"].append(float(value))
    return told


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


@pytest.mark.parametrize("seed", range(6))
def test_an_aggregate_is_the_sum_of_its_values(tmp_path: Path, shared_dir: Path, seed: int) -> None:
    chance = random.Random(seed)
    files = ["evpack.dbc", "kona-ev-dbc/comp_can.dbc", "opendbc/vw_meb.dbc", "cantools-tests/multiplex_2.dbc"]
    paths = [shared_dir / "can" / name for name in files] + [tmp_path / f"{n}.dbc" for n in range(6)]
    for n, path in enumerate(paths):
        if path.parent == tmp_path:
            path.write_text(made_up(seed * 10 + n))
        known = load(path)
        frames = [(m.can_id, payload[:64]) for m in known.messages for payload in payloads(m, chance, 6)]
        chance.shuffle(frames)
        if n % 2:  # whole frames only: another way through the code
            frames = [(can_id, payload) for can_id, payload in frames if len(payload) in (8, 64)]
        for size in (1, 7, len(frames)):
            batch = batch_of(*frames[:size])
            expected = one_by_one(FlatDecoder(known.messages), batch)
            decoder = FlatDecoder(known.messages)
            found = aggregate(decoder, batch)
            assert found.signal.tolist() == sorted(expected)
            for i, signal in enumerate(found.signal.tolist()):
                told = expected[signal]
                assert found.last_frame[i] == told["frame"]
                assert found.last_quality[i] == told["quality"] or told["quality"] == LAYOUT
                assert same(found.last[i], told["last"])
                good = told["good"]
                assert found.count[i] == len(good)
                lo, hi, mean = (min(good), max(good), math.fsum(good) / len(good)) if good else (math.nan,) * 3
                assert same(found.lo[i], lo) and same(found.hi[i], hi)
                most = max(map(abs, good), default=0.0)
                assert math.isclose(found.mean[i], mean, rel_tol=1e-9, abs_tol=most * 1e-9) or same(found.mean[i], mean)
                assert values_of(decoder, batch, found.rows, signal).tolist() == good


def test_the_last_of_a_multiplexor_is_that_of_the_last_frame_of_all_its_groups(tmp_path: Path) -> None:
    """Frames sorted by what they hold once lost it: the last frame of the last group is not the last frame."""
    known = database(
        tmp_path,
        'BO_ 1 M: 2 X\n SG_ Mux M : 0|8@1+ (1,0) [0|0] "" X\n SG_ A m0 : 8|8@1+ (1,0) [0|0] "" X\n'
        ' SG_ B m1 : 8|8@1+ (1,0) [0|0] "" X\n',
    )
    decoder = FlatDecoder(known.messages)
    found = aggregate(decoder, batch_of((1, b"\1\7"), (1, b"\0\5"), (1, b"\1\6"), (1, b"\0\4")))
    told = {
        decoder.signals[s].name: (last, frame)
        for s, last, frame in zip(found.signal, found.last, found.last_frame, strict=True)
    }
    assert told == {"Mux": (0, 3), "A": (4, 3), "B": (6, 2)}


J1939 = """BO_ 2364540158 EEC1: 8 X
 SG_ Speed : 24|16@1+ (0.125,0) [0|8031.875] "rpm" X
BO_ 2565865214 PDU1: 8 X
 SG_ Told : 0|8@1+ (1,0) [0|250] "" X
BO_ 2147484000 Plain: 8 X
 SG_ P : 0|8@1+ (1,0) [0|0] "" X
BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","reserved","J1939PG";
BA_DEF_DEF_ "VFrameFormat" "ExtendedCAN";
BA_ "VFrameFormat" BO_ 2364540158 3;
BA_ "VFrameFormat" BO_ 2565865214 3;
"""


def test_j1939_messages_come_from_anybody_and_to_anybody(tmp_path: Path) -> None:
    known = database(tmp_path, J1939)
    assert [message.is_j1939 for message in known.messages] == [True, True, False]
    decoder = FlatDecoder(known.messages)
    ids = [0x0CF00400, 0x18F004FE, 0x18F00500, 0x18EFAA01, 0x0CEF0302, 0x160, 0x161]
    names = [(m := decoder.message_of(EXTENDED | one)) and m.name for one in ids]
    pdu1 = known.messages[1].can_id >> 16 & 0xFF
    ids[3:5] = [0x1800AA01 | pdu1 << 16, 0x0C000302 | pdu1 << 16]
    names = [(m := decoder.message_of(EXTENDED | one)) and m.name for one in ids]
    assert names == ["EEC1", "EEC1", None, "PDU1", "PDU1", "Plain", None]
    assert decoder.message_of(0x0CF00400 & 0x7FF) is None and decoder.message_of(EXTENDED | REMOTE | ids[0]) is None
    strict = FlatDecoder(known.messages, match="id")
    assert strict.message_of(EXTENDED | ids[0]) is None
    assert strict.message_of_pgn(0xF004) is known.messages[0]
    everybody = FlatDecoder(known.messages, match="pgn")
    assert everybody.message_of(EXTENDED | 0x1C000122) is not None  # PGN 0x100 of Plain, PDU 1: any destination
    payload = b"\0\0\0\x40\x1f\0\0\0"
    found = decoder.decode(batch_of((EXTENDED | 0x18F00455, payload), (EXTENDED | 0x18F00456, b"\xff" * 8)))
    assert found.value.tolist() == [1000.0, 8191.875]
    assert [QUALITIES[q] for q in found.quality] == ["", "out_of_range"]  # not available: its range says so


def test_the_recorded_j1939_group_is_found_though_its_message_says_extended(shared_dir: Path) -> None:
    known = load(shared_dir / "can" / "css-electronics" / "tp_j1939.dbc")
    decoder = FlatDecoder(known.messages)
    message = decoder.message_of_pgn(65251)
    assert message is not None and message.name == "EC1" and message.is_j1939
    payload = bytes(12) + (8000).to_bytes(2, "little") + bytes(26)
    found = decoder.decode_payload(message, [0, 1], [payload, payload[:13]])
    assert found.value[0] == 1000.0 and QUALITIES[found.quality[1]] == "short_frame"


def test_long_payloads_are_decoded_as_cantools_does(tmp_path: Path) -> None:
    chance = random.Random(3)
    signals = []
    for n in range(200):
        start, bits = 64 * n + chance.randrange(8), chance.choice([8, 16, 33, 57, 64]) - 8
        order = chance.choice("01")
        begin = start if order == "1" else 8 * (start // 8) + 7 - start % 8
        signals.append(f' SG_ S{n} : {begin}|{bits or 8}@{order}{chance.choice("+-")} (1,0) [0|0] "" X')
    text = "BO_ 1 Long: 1700 X\n" + "\n".join(signals) + "\n"
    known = database(tmp_path, text)
    judge = cantools.database.load_string(HEAD + text, "dbc", strict=False).messages[0]
    decoder = FlatDecoder(known.messages)
    payload = [chance.randbytes(1700), chance.randbytes(901), chance.randbytes(1700)]
    found = decoder.decode_payload(known.messages[0], [0, 1, 2], payload)
    for i, one in enumerate(payload):
        expected = judge.decode(one, decode_choices=False, allow_truncated=True)
        mine = np.flatnonzero((found.frame == i) & (found.quality == 0))
        assert {decoder.signals[found.signal[k]].name: int(found.raw[k]) for k in mine} == expected or any(
            v > 1 << 63 for v in expected.values()
        )


def test_what_is_no_message_is_counted(tmp_path: Path) -> None:
    known = database(tmp_path, 'BO_ 1 M: 2 X\n SG_ A : 8|8@1+ (1,0) [0|0] "" X\nBO_ 2 Empty: 0 X\n')
    decoder = FlatDecoder(known.messages)
    decoder.decode(batch_of((1, b"\1\1"), (1, b""), (1, b"\1"), (2, b""), (7, b"\1"), (7, b"\1"), (1 | REMOTE, b"")))
    assert decoder.errors == {"empty": 1, "short_frame": 1, "remote": 1}
    assert decoder.unknown == {7: 2} and (decoder.frames, decoder.skipped) == (7, 3)
