"""A pack of which everything is known: straight OCV, ohmic cells, one temperature; read once a second with noise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from shared.features import PackFacts, Reading

SECOND_NS = 1_000_000_000
T0_NS = 1_780_000_000 * SECOND_NS
FACTS = PackFacts(
    pack_id="P", chemistry="nmc", series=12, nominal_ah=50.0, commissioned_t_ns=T0_NS - 86_400 * SECOND_NS
)
EMPTY_V, FULL_V = 3.4, 4.2
"""OCV at SoC 0 and 1, a straight line between."""


class SmallPack:
    """State: charge and time. `run` gives a Reading a second of (state, current) pairs held for some seconds."""

    def __init__(
        self,
        soc: float = 0.95,
        *,
        r_mohm: float = 1.5,
        worst: float = 1.3,
        temp_c: float = 25.0,
        noise_v: float = 0.0005,
    ) -> None:
        self.soc, self.temp_c, self.noise_v = soc, temp_c, noise_v
        self.r_mohm = np.full(FACTS.series, r_mohm)
        self.r_mohm[3] *= worst
        self.offset_v = np.zeros(FACTS.series)
        self.mono_ns, self.t_ns = 5 * SECOND_NS, T0_NS
        self.cycles: float | None = 100.0
        self.throughput_ah: float | None = None
        self.random = np.random.default_rng(1)

    def run(self, phases: Iterable[tuple[str | None, float | None, int]]) -> Iterator[Reading]:
        """Phases: (state, current_a, seconds)."""
        for state, current_a, seconds in phases:
            for _ in range(seconds):
                yield self.second(state, current_a)

    def second(self, state: str | None, current_a: float | None) -> Reading:
        """Moves on by a second and reads."""
        flows_a = current_a or 0.0
        self.soc += flows_a / 3600 / FACTS.nominal_ah
        self.mono_ns += SECOND_NS
        self.t_ns += SECOND_NS
        warm = np.exp(2400.0 * (1 / (self.temp_c + 273.15) - 1 / 298.15))
        ocv_v = EMPTY_V + (FULL_V - EMPTY_V) * self.soc
        cell_v = ocv_v + self.r_mohm * warm / 1000 * flows_a + self.offset_v
        if self.throughput_ah is not None:
            self.throughput_ah += abs(flows_a) / 3600
        return Reading(
            mono_ns=self.mono_ns,
            t_ns=self.t_ns,
            current_a=current_a,
            cell_v=np.round(cell_v + self.noise_v * self.random.standard_normal(FACTS.series), 3),
            temp_c=np.array([self.temp_c - 1.0, self.temp_c + 1.0]),
            state=state,
            soh_bms=0.93,
            cycles=self.cycles,
            throughput_ah=self.throughput_ah,
        )


DRIVE = [("drive", current_a, 4) for _ in range(60) for current_a in (-60.0, -10.0, 45.0, -35.0, 0.0)]
"""20 minutes that take 4 Ah and move 10."""
DOWN = [*(5 * DRIVE), ("drive", -50.0, 1600)]
"""Takes 42.2 Ah and moves 72.2."""
REST = [("park", 0.0, 120)]
CHARGE = [("charge_ac", 12.0, 12_800)]
"""42.7 Ah."""
FULL_TURN = [*DOWN, *REST, *CHARGE, *REST]
