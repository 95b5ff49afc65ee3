"""Sessions -> features: `History` as they come, on the edge; `life_matrix` of a whole life at once, for training.

Both give the same bits. The table of features is `shared.feature_table`; Samples -> Sessions is `shared.session_meter`.
"""

from __future__ import annotations

import json
import math
import struct
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from shared.errors import PacktwinError
from shared.feature_table import (
    FIRST,
    LATEST_START_CYCLES,
    LEAST_AGE_DAYS,
    LEAST_FIRST,
    LEAST_VALID,
    MOST_BACK,
    NAMES,
    SMOOTH,
    TABLE,
    WIDEST,
    FeatureSpec,
    schema_id,
)
from shared.life import (
    BACK,
    BASED,
    INPUTS,
    LEVELS,
    SLOPED,
    SLOPES,
    SUMS,
    Floats,
    features_of,
    life_parts,
    middle_of,
    raw_row,
    sums_row,
)
from shared.reading import PackFacts, Reader, Reading
from shared.records import Session
from shared.session_meter import Meter

__all__ = [
    "NAMES",
    "TABLE",
    "FeatureSpec",
    "FeatureStateError",
    "Features",
    "History",
    "Meter",
    "PackFacts",
    "Reader",
    "Reading",
    "life_columns",
    "life_matrix",
    "schema_id",
]

_SCHEMA: Final = schema_id()
_NOW: Final = ("cycles", "throughput_ah", "soh_bms", "age_days")
_KEPT_ROWS: Final = MOST_BACK + 1  # a slope may look MOST_BACK rows back
_NEEDS: Final[dict[str, tuple[str, ...]]] = {
    **{name: (name,) for name in ("cycles", "age_days", "soh_bms")},
    **{name: (f"level.{name}",) for name in LEVELS if name in NAMES and name != "soh_bms"},
    **{name: (f"level.{of}", f"span.{over}", f"then.{of}.{over}") for name, (of, over, _) in SLOPES.items()},
    "cycles_per_day": ("cycles", "age_days"),
    "soh_bms_drop": ("level.soh_bms", "base.soh_bms"),
    "r_step_growth": ("level.r_step_mohm", "base.r_step_mohm"),
    "window_share": ("level.window_ah", "base.window_ah"),
    "temp_life_c": ("level.temp_mean_c",),
    "hot_share": ("hot_h",),
}
"""Which parts a feature is made of: why there is none is why the first of them is missing."""
_LENGTH: Final = struct.Struct("<4sI")
_MAGIC: Final = b"PTH1"


class FeatureStateError(PacktwinError):
    """Kept state is torn, or of another table of features: start anew."""


@dataclass(frozen=True, slots=True)
class Features:
    """values: float64[len(TABLE)], NaN = no estimate; reasons: feature -> why there is none."""

    values: Floats
    reasons: dict[str, str]


def life_columns(inputs: Mapping[str, Floats]) -> Floats:
    """float64[n, F]: the features after each of n Sessions whose INPUTS (`shared.life`) are columns, NaN = None."""
    return features_of(life_parts(inputs))


def life_matrix(sessions: Iterable[Session]) -> Floats:
    """float64[n, F]: row k is what a `History` that was given the first k + 1 Sessions answers."""
    rows = np.array([_inputs(session) for session in sessions], np.float64).reshape(-1, len(INPUTS))
    return life_columns(dict(zip(INPUTS, rows.T, strict=True)))


def _inputs(session: Session) -> list[float | None]:
    return [getattr(session, name) for name in INPUTS]


class History:
    """One pack's Sessions as features: a baseline of its first ones, running sums, a sliding window of levels.

    Plain numbers, because a row of them is too short for arrays to pay; the arithmetic is that of `shared.life`.
    """

    def __init__(self) -> None:
        self.sessions = 0
        self._raw: list[tuple[float, ...]] = []  # LEVELS of the newest SMOOTH Sessions
        self._levels: list[tuple[float, ...]] = []  # SLOPED of the newest _KEPT_ROWS, with the cycles of `_axis`
        self._axis: list[float] = []
        self._first: dict[str, list[float]] = {name: [] for name in BASED}
        self._sums = dict.fromkeys(SUMS, 0.0)
        self._early = False
        self._now: dict[str, float | None] = dict.fromkeys(_NOW)
        self._reasons: dict[str, str] = {}
        self._parts: dict[str, Floats] = {}

    def add(self, session: Session) -> None:
        """Takes in the next Session of the pack."""
        known = dict(zip(INPUTS, map(_number, _inputs(session)), strict=True))
        raw = raw_row(known)
        self._raw = [*self._raw[1 - SMOOTH :], tuple(raw[name] for name in LEVELS)]
        before = self._axis[-1] if self._axis else -math.inf
        cycles = known["cycles"]
        self._axis = [*self._axis[1 - _KEPT_ROWS :], max(cycles, before) if math.isfinite(cycles) else before]
        self._levels = [*self._levels[1 - _KEPT_ROWS :], tuple(self._level(LEVELS.index(name)) for name in SLOPED)]
        if not math.isfinite(before):
            self._early = math.isfinite(cycles) and self._axis[-1] <= LATEST_START_CYCLES
        for name, values in self._first.items():
            if len(values) < FIRST and math.isfinite(raw[name]):
                values.append(raw[name])
        for name, added in sums_row(known).items():
            self._sums[name] += added
        self._now = {name: getattr(session, name) for name in _NOW}
        self._reasons = dict(session.reasons)
        self.sessions += 1
        self._parts = {}

    def _level(self, of: int) -> float:
        return middle_of([row[of] for row in self._raw], LEAST_VALID)

    @property
    def age_days(self) -> float | None:
        """The pack's age at the end of the last Session; None = it did not know."""
        return self._now["age_days"]

    def vector(
        self,
        *,
        cycles: float | None = None,
        throughput_ah: float | None = None,
        soh_bms: float | None = None,
        age_days: float | None = None,
    ) -> Features:
        """The features now. What is given is what the BMS says at this moment; left out = what the last Session said.

        throughput_ah moves the cycles on where the BMS counts none itself.
        """
        given = {"cycles": cycles, "throughput_ah": throughput_ah, "soh_bms": soh_bms, "age_days": age_days}
        now = {name: self._now[name] if value is None else value for name, value in given.items()}
        last_ah, last_cycles = self._now["throughput_ah"], self._now["cycles"]
        if cycles is None and throughput_ah and last_ah and last_cycles is not None:
            now["cycles"] = last_cycles * (throughput_ah / last_ah)
        parts = self._parts = self._parts or self._parts_now()
        heads = {name: np.array([now[name]], np.float64) for name in ("cycles", "age_days", "soh_bms")}
        values = features_of(parts | heads)[0]
        missing = [NAMES[i] for i in np.flatnonzero(np.isnan(values))]
        return Features(values, {name: self._why(name, parts | heads) for name in missing})

    def _parts_now(self) -> dict[str, Floats]:
        parts: dict[str, float] = dict(self._sums)
        for i, name in enumerate(LEVELS):
            parts[f"level.{name}"] = self._level(i)
        for name, values in self._first.items():
            parts[f"base.{name}"] = middle_of(values, LEAST_FIRST) if self._early else math.nan
        for over, cycles in BACK.items():
            at = self._row_back(cycles)
            parts[f"span.{over}"] = math.nan if at is None else self._axis[-1] - self._axis[at]
            for i, name in enumerate(SLOPED):
                parts[f"then.{name}.{over}"] = math.nan if at is None else self._levels[at][i]
        return {name: np.array([value]) for name, value in parts.items()}

    def _row_back(self, cycles: float) -> int | None:
        """Where the newest row lies that is at least `cycles` back; None = none, or too far."""
        limit = self._axis[-1] - cycles if self._axis else -math.inf
        at = bisect_right(self._axis, limit) - 1
        if at < 0 or not math.isfinite(self._axis[at]) or self._axis[at] < self._axis[-1] - WIDEST * cycles:
            return None
        return at

    def _why(self, feature: str, parts: Mapping[str, Floats]) -> str:
        """Why the feature is NaN."""
        missing = [need for need in _NEEDS[feature] if not (need in parts and np.isfinite(parts[need][0]))]
        if not missing:
            return "young" if feature == "cycles_per_day" and parts["age_days"][0] < LEAST_AGE_DAYS else "out_of_range"
        kind, _, name = missing[0].partition(".")
        if not name:
            return self._reasons.get(kind, "absent")
        if not self.sessions:
            return "no_session"
        if kind == "base" and not self._early:
            return "late_start"
        if kind == "level":
            return self._reasons.get("r_step_max_mohm" if name == "r_spread" else name, "short_history")
        return "short_history"

    def to_bytes(self) -> bytes:
        """All of it, to be kept; at most 40 kB."""
        head = json.dumps(
            {
                "schema": _SCHEMA,
                "sessions": self.sessions,
                "raw": len(self._raw),
                "rows": len(self._axis),
                "early": self._early,
                "first": {name: len(values) for name, values in self._first.items()},
                "now": [value is not None for value in self._now.values()],
                "reasons": self._reasons,
            }
        ).encode()
        numbers = np.concatenate(
            [
                np.array(values, np.float64).ravel()
                for values in (
                    self._raw,
                    self._levels,
                    self._axis,
                    *self._first.values(),
                    [*self._sums.values()],
                    [*self._now.values()],
                )
            ]
        )
        return _LENGTH.pack(_MAGIC, len(head)) + head + numbers.astype("<f8").tobytes()

    @classmethod
    def from_bytes(cls, body: bytes) -> History:
        """The History of `to_bytes`; FeatureStateError if it is torn or of another table of features."""
        try:
            magic, length = _LENGTH.unpack_from(body)
            head: dict[str, Any] = json.loads(body[_LENGTH.size : _LENGTH.size + length]) if magic == _MAGIC else {}
            if head.get("schema") != _SCHEMA:
                raise FeatureStateError(f"kept features of another table ({head.get('schema')}, here {_SCHEMA})")
            numbers = np.frombuffer(body[_LENGTH.size + length :], "<f8").astype(np.float64)
            return cls()._restored(head, numbers)
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise FeatureStateError(f"kept features cannot be read: {error}") from None

    def _restored(self, head: dict[str, Any], numbers: Floats) -> History:
        rows, kept = int(head["raw"]), int(head["rows"])
        sizes = [rows * len(LEVELS), kept * len(SLOPED), kept, *head["first"].values(), len(SUMS), len(_NOW)]
        if sum(sizes) != numbers.size or list(head["first"]) != list(BASED):
            raise ValueError(f"{numbers.size} numbers, not {sum(sizes)}")
        raw, levels, axis, *first, sums, now = np.split(numbers, np.cumsum(sizes)[:-1])
        self.sessions, self._early = int(head["sessions"]), bool(head["early"])
        self._raw = [tuple(row) for row in raw.reshape(rows, -1).tolist()] if rows else []
        self._levels = [tuple(row) for row in levels.reshape(kept, -1).tolist()] if kept else []
        self._axis = axis.tolist()
        self._first = {name: values.tolist() for name, values in zip(BASED, first, strict=True)}
        self._sums = dict(zip(SUMS, sums.tolist(), strict=True))
        known = zip(_NOW, head["now"], now.tolist(), strict=True)
        self._now = {name: value if there else None for name, there, value in known}
        self._reasons = cast("dict[str, str]", dict(head["reasons"]))
        return self


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
