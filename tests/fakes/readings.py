"""Readings of a small pack that drives and charges in turn, by number: the same number is the same Reading."""

from __future__ import annotations

import numpy as np

from shared.features import PackFacts, Reading

SECOND_NS = 1_000_000_000
EVERY_S = 10
PACK = PackFacts(pack_id="BATTERY_001", chemistry="nmc", series=4, nominal_ah=1.0, commissioned_t_ns=0)
_TURN = 200
"""Readings of one drive and the charge after it: 1.1 cycles, so each charge ends a Session."""


def reading(k: int) -> Reading:
    """Number k: a drive at 4 A, a charge at 4 A, and a rest."""
    at = k % _TURN
    current_a = -4.0 if at < 90 else 4.0 if at < 190 else 0.0
    cell_v = 3.8 + 0.02 * np.sin(0.1 * k + np.arange(4))
    return Reading(
        mono_ns=(5 + EVERY_S * k) * SECOND_NS,
        t_ns=10**18 + EVERY_S * k * SECOND_NS,
        current_a=current_a,
        cell_v=cell_v,
        temp_c=np.array([21.0, 23.5]),
        state="drive" if at < 90 else "charge_ac" if at < 190 else "park",
        soh_bms=0.93,
        cycles=round(1.1 * k / _TURN, 1),
        throughput_ah=None,
    )
