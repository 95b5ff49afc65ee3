"""Which fields of a Sample are not to be believed, and why: `stuck` or `implausible`. Pure.

It looks once a Sample, by the times of Samples and of the newest frames, so that a replay of the same frames comes to
the same verdict however they were read. `state` is all it knows, as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.decode import Fields
from edge.mapping import COUNTER, EXTRA
from edge.mapping import Mapping as FieldMapping
from edge.plausible.cell_sum import CellSum, Look
from edge.plausible.charge import Charge
from edge.plausible.counter import Counter
from edge.plausible.standstill import Standstill
from shared.fields import CELL_V

IMPLAUSIBLE: Final = "implausible"
STUCK: Final = "stuck"
Newest = Mapping[str, tuple[float | None, int, str | None]]
Spans = Mapping[str, tuple[float, float]]
Cells = tuple[float | None, ...]

_CURRENT: Final = "current_a"
_PACK: Final = "pack_v"
_SOC: Final = "soc_bms"
_MAIN: Final = "contactor_main"
_FULL: Final = f"{EXTRA}full_ah"
_NOMINAL: Final = f"{EXTRA}nominal_ah"
_LIKELY: Final = (0.3, 2.0)
"""A full capacity that the BMS tells is taken where it is so many times the nominal one."""


class Judge:
    """Judges the Samples of one pack. Times are ns, those of `newest` the frames' own."""

    def __init__(self, mapping: FieldMapping, max_age_ns: Mapping[str, int], sample_ns: int) -> None:
        """max_age_ns: of each target. sample_ns: from one Sample to the next."""
        names = {target.name for target in mapping.targets}
        self._counter = Counter(max_age_ns=max_age_ns[COUNTER], is_proven=_moves(mapping)) if COUNTER in names else None
        can_stand = self._counter is not None and not self._counter.is_proven
        self._still = Standstill() if can_stand and {_SOC, _CURRENT, f"{CELL_V.name}[0]"} <= names else None
        self._charge = Charge() if _SOC in names else None
        self._nominal_ah = mapping.pack.nominal_ah
        self._cells = [f"{CELL_V.name}[{i}]" for i in range(mapping.layout.cells)]
        pack = mapping.pack
        age_ns = max_age_ns.get(f"{CELL_V.name}[0]", 0)
        pack_age_ns = max_age_ns.get(_PACK, 0)
        cell_sum = CellSum(mapping.layout.cells, pack.series, pack.chemistry, age_ns, sample_ns, pack_age_ns)
        self._sum = cell_sum if cell_sum.is_of_use and _PACK in names else None

    def feed(self, fields: Fields) -> None:
        """Takes in what frames said."""
        if self._counter is not None and (told := fields.newest.get(COUNTER)) is not None:
            self._counter.feed(told[0], fields.spans.get(COUNTER))

    def is_stuck(self, mono_ns: int, newest: Newest, spans: Spans) -> bool:
        """Once a Sample: whether all that comes is old, as the BMS's counter does not move, or nothing at all does."""
        if self._counter is None or COUNTER not in newest:
            return False
        stands = self._counter.is_stuck(mono_ns, newest[COUNTER][1])
        if self._still is not None and newest.get(_SOC, (None,))[0] is not None:
            told = [newest[name][0] for name in sorted(newest)]
            told += [limit for name in sorted(spans) for limit in spans[name]]
            seen_ns = max(seen_ns for _, seen_ns, _ in newest.values())
            self._still.look(seen_ns, told, newest.get(_CURRENT, (None,))[0], self._capacity_ah(newest))
            stands = stands or self._still.is_stuck
        return stands

    def doubt(
        self,
        mono_ns: int,
        values: dict[str, float | None],
        cells: Cells,
        newest: Newest,
        spans: Spans,
        quality: dict[str, str],
    ) -> Cells:
        """Once a Sample: takes out of `values` what cannot be, with the reason in `quality`; what is left of the cells.

        values: the scalars as they are known now; spans: least and greatest since the last Sample.
        """
        current_a = values.get(_CURRENT)
        if self._charge is not None:
            lo_a, hi_a = spans.get(_CURRENT, (0.0, 0.0))
            self._charge.flow(mono_ns, current_a, hi_a - lo_a, self._capacity_ah(newest))
            soc = values[_SOC]
            if soc is not None and self._charge.is_doubted(mono_ns, soc, newest[_SOC][1]):
                values[_SOC], quality[_SOC] = None, IMPLAUSIBLE
        if self._sum is None:
            return cells
        pack_v = values.get(_PACK)
        if pack_v is not None:
            self._sum.pack(mono_ns, *spans.get(_PACK, (pack_v, pack_v)))
        if pack_v is not None and None not in cells:
            look = Look(
                mono_ns=mono_ns,
                cell_v=cells,  # type: ignore[arg-type]
                since_ns=min([newest[name][1] for name in self._cells]),
                pack_v=pack_v,
                pack_ns=newest[_PACK][1],
                current_a=current_a,
                # As it was heard last: one that has fallen silent has not closed by that.
                is_open=newest.get(_MAIN, (None,))[0] == 0.0,
                load_a=spans.get(_CURRENT),
            )
            self._sum.look(look)
        self._sum.forget(mono_ns)
        doubted, doubts_pack = self._sum.doubted
        if doubts_pack and pack_v is not None:
            values[_PACK], quality[_PACK] = None, IMPLAUSIBLE
        if not doubted:
            return cells
        left = list(cells)
        for i in doubted:
            if left[i] is not None:
                left[i], quality[self._cells[i]] = None, IMPLAUSIBLE
        return tuple(left)

    def _capacity_ah(self, newest: Newest) -> float | None:
        """What the pack holds: as the BMS counts with, else as the plate says; None = nobody tells."""
        told_ah, nominal_ah = newest.get(_FULL, (None,))[0], self._nominal_ah
        if nominal_ah is None:
            return told_ah or newest.get(_NOMINAL, (None,))[0] or None
        lo, hi = _LIKELY
        return told_ah if told_ah is not None and lo <= told_ah / nominal_ah <= hi else nominal_ah

    @property
    def _parts(self) -> dict[str, Counter | Standstill | Charge | CellSum | None]:
        return {"counter": self._counter, "still": self._still, "charge": self._charge, "sum": self._sum}

    @property
    def state(self) -> dict[str, Any]:
        """All that the next verdicts depend on, as a copy that JSON can hold."""
        return {name: part.state for name, part in self._parts.items() if part is not None}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`, also one that has been JSON. KeyError, TypeError, ValueError: it is none."""
        for name, part in self._parts.items():
            if part is not None and name in state:
                part.restore(state[name])


def _moves(mapping: FieldMapping) -> bool:
    """Whether the counter is known to move in every firmware."""
    if mapping.spoken is None:
        return True
    language = mapping.spoken.protocol
    named = next(target.signal for target in mapping.targets if target.name == COUNTER)
    return language.moves_always or named != f"{EXTRA}{language.counter}"
