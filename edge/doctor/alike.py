"""Which of the packs that answered at the addresses of one line are one. Pure.

A BMS may answer at several addresses, or at each. Two packs side by side may be as alike as their cells, to 2 mV: the
state of charge, the charge that is left, temperatures and current tell those apart. What is left open is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge.doctor.found import Pack
from shared.fields import TEMP_C

SAME: Final = "same"
DOUBT: Final = "doubt"
OTHER: Final = "other"
_LEAST_CELLS: Final = 4
_COUNTED: Final = ("cycles", "extra.full_ah", "extra.nominal_ah", "extra.model")
_TEMP: Final = f"{TEMP_C.name}["


@dataclass(frozen=True, slots=True)
class _Apart:
    """How far two readings of one pack may be from each other, some seconds apart. left: of the full charge."""

    cell_v: float
    soc: float
    temp_c: float
    left: float


_ONE: Final = _Apart(0.0025, 0.0011, 0.11, 0.002)
"""Beyond this they may be two."""
_NEAR: Final = _Apart(0.0025, 0.015, 1.05, 0.015)
"""Beyond this they are two."""
_TO_EACH: Final = _Apart(0.05, 0.03, 2.05, 0.03)
"""Likewise where every address answers, which takes a minute."""
_MOVES_A: Final = (0.2, 0.05)  # A, and of the greater one


def each_once(packs: Iterable[Pack], addresses: int) -> list[Pack]:
    """Without those that are one pack which answers to several addresses, or to each of so many."""
    answered = list(packs)
    to_each = len(answered) >= addresses - 1
    found: list[Pack] = []
    has_cells = bool(answered and answered[0].cells)
    for pack in answered:
        # A bank of packs may answer for itself at an address of its own, and what it says is said of them already.
        if has_cells and not pack.cells:
            continue
        verdicts = [(likeness(pack, one, to_each=to_each), one) for one in found]
        same = next((one for verdict, one in verdicts if verdict == SAME), None)
        if same is None:
            pack.alike = next((one for verdict, one in verdicts if verdict == DOUBT), None)
            found.append(pack)
        elif not to_each and pack.address is not None:
            same.doubles.append(pack.address)
    return found


def likeness(a: Pack, b: Pack, *, to_each: bool) -> str:
    """Whether two packs are one: SAME, OTHER, or DOUBT.

    to_each: every address answers, which is hardly as many packs.
    """
    if len(a.cells) < _LEAST_CELLS:
        return SAME if a.values == b.values else OTHER
    if any(a.values.get(name) != b.values.get(name) for name in _COUNTED):
        return OTHER
    if to_each:
        return SAME if _within(a, b, _TO_EACH) else OTHER
    if not _within(a, b, _NEAR):
        return OTHER
    current_a, other_a = _number(a, "current_a"), _number(b, "current_a")
    least_a, share = _MOVES_A
    is_steady = abs(current_a - other_a) <= least_a + share * max(abs(current_a), abs(other_a))
    return SAME if is_steady and _within(a, b, _ONE) else DOUBT


def _within(a: Pack, b: Pack, apart: _Apart) -> bool:
    full_ah = max(_number(a, "extra.full_ah"), _number(a, "extra.nominal_ah"), 1.0)
    limits = dict.fromkeys(a.cells, apart.cell_v)
    limits |= {name: apart.temp_c for name in a.values if name.startswith(_TEMP)}
    limits |= {"soc_bms": apart.soc, "extra.remaining_ah": apart.left * full_ah}
    return all(_is_near(a, b, name, limit) for name, limit in limits.items())


def _is_near(a: Pack, b: Pack, name: str, limit: float) -> bool:
    first, second = a.values.get(name), b.values.get(name)
    if first is None or second is None:
        return first is second
    return abs(_number(a, name) - _number(b, name)) <= limit


def _number(pack: Pack, name: str) -> float:
    value = pack.values.get(name)
    return float(value) if isinstance(value, int | float) and not math.isnan(value) else 0.0
