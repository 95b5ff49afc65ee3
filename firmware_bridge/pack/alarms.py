"""When the BMS raises and takes back an alarm: one table of thresholds, and the time they must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.fields import ALARM_CODES

Flags = npt.NDArray[np.bool_]

_RAISE_S: Final = 0.5
_TAKE_BACK_S: Final = 2.0

_HIGH, _LOW = 1.0, -1.0
_RULES: Final = (
    # code, the value it looks at, direction, warning and alarm threshold in the value's unit
    ("cell_over_voltage", "cell_max_v", _HIGH, 4.22, 4.25),
    ("cell_under_voltage", "cell_min_v", _LOW, 2.90, 2.75),
    ("pack_over_voltage", "pack_v", _HIGH, 405.0, 408.0),
    ("pack_under_voltage", "pack_v", _LOW, 285.0, 270.0),
    ("charge_over_temp", "charging_max_c", _HIGH, 52.0, 58.0),
    ("charge_under_temp", "charging_min_c", _LOW, 0.0, -10.0),
    ("discharge_over_temp", "temp_max_c", _HIGH, 55.0, 62.0),
    ("discharge_under_temp", "temp_min_c", _LOW, -20.0, -30.0),
    ("ambient_over_temp", "ambient_c", _HIGH, 45.0, 55.0),
    ("ambient_under_temp", "ambient_c", _LOW, -25.0, -35.0),
    ("charge_over_current", "over_charge_limit_a", _HIGH, 15.0, 40.0),
    ("discharge_over_current", "over_discharge_limit_a", _HIGH, 30.0, 80.0),
    ("cell_imbalance", "rest_spread_v", _HIGH, 0.040, 0.150),
    ("temp_imbalance", "temp_spread_c", _HIGH, 8.0, 15.0),
    ("low_soc", "soc", _LOW, 0.15, 0.05),
    ("insulation", "insulation_kohm", _LOW, 180.0, 36.0),  # 500 and 100 ohm per volt, ISO 6469-3
    ("current_sensor_fault", "current_while_open_a", _HIGH, 2.0, 5.0),
    ("voltage_sensor_fault", "sum_disagrees_v", _HIGH, 1.0, 3.0),
    ("temp_sensor_fault", "temp_outlier_c", _HIGH, 12.0, 25.0),
    ("precharge_fault", "precharge_s", _HIGH, 2.0, 4.0),
)
STOPS_THE_CAR: Final = frozenset(
    (
        "cell_over_voltage",
        "cell_under_voltage",
        "pack_over_voltage",
        "pack_under_voltage",
        "charge_over_temp",
        "discharge_over_temp",
        "insulation",
        "precharge_fault",
    )
)


class Alarms:
    """Which codes stand. `warnings` and `alarms`: bool[30], ordered as ALARM_CODES; an alarm's warning stands too."""

    def __init__(self) -> None:
        self.warnings: Flags = np.zeros(len(ALARM_CODES), np.bool_)
        self.alarms: Flags = np.zeros(len(ALARM_CODES), np.bool_)
        self._watched = [watched for _, watched, *_ in _RULES]
        self._sign = np.array([sign for _, _, sign, *_ in _RULES])
        self._threshold = np.array([rule[3:] for rule in _RULES]).T  # [warning | alarm, rule]
        self._code = np.array([ALARM_CODES.index(code) for code, *_ in _RULES])
        self._stops = np.array([code in STOPS_THE_CAR for code in ALARM_CODES])
        self._over_s = np.zeros(self._threshold.shape)
        self._under_s = np.zeros(self._threshold.shape)
        self._standing: Flags = np.zeros(self._threshold.shape, np.bool_)

    @property
    def stops_the_car(self) -> bool:
        """An alarm stands with which the contactors have to open."""
        return bool((self.alarms & self._stops).any())

    def step(self, dt_s: float, watched: Mapping[str, float]) -> None:
        """Looks at the values of this instant, by the names in the table."""
        values = np.array([watched[name] for name in self._watched])
        over = self._sign * (values - self._threshold) > 0
        self._over_s = np.where(over, self._over_s + dt_s, 0.0)
        self._under_s = np.where(over, 0.0, self._under_s + dt_s)
        self._standing = (self._standing | (self._over_s >= _RAISE_S)) & (self._under_s < _TAKE_BACK_S)
        self.warnings[self._code], self.alarms[self._code] = self._standing
