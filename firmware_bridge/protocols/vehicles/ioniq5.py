"""Hyundai Ioniq 5 (and the Ioniq 6, which speaks alike)."""

from __future__ import annotations

from typing import Final

from firmware_bridge.protocols.vehicles.egmp import READINGS
from firmware_bridge.protocols.vehicles.vehicle import Vehicle

IONIQ5: Final = Vehicle("ioniq5", "Hyundai Ioniq 5", READINGS)
