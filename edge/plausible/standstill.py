"""A BMS that says the very same for ever while a current flows: all is old, whatever its counter is worth. Pure.

For a counter of which nobody knows whether it moves in every firmware (Daly): one that stands still from the first
second on proves nothing by itself. That no digit of anything moves, the state of charge and each cell among them, while
the current that the BMS itself tells has moved a share of the capacity, cannot be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge.plausible.bounds import BOUNDS

_HOUR_NS = 3600 * 1_000_000_000


class Standstill:
    """Looks once a Sample at all that is known; `is_stuck` until anything moves."""

    def __init__(self) -> None:
        self._told: list[float | None] = []
        self._moved = 0.0  # of the capacity, since anything of it changed
        self._last_ns: int | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether so much has flowed that something must have changed."""
        return self._moved >= BOUNDS.still_moved

    def look(self, seen_ns: int, told: Sequence[float | None], current_a: float | None, ah: float | None) -> None:
        """What is told now, and the newest of it came at `seen_ns`; ah: the capacity. None = not known."""
        since_ns = 0 if self._last_ns is None else max(seen_ns - self._last_ns, 0)
        self._last_ns = seen_ns
        if list(told) != self._told or current_a is None or ah is None:
            self._told, self._moved = list(told), 0.0
        elif abs(current_a) >= BOUNDS.still_least_c * ah:
            self._moved += abs(current_a) * since_ns / _HOUR_NS / ah

    @property
    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"told": list(self._told), "moved": self._moved, "last_ns": self._last_ns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`. KeyError, TypeError: it is none."""
        self._told, self._moved, self._last_ns = list(state["told"]), state["moved"], state["last_ns"]
