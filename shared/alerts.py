"""Event codes, the bands of readings, and a watch that turns readings into Events. Pure.

A band has hysteresis: it worsens at its limit and eases only some way behind it, so that a reading on the edge of two
bands does not ring twice a minute. Values and limits are in a record's own units (0..1, not percent).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from shared.bands import Bands
from shared.fields import ALARM_CODES
from shared.records import SEVERITIES, Event

BAND_CODES: Final = ("soc_band", "soh_band", "temperature_band", "rul_band", "failure_probability_band")
END_OF_LIFE: Final = "end_of_life"
CODES: Final = (*ALARM_CODES, *BAND_CODES, END_OF_LIFE)
"""The closed list of an Event's codes."""


@dataclass(frozen=True, slots=True)
class Band:
    """Where a reading turns to warning and to critical; both limits belong to the warning band.

    rising: worse the higher it is. ease: how far behind a limit it must be to be better again.
    """

    warning: float
    critical: float
    ease_warning: float
    ease_critical: float
    rising: bool = False

    def severity(self, value: float, standing: str | None = None) -> str | None:
        """`warning`, `critical` or None (good), for a reading whose severity so far is `standing`."""
        level, before = self._level(value), 0 if standing is None else SEVERITIES.index(standing)
        if level < before:
            level = min(before, self._level(value, eased=True))
        return SEVERITIES[level] if level else None

    def limit(self, severity: str) -> float:
        """The limit that makes a reading so severe."""
        return self.critical if severity == "critical" else self.warning

    def _level(self, value: float, *, eased: bool = False) -> int:
        sign = -1.0 if self.rising else 1.0
        warning = self.warning + sign * self.ease_warning * eased
        critical = self.critical + sign * self.ease_critical * eased
        if self.rising:
            return (value >= warning) + (value > critical)
        return (value <= warning) + (value < critical)


def bands_of(bands: Bands) -> Mapping[str, Band]:
    """The bands that a device watches itself, by code; those of measured values are the reader's to judge."""
    rul, failure = bands.rul, bands.failure
    return {
        "rul_band": Band(rul.warning, rul.critical, 25.0, 10.0),  # equivalent full cycles
        "failure_probability_band": Band(failure.warning / 100, failure.critical / 100, 0.05, 0.05, rising=True),
    }


BANDS: Final = bands_of(Bands())
"""With the default settings."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An Event that is not cleared."""

    id: str
    severity: str
    since_t_ns: int | None


class Watch:
    """The standing Events of all packs of a device. `state` is to be kept over restarts.

    The order that loses nothing: `look`, keep `state`, store the `untold` Events, `told`. A second record with the same
    id is the same Event, so those that are untold after a restart are just stored again.
    """

    def __init__(self, boot: int, state: Mapping[str, Any] | None = None, bands: Mapping[str, Band] = BANDS) -> None:
        """state: what `state` gave; raises ValueError, KeyError, TypeError or AttributeError for anything else."""
        self._boot, self._bands = boot, bands
        self._standing: dict[tuple[str, str], Standing] = {}
        self._untold: dict[str, Event] = {}
        if state is not None:
            for told in state["untold"]:
                self._untold[told["id"]] = Event(**told)
            for key, told in state["standing"].items():
                pack_id, _, code = key.rpartition("/")
                standing = Standing(**told)
                if standing.severity not in SEVERITIES or code not in bands:
                    raise ValueError(f"no standing event: {key} {told}")
                self._standing[pack_id, code] = standing

    @property
    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "standing": {f"{pack}/{code}": asdict(standing) for (pack, code), standing in self._standing.items()},
            "untold": [asdict(event) for event in self._untold.values()],
        }

    @property
    def untold(self) -> list[Event]:
        """Events that are still to be stored."""
        return list(self._untold.values())

    def told(self) -> None:
        """All Events are stored."""
        self._untold.clear()

    def severity(self, pack_id: str, code: str) -> str | None:
        """What stands now; None = good."""
        standing = self._standing.get((pack_id, code))
        return standing.severity if standing else None

    def look(self, pack_id: str, code: str, value: float | None, mono_ns: int, t_ns: int | None) -> bool:
        """Takes in a reading; True when it has changed its band, which is an Event. None = not known: no change.

        An Event is cleared only at a known time: until then it stands.
        """
        before = self._standing.get((pack_id, code))
        if value is None:
            return False
        severity = self._bands[code].severity(value, before.severity if before else None)
        if severity == (before.severity if before else None) or (severity is None and t_ns is None):
            return False
        id_ = before.id if before else f"{pack_id}-{code}-{self._boot:016x}-{mono_ns // 1_000_000}"
        since_t_ns = before.since_t_ns if before else t_ns
        if severity is None:
            del self._standing[pack_id, code]
        else:
            self._standing[pack_id, code] = Standing(id_, severity, since_t_ns)
        told = severity or (before.severity if before else "info")
        self._untold[id_] = Event(
            seq=0,
            mono_ns=mono_ns,
            t_ns=t_ns,
            id=id_,
            code=code,
            severity=told,
            pack_id=pack_id,
            value=value,
            threshold=self._bands[code].limit(told),
            since_t_ns=since_t_ns,
            cleared_t_ns=t_ns if severity is None else None,
        )
        return True
