"""Things to put into an outbox, and an outbox on which machines and processes die."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from fakes.clock import FakeClock

from edge.outbox.box import Outbox
from edge.outbox.records import Measured
from shared.block import Layout
from shared.fields import resolution
from shared.records import Event, Receipt

LAYOUT = Layout(scalars=(("pack_v", resolution(0.1)), ("current_a", resolution(0.1))), cells=8, temps=2)


def measured(mono_ns: int, *, pack_id: str = "BATTERY_001", t_ns: int | None = None, noisy: bool = False) -> Measured:
    """A Sample whose values follow from its time. noisy: no compression makes it small."""
    n = mono_ns // 1_000_000_000
    if noisy:
        cells = np.random.default_rng(mono_ns % 2**32).integers(1, 2_900, LAYOUT.width)
        return replace(measured(mono_ns, pack_id=pack_id, t_ns=t_ns), row=cells.astype("<i4").tobytes())
    row = [3960 + n % 9, n % 50, 3960, 3970, 0, 60, *(3700 + (n + i) % 5 for i in range(8)), 251, 249 + n % 3]
    return Measured(
        pack_id=pack_id,
        layout=LAYOUT,
        row=np.array(row, "<i4").tobytes(),
        mono_ns=mono_ns,
        t_ns=t_ns,
        quality={"temp_c[1]": "stale"} if n % 11 == 0 else {},
        alarms=("low_soc:warning",) if n % 13 == 0 else (),
    )


def event(mono_ns: int) -> Event:
    """Something urgent."""
    return Event(seq=0, mono_ns=mono_ns, t_ns=None, id=f"e{mono_ns}", code="low_soc", severity="info", pack_id="B1")


class Machine:
    """A device with a clock, a flash folder and memory. `start` opens the outbox as the agent would."""

    def __init__(self, folder: Path, *, tmpfs: bool = True, max_bytes: int = 64 << 20, flush_s: float = 10.0) -> None:
        self.clock = FakeClock()
        self.flash = folder / "flash"
        self.memory = folder / "memory" if tmpfs else None
        self.max_bytes, self.flush_s = max_bytes, flush_s
        self.kernel = 1
        self.outbox: Outbox | None = None

    def start(self, boot: int | None = None) -> Outbox:
        """Opens the outbox; a new boot."""
        self.outbox = Outbox(
            "device-1",
            self.flash,
            self.memory,
            max_bytes=self.max_bytes,
            flush_s=self.flush_s,
            now=self.clock.mono_ns,
            kernel_boot_id=f"kernel-{self.kernel}",
            boot=boot,
        )
        return self.outbox

    def kill(self) -> None:
        """SIGKILL: nothing is written any more. (Connections are let go without a word, as the kernel does.)"""
        if self.outbox is not None:
            self.outbox._folder_lock.close()
            self.outbox._hot._db.close()
            self.outbox._cold.store._db.close()
            self.outbox = None

    def power_cut(self) -> None:
        """As `kill`, and what is in memory is gone; the monotonic clock starts again."""
        self.kill()
        if self.memory is not None:
            shutil.rmtree(self.memory)
        self.kernel += 1
        self.clock.now_ns = 5_000_000_000

    def run(self, seconds: int, packs: int = 1) -> None:
        """Puts one Sample per pack and second, and flushes as the agent does."""
        assert self.outbox is not None
        for _ in range(seconds):
            now = self.clock.forward(1.0)
            self.outbox.put(
                [measured(now, pack_id=f"BATTERY_{i + 1:03}", t_ns=self.clock.t_ns()) for i in range(packs)]
            )
            self.outbox.flush(now)


def everything(outbox: Outbox) -> Receipt:
    """A Receipt that accepts all there can be."""
    return Receipt(accepted=((0, 2**40),), t_ns=1)
