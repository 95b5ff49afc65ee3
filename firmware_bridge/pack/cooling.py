"""The coolant loop: a plate under the cells, a radiator, a heater and a chiller."""

from __future__ import annotations

from typing import Final

import numpy as np

from firmware_bridge.pack.cells import SERIES, Floats

_PLATE_W_PER_K: Final = 2.5  # a cell to the coolant with the pump on
_PLATE_IDLE_W_PER_K: Final = 0.25
_FLOW_W_PER_K: Final = 900.0  # 0.25 kg/s of water and glycol
_LOOP_J_PER_K: Final = 25_000.0
_RADIATOR_W_PER_K: Final = 120.0
_IDLE_LOSS_W_PER_K: Final = 6.0
_HEATER_W: Final = 4000.0
_CHILLER_W: Final = 5000.0
_FLOW_L_PER_MIN: Final = 15.0


class Cooling:
    """State of the loop. `coolant_in_c` enters the pack at cell 0, `coolant_out_c` leaves it at cell 95."""

    def __init__(self, temp_c: float) -> None:
        self.coolant_in_c = temp_c
        self.coolant_out_c = temp_c
        self.heater_w = self.chiller_w = self.fan = self.pump = self.flow_l_per_min = 0.0
        self._way = (np.arange(SERIES) + 0.5) / SERIES

    @property
    def power_w(self) -> float:
        """Electric power [W] of heater, chiller (COP 2.5), pump and fan."""
        return self.heater_w + self.chiller_w / 2.5 + 60 * self.pump + 150 * self.fan

    def step(self, dt_s: float, cell_temp_c: Floats, ambient_c: float, on: bool) -> Floats:
        """Moves on by `dt_s`; returns the heat [W] taken from each cell, float64[96]. `on`: the car is awake."""
        hottest_c, coldest_c = float(cell_temp_c.max()), float(cell_temp_c.min())
        self.pump = 1.0 if on else 0.0
        self.flow_l_per_min = _FLOW_L_PER_MIN * self.pump
        self.heater_w = _HEATER_W * _share(coldest_c, 10.0, 4.0) * self.pump
        self.chiller_w = _CHILLER_W * _share(hottest_c, 28.0, 36.0) * self.pump
        self.fan = _share(hottest_c, 24.0, 32.0) * self.pump
        coolant_c = self.coolant_in_c + (self.coolant_out_c - self.coolant_in_c) * self._way
        taken_w: Floats = (_PLATE_W_PER_K if on else _PLATE_IDLE_W_PER_K) * (cell_temp_c - coolant_c)
        total_w = float(taken_w.sum())
        loss_w_per_k = _IDLE_LOSS_W_PER_K + _RADIATOR_W_PER_K * self.fan
        into_w = total_w + self.heater_w - self.chiller_w - loss_w_per_k * (self.coolant_in_c - ambient_c)
        self.coolant_in_c += into_w * dt_s / _LOOP_J_PER_K
        rise_c = total_w / _FLOW_W_PER_K if on else 0.0
        # The water takes a few seconds through the plate.
        self.coolant_out_c += (self.coolant_in_c + rise_c - self.coolant_out_c) * min(dt_s / 4.0, 1.0)
        return taken_w


def _share(value: float, begins: float, full: float) -> float:
    """0 at `begins`, 1 at `full`, linear between, whichever is greater."""
    return min(max((value - begins) / (full - begins), 0.0), 1.0)
