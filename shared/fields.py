"""The one table of a Sample's fields: what each is called, its unit, how finely it travels, what is possible at all.

A new field is a new row with a new number; numbers are on the wire, so they are never reused.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Final

NULL: Final = -(2**31)
"""Stands for None wherever a value is a scaled integer (int32, here and in the outbox)."""
INT_MAX: Final = 2**31 - 1

STATES: Final = ("off", "park", "drive", "charge_ac", "charge_dc", "fault")
QUALITY_REASONS: Final = (
    "absent",
    "stale",
    "invalid",
    "out_of_range",
    "short_frame",
    "not_supported",
    "implausible",
    "stuck",
)
ALARM_CODES: Final = (
    "cell_over_voltage",
    "cell_under_voltage",
    "pack_over_voltage",
    "pack_under_voltage",
    "charge_over_temp",
    "charge_under_temp",
    "discharge_over_temp",
    "discharge_under_temp",
    "mos_over_temp",
    "ambient_over_temp",
    "ambient_under_temp",
    "charge_over_current",
    "discharge_over_current",
    "short_circuit",
    "cell_imbalance",
    "temp_imbalance",
    "low_soc",
    "insulation",
    "contactor_fault",
    "precharge_fault",
    "current_sensor_fault",
    "voltage_sensor_fault",
    "temp_sensor_fault",
    "front_end_fault",
    "mos_fault",
    "balance_fault",
    "communication_fault",
    "lockout",
    "bms_fault",
    "other",
)
ALARMS: Final = frozenset(ALARM_CODES) | {f"{code}:warning" for code in ALARM_CODES}

MAX_CELLS: Final = 1024
MAX_TEMPS: Final = 1024
MAX_EXTRAS: Final = 512
MAX_UNIT_CHARS: Final = 32
BALANCING_WORD_BITS: Final = 30
"""A bit set travels as words of this many bits, so that a word is never NULL by chance."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The step of a scaled integer: value = n * mantissa / 10**exponent, correctly rounded to the nearest double.

    mantissa 0 = no step: the integer is the bit pattern of a float32.
    """

    mantissa: int
    exponent: int

    @property
    def step(self) -> float:
        """The step as a number; 0.0 for float32."""
        return float(self.mantissa / 10.0**self.exponent)


FLOAT32: Final = Resolution(0, 0)


@cache
def resolution(step: float) -> Resolution:
    """The Resolution of a decimal step such as 0.001, 0.5 or 10. ValueError if it is not > 0 or finer than 1e-9."""
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"a resolution is a number > 0, not {step!r}")
    digits = Decimal(repr(float(step))).normalize().as_tuple()
    mantissa = int("".join(map(str, digits.digits)))
    exponent = int(digits.exponent)
    if exponent > 0:
        mantissa, exponent = mantissa * 10**exponent, 0
    if mantissa >= 2**31 or -exponent > 9:
        raise ValueError(f"resolution {step!r} has too many digits (at most 9 decimals)")
    return Resolution(mantissa, -exponent)


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One scalar field. kind: float, state (index into STATES) or bool. lo, hi: outside is not a measurement."""

    number: int
    name: str
    unit: str
    step: float
    lo: float
    hi: float
    kind: str = "float"
    spans: bool = False
    """The minimum and maximum within a sample travel too (`<name>_min`, `<name>_max`)."""

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in a Sample: its own, and those of its minimum and maximum."""
        return (self.name, f"{self.name}_min", f"{self.name}_max") if self.spans else (self.name,)


SCALARS: Final = (
    FieldSpec(1, "pack_v", "V", 0.1, -10.0, 5000.0, spans=True),
    FieldSpec(2, "current_a", "A", 0.1, -20000.0, 20000.0, spans=True),
    FieldSpec(3, "soc_bms", "1", 0.001, -0.1, 2.0),
    FieldSpec(4, "soh_bms", "1", 0.001, 0.0, 2.0),
    FieldSpec(5, "charge_limit_a", "A", 0.1, -20000.0, 20000.0),
    FieldSpec(6, "discharge_limit_a", "A", 0.1, -20000.0, 20000.0),
    FieldSpec(7, "insulation_kohm", "kohm", 1.0, 0.0, 1e8),
    FieldSpec(8, "ambient_c", "degC", 0.1, -100.0, 200.0),
    FieldSpec(9, "coolant_in_c", "degC", 0.1, -100.0, 300.0),
    FieldSpec(10, "coolant_out_c", "degC", 0.1, -100.0, 300.0),
    FieldSpec(11, "speed_kmh", "km/h", 0.01, -200.0, 1000.0),
    FieldSpec(12, "odometer_km", "km", 0.001, 0.0, 2e6),
    FieldSpec(13, "throughput_ah", "Ah", 0.001, 0.0, 2e6),
    FieldSpec(14, "energy_kwh", "kWh", 0.001, -1e5, 2e6),
    FieldSpec(15, "cycles", "1", 0.1, 0.0, 1e6),
    FieldSpec(16, "state", "", 1.0, 0, len(STATES) - 1, "state"),
    FieldSpec(17, "contactor_main", "", 1.0, 0, 1, "bool"),
    FieldSpec(18, "contactor_precharge", "", 1.0, 0, 1, "bool"),
    FieldSpec(19, "charge_mos", "", 1.0, 0, 1, "bool"),
    FieldSpec(20, "discharge_mos", "", 1.0, 0, 1, "bool"),
)
CELL_V: Final = FieldSpec(32, "cell_v", "V", 0.001, -10.0, 20.0)
TEMP_C: Final = FieldSpec(33, "temp_c", "degC", 0.1, -100.0, 300.0)
BALANCING: Final = "balancing"

BY_NAME: Final = {spec.name: spec for spec in (*SCALARS, CELL_V, TEMP_C)}
BY_NUMBER: Final = {spec.number: spec for spec in SCALARS}
SPANNED: Final = tuple(spec.name for spec in SCALARS if spec.spans)

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Ids of devices, packs, vehicles and fleets (`fullmatch`)."""
EXTRA_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")
QUALITY_KEY: Final = re.compile(r"(?:extra\.)?[A-Za-z_][A-Za-z0-9_.]{0,63}(?:\[\d{1,4}\])?")
