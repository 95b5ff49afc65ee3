"""What aiobmsble says of a BMS, by the names of a Sample. Pure. Its current is > 0 while charging, as ours.

https://github.com/patman15/aiobmsble. What it reckons from other values (power, runtime, means) is not asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from firmware_bridge.protocol import Part, Protocol, Value

_SCALARS: Final[Mapping[str, tuple[str, float]]] = {
    "voltage": ("pack_v", 1.0),
    "current": ("current_a", 1.0),
    "battery_level": ("soc_bms", 0.01),
    "battery_health": ("soh_bms", 0.01),
    "cycles": ("cycles", 1.0),
    "cycle_charge": ("extra.remaining_ah", 1.0),
    "design_capacity": ("extra.nominal_ah", 1.0),
    "balance_current": ("extra.balance_a", 1.0),
    "total_charge": ("extra.discharged_ah", 1.0),
    "problem_code": ("extra.alarm_raw", 1.0),
    "balancer": ("extra.balancer", 1.0),
    "battery_mode": ("extra.battery_mode", 1.0),
}
_SWITCHES: Final = {"chrg_mosfet": "charge_mos", "dischrg_mosfet": "discharge_mos", "heater": "extra.heater"}
_CELLS: Final = "cell_voltages"
_TEMPS: Final = "temp_values"
_BATTERY: Final = ("GENERIC", "CELL", "CELL_MAX", "CELL_MIN")
_OTHERS: Final = {"MOSFET": "extra.mos_temp_c", "AMBIENT": "ambient_c"}
"""Kinds of temperature sensors that are not the battery's; of the rest (PCB, heater, balancer) nothing is told."""
_PROBLEM: Final = "alarm.other"
BLE: Final = Protocol(
    name="ble",
    title="whatever aiobmsble reads over Bluetooth",
    medium="ble",
    rate=0,
    verified=False,
    fields=(
        *(name for name, _ in _SCALARS.values()),
        *_SWITCHES.values(),
        *_OTHERS.values(),
        "cell_v[]",
        "temp_c[]",
        _PROBLEM,
    ),
    extras={
        "discharged_ah": ("Ah", 1.0),
        "balancer": ("", 1.0),
        "battery_mode": ("", 1.0),
        "heater": ("", 1.0),
    },
)
"""As a mapping names it: `protocol = "ble"`."""


def part_of(sample: Mapping[str, Any]) -> Part:
    """One reading, a BMSSample of aiobmsble as a mapping, as a Part. What it does not hold is not in it."""
    values: dict[str, Value] = {}
    quality: dict[str, str] = {}
    for key, (name, per) in _SCALARS.items():
        if key in sample:
            _put(values, quality, name, sample[key], per)
    for key, name in _SWITCHES.items():
        if key in sample:
            values[name] = bool(sample[key])
    if "problem" in sample or "problem_code" in sample:
        values[_PROBLEM] = bool(sample.get("problem")) or bool(sample.get("problem_code"))
    if _CELLS in sample:
        _cells(values, quality, sample[_CELLS], sample.get("cell_count"))
    _temps(values, quality, sample.get(_TEMPS, ()))
    return Part(kind="sample", values=values, quality=quality)


def _cells(values: dict[str, Value], quality: dict[str, str], cells: Sequence[Any], count: Any) -> None:
    """By position. aiobmsble leaves cells of 0 V out: then nobody knows which is which, and none is told."""
    is_whole = not isinstance(count, int) or count == len(cells)
    for i in range(len(cells) if is_whole else max(int(count), len(cells))):
        if is_whole:
            _put(values, quality, f"cell_v[{i}]", cells[i], 1.0)
        else:
            values[f"cell_v[{i}]"], quality[f"cell_v[{i}]"] = None, "invalid"


def _temps(values: dict[str, Value], quality: dict[str, str], temps: Sequence[Any]) -> None:
    """Sensors of the battery by position; a sensor is a number, or has `value` and `type`."""
    at = 0
    for sensor in temps:
        kind = getattr(getattr(sensor, "type", None), "name", "GENERIC")
        value = getattr(sensor, "value", sensor)
        if kind in _BATTERY:
            _put(values, quality, f"temp_c[{at}]", value, 1.0)
            at += 1
        elif kind in _OTHERS and _OTHERS[kind] not in values:
            _put(values, quality, _OTHERS[kind], value, 1.0)


def _put(values: dict[str, Value], quality: dict[str, str], name: str, value: Any, per: float) -> None:
    is_number = isinstance(value, bool | int | float) and math.isfinite(value)
    # Rounded, so that 88 % is 0.88 and not 0.8800000000000001.
    values[name] = round(float(value) * per, 9) if is_number else None
    if not is_number:
        quality[name] = "absent" if value is None else "invalid"


def as_json(sample: Mapping[str, Any]) -> dict[str, Any]:
    """A reading as JSON can hold it; `of_json` makes it one again that `part_of` reads alike."""
    plain = {key: sample[key] for key in (*_SCALARS, *_SWITCHES, "problem", "cell_count", _CELLS) if key in sample}
    temps = [
        [getattr(one, "value", one), getattr(getattr(one, "type", None), "name", "GENERIC")]
        for one in sample.get(_TEMPS, ())
    ]
    return plain | ({_TEMPS: temps} if _TEMPS in sample else {})


def of_json(told: Mapping[str, Any]) -> dict[str, Any]:
    """See `as_json`. ValueError, TypeError: it is none."""
    return dict(told) | {_TEMPS: [_Sensor(value, _Kind(name)) for value, name in told.get(_TEMPS, ())]}


class _Kind:
    """The type of a sensor, as aiobmsble has it."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Sensor:
    """A temperature sensor, as aiobmsble has it."""

    def __init__(self, value: float, kind: _Kind) -> None:
        self.value, self.type = value, kind
