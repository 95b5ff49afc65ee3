"""The bands of the dashboards: when a reading is good, warning or critical. The SQL views read the same numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STATUSES: Final = ("good", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Band:
    """Where a reading turns to warning and to critical. `rising` readings are worse the higher they are."""

    warning: float
    critical: float
    rising: bool = False

    def status(self, value: float | None) -> str | None:
        """`good`, `warning` or `critical`; None for None. Both bounds belong to the warning band."""
        if value is None:
            return None
        if self.rising:
            return STATUSES[(value >= self.warning) + (value > self.critical)]
        return STATUSES[(value <= self.warning) + (value < self.critical)]


@dataclass(frozen=True, slots=True)
class Bands:
    """One Band per reading, in the units of the earlier system's API."""

    soc: Band = Band(50.0, 20.0)  # %
    soh: Band = Band(85.0, 75.0)  # %
    temperature: Band = Band(40.0, 60.0, rising=True)  # degC, hottest sensor
    rul: Band = Band(500.0, 100.0)  # cycles
    failure: Band = Band(30.0, 60.0, rising=True)  # %
    cold_c: float = 20.0
    """Below: cold. A label for the page; it never makes a status worse."""


def worst(*statuses: str | None) -> str | None:
    """The worst of the statuses that are known; None when none is."""
    known = [STATUSES.index(status) for status in statuses if status is not None]
    return STATUSES[max(known)] if known else None
