"""What aiobmsble, the esphome components and batmon call what a picture of a pack calls otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Picture = Mapping[str, Any]

_NUMBERS: Final[Mapping[str, tuple[tuple[str, ...], float, float]]] = {
    "voltage": (("pack_v",), 1, 0.01),
    "total_voltage": (("pack_v",), 1, 0.01),
    "voltage_V": (("pack_v",), 1, 0.01),
    "current": (("current_a",), 1, 0.01),
    "current_A": (("current_a",), 1, 0.01),
    "battery_level": (("soc_bms",), 100, 1),
    "state_of_charge": (("soc_bms",), 100, 1),
    "soc": (("soc_bms",), 100, 1),
    "soc_pct": (("soc_bms",), 100, 1),
    "battery_health": (("soh_bms",), 100, 1),
    "soh": (("soh_bms",), 100, 1),
    "cycles": (("cycles",), 1, 0),
    "charging_cycles": (("cycles",), 1, 0),
    "num_cycles": (("cycles",), 1, 0),
    "total_charge_throughput": (("throughput_ah",), 1, 0.001),
    "cycle_charge": (("extra.remaining_ah",), 1, 0.01),
    "charge": (("extra.remaining_ah",), 1, 0.01),
    "capacity_remaining": (("extra.remaining_ah",), 1, 0.01),
    # aiobmsble gives whole Ah. What is set (nominal) is meant where the pack tells it, else what it has learned.
    "design_capacity": (("extra.nominal_ah", "extra.full_ah"), 1, 1),
    "capacity": (("extra.nominal_ah", "extra.full_ah"), 1, 0.01),
    "nominal_capacity": (("extra.nominal_ah",), 1, 0.01),
    "full_charge_capacity": (("extra.full_ah",), 1, 0.01),
    "aged_capacity": (("extra.full_ah",), 1, 0.001),
    "problem_code": (("extra.alarm_raw",), 1, 0),
    "errors_bitmask": (("extra.alarm_raw",), 1, 0),
    "balance_current": (("extra.balance_a",), 1, 0.001),
    "mos_temperature": (("extra.mos_temp_c",), 1, 0.1),
    "mosfet_temperature": (("extra.mos_temp_c",), 1, 0.1),
    "mos_temp_C": (("extra.mos_temp_c",), 1, 1),
    "temperature_sensor_1": (("temp_c[0]",), 1, 1),
    "temperature_sensor_2": (("temp_c[1]",), 1, 1),
    "t1_C": (("temp_c[0]",), 1, 1),
    "t2_C": (("temp_c[1]",), 1, 1),
}
"""By word: our names (the first that is told), how many of theirs are one of ours, and a step of the wire."""
_SWITCHES: Final = {
    "chrg_mosfet": "charge_mos",
    "dischrg_mosfet": "discharge_mos",
    "charging": "charge_mos",
    "discharging": "discharge_mos",
    "charging_switch": "charge_mos",
    "discharging_switch": "discharge_mos",
    "charge": "charge_mos",
    "discharge": "discharge_mos",
}
_TEXTS: Final = {
    "hw_version": "hw_version",
    "hardware_version": "hw_version",
    "sw_version": "sw_version",
    "model": "model",
    "name": "name",
    "serial_number": "serial",
    "device_model": "hw_version",
}
# What these programs make of what a pack says; how many there are (the length of our arrays); what is no reading.
_NOT_SAID: Final = re.compile(
    r"(charging_|discharging_)?power|runtime|temperature|cycle_capacity|battery_charging|problem|errors|heating|uptime"
    r"|delta_voltage|(delta|average|min|max)_cell_voltage|(min|max)_voltage_cell|raw_current|low_soc_alarm_threshold"
    r"|cell_count|temp_sensors|temperature_sensors|temperature_sensor_count|detail_log_entry_count"
    r"|total_runtime_formatted|battery_(type|type_id|mode)|balanc\w+|oper\w+_bitmask"
)
_PROTECTIONS: Final = {
    "cell_overvoltage_protection": "cell_over_voltage",
    "cell_undervoltage_protection": "cell_under_voltage",
    "pack_overvoltage_protection": "pack_over_voltage",
    "pack_undervoltage_protection": "pack_under_voltage",
    "charge_overtemperature_protection": "charge_over_temp",
    "charge_undertemperature_protection": "charge_under_temp",
    "discharge_overtemperature_protection": "discharge_over_temp",
    "discharge_undertemperature_protection": "discharge_under_temp",
    "charge_overcurrent_protection": "charge_over_current",
    "discharge_overcurrent_protection": "discharge_over_current",
    "short_circuit_protection": "short_circuit",
    "ic_frontend_error": "front_end_fault",
    "mosfet_software_lock": "lockout",
}


def compared(expected: Mapping[str, Any], found: Picture, sign: int = 1) -> Iterator[tuple[str, bool]]:
    """(word, whether the picture says the same to a step of the wire) of each value that a pack said itself.

    sign: -1 where the source has its currents the other way round. A word that nobody knows is an AssertionError.
    """
    for word, value in expected.items():
        told = value["value"] if isinstance(value, dict) and "value" in value else value
        place = re.fullmatch(r"(cell_voltage|temperature)\[(\d+)\]", word)
        if place:
            name, step = ("cell_v", 0.001) if place[1] == "cell_voltage" else ("temp_c", 0.1)
            yield word, _near(_value(found, f"{name}[{place[2]}]"), told, step)
        elif word in ("cell_voltages", "voltages_mv", "cell_voltages_mv", "cells_mV"):
            yield from _cells(word, [cell if word == "cell_voltages" else cell / 1000 for cell in told], found)
        elif word in ("temp_values", "temperatures"):
            yield from _temperatures(word, told, found)
        elif word in ("device_info", "switches"):
            yield from compared({key: it for key, it in told.items() if key != "balance"}, found)
        elif word in _SWITCHES and isinstance(told, bool):
            yield word, found[_SWITCHES[word]] is told
        elif word in _NUMBERS:
            names, times, step = _NUMBERS[word]
            ours = next((it for name in names if (it := _value(found, name)) is not None), None)
            theirs = told * (sign if word.startswith("current") else 1)
            yield word, ours is not None and _near(ours * times, theirs, step)
        elif word in ("software_version", *_TEXTS):
            yield word, _same_text(found["extra"][_TEXTS.get(word, "sw_version")], told)
        elif word == "total_runtime":
            # Of the UART it is in hours, and has a tolerance.
            seconds, step = (told * 3600, 60) if isinstance(value, dict) else (told, 1)
            yield word, _near(found["extra"]["runtime_s"], seconds, step)
        elif word in _PROTECTIONS:
            yield word, (_PROTECTIONS[word] in found["alarms"]) is told
        else:
            assert _NOT_SAID.fullmatch(word), word


def _cells(word: str, cells: list[float], found: Picture) -> Iterator[tuple[str, bool]]:
    for i, told in enumerate(cells):
        yield f"{word}[{i}]", _near(_value(found, f"cell_v[{i}]"), told, 0.001)
    yield f"{word}[]", len(found["cell_v"]) == len(cells)


def _temperatures(word: str, told: list[Any], found: Picture) -> Iterator[tuple[str, bool]]:
    """They leave out what is not there; aiobmsble says of each sensor where it is."""
    typed = [it if isinstance(it, dict) else {"value": it, "type": "GENERIC"} for it in told]
    ours = [it for it in found["temp_c"] if it is not None]
    battery = [it["value"] for it in typed if it["type"] == "GENERIC"]
    switches = [it["value"] for it in typed if it["type"] == "MOSFET"]
    yield f"{word}[]", len(ours) == len(battery)
    for i, (one, theirs) in enumerate(zip(ours, battery, strict=False)):
        yield f"{word}[{i}]", _near(one, theirs, 0.1)
    for name, theirs in zip(("mos_temp_c", "mos2_temp_c"), switches, strict=False):
        yield f"{word} {name}", _near(found["extra"][name], theirs, 0.1)


def _value(found: Picture, name: str) -> Any:
    """What a picture says by that name; None if nothing."""
    array, _, place = name.removesuffix("]").partition("[")
    if array.startswith("extra."):
        return found["extra"].get(array.removeprefix("extra."))
    if not place:
        return found.get(array)
    return found[array][int(place)] if int(place) < len(found.get(array, ())) else None


def _near(ours: Any, theirs: float, step: float) -> bool:
    return ours is not None and abs(ours - theirs) <= step + 1e-9


def _same_text(ours: str, theirs: Any) -> bool:
    """aiobmsble cuts a serial number off; esphome gives a version as a number."""
    return ours.startswith(theirs) if isinstance(theirs, str) else float(ours) == theirs
