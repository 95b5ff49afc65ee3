"""Sectors written to flash: the outbox against a JSON row a second with sqlite3's defaults. Root (a loop-mounted ext4).

Half an hour runs in accelerated time: one Sample a second, what is pending is acknowledged every 60 s, and every 30 s
the kernel's writeback is imitated by a sync. Counted by the block device itself, so the file system's journal is in it.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
from drive import plain, samples

from edge.outbox.box import Outbox
from edge.outbox.records import Measured
from shared.block import Layout
from shared.records import MODES, Receipt, Sample

SECONDS = 1800
SECTOR_BYTES = 512
GOAL = 15.0
IMAGE_BYTES = 1 << 30  # sparse; with less, mkfs would take blocks of 1 KiB, which no card of today has
EVERYTHING = Receipt(accepted=((0, 2**40),), t_ns=1)


class Device:
    """A mounted file system of its own and the count of what was written below it."""

    def __init__(self, mount: Path, loop: str) -> None:
        self.mount, self._stat = mount, Path("/sys/block") / loop / "stat"

    def sync(self) -> None:
        """What the kernel does by itself every half minute."""
        fd = os.open(self.mount, os.O_RDONLY)
        os.sync()
        os.close(fd)

    def written_bytes(self) -> int:
        """All that was ever written to the device."""
        return int(self._stat.read_text().split()[6]) * SECTOR_BYTES


@contextmanager
def loop_mounted() -> Iterator[Device]:
    """A fresh ext4 in a file, mounted; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        image, mount = Path(folder) / "flash.img", Path(folder) / "flash"
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        options = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", options, image], check=True)
        loop = subprocess.run(
            ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
        ).stdout.strip()
        try:
            subprocess.run(["mount", "-o", "noatime", loop, mount], check=True)
            try:
                yield Device(mount, Path(loop).name)
            finally:
                subprocess.run(["umount", mount], check=True)
        finally:
            subprocess.run(["losetup", "-d", loop], check=True)


class Feed:
    """`drive.csv.gz`, second by second."""

    def __init__(self) -> None:
        self.layout: Layout
        self.layout, self.made, self.rows = samples()

    def measured(self, second: int, mono_ns: int) -> Measured:
        """The Sample of that second as the assembler gives it."""
        sample: Sample = self.made[second]
        return Measured(
            pack_id=sample.pack_id,
            layout=self.layout,
            row=self.rows[second],
            mono_ns=mono_ns,
            t_ns=sample.t_ns,
            quality={},
            alarms=(),
        )


def json_rows(device: Device, feed: Feed) -> float:
    """Bytes a second of the usual way: a JSON text a row, one transaction each, sqlite3 as it comes."""
    db = sqlite3.connect(device.mount / "usual.sqlite")
    db.execute("CREATE TABLE sample (id INTEGER PRIMARY KEY, body TEXT)")
    db.commit()
    device.sync()
    before = device.written_bytes()
    for second in range(SECONDS):
        db.execute("INSERT INTO sample (body) VALUES (?)", (orjson.dumps(plain(feed.made[second])).decode(),))
        db.commit()
        if second % 60 == 59:
            db.execute("DELETE FROM sample")
            db.commit()
        if second % 30 == 29:
            device.sync()
    device.sync()
    written = device.written_bytes() - before
    db.close()
    return written / SECONDS


def outbox_rows(device: Device, feed: Feed, *, ack_every_s: int, flush_s: float, after_s: int) -> float:
    """Bytes a second of the outbox from `after_s` on; everything is acknowledged every `ack_every_s` seconds."""
    now_ns = 10**12
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        folder = device.mount / f"outbox-{ack_every_s}-{flush_s}-{after_s}-{device.written_bytes()}"
        outbox = Outbox(
            "edge-01",
            folder,
            Path(memory),
            max_bytes=128 << 20,
            flush_s=flush_s,
            now=lambda: now_ns,
            kernel_boot_id="this one",
        )
        before = device.written_bytes()
        for second in range(after_s + SECONDS):
            if second == after_s:
                device.sync()
                before = device.written_bytes()
            now_ns += 10**9
            outbox.put([feed.measured(second, now_ns)])
            outbox.flush(now_ns)
            if second % ack_every_s == ack_every_s - 1:
                for newest in (True, False):
                    while (taken := outbox.take(1000, newest=newest)) is not None:
                        outbox.settle(taken, EVERYTHING)
            if second % 30 == 29:
                device.sync()
        device.sync()
        written = device.written_bytes() - before
        assert outbox.books().imbalance() == (0, 0)
        outbox.close()
    return written / SECONDS


def main() -> int:
    """Prints all figures; 1 if a goal is missed, 0 also where there is no root to mount with."""
    if os.geteuid() != 0:
        print("left out: mounting a file system of its own needs root")
        return 0
    feed = Feed()
    never = 10**9
    with loop_mounted() as device:
        usual, ours = [], []
        for _ in range(3):
            usual.append(json_rows(device, feed))
            (device.mount / "usual.sqlite").unlink()
            ours.append(outbox_rows(device, feed, ack_every_s=60, flush_s=10, after_s=0))
        ratio = statistics.median(usual) / statistics.median(ours)
        print(f"JSON row a second, sqlite3's defaults:     {statistics.median(usual):9.0f} B/s")
        print(
            f"outbox, unacknowledged to flash every 10 s: {statistics.median(ours):8.0f} B/s, x {ratio:.1f} less "
            f"(goal >= {GOAL:.0f})"
        )
        others: dict[str, Callable[[], float]] = {
            "outbox, offline all the time, every 10 s:  ": lambda: outbox_rows(
                device, feed, ack_every_s=never, flush_s=10, after_s=0
            ),
            "outbox, economy offline, every 90 s:       ": lambda: outbox_rows(
                device, feed, ack_every_s=never, flush_s=90, after_s=0
            ),
        }
        for name, job in others.items():
            rate = job()
            print(f"{name} {rate:9.0f} B/s, x {statistics.median(usual) / rate:.1f} less")
        quiet = True
        for mode in ("live", "normal"):
            rate = outbox_rows(device, feed, ack_every_s=int(MODES[mode]), flush_s=10, after_s=60)
            quiet = quiet and rate == 0
            print(
                f"online in {mode} mode, 30 min after the first:  {rate * SECONDS / SECTOR_BYTES:6.0f} sectors (goal 0)"
            )
        rate = outbox_rows(device, feed, ack_every_s=60, flush_s=90, after_s=60)
        print(f"online in economy mode, 30 min after the first: {rate * SECONDS / SECTOR_BYTES:4.0f} sectors")
    print("all goals met" if ratio >= GOAL and quiet else "a goal was MISSED")
    return 0 if ratio >= GOAL and quiet else 1


if __name__ == "__main__":
    sys.exit(main())
