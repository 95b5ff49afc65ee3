"""Synthetic devices: each sends one Batch at a time and goes on only when it has its Receipt."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field

import httpx
import numpy as np

from shared import wire
from shared.batch import Batch
from shared.block import Layout, block_of
from shared.fields import resolution
from shared.records import new_boot

LAYOUT = Layout(scalars=(("pack_v", resolution(0.1)), ("soc_bms", resolution(0.001))), cells=12)


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

    def __init__(self, url: str, count: int, per_s: float, seed: int, rows: int = 1) -> None:
        self.url, self.per_s, self.rows = url, per_s, rows
        self.devices = [Device(f"syn-{i:03d}") for i in range(count)]
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
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

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
        async with httpx.AsyncClient(base_url=self.url, limits=limits, timeout=30) as client:
            try:
                async with asyncio.TaskGroup() as group:
                    for device in self.devices:
                        group.create_task(self._drive(client, device))
            except BaseException as error:  # handed to the test by `finish`
                self.error = error

    async def _drive(self, client: httpx.AsyncClient, device: Device) -> None:
        pause_s = len(self.devices) / self.per_s
        await asyncio.sleep(self._random.random() * pause_s)
        while not self._stop.is_set():
            began = asyncio.get_running_loop().time()
            await self._deliver(client, device)
            await asyncio.sleep(max(0.0, began + pause_s - asyncio.get_running_loop().time()))

    async def _deliver(self, client: httpx.AsyncClient, device: Device) -> None:
        import time  # wall time belongs to the batch, not to the pacing

        body = device.body(device.acked, self.rows, time.time_ns())
        while True:
            try:
                answer = await client.post(
                    "/device/v1/batches", content=body, headers={"content-type": "application/x-protobuf"}
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200:
                receipt = wire.decode_receipt(answer.content)
                expected = ((device.acked, device.acked + self.rows - 1),)
                assert receipt.accepted == expected, f"{device.name}: {receipt} instead of {expected}"
                device.acked += self.rows
                return
            assert answer is None or answer.status_code == 503, f"{answer.status_code} {answer.text}"
            device.resent += 1
            await asyncio.sleep(0.2)
