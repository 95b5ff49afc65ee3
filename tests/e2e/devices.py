"""Synthetic devices: each sends one Batch at a time and goes on only when it has its Receipt; by HTTP or by MQTT."""

from __future__ import annotations

import asyncio
import random
import threading
import time  # wall time belongs to the batch; pacing and waiting go by the loop's clock
from dataclasses import dataclass, field

import numpy as np
from e2e.roads import Road, road_to

from shared import wire
from shared.batch import Batch
from shared.block import Layout, block_of
from shared.fields import resolution
from shared.records import new_boot

LAYOUT = Layout(scalars=(("pack_v", resolution(0.1)), ("soc_bms", resolution(0.001))), cells=12)
AGAIN_S = 0.2


@dataclass
class Device:
    """One device with one pack; `acked` = how many of its records, from 0 on, have a Receipt."""

    name: str
    boot: int = field(default_factory=new_boot)
    acked: int = 0
    resent: int = 0

    def body(self, seq: int, rows: int, now_ns: int) -> bytes:
        seqs = list(range(seq, seq + rows))
        row = [4000, 500, 3990, 4010, *range(3600, 3612)]  # pack_v, soc_bms, minimum and maximum of pack_v, cells
        table = np.tile(np.array(row, np.int32), (rows, 1))
        times = [now_ns + i * 1_000_000 for i in range(rows)]
        block = block_of(
            f"P-{self.name}", LAYOUT, seqs, times, times, table.astype("<i4").tobytes(), [None] * rows, [()] * rows
        )
        return wire.encode_batch(Batch(device=self.name, boot=self.boot, blocks=(block,)))


class Load:
    """`count` devices, together about `per_s` Batches a second, in a thread of their own."""

    def __init__(self, url: str, count: int, per_s: float, seed: int, rows: int = 1, name: str = "syn") -> None:
        """url: http or mqtt; name: what the devices' names begin with."""
        self.url, self.per_s, self.rows = url, per_s, rows
        self.devices = [Device(f"{name}-{i:03d}") for i in range(count)]
        self.receipts = 0
        self.longest_wait_s = 0.0
        """The longest that a device waited for a Receipt."""
        self.longest_pause_s = 0.0
        """The longest time in which no device got one."""
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._last_receipt_s: float | None = None
        self.error: BaseException | None = None

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self, timeout_s: float = 120.0) -> None:
        """No new batches; returns when every batch that was begun has its Receipt."""
        self._stop.set()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "synthetic devices did not get all their Receipts"
        if self.error is not None:
            raise self.error

    @property
    def resent(self) -> int:
        """Batches that were sent again."""
        return sum(device.resent for device in self.devices)

    async def _run(self) -> None:
        try:
            async with (
                road_to(self.url, [device.name for device in self.devices]) as road,
                asyncio.TaskGroup() as group,
            ):
                for device in self.devices:
                    group.create_task(self._drive(road, device))
        except BaseException as error:  # handed to the test by `finish`
            self.error = error

    async def _drive(self, road: Road, device: Device) -> None:
        pause_s = len(self.devices) / self.per_s
        now_s = asyncio.get_running_loop().time
        await asyncio.sleep(self._random.random() * pause_s)
        while not self._stop.is_set():
            began_s = now_s()
            await self._deliver(road, device)
            self._count(began_s, now_s())
            await asyncio.sleep(max(0.0, began_s + pause_s - now_s()))

    async def _deliver(self, road: Road, device: Device) -> None:
        body = device.body(device.acked, self.rows, time.time_ns())
        while True:
            receipt = await road.send(device.name, body)
            if receipt is not None:
                expected = ((device.acked, device.acked + self.rows - 1),)
                assert receipt.accepted == expected, f"{device.name}: {receipt} instead of {expected}"
                device.acked += self.rows
                return
            device.resent += 1
            await asyncio.sleep(AGAIN_S)

    def _count(self, began_s: float, now_s: float) -> None:
        self.receipts += 1
        self.longest_wait_s = max(self.longest_wait_s, now_s - began_s)
        if self._last_receipt_s is not None:
            self.longest_pause_s = max(self.longest_pause_s, now_s - self._last_receipt_s)
        self._last_receipt_s = now_s
