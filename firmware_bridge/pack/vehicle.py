"""The car around the pack: speed traces, and the power that a speed asks of the battery."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np

from firmware_bridge.pack.cells import Floats

MASS_KG: Final = 1850.0
GEAR_RATIO: Final = 9.3
WHEEL_RADIUS_M: Final = 0.334
_ROTATING: Final = 1.04  # share that the wheels and the rotor add to the mass
_DRAG_AREA_M2: Final = 0.62
_ROLLING: Final = 0.0092
_AIR_KG_PER_M3: Final = 1.2
_GRAVITY_M_PER_S2: Final = 9.81
_DRIVE_EFFICIENCY: Final = 0.88
_REGEN_EFFICIENCY: Final = 0.80
_REGEN_MAX_W: Final = 60_000.0
_REGEN_FADES_BELOW_MPS: Final = 4.0
_KMH: Final = 3.6

CYCLES: Final = ("udds", "wltc")


@cache
def speed_trace_mps(cycle: str) -> Floats:
    """Speed [m/s] at each whole second of `cycle` (one of CYCLES), float64[n]."""
    text = (files("firmware_bridge.pack") / "drive_cycles.csv").read_text(encoding="ascii")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return np.array([float(row[cycle]) / _KMH for row in rows if row[cycle]])


def duration_s(cycle: str) -> float:
    """How long `cycle` lasts [s]."""
    return float(len(speed_trace_mps(cycle)) - 1)


def at(cycle: str, t_s: float) -> tuple[float, float]:
    """(speed [m/s], acceleration [m/s2]) at `t_s` from the start of `cycle`: linear between the seconds."""
    trace = speed_trace_mps(cycle)
    second = min(int(t_s), len(trace) - 2)
    before_mps, after_mps = float(trace[second]), float(trace[second + 1])
    share = min(t_s - second, 1.0)
    return before_mps + (after_mps - before_mps) * share, after_mps - before_mps


@dataclass(frozen=True, slots=True)
class Traction:
    """What the road and the motor do at one instant."""

    wheel_w: float  # mechanical power at the wheels; < 0 while slowing down
    battery_w: float  # power of the inverter's battery side; > 0 drives, < 0 regenerates
    regen_w: float  # mechanical power that the motor takes back, >= 0
    motor_rpm: float
    motor_nm: float  # > 0 drives


def traction(speed_mps: float, accel_mps2: float, regen_available_w: float) -> Traction:
    """The Traction at a speed and acceleration, when the pack takes at most `regen_available_w` back."""
    rolling_n = MASS_KG * _GRAVITY_M_PER_S2 * _ROLLING if speed_mps > 0.05 else 0.0
    drag_n = 0.5 * _AIR_KG_PER_M3 * _DRAG_AREA_M2 * speed_mps * speed_mps
    wheel_w = (MASS_KG * _ROTATING * accel_mps2 + rolling_n + drag_n) * speed_mps
    omega_rad_per_s = speed_mps / WHEEL_RADIUS_M * GEAR_RATIO
    if wheel_w >= 0:
        regen_w, motor_w, battery_w = 0.0, wheel_w, wheel_w / _DRIVE_EFFICIENCY
    else:
        fade = min(speed_mps / _REGEN_FADES_BELOW_MPS, 1.0)
        regen_w = min(-wheel_w, _REGEN_MAX_W, max(regen_available_w, 0.0) / _REGEN_EFFICIENCY) * fade
        motor_w, battery_w = -regen_w, -regen_w * _REGEN_EFFICIENCY
    motor_nm = motor_w / omega_rad_per_s if omega_rad_per_s > 1.0 else 0.0
    return Traction(wheel_w, battery_w, regen_w, omega_rad_per_s * 60 / (2 * math.pi), motor_nm)
