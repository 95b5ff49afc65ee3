"""Lives: packs drawn from a seed, aged by the law, recorded as Sessions and an end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from firmware_bridge.lives.ageing import MOST_EFC, STEP_EFC, Course, aged
from firmware_bridge.lives.law import Law
from firmware_bridge.lives.packs import Pack
from firmware_bridge.lives.record import Days, Record, recorded
from firmware_bridge.pack.cells import NOMINAL_AH, Floats
from shared.features import life_columns
from shared.records import Event, Session

UNTIL_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: when records end if nothing else is said; the time of a simulated log begins there."""
NEAR_EFC: Final = 100.0
_TOGETHER: Final = 50
_TAG: Final = 0x11FE
_DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Life:
    """One pack's life as it is on record. `eol_cycles`: the cycles at which SoH fell below 0.80; None = not seen."""

    pack_id: str
    profile: str
    record: Record
    eol_cycles: float | None
    until_ns: int = UNTIL_NS  # UTC ns at the end of the record
    chemistry: str = "nmc"

    def __len__(self) -> int:
        return len(self.record.columns["duration_s"])

    @property
    def cycles(self) -> Floats:
        """True equivalent full cycles at the end of each Session, also where the BMS did not say; float64[n]."""
        cycles: Floats = np.round(np.cumsum(self.record.columns["moved_ah"]) / 2 / NOMINAL_AH, 1)
        return cycles

    @property
    def features(self) -> Floats:
        """float64[n, F] in the order of `shared.features.NAMES`, NaN = no estimate."""
        return life_columns(self.record.columns)

    @property
    def rul_cycles(self) -> Floats:
        """Cycles left at the end of each Session, float64[n]; NaN where the end is not known."""
        end = np.nan if self.eol_cycles is None else self.eol_cycles
        rul: Floats = np.asarray(np.round(np.maximum(end - self.cycles, 0.0), 1), np.float64)
        return rul

    @property
    def eol_100(self) -> Floats:
        """1 = the end comes within 100 cycles, 0 = not; NaN where the end is not known. float64[n]."""
        rul = self.rul_cycles
        return np.where(np.isnan(rul), np.nan, (rul <= NEAR_EFC).astype(np.float64))

    @property
    def sessions(self) -> list[Session]:
        """The Sessions in order, made anew at each call."""
        end_ns = np.round(np.cumsum(self.record.columns["duration_s"])).astype(np.int64) * 1_000_000_000
        begin_ns = self.until_ns - int(end_ns[-1])
        known = self.record.rows()
        return [
            Session(
                pack_id=self.pack_id,
                seq=row,
                mono_ns=mono_ns,
                t_ns=begin_ns + mono_ns,
                simulated=True,
                reasons=self.record.reasons(row),
                **values,
            )
            for row, (mono_ns, values) in enumerate(zip(end_ns.tolist(), known, strict=True))
        ]

    def records(self) -> Iterator[Session | Event]:
        """The Sessions, and after them the Event of the pack's end if that came."""
        sessions = self.sessions
        yield from sessions
        if self.eol_cycles is not None:
            yield self._end(sessions[-1])

    def ending(self, until_ns: int) -> Life:
        """The same life at another time: its record ends at `until_ns`, UTC."""
        return replace(self, until_ns=until_ns)

    def _end(self, last: Session) -> Event:
        return Event(
            seq=last.seq + 1,
            mono_ns=last.mono_ns,
            t_ns=last.t_ns,
            id=f"end-of-life-{self.pack_id}",
            code="end_of_life",
            severity="critical",
            pack_id=self.pack_id,
            value=self.eol_cycles,
            threshold=0.80,
        )


def draw(packs: int, seed: int, law: Law | None = None) -> list[Life]:
    """Lives LIFE_0001 .. of that many packs of a fleet. The same seed gives the same lives, however many are drawn."""
    return list(each(packs, seed, law))


def each(packs: int, seed: int, law: Law | None = None, until_ns: int = UNTIL_NS) -> Iterator[Life]:
    """The lives of `draw` one by one, so that a table of many needs little memory."""
    for first in range(0, packs, _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, packs))
        rngs = [np.random.default_rng([seed, number, _TAG]) for number in numbers]
        drawn = [Pack.drawn(rng) for rng in rngs]
        names = [f"LIFE_{number + 1:04d}" for number in numbers]
        yield from _lived(names, drawn, rngs, law or Law(), until_ns)


def _lived(
    names: Sequence[str], packs: Sequence[Pack], rngs: Sequence[np.random.Generator], law: Law, until_ns: int
) -> Iterator[Life]:
    days, courses = courses_of(packs, rngs, law)
    for name, pack, rng, when, course in zip(names, packs, rngs, days, courses, strict=True):
        end = course.end_efc(pack)
        seen_efc = (when.efc[-1] + 1 if end is None else end) * pack.watched
        seen = when.until(max(seen_efc, when.efc[0] + 1))
        yield Life(
            pack_id=name,
            profile=pack.profile,
            record=recorded(pack, course, seen, rng),
            eol_cycles=round(end, 1) if end is not None and pack.watched == 1 else None,
            until_ns=until_ns,
        )


def courses_of(packs: Sequence[Pack], rngs: Sequence[np.random.Generator], law: Law) -> tuple[list[Days], list[Course]]:
    """When the packs' Sessions would end and how the packs age."""
    days = [Days.drawn(pack, rng) for pack, rng in zip(packs, rngs, strict=True)]
    grid = STEP_EFC * np.arange(int(MOST_EFC / STEP_EFC), dtype=np.float64)
    ages = [when.age_at(grid[: max(int(when.efc[-1] / STEP_EFC), 1) + 1]) for when in days]
    return days, aged(packs, ages, law)
