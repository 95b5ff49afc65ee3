"""Sessions -> features: `History` as they come, on the edge; `life_matrix` of a whole life at once, for training.

Both give the same bits. The table of features is `shared.feature_table`; Samples -> Sessions is `shared.session_meter`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from shared.errors import PacktwinError
from shared.feature_table import (
    FIRST,
    LEAST_AGE_DAYS,
    LEAST_VALID,
    MOST_BACK,
    NAMES,
    SMOOTH,
    TABLE,
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
    Floats,
    axis_of,
    baseline,
    features_of,
    life_parts,
    middle,
    raw_columns,
    rows_back,
    starts_early,
    sums,
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
_SUMS: Final = ("heat_c_s", "weight_s", "hot_s", "seen_s")
_NOW: Final = ("cycles", "throughput_ah", "soh_bms", "age_days")
_KEPT_ROWS: Final = MOST_BACK + 1  # a slope may look MOST_BACK rows back
_RING: Final = (*SLOPED, "axis")
_LEVEL_AT: Final = [LEVELS.index(name) for name in SLOPED]
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
    """One pack's Sessions as features: a baseline of its first ones, running sums, a sliding window of levels."""

    def __init__(self) -> None:
        self.sessions = 0
        self._raw = np.full((SMOOTH, len(LEVELS)), np.nan)  # the newest rows
        self._ring = np.full((0, len(_RING)), np.nan)  # levels and cycles of the newest rows
        self._first: dict[str, list[float]] = {name: [] for name in BASED}
        self._sums = dict.fromkeys(_SUMS, 0.0)
        self._early = False
        self._now: dict[str, float | None] = dict.fromkeys(_NOW)
        self._reasons: dict[str, str] = {}
        self._parts: dict[str, Floats] = {}

    def add(self, session: Session) -> None:
        """Takes in the next Session of the pack."""
        row = np.array(_inputs(session), np.float64)
        inputs = dict(zip(INPUTS, row[:, None], strict=True))
        raw = raw_columns(inputs)
        self._raw = np.concatenate((self._raw[1:], [[raw[name][0] for name in LEVELS]]))
        level = middle(self._raw.T, LEAST_VALID)
        before = self._ring[-1, -1] if self.sessions else -np.inf
        axis = axis_of(inputs["cycles"], before)
        if not np.isfinite(before):
            self._early = bool(starts_early(axis)[0])
        self._ring = np.concatenate((self._ring, [[*level[_LEVEL_AT], axis[0]]]))[-_KEPT_ROWS:]
        for name, values in self._first.items():
            if len(values) < FIRST and np.isfinite(raw[name][0]):
                values.append(float(raw[name][0]))
        self._sums = {name: float(column[0]) for name, column in sums(inputs, self._sums).items()}
        self._now = {name: getattr(session, name) for name in _NOW}
        self._reasons = dict(session.reasons)
        self.sessions += 1
        self._parts = {}

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
        parts: dict[str, Floats] = {}
        level = middle(self._raw.T, LEAST_VALID)
        for i, name in enumerate(LEVELS):
            parts[f"level.{name}"] = level[i : i + 1]
        for name, values in self._first.items():
            known = baseline(np.array(values)) if self._early else np.nan
            parts[f"base.{name}"] = np.array([known])
        for over, cycles in BACK.items():
            at, span = -1, np.nan
            if self.sessions:
                axis = self._ring[:, -1]
                at = int(rows_back(axis, np.array([axis.size - 1]), cycles)[0])
                span = np.nan if at < 0 else axis[-1] - axis[at]
            parts[f"span.{over}"] = np.array([span])
            for i, name in enumerate(SLOPED):
                parts[f"then.{name}.{over}"] = np.array([np.nan if at < 0 else self._ring[at, i]])
        return parts | {name: np.array([value]) for name, value in self._sums.items()}

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
                "rows": len(self._ring),
                "early": self._early,
                "first": {name: len(values) for name, values in self._first.items()},
                "now": [value is not None for value in self._now.values()],
                "reasons": self._reasons,
            }
        ).encode()
        numbers = np.concatenate(
            (
                self._raw.ravel(),
                self._ring.ravel(),
                *(np.array(values) for values in self._first.values()),
                np.array([*self._sums.values()]),
                np.array([*self._now.values()], np.float64),
            )
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
        sizes = [SMOOTH * len(LEVELS), head["rows"] * len(_RING), *head["first"].values(), len(_SUMS), len(_NOW)]
        if sum(sizes) != numbers.size or list(head["first"]) != list(BASED):
            raise ValueError(f"{numbers.size} numbers, not {sum(sizes)}")
        raw, ring, *rest = np.split(numbers, np.cumsum(sizes)[:-1])
        self.sessions, self._early = int(head["sessions"]), bool(head["early"])
        self._raw, self._ring = raw.reshape(SMOOTH, -1), ring.reshape(-1, len(_RING))
        for name, values in zip(BASED, rest, strict=False):
            self._first[name] = values.tolist()
        self._sums = dict(zip(_SUMS, rest[-2].tolist(), strict=True))
        known = zip(_NOW, head["now"], rest[-1].tolist(), strict=True)
        self._now = {name: value if there else None for name, there, value in known}
        self._reasons = cast("dict[str, str]", dict(head["reasons"]))
        return self
