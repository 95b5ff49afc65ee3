"""The switch between pack and car: precharge first, lest the inverter's capacitors weld the main contactor."""

from __future__ import annotations

import math
from typing import Final

_PRECHARGE_OHM: Final = 45.0
_PRECHARGE_TAU_S: Final = 0.12
_BLEED_TAU_S: Final = 1.2
_CLOSES_AT: Final = 0.95
_OVERLAP_S: Final = 0.2


class Contactors:
    """State of the contactors and of the voltage on the car's side. Born closed when the car is met under way."""

    def __init__(self, closed: bool, pack_v: float) -> None:
        self.negative = self.main = closed
        self.precharge = False
        self.link_v = pack_v if closed else 0.0
        self.precharge_s = 0.0  # how long precharging has lasted
        self._main_s = 0.0
        self._gap_v = 0.0

    @property
    def precharge_a(self) -> float:
        """Current [A] through the precharge resistor."""
        return self._gap_v / _PRECHARGE_OHM if self.precharge and not self.main else 0.0

    def step(self, dt_s: float, wanted: bool, pack_v: float) -> None:
        """Moves on by `dt_s` towards closed (`wanted`) or open."""
        if not wanted:
            self.negative = self.main = self.precharge = False
            self.precharge_s = self._main_s = 0.0
            self.link_v *= math.exp(-dt_s / _BLEED_TAU_S)
        elif self.main:
            self.link_v = pack_v
            self._main_s += dt_s
            self.precharge = self.precharge and self._main_s < _OVERLAP_S
        else:
            self.negative = self.precharge = True
            self.precharge_s += dt_s
            self.link_v += (pack_v - self.link_v) * (1 - math.exp(-dt_s / _PRECHARGE_TAU_S))
            self.main = self.link_v >= _CLOSES_AT * pack_v
        self._gap_v = pack_v - self.link_v
