"""What the Meter is told: the facts of a pack, and of each Sample just what is measured with, cheaply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.block import Layout
from shared.fields import NULL, STATES, Resolution
from shared.records import Sample

Floats = npt.NDArray[np.float64]
_SCALARS: Final = ("current_a", "soh_bms", "cycles", "throughput_ah")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """What does not change about a pack. commissioned_t_ns: UTC ns of its first day in use, None = not known."""

    pack_id: str
    chemistry: str
    series: int
    nominal_ah: float
    commissioned_t_ns: int | None = None


@dataclass(slots=True, kw_only=True)
class Reading:
    """One Sample as the Meter reads it. Arrays are float64, NaN = not measured; numbers None = not known."""

    mono_ns: int
    t_ns: int | None = None
    current_a: float | None = None
    cell_v: Floats
    temp_c: Floats
    state: str | None = None
    soh_bms: float | None = None
    cycles: float | None = None
    throughput_ah: float | None = None

    @classmethod
    def of_sample(cls, sample: Sample) -> Reading:
        """From a Sample; slower than a Reader."""
        return cls(
            mono_ns=sample.mono_ns,
            t_ns=sample.t_ns,
            cell_v=np.array(sample.cell_v, np.float64),
            temp_c=np.array(sample.temp_c, np.float64),
            state=sample.state,
            **{name: getattr(sample, name) for name in _SCALARS},
        )


class Reader:
    """Rows of one Layout -> Readings: the row as it goes into the outbox, so that nothing is rounded twice."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        at = layout.slices
        self._cells, self._temps = at["cells"], at["temps"]
        self._cell_step, self._temp_step = layout.cell_step, layout.temp_step
        places = {name: layout.index[name] for name in _SCALARS if name in layout.index}
        self._scalars = [(name, i, *_ratio(layout.columns[i].step)) for name, i in places.items()]
        self._state = layout.index.get("state")

    def read(self, row: bytes, mono_ns: int, t_ns: int | None) -> Reading:
        """The Reading of one row: int32, little-endian, layout.width of them."""
        numbers = np.frombuffer(row, "<i4")
        reading = Reading(
            mono_ns=mono_ns,
            t_ns=t_ns,
            cell_v=_floats(numbers[self._cells], self._cell_step),
            temp_c=_floats(numbers[self._temps], self._temp_step),
        )
        for name, i, mantissa, divisor in self._scalars:
            n = int(numbers[i])
            if n != NULL:
                setattr(reading, name, n * mantissa / divisor)
        if self._state is not None and (n := int(numbers[self._state])) != NULL:
            reading.state = STATES[n]
        return reading


def _ratio(step: Resolution) -> tuple[int, float]:
    return step.mantissa, 10.0**step.exponent


def _floats(numbers: npt.NDArray[np.int32], step: Resolution) -> Floats:
    values = numbers.astype(np.float64)
    if step.mantissa != 1:
        values *= step.mantissa
    values /= 10.0**step.exponent
    missing = numbers == NULL
    if missing.any():
        values[missing] = np.nan
    return values
