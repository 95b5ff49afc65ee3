"""What a pack says through a day, straight into an Assembler: frames at their own times, without a bus."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edge.assemble import Assembler
from edge.decode import Fields
from edge.mapping import Mapping as FieldMapping
from firmware_bridge.pack.car import Car

S = 1_000_000_000
TICKS = 10
Says = Mapping[str, float]
Fault = Callable[[float, dict[str, float]], None]
"""(seconds, what is said): may change it, or take out what falls silent."""


class Hearer:
    """One pack's Assembler. `say` takes fields at a time, `sample` gives values and qualities of each field."""

    def __init__(self, mapping: FieldMapping, sample_s: float = 1.0) -> None:
        self.mapping, self.sample_s = mapping, sample_s
        self.assembler = Assembler("P", mapping, sample_s)
        self.doubts: list[tuple[float, dict[str, str]]] = []
        """(s, field -> reason) of each Sample that doubts anything."""
        self.all: list[tuple[float, dict[str, str]]] = []
        """(s, qualities) of each Sample."""
        self.begin_s = 0.0

    def say(self, t_s: float, says: Says) -> None:
        t_ns = round(t_s * S)
        fields = Fields(newest={name: (float(value), t_ns, None) for name, value in says.items()})
        for name in ("pack_v", "current_a", "counter"):
            if name in says:
                fields.spans[name] = (float(says[name]), float(says[name]))
        self.assembler.feed(fields)

    def sample(self, t_s: float) -> dict[str, str]:
        """The qualities of the Sample at `t_s`."""
        quality = dict(self.assembler.sample(round(t_s * S), None).quality)
        self.all.append((t_s, quality))
        bad = {name: why for name, why in quality.items() if why in ("implausible", "stuck")}
        if bad:
            self.doubts.append((t_s, bad))
        return quality

    @property
    def last(self) -> dict[str, str]:
        """The qualities of the last Sample."""
        return self.all[-1][1]

    def restarted(self) -> None:
        """Goes on from its own snapshot, as a replay of a capture does."""
        state = json.loads(json.dumps(self.assembler.snapshot()))
        self.assembler = Assembler("P", self.mapping, self.sample_s)
        self.assembler.restore(state)


def drive(car: Car, hearer: Hearer, seconds: int, fault: Fault | None = None) -> Iterator[float]:
    """The car says what it says on its bus: pack and counter each 0.1 s, a third of the cells, SoC each second."""
    cells = np.arange(96)
    begun_s = hearer.begin_s = car.t_s
    for tick in range(seconds * TICKS):
        car.step()
        t_s = car.t_s
        bms = car.bms
        says = {
            "pack_v": round(bms.pack_v, 2),
            "current_a": round(bms.current_a, 2),
            "contactor_main": float(bms.contactors.main),
            "counter": float(tick % 16),
        }
        third = cells[tick % 3 * 32 : tick % 3 * 32 + 32]
        says |= {f"cell_v[{i}]": round(float(bms.cell_v[i]), 4) for i in third}
        if tick % TICKS == 3:
            says["soc_bms"] = round(bms.soc, 3)
        if fault is not None:
            fault(t_s - begun_s, says)
        hearer.say(t_s - 0.001, says)
        if tick % TICKS == TICKS - 1:
            hearer.sample(t_s)
            yield t_s - begun_s


_LFP = (0.0, 0.05, 0.1, 0.3, 0.6, 0.9, 0.97, 1.0), (2.7, 3.0, 3.2, 3.28, 3.3, 3.34, 3.37, 3.5)


class SmallPack:
    """A 16s LFP pack of 100 Ah behind a BMS of a scan a second: solar by day, a house by night, in amperes and volts.

    OCV by a table, ohmic cells, a current sensor with an offset and a dead band, SoC in whole per cent.
    """

    SERIES = 16

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.soc, self.told_soc = 0.6, 0.6
        self.cell_soc = self.rng.normal(0, 0.004, self.SERIES)
        self.ohm = np.abs(self.rng.normal(0.0012, 0.0002, self.SERIES))
        self.noise_v = self.rng.normal(0, 0.001, (997, self.SERIES))
        self.capacity_ah = 92.0
        self.current_a = self.read_a = 0.0
        self._until_s, self._load_a, self._looks = 0.0, 0.0, 0

    def step(self, t_s: float, dt_s: float) -> None:
        """Moves on; loads come and go within a second, as those of inverters do."""
        if t_s >= self._until_s:
            self._until_s = t_s + float(self.rng.choice([1, 2, 5, 30, 300, 1200]))
            self._load_a = float(self.rng.choice([0, 2, 10, 40, 80, 120]))
        sun_a = max(70.0 * math.sin((t_s / 3600 - 6) / 12 * math.pi), 0.0)
        net_a = sun_a - self._load_a
        if (self.soc >= 1.0 and net_a > 0) or (self.soc <= 0.08 and net_a < 0):
            net_a = 0.0
        self.current_a = net_a
        self.soc = min(self.soc + net_a * dt_s / 3600 / self.capacity_ah, 1.0)
        read_a = net_a * 1.01 + 0.15
        self.read_a = 0.0 if abs(read_a) < 0.3 else read_a
        self.told_soc = min(max(self.told_soc + self.read_a * dt_s / 3600 / 100.0, 0.0), 1.0)
        if self.soc >= 0.998 and net_a >= 0:
            self.told_soc += (1.0 - self.told_soc) * 0.002 * dt_s  # full is full

    def cell_v(self) -> list[float]:
        """Volts of each cell, with noise of a millivolt."""
        self._looks += 1
        ocv_v = np.interp(self.soc + self.cell_soc, *_LFP)
        volts = ocv_v + self.ohm * self.current_a + self.noise_v[self._looks % len(self.noise_v)]
        return [float(one) for one in volts]


def live(pack: SmallPack, hearer: Hearer, seconds: int, begin_s: int = 0, fault: Fault | None = None) -> Iterator[int]:
    """Status at once, cells half a second later, each in one reply, as serial BMS answer."""
    for t_s in range(begin_s, begin_s + seconds):
        pack.step(t_s, 0.5)
        says: dict[str, Any] = {
            "pack_v": round(sum(pack.cell_v()) + 0.02, 2),
            "current_a": round(pack.read_a, 1),
            "soc_bms": round(pack.told_soc, 2),
            "counter": float(t_s % 256),
        }
        pack.step(t_s + 0.5, 0.5)
        cells = {f"cell_v[{i}]": round(volts, 3) for i, volts in enumerate(pack.cell_v())}
        if fault is not None:
            fault(t_s, says)
            fault(t_s, cells)
        hearer.say(t_s + 0.1, says)
        hearer.say(t_s + 0.6, cells)
        hearer.sample(t_s + 1.0)
        yield t_s
