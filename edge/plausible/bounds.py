"""How far what a BMS says may be from what can be: one table, each bound with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Final


def _bound(value: float, unit: str, why: str) -> float:
    made: float = field(default=value, metadata={"unit": unit, "why": why})
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Every bound with its unit and its reason."""

    soc_least: float = _bound(-0.02, "1", "a state of charge lies in 0..1; a gauge may err a little at its ends")
    soc_most: float = _bound(1.05, "1", "some BMS count on to 102 or 104 % before they call a pack full")
    soc_jump: float = _bound(
        0.05, "1", "coarse gauges step by 1 or 2 %, and what the current says is off by as much again"
    )
    soc_moves_more: float = _bound(
        0.5, "1", "of the charge that moved: a pack at 67 % of its nominal capacity moves 1.5 times as fast"
    )
    soc_moves_less: float = _bound(
        0.2, "1", "of the charge that moved: a pack may hold a little more than its plate says, and sensors err"
    )
    soc_drift_per_h: float = _bound(
        0.06, "1/h", "sensor offsets, consumers below the sensor's least current, leaning on the voltage at rest"
    )
    soc_fastest_c: float = _bound(
        3.0, "C", "how fast the charge may move while nobody tells the current, or the capacity is not known"
    )
    soc_settle_s: float = _bound(
        300.0, "s", "a gauge that has set itself anew (full, empty, rested) has agreed with the current for so long"
    )
    soc_settle_off: float = _bound(0.02, "1", "agreed means: to two of a coarse gauge's steps")
    still_moved: float = _bound(
        0.05, "1", "of the capacity: by then a gauge of whole per cents has moved, and millivolts of cells have"
    )
    still_least_c: float = _bound(0.05, "C", "a smaller current may be a sensor's offset, which a BMS does not count")
    sum_off: float = _bound(
        0.015, "1", "2 % is wrong; the voltmeters of pack and cells and the bars between them make less than 1 %"
    )
    sum_well: float = _bound(0.01, "1", "what was off is trusted again below it: no flicker at the edge")
    sum_persists: float = _bound(
        0.3, "1", "of cell_v's max age: two whole scans at least, apart by so much, must say the same"
    )
    sum_loads_s: float = _bound(
        30.0, "s", "a load that was there so lately may have been there again, unseen, while the cells were measured"
    )
    sum_near: float = _bound(
        0.005, "1", "so near the pack's voltage of one instant: the cells were measured under the load of then"
    )
    sum_proven: float = _bound(
        100.0, "scans", "so many that were near, under loads that could have moved them, prove that all are"
    )
    sum_learned: float = _bound(
        10.0, "scans", "where `series` is not told, so many that add up to the pack prove that all cells are there"
    )
    sum_one_cell: float = _bound(
        0.3, "1", "one cell is to blame where it stands out from the median by what is off, to within this share"
    )


BOUNDS: Final = Bounds()


def table() -> list[tuple[str, float, str, str]]:
    """Every bound: its name, its value, its unit, why."""
    return [(f.name, getattr(BOUNDS, f.name), f.metadata["unit"], f.metadata["why"]) for f in fields(Bounds)]
