"""A counter of the BMS against its own past: one that stands still while frames come says that all is old. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_STATE: Final = ("value", "has_moved", "moved_ns", "pace_ns")
_PATIENCE: Final = 3
"""A counter of unknown pace stands still when it has not moved for so many of its longest pauses."""


@dataclass(slots=True, kw_only=True)
class Counter:
    """Whether the counter of a BMS still moves. max_age_ns: how long it may stand still while it keeps coming.

    is_proven: it is known to move all the time; else it must have shown here how fast it does, and may be slower.
    """

    max_age_ns: int
    is_proven: bool = True
    value: float | None = None
    has_moved: bool = False
    moved_ns: int | None = None  # the newest frame of the last Sample in whose time it moved
    pace_ns: int | None = None  # the longest time between two moves

    def feed(self, value: float | None, span: tuple[float, float] | None) -> None:
        """What frames said: the newest value (None = it was bad), least and greatest of the good ones."""
        if span is not None and self.value is not None:
            self.has_moved = self.has_moved or not span[0] == span[1] == self.value
        if value is None and span is not None:
            value = span[0] if span[0] == span[1] else None
        if span is not None:
            self.value = value

    def is_stuck(self, mono_ns: int, seen_ns: int) -> bool:
        """Once a Sample. seen_ns: when it came last."""
        limit_ns = self._limit_ns()
        if self.moved_ns is None:
            self.moved_ns = seen_ns
        elif self.has_moved:
            pause_ns = seen_ns - self.moved_ns
            if limit_ns is None or pause_ns <= limit_ns:  # else it had stood still, which is no pace
                self.pace_ns = max(self.pace_ns or 0, pause_ns)
            self.moved_ns = seen_ns
        self.has_moved = False
        # What does not come at all is stale, by its own age.
        return limit_ns is not None and mono_ns - self.moved_ns > limit_ns and mono_ns - seen_ns <= self.max_age_ns

    def _limit_ns(self) -> int | None:
        """How long it may stand still; None = nobody knows."""
        if self.is_proven:
            return self.max_age_ns
        return None if self.pace_ns is None else max(self.max_age_ns, _PATIENCE * self.pace_ns)

    @property
    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`. KeyError: it is none."""
        for name in _STATE:
            setattr(self, name, state[name])
