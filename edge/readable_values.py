"""What other software may read of a pack: one value per topic, what Home Assistant must know of it, one JSON of old.

Pure: records in, topics and JSON values out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from shared.bands import Bands, worst
from shared.fields import STATES
from shared.records import Estimate

EARLIER_TOPIC: Final = "ev/battery/telemetry"
_NOT_TOLD: Final = ("pack_id", "seq", "mono_ns", "extra")
_SAID: Final = (
    "soc",
    "soc_lo",
    "soc_hi",
    "soh_capacity",
    "soh_capacity_lo",
    "soh_capacity_hi",
    "soh_resistance",
    "usable_kwh",
    "rul_cycles",
    "rul_cycles_lo",
    "rul_cycles_hi",
    "failure_probability",
    "in_domain",
    "model_id",
)
_NO_MODEL: Final = "no_model"


@dataclass(frozen=True, slots=True)
class Sensor:
    """How Home Assistant shows a field. percent: the value is 0..1 and shown in %."""

    field: str
    name: str
    unit: str = ""
    kind: str = ""  # Home Assistant's device_class
    state: str = "measurement"  # its state_class; "" = a text
    percent: bool = False
    decimals: int = 1


SENSORS: Final = (
    Sensor("soc_bms", "State of charge", "%", "battery", percent=True),
    Sensor("soh_bms", "State of health", "%", percent=True),
    Sensor("pack_v", "Voltage", "V", "voltage"),
    Sensor("current_a", "Current", "A", "current"),
    Sensor("power_w", "Power", "W", "power", decimals=0),
    Sensor("temp_max_c", "Hottest sensor", "°C", "temperature"),
    Sensor("temp_min_c", "Coldest sensor", "°C", "temperature"),
    Sensor("cell_v_max", "Highest cell", "V", "voltage", decimals=3),
    Sensor("cell_v_min", "Lowest cell", "V", "voltage", decimals=3),
    Sensor("ambient_c", "Ambient", "°C", "temperature"),
    Sensor("coolant_in_c", "Coolant in", "°C", "temperature"),
    Sensor("coolant_out_c", "Coolant out", "°C", "temperature"),
    Sensor("speed_kmh", "Speed", "km/h", "speed"),
    Sensor("odometer_km", "Odometer", "km", "distance", "total_increasing"),
    Sensor("throughput_ah", "Charge moved", "Ah", "", "total_increasing"),
    Sensor("cycles", "Equivalent full cycles", "", "", "total_increasing"),
    Sensor("insulation_kohm", "Insulation", "kΩ", decimals=0),
    Sensor("charge_limit_a", "Charge limit", "A", "current"),
    Sensor("discharge_limit_a", "Discharge limit", "A", "current"),
    Sensor("usable_kwh", "Usable energy", "kWh", "energy_storage"),
    Sensor("rul_cycles", "Predicted cycles left", "", decimals=0),
    Sensor("failure_probability", "Predicted failure probability", "%", percent=True),
    Sensor("state", "State", kind="enum", state=""),
    Sensor("alarms", "Alarms", state=""),
    Sensor("prediction_reason", "Why there is no prediction", state=""),
)
"""Of the fields that one looks at in a house; the others have topics, too."""


def values(sample: Mapping[str, Any], estimate: Estimate | None) -> dict[str, Any]:
    """Field -> JSON value, in the records' units; a list stands for all cells or sensors. None = not known now."""
    told = {name: value for name, value in sample.items() if name not in _NOT_TOLD}
    told |= {f"extra.{name}": value for name, value in sample.get("extra", {}).items()}
    told["cell_v_min"], told["cell_v_max"] = _extremes(sample.get("cell_v"))
    told["temp_min_c"], told["temp_max_c"] = _extremes(sample.get("temp_c"))
    told["power_w"] = _product(sample.get("pack_v"), sample.get("current_a"))
    told |= {name: getattr(estimate, name, None) for name in _SAID}
    told["prediction_reason"] = (
        None if told["rul_cycles"] is not None else getattr(estimate, "reason", None) or _NO_MODEL
    )
    return told


def discovery(
    pack_id: str, field: str, device: Mapping[str, Any], prefix: str, status_topic: str
) -> tuple[str, dict[str, Any]] | None:
    """(topic, JSON) by which Home Assistant finds a field; None where it need not. device: its `device` object."""
    sensor = next((each for each in SENSORS if each.field == field), None)
    if sensor is None:
        return None
    node = f"packtwin_{pack_id.replace('.', '_2E')}"
    config: dict[str, Any] = {
        "name": sensor.name,
        "unique_id": f"packtwin_{pack_id}_{field}",
        "state_topic": topic(pack_id, field),
        "value_template": _template(sensor),
        "availability_topic": status_topic,
        "device": dict(device),
        "origin": {"name": "packtwin"},
    }
    if sensor.unit:
        config["unit_of_measurement"] = sensor.unit
    if sensor.kind:
        config["device_class"] = sensor.kind
    if sensor.kind == "enum":
        config["options"] = list(STATES)
    if sensor.state:
        config["state_class"] = sensor.state
        config["suggested_display_precision"] = sensor.decimals
    return f"{prefix}/sensor/{node}/{field}/config", config


def topic(pack_id: str, field: str) -> str:
    """Where a field's value is kept."""
    return f"packtwin/live/{pack_id}/{field}"


def earlier(sample: Mapping[str, Any], estimate: Estimate | None, bands: Bands) -> dict[str, Any]:
    """The fields of `/api/battery/latest`: percent, and current > 0 discharges."""
    soc = _scaled(sample.get("soc_bms"), 100)
    soh = _scaled(sample.get("soh_bms"), 100)
    if soh is None:
        soh = _scaled(getattr(estimate, "soh_capacity", None), 100)
    _, hottest_c = _extremes(sample.get("temp_c"))
    current_a, state = sample.get("current_a"), sample.get("state")
    rul, failure = getattr(estimate, "rul_cycles", None), getattr(estimate, "failure_probability", None)
    by_sign = None if current_a is None else current_a > 0
    statuses = (
        bands.soc.status(soc),
        bands.soh.status(soh),
        bands.temperature.status(hottest_c),
        bands.rul.status(rul),
        bands.failure.status(_scaled(failure, 100)),
    )
    return {
        "battery_id": sample["pack_id"],
        "timestamp": _iso(sample.get("t_ns")),
        "soc": soc,
        "soh": soh,
        "voltage": sample.get("pack_v"),
        "current": _scaled(current_a, -1),
        "temperature": hottest_c,
        "charge_cycles": sample.get("cycles"),
        "power_consumption": _scaled(_product(sample.get("pack_v"), current_a), -1),
        "is_charging": by_sign if state is None else state.startswith("charge"),
        "status": worst(*statuses),
        "rul_prediction": rul,
        "failure_probability": failure,
        "prediction_reason": None if rul is not None else getattr(estimate, "reason", None) or _NO_MODEL,
    }


def _template(sensor: Sensor) -> str:
    if sensor.percent:
        return "{{ (value_json * 100) | round(1) if value_json is number else none }}"
    if sensor.field == "alarms":
        return "{{ (value_json | join(', '))[:250] if value_json else 'none' }}"
    return "{{ value_json }}"


def _extremes(numbers: Any) -> tuple[float | None, float | None]:
    known = [number for number in numbers or () if number is not None]
    return (min(known), max(known)) if known else (None, None)


def _product(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else round(one * other, 3)


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 4) + 0.0  # + 0.0: no minus zero


def _iso(t_ns: int | None) -> str | None:
    if t_ns is None:
        return None
    return datetime.fromtimestamp(t_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
