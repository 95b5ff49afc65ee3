"""The columns that the fields of a mapping need."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edge.mapping_mqtt import Published
from edge.mapping_protocol import Spoken
from edge.tables import Table
from shared.block import CELL_STEP, TEMP_STEP, Extra, Layout
from shared.fields import BALANCING, BALANCING_WORD_BITS, CELL_V, MAX_EXTRAS, SCALARS, TEMP_C, Resolution, resolution


class LayoutBuilder:
    """Collects which columns the mapped fields need. spoken, published: what the signals' names mean, if it is that."""

    def __init__(self, spoken: Spoken | None, published: Published | None) -> None:
        self.spoken, self.published = spoken, published
        self._scalars: dict[str, Resolution | None] = {}
        self._sizes: dict[str, int] = {}
        self._steps: dict[str, Resolution | None] = {}
        self._extras: list[Extra] = []

    def check(self, table: Table, signals: Sequence[str]) -> tuple[str, Resolution | None]:
        """The unit and step of signals that have their own; "" and None = the field's. ConfigError: one cannot be."""
        if self.published is not None:
            self.published.check(table, signals)
        return ("", None) if self.spoken is None else self.spoken.check(table, signals)

    def add_scalar(self, name: str, step: Resolution | None) -> None:
        self._scalars[name] = step

    def add_array(self, name: str, size: int, step: Resolution | None) -> None:
        self._sizes[name], self._steps[name] = size, step

    def add_extra(self, extra: Extra, table: Table) -> None:
        if len(self._extras) >= MAX_EXTRAS:
            raise table.wrong(f"is one extra too many: at most {MAX_EXTRAS}")
        self._extras.append(extra)

    def layout(self) -> Layout:
        words = 0
        if BALANCING in self._sizes:
            # A single signal holds the whole bit set: as many bits as there are cells.
            bits = self._sizes[BALANCING] or max(self._sizes.get(CELL_V.name, 0), BALANCING_WORD_BITS)
            words = math.ceil(bits / BALANCING_WORD_BITS)
        return Layout(
            scalars=tuple(
                (spec.name, self._scalars[spec.name] or resolution(spec.step))
                for spec in SCALARS
                if spec.name in self._scalars
            ),
            cells=self._sizes.get(CELL_V.name, 0),
            cell_step=self._steps.get(CELL_V.name) or CELL_STEP,
            temps=self._sizes.get(TEMP_C.name, 0),
            temp_step=self._steps.get(TEMP_C.name) or TEMP_STEP,
            balancing_words=words,
            extras=tuple(self._extras),
        )
