"""The cells against what the pack's voltage was so many Samples before: two measurements always as far apart. Pure.

Under a load that changes all the time the sum says little, as nobody knows which load the cells were measured under.
But many a BMS measures both at once, or one always as long after the other. Where that has been so in many scans, under
loads that would have shown it were it not so, the load is known, and each scan says something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from edge.plausible.bounds import BOUNDS

_PROOF: Final = 3
"""So many scans in a row that are off: one or two may be of a load that nobody has seen yet."""

_MOST_REFUTED: Final = 10
"""Then it needs a thousand times as many scans as at first, which is never under such loads."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both voltages at one instant, as near as is known, and the current."""

    cells_v: float
    pack_v: float
    current_a: float | None


@dataclass(slots=True, kw_only=True)
class Course:
    """How well the cells keep to the pack's voltage of one instant, be it now or some Samples ago."""

    scans: int = 0  # that were near in a row, each under loads that could have moved it away
    loads: float = 0.0  # by how much at most they could, of the pack's voltage
    refuted: int = 0  # how often it was left for a scan or two without a fault: each time it needs twice as many
    near: Pair | None = None  # the last one
    offs: int = 0  # scans off to one side since then; < 0: the cells are below the pack
    off_ns: int = 0  # the first of them

    def is_left(self, mono_ns: int, pair: Pair, loads: float, persists_ns: int) -> bool:
        """With each scan: whether the cells have left a course that they are known to keep.

        loads: by how much those of late may move the pack's voltage, of it.
        """
        off = (pair.cells_v - pair.pack_v) / max(abs(pair.pack_v), 1e-3)
        if abs(off) <= BOUNDS.sum_near:
            if self.offs:  # it was a load that nobody saw: there may be more of them
                self.scans, self.loads, self.refuted = 0, 0.0, min(self.refuted + 1, _MOST_REFUTED)
            elif loads > 2 * BOUNDS.sum_near:
                self.scans, self.loads = self.scans + 1, max(self.loads, loads)
            self.near, self.offs = pair, 0
        elif abs(off) > BOUNDS.sum_off and self.scans >= BOUNDS.sum_proven * 2**self.refuted:
            # Under greater loads than those of the proof another scan's load may show for the first time.
            return loads <= self.loads and self._is_proof(mono_ns, off > 0, persists_ns)
        elif not self.offs:
            self.scans, self.loads = 0, 0.0
        return False

    def _is_proof(self, mono_ns: int, is_above: bool, persists_ns: int) -> bool:
        if not self.offs or (self.offs > 0) is not is_above:
            self.offs, self.off_ns = 0, mono_ns
        self.offs += 1 if is_above else -1
        return abs(self.offs) >= _PROOF and mono_ns - self.off_ns >= persists_ns

    @property
    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Course:
        """The one of a `state`. KeyError, TypeError: it is none."""
        near = state["near"]
        return cls(**{**state, "near": None if near is None else Pair(**near)})
