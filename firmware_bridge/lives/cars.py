"""The pasts of the simulated cars: the life that a car of `sim` has behind it, and the pack that this life left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_bridge.lives.ageing import Course
from firmware_bridge.lives.law import Law
from firmware_bridge.lives.life import Life, courses_of
from firmware_bridge.lives.packs import Climate, Pack, bms_drawn, cells_drawn, sensors_drawn
from firmware_bridge.lives.record import Days, recorded
from firmware_bridge.pack.cells import ACTIVATION_K, NOMINAL_AH, Floats

_TAG: Final = 0xCA5
_AGES: Final = ((0.05, 0.15), (0.40, 0.55), (0.75, 0.85))
"""Share of its life that a car has behind it, by its number."""
_AMBIENT_C: Final = (17.0, 11.0, 24.0)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """What a car has behind it, and its pack as it is now; cell arrays float64[96]."""

    pack: Pack
    capacity_ah: Floats
    resistance: Floats  # factor on the typical fresh resistance
    usable_ah: float  # the weakest cell's capacity
    soh: float  # true
    soh_told: float  # by the BMS
    throughput_ah: float
    ambient_c: float
    end_efc: float  # where SoH will fall below 0.80 if the car is used as before
    life: Life


def past(seed: int, number: int) -> Past:
    """The past of car `number` (from 0) of the fleet that `sim --seed` draws."""
    return pasts(seed, [number])[0]


def pasts(seed: int, numbers: Sequence[int]) -> list[Past]:
    """The pasts of several cars; each is the same however many are asked for."""
    rngs = [np.random.default_rng([seed, number, _TAG]) for number in numbers]
    packs = [_pack(rng, number) for rng, number in zip(rngs, numbers, strict=True)]
    days, courses = courses_of(packs, rngs, Law())
    return [_past(*parts) for parts in zip(numbers, packs, days, courses, rngs, strict=True)]


def _past(number: int, pack: Pack, days: Days, course: Course, rng: np.random.Generator) -> Past:
    end = course.end_efc(pack)
    end_efc = float(course.efc()[-1]) if end is None else end
    seen = days.until(end_efc * float(rng.uniform(*_AGES[number % len(_AGES)])))
    now_efc = float(seen.efc[-1])
    record = recorded(pack, course, seen, rng)
    loss, growth = course.at(now_efc)
    capacity_ah = pack.capacity_ah * (1 - loss)
    usable_ah = float(capacity_ah.min())
    return Past(
        pack=pack,
        capacity_ah=capacity_ah,
        resistance=pack.resistance * (1 + growth),
        usable_ah=usable_ah,
        soh=usable_ah / float(pack.capacity_ah.min()),
        soh_told=float(record.columns["soh_bms"][-1]),
        throughput_ah=now_efc * 2 * NOMINAL_AH,
        ambient_c=float(pack.climate.outside_c(seen.age_days[-1:])[0]),
        end_efc=end_efc,
        life=Life(pack_id=f"BATTERY_{number + 1:03d}", profile=pack.profile, record=record, eol_cycles=None),
    )


def _pack(rng: np.random.Generator, number: int) -> Pack:
    """A pack that was always used as `sim` uses it: see `firmware_bridge.pack.itinerary` and `.cooling`."""
    return Pack(
        profile="taxi",
        **cells_drawn(rng),
        efc_per_day=float(rng.uniform(1.7, 2.1)),
        depth=0.52,
        top=0.85,
        fast=0.65,
        fast_rate=1.15,
        slow_rate=0.165,
        busy_h_per_efc=10.0,
        climate=Climate(
            ambient_c=_AMBIENT_C[number % len(_AMBIENT_C)] + float(rng.uniform(-2.0, 2.0)),
            season_c=2.0,
            born_share=float(rng.uniform()),
            managed=1.0,
            warmer_c=0.0,
        ),
        gradient_c=0.15,
        sensor_offset_c=sensors_drawn(rng),
        uneven_mv=3.0,
        activation_k=ACTIVATION_K,
        bms=bms_drawn(rng, silent=0.0),
        watched=1.0,
    )
