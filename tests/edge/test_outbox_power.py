"""Power cuts: files torn at any byte, writes that never reached flash. The file always opens, gaps tell the rest."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import missing
from fakes.cloud import FakeCloud
from fakes.outbox import Machine, everything, measured

from edge.outbox.box import Outbox
from edge.outbox.inspect import read_books
from edge.outbox.records import OutboxError
from shared.records import Receipt
from shared.wire import decode_batch, encode_batch

FLUSH_S = 10


def drain(outbox: Outbox, cloud: FakeCloud) -> None:
    while (taken := outbox.take(1000, newest=False, undated=True)) is not None:
        outbox.settle(taken, cloud.receive(decode_batch(encode_batch(taken.batch))))


def test_a_power_cut_while_offline_costs_at_most_flush_s(tmp_path: Path) -> None:
    for seconds in range(20, 45):
        machine, cloud = Machine(tmp_path / str(seconds), flush_s=FLUSH_S), FakeCloud()
        boot = machine.start().boot
        machine.run(seconds, packs=3)
        machine.power_cut()
        outbox = machine.start()
        assert outbox.books().imbalance() == (0, 0)
        drain(outbox, cloud)
        kept = len(cloud.rows[boot])
        assert 3 * seconds - kept <= 3 * FLUSH_S
        missing = cloud.missing(boot)
        assert set(range(kept, 3 * seconds)) <= missing, "every lost sample is within the gap"
        assert max(missing) - kept <= 3 * FLUSH_S * 1.5, "and the gap is no wider than what was possible"
        assert {gap.cause for gap in cloud.gaps()} == {"power_cut"}


def test_a_power_cut_while_online_tells_a_gap_though_nothing_ever_went_to_flash(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path, flush_s=FLUSH_S), FakeCloud()
    outbox = machine.start()
    boot = outbox.boot
    for _ in range(60):
        machine.run(5)
        taken = outbox.take(600, newest=True, undated=True)
        assert taken is not None
        outbox.settle(taken, cloud.receive(taken.batch))
    machine.run(4)
    machine.power_cut()
    drain(machine.start(), cloud)
    missing = cloud.missing(boot)
    assert set(range(300, 304)) <= missing <= set(range(300, 300 + 2 * FLUSH_S))


def test_memory_that_is_wiped_under_the_same_kernel_is_told_as_killed(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path), FakeCloud()
    boot = machine.start().boot
    machine.run(15)
    machine.kill()
    assert machine.memory is not None
    shutil.rmtree(machine.memory)
    drain(machine.start(), cloud)
    assert [(gap.cause, gap.of_boot) for gap in cloud.gaps()] == [("killed", boot)]


def test_a_killed_agent_tells_its_last_seq_and_no_gap_arises(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path), FakeCloud()
    boots = []
    for _ in range(4):
        boots.append(machine.start().boot)
        machine.run(17)
        machine.kill()
    drain(machine.start(), cloud)
    assert [gap.of_boot for gap in cloud.gaps()] == boots
    assert [gap.last_seq for gap in cloud.gaps()] == [16, 17, 17, 17]  # the later ones put a gap record too
    assert not any(cloud.missing(boot) for boot in boots)
    assert all(len(cloud.rows[boot]) == 17 for boot in boots)


def test_killed_and_then_cut_off_the_older_starts_end_is_known_exactly(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path), FakeCloud()
    boot = machine.start().boot
    machine.run(15)
    machine.kill()
    machine.start()
    machine.power_cut()
    drain(machine.start(), cloud)
    kept = len(cloud.rows[boot])
    assert cloud.missing(boot) == set(range(kept, 15))


def test_a_second_power_cut_before_anything_was_sent_keeps_the_gap(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path), FakeCloud()
    boot = machine.start().boot
    machine.run(15)
    for _ in range(3):
        machine.power_cut()
        machine.start()
    outbox = machine.outbox
    assert outbox is not None
    drain(outbox, cloud)
    assert set(range(len(cloud.rows[boot]), 15)) <= cloud.missing(boot)


def test_without_tmpfs_a_power_cut_costs_nothing(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path, tmpfs=False), FakeCloud()
    boot = machine.start().boot
    machine.run(33)
    machine.power_cut()
    outbox = machine.start()
    drain(outbox, cloud)
    assert len(cloud.rows[boot]) == 33
    assert not cloud.missing(boot)
    assert outbox.books().imbalance() == (0, 0)


def history(folder: Path, tmpfs: bool) -> tuple[Machine, list[int], int]:
    """Two starts with a backlog, some of it settled; returns what was acquired by start."""
    machine = Machine(folder, tmpfs=tmpfs)
    boots = []
    outbox = machine.start()
    boots.append(outbox.boot)
    machine.run(120, packs=2)
    taken = outbox.take(60, newest=False, undated=True)
    assert taken is not None
    outbox.settle(taken, everything(outbox))
    acked = taken.batch.seqs().size
    machine.kill()
    boots.append(machine.start().boot)
    machine.run(100, packs=2)
    return machine, boots, int(acked)


def tear(flash: Path, chance: random.Random) -> str:
    """Damages the files as power cuts and bad flash do; says how."""
    db, wal = flash / "outbox.sqlite", flash / "outbox.sqlite-wal"
    (flash / "outbox.sqlite-shm").unlink(missing_ok=True)
    how = chance.choice(["wal cut", "wal garbled", "wal gone", "db cut", "db garbled page", "db zero page", "db byte"])
    file = wal if how.startswith("wal") else db
    data = bytearray(file.read_bytes()) if file.exists() else bytearray()
    if how == "wal gone":
        wal.unlink(missing_ok=True)
        return how
    if not data:
        return how
    at = chance.randrange(len(data))
    page = at // 4096 * 4096
    if how.endswith("cut"):
        data = data[:at]
    elif how == "db zero page":
        data[page : page + 4096] = bytes(4096)
    elif how == "db byte":
        data[at] ^= 1 << chance.randrange(8)
    else:
        data[page : page + 4096] = chance.randbytes(len(data[page : page + 4096]))
    file.write_bytes(data)
    return how


@pytest.mark.parametrize("ten", range(20))
def test_a_torn_image_always_opens_and_what_is_missing_is_told(tmp_path: Path, ten: int, images: Images) -> None:
    for seed in range(10 * ten, 10 * ten + 10):
        torn_image(tmp_path / str(seed), seed, images)


def torn_image(folder: Path, seed: int, images: Images) -> None:
    chance = random.Random(seed)
    machine, boots, acked = images.copy(folder, chance)
    how = f"seed {seed}: {tear(machine.flash, chance)}"
    cloud = FakeCloud()
    outbox = machine.start()
    assert outbox.books().imbalance() == (0, 0), how
    machine.run(3)
    drain(outbox, cloud)
    machine.run(12)
    drain(outbox, cloud)
    books = outbox.books()
    assert books.imbalance() == (0, 0), how
    assert books.pending == 0, how
    for boot, acquired in zip(boots, (240, 201), strict=True):
        already = set(range(acked)) if boot == boots[0] else set()
        lost = set(range(acquired)) - set(cloud.rows[boot]) - set(cloud.others[boot]) - already
        untold = lost - cloud.missing(boot)
        assert not untold, f"{how}: {len(untold)} of {len(lost)} lost records are in no gap"
    assert len(cloud.rows[outbox.boot]) == 15, "and the agent goes on"
    outbox.close()


class Images:
    """Flash as it was at several moments of one history, taken once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        machine, self.boots, self.acked = history(folder / "history", tmpfs=True)
        self.taken: list[Path] = []
        for n in range(6):
            assert machine.outbox is not None
            machine.run(0 if n == 0 else 5)
            image = folder / f"image{n}"
            shutil.copytree(machine.flash, image)
            self.taken.append(image)
        machine.kill()

    def copy(self, to: Path, chance: random.Random) -> tuple[Machine, list[int], int]:
        """A machine after a power cut at one of the moments."""
        machine = Machine(to)
        shutil.copytree(chance.choice(self.taken), machine.flash)
        machine.kernel = 2
        return machine, self.boots, self.acked


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_file_that_breaks_while_the_agent_runs_is_mended(tmp_path: Path, tmpfs: bool) -> None:
    machine, cloud = Machine(tmp_path, tmpfs=tmpfs), FakeCloud()
    outbox = machine.start()
    machine.run(60)
    db = machine.flash / "outbox.sqlite"
    outbox._cold.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(db.read_bytes())
    data[8192:] = random.Random(1).randbytes(len(data) - 8192)
    with db.open("r+b") as file:
        file.write(data)
    outbox._cold.store._db.execute("PRAGMA cache_size = 0")
    for _ in range(30):
        try:
            machine.run(1)
        except Exception as error:
            assert "damaged" in str(error)
    try:
        drain(outbox, cloud)
    except Exception as error:
        assert "damaged" in str(error)
        drain(outbox, cloud)
    books = outbox.books()
    assert books.imbalance() == (0, 0)
    assert books.pending == 0
    assert len(cloud.rows[outbox.boot]) + len(cloud.missing(outbox.boot) & set(range(90))) >= 88
    outbox.close()


def test_status_reads_the_same_accounts_after_a_power_cut_as_the_agent_will(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    outbox = machine.start()
    machine.run(33)
    taken = outbox.take(10, newest=False, undated=True)
    assert taken is not None
    outbox.settle(taken, Receipt(accepted=((0, 5),), t_ns=1))
    machine.power_cut()
    seen = read_books(machine.flash, machine.memory)
    books = machine.start().books()
    assert seen is not None and seen.imbalance() == (0, 0)
    assert (seen.stored, seen.acked, seen.pending, seen.lost) == (books.stored, books.acked, books.pending, books.lost)


def test_a_newer_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.start().close()
    db = sqlite3.connect(machine.flash / "outbox.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    with pytest.raises(Exception, match="newer packtwin"):
        machine.start()


@pytest.fixture
def tiny_flash(tmp_path: Path) -> Iterator[Path]:
    """A file system of 600 KiB."""
    if os.geteuid() != 0:
        missing("needs root, to mount")
    folder = tmp_path / "flash"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder], check=False).returncode:
        missing("needs a machine that lets root mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_disk_that_fills_up_loses_nothing_that_was_said_to_be_stored(
    tiny_flash: Path, tmp_path: Path, tmpfs: bool
) -> None:
    machine, cloud = Machine(tmp_path, tmpfs=tmpfs), FakeCloud()
    outbox = machine.start()
    (tiny_flash / "others").write_bytes(bytes(100 << 10))
    errors = 0
    for n in range(60):
        now = machine.clock.forward(1)
        for job in (
            lambda now=now: outbox.put([measured(now + i, noisy=True) for i in range(100)]),
            lambda now=now: outbox.flush(now),
        ):
            try:
                job()
            except OutboxError:
                errors += 1
        assert outbox.books().imbalance() == (0, 0)
        if n == 30:
            with suppress(OSError):
                (tiny_flash / "others").write_bytes(bytes(150 << 10))
    assert errors or outbox.books().evicted
    (tiny_flash / "others").unlink()
    machine.clock.forward(20)
    outbox.flush(machine.clock.mono_ns())
    drain(outbox, cloud)
    books = outbox.books()
    assert books.acquired == 6000
    assert len(cloud.rows[outbox.boot]) == books.acked == books.stored - books.evicted
    assert len(cloud.missing(outbox.boot)) == books.evicted
    outbox.close()


def test_flash_that_turns_read_only_keeps_the_agent_going(tmp_path: Path) -> None:
    machine, cloud = Machine(tmp_path), FakeCloud()
    outbox = machine.start()
    machine.run(15)
    outbox._cold.store._db.execute("PRAGMA query_only = 1")  # SQLite's answer is then that of a read-only disk
    failures = 0
    for _ in range(30):
        try:
            machine.run(1)
        except OutboxError as error:
            failures += 1
            assert "writable" in str(error)
    assert failures > 5
    outbox._cold.store._db.execute("PRAGMA query_only = 0")
    machine.run(3)
    drain(outbox, cloud)
    books = outbox.books()
    assert books.imbalance() == (0, 0)
    assert len(cloud.rows[outbox.boot]) == books.acked == 48
    outbox.close()
