"""What gateways of other projects publish of a BMS by MQTT, from what the BMS said. Pure.

batmon (github.com/fl4p/batmon-ha): a topic a value, current > 0 discharges. esphome (github.com/syssi/esphome-jk-bms
and its sisters): a topic a sensor, current > 0 charges. battery_emulator (github.com/dalathegreat/Battery-Emulator):
JSON objects.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

from firmware_bridge.protocol import ALARM, Value, Values
from firmware_bridge.rows import size_of

Messages = dict[str, str]
"""Topic -> payload."""


def batmon(device: str, values: Values) -> Messages:
    """As batmon-ha publishes: `batmon/DEVICE/soc/total_voltage` and so on, plain numbers."""
    said: dict[str, Any] = {
        "soc/total_voltage": _number(values, "pack_v", 1, 2),
        "soc/current": _number(values, "current_a", -1, 2),
        "soc/soc_percent": _number(values, "soc_bms", 100, 1),
        "soc/power": _power_w(values, -1),
        "soc/capacity": _number(values, "extra.full_ah", 1, 2) or _number(values, "extra.nominal_ah", 1, 2),
        "soc/balance_current": _number(values, "extra.balance_a", 1, 3),
        "mosfet_status/capacity_ah": _number(values, "extra.remaining_ah", 1, 2),
        "mosfet_status/temperature": _number(values, "extra.mos_temp_c", 1, 1),
        "bms/num_cycles": _number(values, "cycles", 1, 0),
    }
    cells = _array(values, "cell_v")
    said |= {f"cell_voltages/{i}": _rounded(volts, 3) for i, volts in enumerate(cells, 1)}
    if known := [volts for volts in cells if volts is not None]:
        said |= {
            "cell_voltages/min": _rounded(min(known), 3),
            "cell_voltages/max": _rounded(max(known), 3),
            "cell_voltages/average": _rounded(statistics.fmean(known), 4),
            "cell_voltages/delta": _rounded(max(known) - min(known), 3),
        }
    said |= {f"temperatures/{i}": _rounded(celsius, 1) for i, celsius in enumerate(_array(values, "temp_c"), 1)}
    for switch, name in (("charge", "charge_mos"), ("discharge", "discharge_mos")):
        said[f"switch/{switch}"] = _on_off(values.get(name))
    return _published(f"batmon/{device}", said)


def esphome(device: str, values: Values) -> Messages:
    """As an ESPHome node publishes: `DEVICE/sensor/total_voltage/state` and so on, plain numbers, ON and OFF."""
    sensors: dict[str, Any] = {
        "total_voltage": _number(values, "pack_v", 1, 2),
        "current": _number(values, "current_a", 1, 2),
        "power": _power_w(values, 1),
        "state_of_charge": _number(values, "soc_bms", 100, 1),
        "state_of_health": _number(values, "soh_bms", 100, 1),
        "charging_cycles": _number(values, "cycles", 1, 0),
        "capacity_remaining": _number(values, "extra.remaining_ah", 1, 3),
        "power_tube_temperature": _number(values, "extra.mos_temp_c", 1, 1),
    }
    sensors |= {f"cell_voltage_{i}": _rounded(volts, 3) for i, volts in enumerate(_array(values, "cell_v"), 1)}
    temps = enumerate(_array(values, "temp_c"), 1)
    sensors |= {f"temperature_sensor_{i}": _rounded(celsius, 1) for i, celsius in temps}
    binaries = {
        "charging": _on_off(values.get("charge_mos")),
        "discharging": _on_off(values.get("discharge_mos")),
    }
    said = {f"sensor/{name}/state": value for name, value in sensors.items()}
    said |= {f"binary_sensor/{name}/state": value for name, value in binaries.items()}
    return _published(device, said)


def battery_emulator(device: str, values: Values) -> Messages:
    """As Battery-Emulator publishes: `DEVICE/info` and `DEVICE/spec_data`, a JSON object each."""
    cells = [volts for volts in _array(values, "cell_v") if volts is not None]
    temps = [celsius for celsius in _array(values, "temp_c") if celsius is not None]
    pack_v = values.get("pack_v")
    info: dict[str, Any] = {
        "bms_status": "FAULT" if any(on for name, on in values.items() if name.startswith(ALARM)) else "ACTIVE",
        "pause_status": "RUNNING",
        "SOC": _number(values, "soc_bms", 100, 2),
        "SOC_real": _number(values, "soc_bms", 100, 2),
        "state_of_health": _number(values, "soh_bms", 100, 2),
        "temperature_min": _rounded(min(temps, default=None), 1),
        "temperature_max": _rounded(max(temps, default=None), 1),
        "stat_batt_power": _power_w(values, 1),
        "battery_current": _number(values, "current_a", 1, 1),
        "battery_voltage": _number(values, "pack_v", 1, 1),
        "cell_min_voltage": _rounded(min(cells, default=None), 3),
        "cell_max_voltage": _rounded(max(cells, default=None), 3),
        "max_charge_power": _limit_w(values, "charge_limit_a", pack_v),
        "max_discharge_power": _limit_w(values, "discharge_limit_a", pack_v),
    }
    messages = {f"{device}/info": json.dumps({name: value for name, value in info.items() if value is not None})}
    if cells:
        messages[f"{device}/spec_data"] = json.dumps({"cell_voltages": [_rounded(volts, 3) for volts in cells]})
    return messages


GATEWAYS: Final[Mapping[str, Callable[[str, Values], Messages]]] = {
    "batmon": batmon,
    "esphome": esphome,
    "battery_emulator": battery_emulator,
}


def _published(prefix: str, said: Mapping[str, Any]) -> Messages:
    return {f"{prefix}/{topic}": str(value) for topic, value in said.items() if value is not None}


def _number(values: Values, name: str, times: float, digits: int) -> float | None:
    value = values.get(name)
    return _rounded(value * times, digits) if isinstance(value, int | float) else None


def _rounded(value: float | None, digits: int) -> float | None:
    # + 0.0: no gateway says -0.0
    return None if value is None else (round(value, digits) + 0.0 if digits else round(value))


def _array(values: Values, name: str) -> list[float | None]:
    found: list[float | None] = []
    for i in range(size_of(name, values)):
        value = values[f"{name}[{i}]"]
        found.append(float(value) if isinstance(value, int | float) else None)
    return found


def _power_w(values: Values, sign: int) -> float | None:
    volts, amps = values.get("pack_v"), values.get("current_a")
    if not isinstance(volts, float) or not isinstance(amps, float):
        return None
    return _rounded(sign * volts * amps, 1)


def _limit_w(values: Values, name: str, pack_v: Value) -> float | None:
    amps = values.get(name)
    return _rounded(amps * pack_v, 0) if isinstance(amps, float) and isinstance(pack_v, float) else None


def _on_off(value: Value) -> str | None:
    return None if value is None else "ON" if value else "OFF"
