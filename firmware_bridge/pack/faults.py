"""Faults that a user puts on a running car: an offset on what its BMS measures or says of one field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_bridge.pack.cells import SERIES, TEMPS, Floats
from shared.errors import ConfigError

_ARRAYS: Final = {"cell_v": SERIES, "temp_c": TEMPS}
_LARGEST: Final = {
    "pack_v": 500.0,
    "current_a": 1000.0,
    "soc_bms": 1.0,
    "soh_bms": 1.0,
    "cell_v": 5.0,
    "temp_c": 150.0,
    "charge_limit_a": 1000.0,
    "discharge_limit_a": 1000.0,
    "insulation_kohm": 50_000.0,
    "ambient_c": 150.0,
    "coolant_in_c": 150.0,
    "coolant_out_c": 150.0,
    "speed_kmh": 300.0,
    "odometer_km": 1e6,
    "throughput_ah": 1e6,
    "energy_kwh": 1e6,
    "cycles": 5000.0,
}
"""Every field that can be given a fault, and the largest offset that still means something."""


@dataclass(frozen=True, slots=True)
class Target:
    """A field of a Sample, with a position if it has many."""

    field: str
    index: int | None = None

    def __str__(self) -> str:
        return self.field if self.index is None else f"{self.field}[{self.index}]"

    @classmethod
    def parse(cls, text: str) -> Target:
        """`cell_v[17]` or `current_a` as a Target; ConfigError says what is wrong with any other text."""
        match = re.fullmatch(r"([a-z_]+)(?:\[(\d{1,6})\])?", text)
        if match is None or match[1] not in _LARGEST:
            raise ConfigError(f"fault: {text!r} is no field that can have a fault: take one of {', '.join(_LARGEST)}")
        field, index = match[1], None if match[2] is None else int(match[2])
        count = _ARRAYS.get(field)
        if count is None and index is not None:
            raise ConfigError(f"fault: {field} is one value: leave out [{index}]")
        if count is not None and (index is None or index >= count):
            raise ConfigError(f"fault: say which {field}, from {field}[0] to {field}[{count - 1}], not {text!r}")
        return cls(field, index)

    def check(self, offset: float) -> None:
        """ConfigError if `offset`, in the field's unit, is absurd."""
        largest = _LARGEST[self.field]
        if not math.isfinite(offset) or abs(offset) > largest:
            raise ConfigError(f"fault: {offset:g} is out of reason for {self}: give an offset within +-{largest:g}")


class Faults:
    """The faults of one pack. `cell_v` float64[96] and `temp_c` float64[16] are offsets to add; others by `of`."""

    def __init__(self) -> None:
        self.cell_v: Floats = np.zeros(SERIES)
        self.temp_c: Floats = np.zeros(TEMPS)
        self._standing: dict[Target, float] = {}

    def of(self, field: str) -> float:
        """The offset on a scalar field; 0 without a fault."""
        return self._standing.get(Target(field), 0.0)

    def put(self, target: Target, offset: float) -> None:
        """Sets the offset of `target`, in the field's unit. ConfigError if it is absurd."""
        target.check(offset)
        self._standing[target] = offset
        self._spread()

    def clear(self, target: Target | None) -> None:
        """Takes away the fault of `target`, or all when None. Nothing happens where there is none."""
        if target is None:
            self._standing.clear()
        else:
            self._standing.pop(target, None)
        self._spread()

    def standing(self) -> dict[str, float]:
        """What stands now: `field` or `field[n]` -> offset."""
        return {str(target): offset for target, offset in self._standing.items()}

    def _spread(self) -> None:
        for field, offsets in (("cell_v", self.cell_v), ("temp_c", self.temp_c)):
            offsets[:] = 0.0
            for target, offset in self._standing.items():
                if target.field == field and target.index is not None:
                    offsets[target.index] = offset
