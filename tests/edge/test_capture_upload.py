"""Captures go up last, one part at a time, every part once however often anything dies, and are given up first."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from fakes.car import Car
from fakes.cloud import FakeCloud
from fakes.outbox import Machine, everything, measured

from edge.capture.courier import Courier
from edge.capture.store import CaptureStore, Meta
from shared.records import Capture

MIB = 1 << 20


def part(number: int, parts: int = 3, size: int = 30_000) -> Capture:
    data = zstandard.ZstdCompressor().compress(random.Random(number).randbytes(size))
    return Capture(
        pack_id="BATTERY_001", seq=0, mono_ns=1, t_ns=2, id="aa", part=number, parts=parts, file="log", cause="low_soc",
        data=data,
    )  # fmt: skip


def arrived(cloud: FakeCloud) -> list[tuple[str, int]]:
    return [(c.id, c.part) for batch in cloud.batches for c in batch.captures]


@pytest.fixture
def car(tmp_path: Path) -> Car:
    return Car(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> CaptureStore:
    return CaptureStore(tmp_path / "flash", 5, 64 * MIB)


def keep(store: CaptureStore, id_: str, size: int = 600_000) -> Meta:
    text = random.Random(id_).randbytes(size)
    meta = Meta(
        id=id_, device="box", pack_id="BATTERY_001", cause="low_soc", note="why", begin_t_ns=5, end_t_ns=9,
        kept_t_ns=10, kept_mono_ns=1, frames=1, chunks=0, samples=1,
    )  # fmt: skip
    return store.add(id_, {"log": [text], "state": [b"{}"]}, lambda: meta)


def whole(cloud: FakeCloud, meta: Meta, store: CaptureStore) -> bool:
    """Whether the parts that the cloud has are the files."""
    parts = {c.part: c for told in cloud.others.values() for c in told.values() if isinstance(c, Capture)}
    unpack = zstandard.ZstdDecompressor()
    for name in ("log", "state"):
        text = b"".join(unpack.decompress(parts[n].data) for n in sorted(parts) if parts[n].file == name)
        if text != b"".join(store.text(meta, name)):
            return False
    return sorted(parts) == list(range(len(meta.parts)))


def drive(car: Car, courier: Courier, seconds: int) -> None:
    for _ in range(seconds):
        state = car.uplink.state
        courier.step(is_idle=state.connected and state.problem is None)
        car.drive(1)


@pytest.mark.parametrize("mode", ["live", "normal", "economy"])
def test_no_part_goes_before_a_sample_that_was_there_before_it_and_each_goes_alone(tmp_path: Path, mode: str) -> None:
    car = Car(tmp_path, mode)
    car.drive(3)
    put_ns = car.clock.now_ns
    car.outbox.put([part(0), part(1), part(2)])
    car.drive(130)
    assert sorted(arrived(car.cloud)) == [("aa", 0), ("aa", 1), ("aa", 2)]
    seen: list[int] = []
    for batch in car.cloud.batches:
        if batch.captures:
            assert len(batch) == 1
            assert len([mono for mono in seen if mono <= put_ns]) == 3
        seen += [int(mono) for block in batch.blocks for mono in block.mono_ns]


def test_after_an_outage_every_sample_of_the_backlog_goes_first(car: Car) -> None:
    car.drive(2)
    car.transport.away = True
    car.drive(10)
    car.outbox.put([part(0), part(1)])
    car.drive(600)
    assert not arrived(car.cloud)
    outage_ends = car.clock.now_ns
    car.transport.away = False
    before = len(car.cloud.batches)
    car.drive(90)
    new = car.cloud.batches[before:]
    first = next(i for i, batch in enumerate(new) if batch.captures)
    there = {
        int(mono) for batch in car.cloud.batches[: before + first] for block in batch.blocks for mono in block.mono_ns
    }
    known = {
        mono for told in car.cloud.rows.values() for _, mono, _ in told.values() if mono <= outage_ends - 70 * 10**9
    }
    assert known <= there and len(known) > 500
    assert sorted(arrived(car.cloud)) == [("aa", 0), ("aa", 1)]


def test_parts_are_given_up_before_any_sample_and_that_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path, max_bytes=2 * MIB)
    outbox = machine.start()
    outbox.put([part(n, 9, 60_000) for n in range(4)])
    machine.run(12)
    assert outbox.last_pending() == 4
    while outbox.last_pending():
        now = machine.clock.forward(1.0)
        outbox.put([measured(now + i, noisy=True) for i in range(400)])
        outbox.flush(now + 20 * 10**9)
        assert outbox.books().evicted == 0 or not outbox.last_pending()
    gaps = []
    while (taken := outbox.take(1000, newest=False, undated=True)) is not None:
        gaps += [gap for gap in taken.batch.gaps if gap.cause == "evicted"]
        assert not taken.batch.captures
        outbox.settle(taken, everything(outbox))
    lost = {seq for gap in gaps for seq in range(gap.first_seq, gap.last_seq + 1)}
    assert {0, 1, 2, 3} <= lost


@pytest.mark.parametrize("tmpfs", [True, False])
def test_parts_survive_a_kill_and_on_flash_a_power_cut(tmp_path: Path, tmpfs: bool) -> None:
    machine = Machine(tmp_path, tmpfs=tmpfs)
    outbox = machine.start()
    outbox.put([part(0), part(1)])
    machine.kill()
    outbox = machine.start()
    assert outbox.last_pending() == 2
    machine.run(12)
    machine.power_cut()
    outbox = machine.start()
    assert outbox.last_pending() == 2
    taken = [outbox.take(1000, newest=False, undated=True) for _ in range(20)]
    assert sorted(c.part for one in taken if one for c in one.batch.captures) == [0, 1]


def test_a_kept_capture_goes_up_whole_and_is_marked(car: Car, store: CaptureStore) -> None:
    meta = keep(store, "aa")
    assert len(meta.parts) > 8
    courier = Courier(store, car.outbox, car.clock)
    drive(car, courier, 60)
    assert store.sent("aa") == len(meta.parts)
    assert whole(car.cloud, meta, store) and len(arrived(car.cloud)) == len(meta.parts)
    (one, *_) = [c for batch in car.cloud.batches for c in batch.captures]
    assert (one.cause, one.note, one.begin_t_ns, one.end_t_ns, one.t_ns) == ("low_soc", "why", 5, 9, 10)
    drive(car, courier, 20)
    assert len(arrived(car.cloud)) == len(meta.parts)


def test_nothing_enters_the_outbox_while_the_cloud_is_away(car: Car, store: CaptureStore) -> None:
    keep(store, "aa")
    courier = Courier(store, car.outbox, car.clock)
    drive(car, courier, 4)
    car.transport.away = True
    sent, pending = store.sent("aa"), car.outbox.last_pending()
    drive(car, courier, 120)
    assert car.outbox.last_pending() <= 4 and store.sent("aa") - sent <= pending <= 4


def test_whatever_dies_each_part_is_there_once_and_the_capture_whole(tmp_path: Path, store: CaptureStore) -> None:
    """Killed or without power at random: parts come twice under other seqs at most, and what they say is the same."""
    chance = random.Random(7)
    meta = keep(store, "aa", 1_000_000)
    car = Car(tmp_path)
    for _ in range(12):
        courier = Courier(store, car.outbox, car.clock)
        drive(car, courier, chance.randrange(1, 9))
        chance.choice([car.machine.kill, car.machine.power_cut])()
        again = Car.__new__(Car)
        again.__dict__ |= car.__dict__
        again.outbox = car.machine.start()
        again.uplink = type(car.uplink)(
            again.outbox, car.transport, car.clock, car.uplink._settings, jitter=lambda low, high: high
        )
        car = again
    drive(car, Courier(store, car.outbox, car.clock), 60)
    assert store.sent("aa") == len(meta.parts) and whole(car.cloud, meta, store)
    assert len(arrived(car.cloud)) <= len(meta.parts) + 12 * 4


def test_what_the_cloud_refuses_stays_here_and_stops_no_other(car: Car, store: CaptureStore) -> None:
    keep(store, "aa", 1000)
    other = keep(store, "bb", 1000)
    courier = Courier(store, car.outbox, car.clock)
    car.drive(2)
    car.cloud.refuse = lambda boot, seq: "not_yours" if not arrived(car.cloud) or len(arrived(car.cloud)) < 2 else None
    drive(car, courier, 5)
    car.cloud.refuse = lambda boot, seq: None
    drive(car, courier, 40)
    assert store.sent("aa") == 0 and store.sent("bb") == len(other.parts)


def test_a_damaged_capture_stops_no_other(car: Car, store: CaptureStore) -> None:
    keep(store, "aa")
    other = keep(store, "bb", 1000)
    (store.folder / "aa" / "log.zst").write_bytes(b"")
    courier = Courier(store, car.outbox, car.clock)
    drive(car, courier, 30)
    assert store.sent("bb") == len(other.parts) and replace(other) == other
