"""Hyundai's and Kia's E-GMP platform, 800 V: up to 192 cells and 18 sensors. The same for all cars on it.

Proved on the log of such a car that drives (CSS Electronics, 63BEF5CD.MF4) and OBDb's captures of the Ioniq 5 and EV6.
The main relay's bit of older cars is 0 in here while 18 A flow, so it is not told.
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
from firmware_bridge.protocols.vehicles.vehicle import Fixed, Reading
from firmware_bridge.rows import Number, Numbers, Table

_STATUS: Final[Table] = (
    Fixed(0, bytes.fromhex("effbe7ef")),
    *STATUS,
    Numbers(Number("temp_c", 16, ">b"), count=5),
    Number("coolant_in_c", 22, ">B", zero=40),
    Number("extra.motor2_rpm", 55, ">h"),
)
_HEALTH: Final[Table] = (
    Fixed(0, bytes.fromhex("fffb740f")),
    *HEALTH,
    Numbers(Number("temp_c", 9, ">b"), count=7, first=5),
    Number("extra.remaining_kwh", 28, ">H", times=2, per=1000),
    Numbers(Number("temp_c", 39, ">b"), count=4, first=12),
)
_CHARGES: Final[Table] = (
    Fixed(0, bytes.fromhex("f21fffff")),
    Number("extra.ac_charges", 4, ">I"),
    Number("extra.dc_charges", 8, ">I"),
    Number("extra.ac_charged_kwh", 12, ">I"),
    Number("extra.dc_charged_kwh", 16, ">I"),
    Numbers(Number("temp_c", 26, ">b"), count=2, first=16),
)

READINGS: Final = (
    Reading(ecu=BATTERY, request=identifier_of(0x0101), layouts={STATUS_LEAST: _STATUS}, size=STATUS_BYTES),
    cells(0x0102, 0),
    cells(0x0103, 32),
    cells(0x0104, 64),
    cells(0x010A, 96),
    cells(0x010B, 128),
    cells(0x010C, 160),
    Reading(ecu=BATTERY, request=identifier_of(0x0105), layouts={HEALTH_LEAST: _HEALTH}, size=HEALTH_BYTES),
    Reading(ecu=BATTERY, request=identifier_of(0x0111), layouts={20: _CHARGES}, size=74),
    AIR,
)
