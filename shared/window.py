"""Charges of one pack: when one ends, and how much charge fits into a fixed window of the mean cell voltage.

The window's charge shrinks with the capacity and needs no full charge, only one that crosses the window evenly.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.feature_table import (
    ARMED_S,
    CHARGE_ENDED_S,
    LEAST_CHARGE_S,
    WINDOW_C,
    WINDOW_EVEN,
    WINDOW_TEMP_C,
    WINDOW_V,
)
from shared.records import SESSION_REASONS

Floats = npt.NDArray[np.float64]

MOST_WINDOWS: Final = 15
_GAP_S: Final = 60.0
_CHARGING: Final = ("charge_ac", "charge_dc")
_WAITING, _ARMED, _COUNTING, _OVER = range(4)


class Charge:
    """Follows the charges of one pack reading by reading; all that it knows is in `state`."""

    def __init__(self, chemistry: str, nominal_ah: float) -> None:
        self._lo_v, self._hi_v = WINDOW_V.get(chemistry, (math.inf, math.inf))
        self._least_a, self._most_a = (share * nominal_ah for share in WINDOW_C)
        self._charging_s = 0.0
        self._idle_s = 0.0
        self._phase = _WAITING
        self._armed_s = 0.0
        self._counted_ah = 0.0
        self._even_a = 0.0
        self._last_v = math.nan
        self._windows: list[float] = []
        self.reason = "no_charge"
        """Why this Session has no window, as long as it has none."""

    def begin_session(self) -> None:
        """Forgets the windows: they belong to the Session that has ended."""
        self._windows = []
        self.reason = "no_charge"

    def window_ah(self) -> float:
        """The median of the Session's windows [Ah]; NaN without any."""
        return statistics.median(self._windows) if self._windows else math.nan

    def feed(
        self,
        state: str | None,
        current_a: float | None,
        moved_ah: float,
        cell_v: Floats,
        temp_c: float | None,
        dt_s: float,
    ) -> bool:
        """Takes in a reading `dt_s` after the one before, since which `moved_ah` went in; True when a charge ended."""
        flows = current_a is not None and current_a > self._least_a
        charging = state in _CHARGING if state is not None else flows
        if state is None and current_a is not None and current_a < -self._least_a:
            self._charging_s = 0.0  # recuperation between two hills is no charge
        if not charging or current_a is None:
            self._idle_s += dt_s
            self._last_v = math.nan
            if self._phase == _COUNTING:
                self._fail("uneven_charge")
            return self._idle_s >= CHARGE_ENDED_S and self._ended()
        self._idle_s = 0.0
        self._charging_s += dt_s
        if self.reason == "no_charge" and self._charging_s >= LEAST_CHARGE_S:
            self.reason = "short_window"
        if self._phase != _OVER:
            self._cross(current_a, moved_ah, float(cell_v.sum()) / max(cell_v.size, 1), temp_c, dt_s)
        return False

    def _ended(self) -> bool:
        ended = self._charging_s >= LEAST_CHARGE_S
        self._charging_s = 0.0
        self._phase, self._armed_s = _WAITING, 0.0
        return ended

    def _cross(self, current_a: float, moved_ah: float, mean_v: float, temp_c: float | None, dt_s: float) -> None:
        """Follows the mean cell voltage [V] through the window; a reading without a cell (NaN) changes nothing."""
        last_v, self._last_v = self._last_v, mean_v
        if self._phase != _COUNTING:
            if mean_v < self._lo_v:
                self._phase = _ARMED
                self._armed_s = self._armed_s + dt_s if current_a > self._least_a else 0.0
            elif mean_v >= self._lo_v:
                self._enter(current_a, moved_ah, _share_above(self._lo_v, last_v, mean_v), temp_c)
            return
        if abs(current_a - self._even_a) > WINDOW_EVEN * self._even_a or dt_s > _GAP_S or math.isnan(mean_v):
            self._fail("uneven_charge")
        elif mean_v < self._hi_v:
            self._counted_ah += moved_ah
        else:
            self._counted_ah += moved_ah * (1.0 - _share_above(self._hi_v, last_v, mean_v))
            self._windows.append(self._counted_ah)
            del self._windows[:-MOST_WINDOWS]
            self._phase = _OVER

    def _enter(self, current_a: float, moved_ah: float, share: float, temp_c: float | None) -> None:
        """The voltage has risen into the window."""
        if self._phase != _ARMED or self._armed_s < ARMED_S:
            self._fail("short_window")
        elif current_a > self._most_a:
            self._fail("fast_charge")
        elif current_a < self._least_a:
            self._fail("uneven_charge")
        elif temp_c is None or not WINDOW_TEMP_C[0] <= temp_c <= WINDOW_TEMP_C[1]:
            self._fail("temperature")
        else:
            self._phase, self._even_a, self._counted_ah = _COUNTING, current_a, moved_ah * share

    def _fail(self, reason: str) -> None:
        self._phase = _OVER
        self.reason = reason

    def state(self) -> tuple[float, ...]:
        """All of it as numbers."""
        numbers = (self._charging_s, self._idle_s, self._phase, self._armed_s, self._counted_ah, self._even_a)
        return (*numbers, self._last_v, SESSION_REASONS.index(self.reason), *self._windows)

    def restore(self, numbers: Sequence[float]) -> None:
        """Goes on from what `state` gave."""
        self._charging_s, self._idle_s, phase, self._armed_s, self._counted_ah, self._even_a = numbers[:6]
        self._phase, self._last_v, reason = int(phase), numbers[6], int(numbers[7])
        self.reason, self._windows = SESSION_REASONS[reason], list(numbers[8:])


def _share_above(limit_v: float, last_v: float, now_v: float) -> float:
    """Which part of the step from `last_v` up to `now_v` lies above the limit; 0 when it is not known."""
    return (now_v - limit_v) / (now_v - last_v) if last_v < limit_v <= now_v else 0.0
