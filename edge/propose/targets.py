"""What each field that is one number looks like in a DBC: units, words for and against it, how far it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

BATTERY: Final = frozenset({"pack", "bms", "cell", "string"})
"""Words that say that something is the traction battery's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """needs: a word of each of these must be there. words: points by meaning. never: meanings that rule it out.

    units: families of units ("" = none). lo, hi: what it can be, in that unit; reaches: what it must be able to be.
    unit_is_enough: a name that says nothing is no hindrance. guess_scale: from the unit to the field's (0.01 for %);
    what does not go above guess_below is in the field's unit already. moving: points for one that changes in a
    log.
    """

    name: str
    units: tuple[str, ...]
    needs: tuple[frozenset[str], ...]
    words: Mapping[str, float] = field(default_factory=dict)
    never: frozenset[str] = frozenset()
    lo: float
    hi: float
    reaches: float | None = None
    has_sign: bool = False
    unit_is_enough: bool = False
    guess_scale: float = 0.0
    guess_below: float = 0.0
    moving: float = 0.5
    least: float = 5.0
    least_bits: int = 4


def _any(*words: str) -> frozenset[str]:
    return frozenset(words)


_NOT_MEASURED: Final = {
    "limit": -5.0,
    "want": -5.0,
    "aux": -8.0,
    "charger": -7.0,
    "other": -7.0,
    "alarm": -5.0,
    "flag": -1.0,
    "delta": -4.0,
    "index": -4.0,
    "time": -4.0,
    "unknown": -0.75,
    "balance": -4.0,
}
_FLAT: Final = _any("alarm", "flag")  # words of a status bit

TARGETS: Final = (
    Target(
        name="pack_v",
        units=("V", ""),
        needs=(_any("volt"),),
        words=_NOT_MEASURED
        | {
            "pack": 2.0,
            "bms": 1.0,
            "string": 1.0,
            "cell": -8.0,
            "module": -4.0,
            "min": -3.0,
            "max": -3.0,
            "avg": -2.0,
            "link": -2.5,
        }
        | {"charge": -2.0, "discharge": -2.0, "temp": -3.0, "quick": -2.0, "sensor": -0.5, "capacity": -3.0}
        | {
            "disp": -0.5,
            "plus": -3.0,
            "minus": -3.0,
            "insulation": -3.0,
            "contactor": -2.0,
            "precharge": -3.0,
            "energy": -3.0,
            "power": -2.0,
        },
        lo=8.0,
        hi=1500.0,
        reaches=20.0,
        unit_is_enough=True,
        least_bits=7,
    ),
    Target(
        name="current_a",
        units=("A", ""),
        needs=(_any("current"),),
        words=_NOT_MEASURED
        | {
            "pack": 2.0,
            "bms": 1.0,
            "string": 1.0,
            "cell": -4.0,
            "module": -3.0,
            "min": -4.0,
            "max": -4.0,
            "avg": -1.5,
            "link": -1.0,
        }
        | {"charge": -2.5, "discharge": -2.5, "quick": -3.0, "state": -4.0, "soc": -4.0, "temp": -4.0, "power": -4.0}
        | {
            "disp": -0.5,
            "contactor": -1.0,
            "sensor": -0.25,
            "capacity": -3.0,
            "energy": -3.0,
            "short": -4.0,
            "over": -4.0,
        },
        lo=-2000.0,
        hi=2000.0,
        reaches=5.0,
        has_sign=True,
        unit_is_enough=True,
        least_bits=7,
    ),
    Target(
        name="soc_bms",
        units=("%", ""),
        needs=(_any("soc"),),
        words=_NOT_MEASURED
        | {"pack": 0.5, "bms": 0.5, "cell": -2.0, "module": -2.0, "min": -1.5, "max": -1.5, "avg": -0.25, "disp": -2.0}
        | {
            "fraction": -5.0,
            "charge": 1.0,
            "left": 1.5,
            "discharge": -3.0,
            "soh": -3.0,
            "energy": -1.0,
            "volt": -2.0,
            "power": -3.0,
        }
        | {
            "under": -2.0,
            "quick": -2.0,
            "through": -3.0,
            "insulation": -5.0,
            "temp": -4.0,
            "capacity": 0.0,
            "odometer": -3.0,
        },
        lo=0.0,
        hi=105.0,
        reaches=0.9,
        guess_scale=0.01,
        guess_below=1.2,
        moving=1.5,
        unit_is_enough=True,
        least_bits=6,
    ),
    Target(
        name="soh_bms",
        units=("%", ""),
        needs=(_any("soh"),),
        words=_NOT_MEASURED | {"pack": 0.5, "bms": 0.5, "cell": -1.5, "min": -1.0, "max": -1.0, "resistance": -1.0},
        lo=0.0,
        hi=127.0,
        reaches=0.9,
        guess_scale=0.01,
        guess_below=1.3,
        moving=-1.5,
        least_bits=5,
    ),
    Target(
        name="charge_limit_a",
        units=("A",),
        needs=(_any("charge"), _any("limit", "max")),
        words={
            "pack": 0.5,
            "bms": 1.0,
            "limit": 1.0,
            "max": 0.5,
            "charger": -4.0,
            "other": -4.0,
            "aux": -6.0,
            "min": -3.0,
        }
        | {"cell": -2.0, "time": -4.0, "want": -1.0, "alarm": -5.0, "temp": -5.0, "unknown": -1.0, "index": -4.0},
        never=_any("discharge"),
        lo=-2000.0,
        hi=3000.0,
        reaches=5.0,
        least=6.0,
    ),
    Target(
        name="discharge_limit_a",
        units=("A",),
        needs=(_any("discharge"), _any("limit", "max")),
        words={"pack": 0.5, "bms": 1.0, "limit": 1.0, "max": 0.5, "other": -4.0, "aux": -6.0, "cell": -2.0, "min": -3.0}
        | {"time": -4.0, "want": -1.0, "alarm": -5.0, "temp": -5.0, "unknown": -1.0, "index": -4.0},
        lo=-3000.0,
        hi=5000.0,
        reaches=5.0,
        least=6.0,
    ),
    Target(
        name="insulation_kohm",
        units=("kohm",),
        needs=(_any("insulation"),),
        words={"alarm": -5.0, "limit": -4.0, "want": -5.0, "min": -1.0, "time": -4.0, "index": -3.0, "error": -4.0},
        lo=0.0,
        hi=1e6,
        least=6.0,
    ),
    Target(
        name="ambient_c",
        units=("degC",),
        needs=(_any("ambient"),),
        words={"temp": 1.0, "alarm": -5.0, "cell": -3.0, "other": -2.0, "want": -4.0, "limit": -4.0},
        lo=-60.0,
        hi=90.0,
        least=6.0,
    ),
    Target(
        name="coolant_in_c",
        units=("degC",),
        needs=(_any("coolant"), _any("in")),
        words={"temp": 1.0, "pack": 1.0, "bms": 1.0, "other": -4.0, "want": -4.0, "limit": -4.0, "alarm": -5.0},
        lo=-60.0,
        hi=120.0,
        least=6.0,
    ),
    Target(
        name="coolant_out_c",
        units=("degC",),
        needs=(_any("coolant"), _any("out")),
        words={"temp": 1.0, "pack": 1.0, "bms": 1.0, "other": -4.0, "want": -4.0, "limit": -4.0, "alarm": -5.0},
        lo=-60.0,
        hi=120.0,
        least=6.0,
    ),
    Target(
        name="speed_kmh",
        units=("km/h",),
        needs=(_any("speed"),),
        words={"vehicle": 2.0, "other": -2.0, "want": -3.0, "limit": -4.0, "flag": -1.0, "in": 0.0, "disp": -0.5},
        lo=-100.0,
        hi=400.0,
        reaches=50.0,
        least=6.0,
    ),
    Target(
        name="odometer_km",
        units=("km",),
        needs=(_any("odometer"),),
        words={"other": -2.0, "limit": -3.0, "time": -2.0},
        lo=0.0,
        hi=2e6,
        reaches=50_000.0,
        least=6.0,
        least_bits=16,
    ),
    Target(
        name="cycles",
        units=("",),
        needs=(_any("cycle"),),
        words={"pack": 1.0, "bms": 1.0, "charge": 1.0, "index": 1.0, "discharge": 1.0, "time": -4.0, "other": -3.0}
        | {"limit": -3.0, "alarm": -4.0, "insulation": -3.0, "balance": -2.0, "want": -4.0},
        lo=0.0,
        hi=100_000.0,
        reaches=200.0,
        least=4.5,
        least_bits=8,
    ),
    Target(
        name="throughput_ah",
        units=("Ah",),
        needs=(_any("through"),),
        words={"charge": -3.0, "discharge": -3.0, "cell": -1.0},
        lo=0.0,
        hi=2e6,
        least=6.0,
        least_bits=12,
    ),
    Target(
        name="energy_kwh",
        units=("kWh",),
        needs=(_any("through"),),
        words={"charge": -3.0, "discharge": -3.0, "cell": -1.0},
        lo=0.0,
        hi=2e6,
        least=6.0,
        least_bits=12,
    ),
)
