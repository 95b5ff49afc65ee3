"""Packs through their years: climate and use drive the law's state, step by step, all packs and cells at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np

from firmware_bridge.lives.law import Law, Use, Wear
from firmware_bridge.lives.packs import Climate, Pack
from firmware_bridge.pack.cells import SERIES, Floats, ocv_v

END: Final = 0.80
"""SoH at which a pack has reached the end of its life."""
STEP_EFC: Final = 12.0
MOST_EFC: Final = 3600.0
_PLACE: Final = np.arange(SERIES) / (SERIES - 1) - 0.5  # the coolant enters at cell 0


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """How one pack went. Rows lie STEP_EFC apart, from 0 on, to the row after its end or as far as it got."""

    loss: Floats  # [rows, 96], share of the fresh capacity
    growth: Floats  # [rows, 96], share of the fresh resistance

    def efc(self) -> Floats:
        """The equivalent full cycles of each row."""
        return STEP_EFC * np.arange(len(self.loss), dtype=np.float64)

    def soh(self, pack: Pack) -> Floats:
        """Usable capacity of each row / that of the new pack; the weakest cell decides."""
        usable_ah = (pack.capacity_ah * (1 - self.loss)).min(axis=1)
        soh: Floats = usable_ah / usable_ah[0]
        return soh

    def at(self, efc: float) -> tuple[Floats, Floats]:
        """(loss, growth) of each cell at `efc`, float64[96] each."""
        row = min(int(efc / STEP_EFC), len(self.loss) - 2)
        share = efc / STEP_EFC - row
        loss = self.loss[row] + share * (self.loss[row + 1] - self.loss[row])
        growth = self.growth[row] + share * (self.growth[row + 1] - self.growth[row])
        return loss, growth

    def end_efc(self, pack: Pack) -> float | None:
        """Where SoH falls below END; None if it does not within the Course."""
        soh = self.soh(pack)
        if soh[-1] >= END:
            return None
        after = int(np.argmax(soh < END))
        over = (soh[after - 1] - END) / (soh[after - 1] - soh[after])
        return STEP_EFC * (after - 1 + float(over))


def aged(packs: Sequence[Pack], ages: Sequence[Floats], law: Law) -> list[Course]:
    """The Courses of packs that are `ages[i][k]` days old after k STEP_EFC, each as far as its ages go."""
    rows = max(len(age) for age in ages)
    loss_rate, resistance_rate, budget_efc, fresh_ah = (
        np.array([getattr(pack, name) for pack in packs])
        for name in ("loss_rate", "resistance_rate", "budget_efc", "capacity_ah")
    )
    fleet, wear = _Fleet(packs), Wear(law, loss_rate, resistance_rate, budget_efc)
    losses, growths = [wear.loss], [wear.growth]
    for row in range(1, rows):
        days = [(age[min(row - 1, len(age) - 1)], age[min(row, len(age) - 1)]) for age in ages]
        wear.step(fleet.use(np.array(days), growths[-1].mean(axis=1), 1 - losses[-1]))
        losses.append(wear.loss)
        growths.append(wear.growth)
        usable = (fresh_ah * (1 - losses[-1])).min(axis=1) / fresh_ah.min(axis=1)
        if (usable < END).all():
            break
    loss, growth = np.array(losses), np.array(growths)
    return [_cut(loss[:, i], growth[:, i], pack, len(ages[i])) for i, pack in enumerate(packs)]


def _cut(loss: Floats, growth: Floats, pack: Pack, rows: int) -> Course:
    whole = Course(loss[:rows], growth[:rows])
    end = whole.end_efc(pack)
    rows = rows if end is None else int(end / STEP_EFC) + 2
    return Course(loss[:rows].copy(), growth[:rows].copy())


class _Fleet:
    """What stays the same about the packs' use; arrays [packs, 1], the climate's [packs]."""

    def __init__(self, packs: Sequence[Pack]) -> None:
        def column(name: str) -> Floats:
            return np.array([[getattr(pack, name)] for pack in packs], np.float64)

        parts = {
            field.name: np.array([getattr(pack.climate, field.name) for pack in packs]) for field in fields(Climate)
        }
        self._climate = Climate(**parts)
        top, fast = column("top"), column("fast")
        self._depth, self._gradient_c = column("depth"), column("gradient_c")
        self._charge_rate = fast * column("fast_rate") + (1 - fast) * column("slow_rate")
        self._use_v = ocv_v(np.maximum(top - self._depth / 2, 0.05))
        self._rest_v = (self._use_v + ocv_v(top)) / 2
        self._busy = np.minimum(column("busy_h_per_efc") * column("efc_per_day") / 24, 1.0)

    def use(self, days: Floats, growth: Floats, left: Floats) -> Use:
        """One step's Use: days [packs, 2] = its begin and end, growth [packs], left [packs, cells] = 1 - loss."""
        air_c = self._climate.outside_c(days.mean(axis=1))
        use_c = self._climate.in_use_c(air_c, growth)[:, None]
        return Use(
            days=np.diff(days, axis=1),
            efc=np.array(STEP_EFC),
            rest_c=self._busy * use_c + (1 - self._busy) * air_c[:, None],
            rest_v=self._rest_v,
            use_c=use_c + self._gradient_c * _PLACE,
            use_v=self._use_v,
            depth=self._depth,
            charge_rate=self._charge_rate / left,
        )
