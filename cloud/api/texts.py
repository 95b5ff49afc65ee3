"""Sentences for alarm and event codes: the records carry code and parameters, the reader's side says it in words."""

from __future__ import annotations

from typing import Final

_WORDS: Final = {
    "cell_over_voltage": "Cell voltage too high",
    "cell_under_voltage": "Cell voltage too low",
    "pack_over_voltage": "Pack voltage too high",
    "pack_under_voltage": "Pack voltage too low",
    "charge_over_temp": "Too hot to charge",
    "charge_under_temp": "Too cold to charge",
    "discharge_over_temp": "Too hot to discharge",
    "discharge_under_temp": "Too cold to discharge",
    "mos_over_temp": "Power switch too hot",
    "ambient_over_temp": "Surroundings too hot",
    "ambient_under_temp": "Surroundings too cold",
    "charge_over_current": "Charging current too high",
    "discharge_over_current": "Discharging current too high",
    "short_circuit": "Short circuit",
    "cell_imbalance": "Cells drift apart",
    "temp_imbalance": "Temperatures drift apart",
    "low_soc": "State of charge is low",
    "insulation": "Insulation resistance too low",
    "contactor_fault": "Contactor fault",
    "precharge_fault": "Precharge fault",
    "current_sensor_fault": "Current sensor fault",
    "voltage_sensor_fault": "Voltage sensor fault",
    "temp_sensor_fault": "Temperature sensor fault",
    "front_end_fault": "Measuring front end fault",
    "mos_fault": "Power switch fault",
    "balance_fault": "Balancing fault",
    "communication_fault": "Communication fault inside the pack",
    "lockout": "The pack has locked itself",
    "bms_fault": "BMS fault",
    "other": "Another alarm of the BMS",
    "soc_band": "State of charge",
    "soh_band": "State of health",
    "temperature_band": "Hottest temperature",
    "rul_band": "Remaining useful life",
    "failure_probability_band": "Failure probability",
    "end_of_life": "End of life",
}
_UNITS: Final = {
    "soc_band": (100.0, "%"),
    "soh_band": (100.0, "%"),
    "temperature_band": (1.0, "degC"),
    "rul_band": (1.0, "cycles"),
    "failure_probability_band": (100.0, "%"),
}
"""Code -> what its value is multiplied with for people, and the unit then."""


def words(code: str) -> str:
    """The code in words; an unknown code is shown readably as it is."""
    return _WORDS.get(code) or code.replace("_", " ").capitalize()


def event_text(code: str, cell: int | None, value: float | None, threshold: float | None) -> str:
    """One line for an Event. `cell` counts from 0, as `cell_v` does."""
    text = words(code)
    if cell is not None:
        text += f", cell {cell}"
    if value is None:
        return text
    if code == "end_of_life":
        return f"{text} after {value:.0f} cycles" + (f" (health below {threshold * 100:.3g} %)" if threshold else "")
    factor, unit = _UNITS.get(code, (1.0, ""))
    text += f": {_number(value * factor, unit)}"
    return text if threshold is None else f"{text} (limit {_number(threshold * factor, unit)})"


def band_text(code: str, value: float, limit: float, severity: str, *, rising: bool) -> str:
    """One line for a reading in a band, both in the unit for people."""
    _, unit = _UNITS[code]
    side = "above" if rising else "below"
    return f"{words(code)}: {_number(value, unit)} ({severity} {side} {_number(limit, unit)})"


def _number(value: float, unit: str) -> str:
    return f"{round(value, 1) + 0.0:.10g} {unit}" if unit else f"{value:g}"
