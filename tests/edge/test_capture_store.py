"""Kept captures: whole or not there after a kill at any moment, bounded, and nothing goes without a word."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zstandard

from edge.capture.store import CaptureError, CaptureStore, Meta, packed
from shared.records import MAX_PART_BYTES

TESTS = Path(__file__).parents[1]
MIB = 1 << 20


def meta(id_: str, **changes: object) -> Meta:
    known = {
        "id": id_, "device": "box", "pack_id": "P-1", "cause": "low_soc", "note": None, "begin_t_ns": 5,
        "end_t_ns": 9, "kept_t_ns": 10, "kept_mono_ns": 1, "frames": 1, "chunks": 0, "samples": 1,
    }  # fmt: skip
    return Meta(**known | changes)  # type: ignore[arg-type]


def keep(store: CaptureStore, id_: str, text: bytes = b"(1.000000) can0 100#00\n") -> Meta:
    return store.add(id_, {"log": [text], "state": [b"{}"]}, lambda: meta(id_))


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_what_is_kept_reads_back_in_parts_that_the_wire_can_carry(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path, 5, 64 * MIB)
    text = noise(700_000)
    pieces = [text[at : at + 50] for at in range(0, len(text), 50)]
    kept = store.add("aa", {"log": iter(pieces), "serial": iter(()), "state": iter([b"{}"])}, lambda: meta("aa"))
    assert b"".join(store.text(kept, "log")) == text and b"".join(store.text(kept, "state")) == b"{}"
    assert set(kept.files) == {"log", "state"} and max(kept.files["log"]) <= MAX_PART_BYTES
    parts = [store.part(kept, n) for n in range(len(kept.parts))]
    assert b"".join(zstandard.ZstdDecompressor().decompress(part) for part in parts[:-1]) == text
    assert store.all() == [kept] and store.find("a") == kept and store.find("b") is None


def test_a_piece_that_does_not_pack_is_cut_until_it_fits() -> None:
    text = noise(300_000)
    frames = list(packed([text]))
    assert len(frames) > 4 and all(len(frame) <= MAX_PART_BYTES for frame in frames)
    assert b"".join(zstandard.ZstdDecompressor().decompress(frame) for frame in frames) == text


def test_the_oldest_go_by_number_and_by_bytes_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CaptureStore(tmp_path, 3, MIB)
    with caplog.at_level(logging.WARNING):
        for id_ in ("f1", "a2", "e3", "b4"):
            keep(store, id_)
    assert [one.id for one in store.all()] == ["a2", "e3", "b4"] and store.given_up == 1
    assert "given up" in caplog.text and "id=f1" in caplog.text
    store.mark_sent("a2", 1)
    keep(store, "c5", noise(MIB - 100_000))
    assert [one.id for one in store.all()] == ["e3", "b4", "c5"]
    keep(store, "d6", noise(200_000))
    assert [one.id for one in store.all()] == ["d6"]
    assert [(one["id"], one["sent"]) for one in CaptureStore(tmp_path, 3, MIB).lost()] == [
        ("f1", 0), ("a2", 1), ("e3", 0), ("b4", 0), ("c5", 0),
    ]  # fmt: skip


def test_a_capture_larger_than_all_that_may_be_kept_costs_no_other(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path, 3, MIB)
    keep(store, "a1")
    with pytest.raises(CaptureError, match="more than all that may be kept"):
        keep(store, "b2", noise(MIB + 10))
    assert [one.id for one in store.all()] == ["a1"] and not list(store.folder.glob(".new-*"))


def test_a_disk_that_takes_nothing_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "captures").write_text("a file")
    with pytest.raises(CaptureError, match="cannot hold a capture"):
        keep(CaptureStore(tmp_path, 3, MIB), "a1")


def test_what_is_damaged_is_left_out_or_said_and_stops_nothing(tmp_path: Path) -> None:
    store = CaptureStore(tmp_path, 5, MIB)
    for id_ in ("a1", "b2", "c3"):
        keep(store, id_)
    (store.folder / "a1" / "meta.json").write_text("{")
    (store.folder / "b2" / "log.zst").write_bytes(bytes(10_000))
    assert [one.id for one in store.all()] == ["b2", "c3"]
    damaged = store.find("b2")
    assert damaged is not None
    with pytest.raises(CaptureError, match="b2 is damaged"):
        list(store.text(damaged, "log"))
    (store.folder / "b2" / "log.zst").write_bytes(b"")
    with pytest.raises(CaptureError, match="cut short"):
        list(store.text(damaged, "log"))
    keep(store, "d4")
    assert [one.id for one in store.all()] == ["b2", "c3", "d4"]
    store.clear_up()
    assert store.given_up == 1 and not (store.folder / "a1").exists()


@pytest.mark.slow
def test_killed_at_any_moment_every_capture_is_whole_or_not_there(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, promised = random.Random(seed), {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-m", "fakes.doomed_recorder", str(tmp_path)],
            stdout=subprocess.PIPE, cwd=TESTS, env=environment, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        time.sleep(chance.uniform(0.0, 0.2))  # the moment at which it dies, not a synchronisation
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().splitlines()
        process.wait()
        promised |= dict(line.split() for line in lines if len(line.split()) == 2 and len(line) == 81)
        store = CaptureStore(tmp_path, 5, 8 * MIB)
        kept = {one.id: one for one in store.all()}
        assert len(kept) <= 5
        for id_, one in kept.items():
            log = b"".join(store.text(one, "log"))
            assert log.count(b"\n") == 2000 and json.loads(b"".join(store.text(one, "state"))) == {}
            assert promised.get(id_, hashlib.sha256(log).hexdigest()) == hashlib.sha256(log).hexdigest()
        # What was promised is there, but for what newer ones have pushed out: five are kept, four between two steps.
        newest = sorted(promised.keys() | kept.keys())[-4:]
        assert promised.keys() & set(newest) <= kept.keys()
    store.clear_up()
    assert not list(store.folder.glob(".new-*"))
    assert promised
