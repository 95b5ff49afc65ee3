"""Hyundai Kona Electric and its sister, the Kia e-Niro: 98 cells (39 kWh: 90), four sensors.

Proved on the log of a Kona (CSS Electronics, 17BD1DB7_00000170.MF4) and OBDb's captures; not proved: cells 97 and 98.
"""

from __future__ import annotations

from typing import Final

from firmware_bridge.protocols.vehicles.hyundai import (
    AIR,
    BATTERY,
    HEALTH,
    HEALTH_BYTES,
    HEALTH_LEAST,
    STATUS,
    STATUS_BYTES,
    STATUS_LEAST,
    cells,
    identifier_of,
)
from firmware_bridge.protocols.vehicles.vehicle import Fixed, Reading, Vehicle
from firmware_bridge.rows import Flags, Number, Numbers, Table

_STATUS: Final[Table] = (
    Fixed(0, bytes.fromhex("fff7e7ff")),
    Flags(9, ">B", {0: "contactor_main"}),
    *STATUS,
    Numbers(Number("temp_c", 16, ">b"), count=4),
    Number("coolant_in_c", 22, ">b"),
)
_HEALTH: Final[Table] = (
    Fixed(0, bytes.fromhex("fffb740f")),
    *HEALTH,
    Numbers(Number("cell_v", 32, ">B", per=50, absent=(0x00, 0xFF)), count=2, first=96),
)

KONA: Final = Vehicle(
    "kona",
    "Hyundai Kona Electric, Kia e-Niro (cells 97 and 98 unverified on hardware)",
    (
        Reading(ecu=BATTERY, request=identifier_of(0x0101), layouts={STATUS_LEAST: _STATUS}, size=STATUS_BYTES),
        cells(0x0102, 0),
        cells(0x0103, 32),
        cells(0x0104, 64),
        Reading(ecu=BATTERY, request=identifier_of(0x0105), layouts={HEALTH_LEAST: _HEALTH}, size=HEALTH_BYTES),
        AIR,
    ),
)
