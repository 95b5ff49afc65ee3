"""What a car does all day: drive a cycle, park a moment, charge when it is low, and so on for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_bridge.pack import vehicle

CHARGE_BELOW: Final = 0.36
FAST: Final = 0.6
"""Share of the charges from below CHARGE_BELOW that are fast; the others take hours, as at home."""
CHARGE_TO: Final = 0.85
_WAKE_S: Final = 4.0  # a parked car is awake this long before it sleeps and before it does anything
_BRAKES_MPS2: Final = 3.0  # after a fault the car is brought to a stop


@dataclass(frozen=True, slots=True)
class Phase:
    """One thing that a car does. kind: drive, park, charge_ac or charge_dc; `cycle` of a drive."""

    kind: str
    lasts_s: float
    cycle: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.cycle}".strip()


@dataclass(frozen=True, slots=True)
class Demand:
    """What the car wants at this instant: its state (as in a Sample), its motion, and whether it needs the battery."""

    state: str
    speed_mps: float = 0.0
    accel_mps2: float = 0.0
    awake: bool = True


class Itinerary:
    """The endless sequence of phases of one car, drawn from `rng`. Cars 0, 1, 2 begin driving, charging and parked."""

    def __init__(self, rng: np.random.Generator, car: int) -> None:
        self._rng = rng
        start = car % 3
        self.start_soc = float((rng.uniform(0.70, 0.85), rng.uniform(0.30, 0.38), rng.uniform(0.50, 0.65))[start])
        self.phase = (
            Phase("drive", vehicle.duration_s("udds"), "udds"),
            Phase("charge_dc", 2400.0),
            Phase("park", 25.0),
        )[start]
        # A drive is met where the car moves, a parked car just before it leaves.
        self._elapsed_s = float((rng.uniform(170.0, 300.0), 60.0, 5.0)[start])
        self._speed_mps = 0.0

    def step(self, dt_s: float, soc: float, fault: bool) -> Demand:
        """Moves on by `dt_s`; `soc` as the BMS says it, `fault` = the BMS wants the car to stop."""
        if fault:
            return self._stop(dt_s)
        self._elapsed_s += dt_s
        charged = self.phase.kind.startswith("charge") and soc >= CHARGE_TO
        if self._elapsed_s >= self.phase.lasts_s or charged:
            self.phase, self._elapsed_s = self._next(soc), 0.0
        if self.phase.kind == "drive":
            self._speed_mps, accel_mps2 = vehicle.at(self.phase.cycle, self._elapsed_s)
            return Demand("drive", self._speed_mps, accel_mps2)
        self._speed_mps = 0.0
        if self.phase.kind == "park":
            asleep = _WAKE_S < self._elapsed_s < self.phase.lasts_s - _WAKE_S
            return Demand("off" if asleep else "park", awake=not asleep)
        return Demand(self.phase.kind)

    def _stop(self, dt_s: float) -> Demand:
        """Slow down, and once the fault is gone stand awake for a while before going on."""
        slower_mps = max(self._speed_mps - _BRAKES_MPS2 * dt_s, 0.0)
        accel_mps2 = (slower_mps - self._speed_mps) / dt_s
        self._speed_mps = slower_mps
        self.phase, self._elapsed_s = Phase("park", 2 * _WAKE_S), 0.0
        return Demand("fault", slower_mps, accel_mps2)

    def _next(self, soc: float) -> Phase:
        rng = self._rng
        if self.phase.kind.startswith("charge"):
            return Phase("park", float(rng.uniform(100.0, 180.0)))
        if self.phase.kind == "drive":
            return Phase("park", float(rng.uniform(100.0, 180.0) if rng.random() < 0.25 else rng.uniform(20.0, 50.0)))
        if soc < CHARGE_BELOW:
            return Phase("charge_dc", 2400.0) if rng.random() < FAST else Phase("charge_ac", 4 * 3600.0)
        if soc < 0.75 and rng.random() < 0.05:
            return Phase("charge_ac", float(rng.uniform(600.0, 1200.0)))
        cycle = vehicle.CYCLES[int(rng.integers(len(vehicle.CYCLES)))]
        return Phase("drive", vehicle.duration_s(cycle), cycle)
