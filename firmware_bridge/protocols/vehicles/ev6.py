"""Kia EV6."""

from __future__ import annotations

from typing import Final

from firmware_bridge.protocols.vehicles.egmp import READINGS
from firmware_bridge.protocols.vehicles.vehicle import Vehicle

EV6: Final = Vehicle("ev6", "Kia EV6", READINGS)
