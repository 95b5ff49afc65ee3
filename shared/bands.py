"""The bands of the dashboards: when a reading is good, warning or critical. The SQL views read the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from shared.errors import ConfigError

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


_NAMES: Final = {f"BAND_{each.name.upper()}": each.name for each in fields(Bands) if each.name != "cold_c"}
_COLD: Final = "BAND_TEMPERATURE_COLD"
SETTINGS: Final = frozenset({_COLD, *(f"{name}_{level}" for name in _NAMES for level in ("WARNING", "CRITICAL"))})
"""The settings that `read` reads."""


def read(environ: Mapping[str, str]) -> Bands:
    """The Bands of SETTINGS in `environ`; ConfigError, one sentence, for a bad one. Empty = not set, the default."""
    none, found = Bands(), dict[str, Any]()
    for name, attribute in _NAMES.items():
        default: Band = getattr(none, attribute)
        warning = _limit(environ, f"{name}_WARNING", default.warning)
        critical = _limit(environ, f"{name}_CRITICAL", default.critical)
        if (warning > critical) if default.rising else (warning < critical):
            raise ConfigError(f"{name}_WARNING={warning:g} is worse than {name}_CRITICAL={critical:g}; swap them")
        found[attribute] = Band(warning, critical, default.rising)
    return Bands(**found, cold_c=_limit(environ, _COLD, none.cold_c))


def _limit(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    try:
        number = float(text or default)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{name}={text!r} is not a number; correct the setting")
    return number


def worst(*statuses: str | None) -> str | None:
    """The worst of the statuses that are known; None when none is."""
    known = [STATUSES.index(status) for status in statuses if status is not None]
    return STATUSES[max(known)] if known else None
