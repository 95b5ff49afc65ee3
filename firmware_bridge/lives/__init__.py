"""Whole lives of simulated packs, as the Sessions that their cars would have recorded. Pure: no I/O, no clock."""

from __future__ import annotations

from firmware_bridge.lives.law import Law
from firmware_bridge.lives.life import Life, draw, each

__all__ = ["Law", "Life", "draw", "each"]
