"""The state of charge that a BMS claims against the current that flowed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from edge.plausible.bounds import BOUNDS

_SECOND_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _SECOND_NS


@dataclass(slots=True)
class Count:
    """A claim carried on by the current, 0..1, and by how much it may be too high (`down`) or too low (`up`) since."""

    soc: float
    up: float = 0.0
    down: float = 0.0

    def flow(self, moved: float, wrong: float) -> None:
        """Carries on. moved: share of the capacity; wrong: by how much that may be wrong either way."""
        more, less = BOUNDS.soc_moves_more * abs(moved), BOUNDS.soc_moves_less * abs(moved)
        self.up += wrong + (more if moved > 0 else less)
        self.down += wrong + (less if moved > 0 else more)
        # A full pack is charged on, an empty one gives a little more: the claim stays where it is.
        self.soc = min(max(self.soc + moved, 0.0), 1.0)

    def agrees(self, claim: float, off: float) -> bool:
        """Whether a claim is no further off than `off`; then the count follows it as far as it may be wrong."""
        if not -off - self.down <= claim - self.soc <= off + self.up:
            return False
        self.soc += min(max(claim - self.soc, -self.down), self.up)
        self.up = self.down = 0.0
        return True


class Charge:
    """The state of charge that a BMS claims against the current that flowed.

    The count follows the claim as far as it may be wrong itself: it drifts, and the capacity is not what the plate
    says. A claim that is further off than a jump is doubted until it agrees with the count again, or has agreed with
    the current for so long from where it is now that the BMS must have set it anew.
    """

    def __init__(self) -> None:
        self._counted: Count | None = None
        self._anew: Count | None = None  # from a doubted claim on
        self._anew_ns = 0
        self._claimed_ns: int | None = None  # when the last claim that was judged came
        self._last: tuple[int, float | None] | None = None
        self._doubted = False

    def flow(self, mono_ns: int, current_a: float | None, span_a: float, capacity_ah: float | None) -> None:
        """Carries on to `mono_ns`. current_a: now, None = not known; span_a: how far it ranged since the last call."""
        last_ns, last_a = self._last or (mono_ns, None)
        self._last = mono_ns, current_a
        hours = max(mono_ns - last_ns, 0) / _HOUR_NS
        moved, wrong = 0.0, BOUNDS.soc_drift_per_h * hours
        if current_a is None or last_a is None or capacity_ah is None:
            wrong += BOUNDS.soc_fastest_c * hours
        else:
            moved = (last_a + current_a) / 2 * hours / capacity_ah
            wrong += span_a / 2 * hours / capacity_ah
        for count in (self._counted, self._anew):
            if count is not None:
                count.flow(moved, wrong)

    def is_doubted(self, mono_ns: int, soc: float, claimed_ns: int) -> bool:
        """After `flow`: whether the claim of `claimed_ns` cannot be."""
        if not BOUNDS.soc_least <= soc <= BOUNDS.soc_most:
            self._anew = None
            return True
        if claimed_ns == self._claimed_ns:
            return self._doubted
        self._claimed_ns = claimed_ns
        if self._counted is None:
            self._counted = Count(soc)
        elif self._counted.agrees(soc, BOUNDS.soc_jump):
            self._anew, self._doubted = None, False
        else:
            self._doubted = not self._is_set_anew(mono_ns, soc)
        return self._doubted

    def _is_set_anew(self, mono_ns: int, soc: float) -> bool:
        """Whether a claim that the count contradicts has been true to the current for long enough."""
        if self._anew is None or not self._anew.agrees(soc, BOUNDS.soc_settle_off):
            self._anew, self._anew_ns = Count(soc), mono_ns
        if mono_ns - self._anew_ns < BOUNDS.soc_settle_s * _SECOND_NS:
            return False
        self._counted, self._anew = self._anew, None
        return True

    @property
    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        counts = [None if count is None else asdict(count) for count in (self._counted, self._anew)]
        return {
            "counted": counts[0], "anew": counts[1], "anew_ns": self._anew_ns, "claimed_ns": self._claimed_ns,
            "last": self._last, "doubted": self._doubted,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`. KeyError, TypeError, ValueError: it is none."""
        self._counted, self._anew = (
            None if count is None else Count(**count) for count in (state["counted"], state["anew"])
        )
        self._anew_ns, self._claimed_ns, self._doubted = state["anew_ns"], state["claimed_ns"], state["doubted"]
        last_ns, last_a = state["last"] or (None, None)
        self._last = None if last_ns is None else (last_ns, last_a)
