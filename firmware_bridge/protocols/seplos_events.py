"""The event bytes of Seplos: bit -> alarm. V2 and V3 have some of them in common. What only informs has no alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Bits = Mapping[int, str]

VOLTAGE: Final[Bits] = {
    0: "alarm.cell_over_voltage:warning",
    1: "alarm.cell_over_voltage",
    2: "alarm.cell_under_voltage:warning",
    3: "alarm.cell_under_voltage",
    4: "alarm.pack_over_voltage:warning",
    5: "alarm.pack_over_voltage",
    6: "alarm.pack_under_voltage:warning",
    7: "alarm.pack_under_voltage",
}
TEMPERATURE: Final[Bits] = {
    0: "alarm.charge_over_temp:warning",
    1: "alarm.charge_over_temp",
    2: "alarm.charge_under_temp:warning",
    3: "alarm.charge_under_temp",
    4: "alarm.discharge_over_temp:warning",
    5: "alarm.discharge_over_temp",
    6: "alarm.discharge_under_temp:warning",
    7: "alarm.discharge_under_temp",
}
SURROUNDINGS: Final[Bits] = {
    0: "alarm.ambient_over_temp:warning",
    1: "alarm.ambient_over_temp",
    2: "alarm.ambient_under_temp:warning",
    3: "alarm.ambient_under_temp",
    4: "alarm.mos_over_temp",
    5: "alarm.mos_over_temp:warning",
    # 6: cold cells are being heated
}
_V2_HARDWARE: Final[Bits] = {
    0: "alarm.voltage_sensor_fault",
    1: "alarm.temp_sensor_fault",
    2: "alarm.current_sensor_fault",
    3: "alarm.bms_fault",  # its key
    4: "alarm.cell_imbalance",
    5: "alarm.mos_fault",  # charge
    6: "alarm.mos_fault",  # discharge
    7: "alarm.mos_fault",  # limiter
}
_V2_TRIPPED: Final[Bits] = {7: "alarm.lockout"}
_V2_CURRENT: Final[Bits] = {
    0: "alarm.charge_over_current:warning",
    1: "alarm.charge_over_current",
    2: "alarm.discharge_over_current:warning",
    3: "alarm.discharge_over_current",
    4: "alarm.discharge_over_current",  # for a moment
    5: "alarm.short_circuit",
    6: "alarm.lockout",  # too much current
    7: "alarm.lockout",  # short circuit
}
_V2_OUTPUT: Final[Bits] = {
    0: "alarm.pack_over_voltage",  # the charger's
    # 1: waits to charge again
    2: "alarm.low_soc:warning",
    3: "alarm.low_soc",
    4: "alarm.lockout",  # too empty to be charged
    5: "alarm.bms_fault",  # poles reversed
    6: "alarm.contactor_fault",  # output not connected
}
_V2_MEMORY: Final[Bits] = {
    0: "alarm.bms_fault",
    1: "alarm.bms_fault",  # its clock
    # 2-5: not calibrated, calendar not set
}


def word(first: Bits, second: Bits) -> dict[int, str]:
    """The bits of two event bytes that are read as one number, the first one high."""
    return {8 + bit: name for bit, name in first.items()} | dict(second)


V2: Final = (
    word(_V2_HARDWARE, VOLTAGE),
    word(TEMPERATURE, {**SURROUNDINGS, **_V2_TRIPPED}),
    word(_V2_CURRENT, _V2_OUTPUT),
    word({}, _V2_MEMORY),  # the seventh: waits for a charger
)
"""V2's eight event bytes, two a word."""

_V3_CURRENT: Final[Bits] = {
    0: "alarm.charge_over_current:warning",
    1: "alarm.charge_over_current",
    2: "alarm.charge_over_current",  # second step
    3: "alarm.discharge_over_current:warning",
    4: "alarm.discharge_over_current",
    5: "alarm.discharge_over_current",  # second step
    6: "alarm.short_circuit",
}
_V3_LATCHED: Final[Bits] = {
    0: "alarm.lockout",  # short circuit
    2: "alarm.lockout",  # second step of charging
    3: "alarm.lockout",  # second step of discharging
}
_V3_CHARGE: Final[Bits] = {
    2: "alarm.low_soc:warning",
    3: "alarm.low_soc",
    4: "alarm.cell_imbalance:warning",
}
_V3_HARDWARE: Final[Bits] = {
    0: "alarm.temp_sensor_fault",
    1: "alarm.front_end_fault",
    2: "alarm.mos_fault",  # charge
    3: "alarm.mos_fault",  # discharge
    4: "alarm.cell_imbalance",
    5: "alarm.voltage_sensor_fault",  # a wire to the cells is broken
    6: "alarm.bms_fault",  # its key
    7: "alarm.other",  # the extinguisher
}
V3: Final = (
    word(VOLTAGE, TEMPERATURE),
    word(SURROUNDINGS, _V3_CURRENT),
    word(_V3_LATCHED, _V3_CHARGE),
)
"""V3's event bytes 1 to 6, behind the state of the system; the switches follow."""
V3_HARDWARE: Final = word({}, _V3_HARDWARE)
"""V3's event bytes 8 and 9: the balancer, and what is broken."""
