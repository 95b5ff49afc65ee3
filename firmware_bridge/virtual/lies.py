"""What a virtual BMS says wrongly of its pack, from a moment on. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import EXTRA, Value

_CELLS: Final = re.compile(r"cell_v\[\d+\]|extra\.cell_(min|max|mean)_v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lies:
    """after_s: when they begin, in the pack's own time. soc: the SoC (0..1) that is said instead.

    cell_sum_off: the share by which the cells' voltages are off what the pack has. frozen: the last values for ever,
    the counter of life among them. silent_field: a name that is not said any more (`cell_v`: of no cell).
    """

    after_s: float = 10.0
    soc: float | None = None
    cell_sum_off: float = 0.0
    frozen: bool = False
    silent_field: str | None = None

    def told(self, values: dict[str, Value], t_s: float) -> dict[str, Value]:
        """The values as they are said at a time of the pack."""
        if t_s < self.after_s:
            return values
        values = dict(values)
        if self.soc is not None:
            values["soc_bms"] = self.soc
        if self.cell_sum_off:
            for name, value in values.items():
                if _CELLS.fullmatch(name) and isinstance(value, float):
                    values[name] = value * (1 + self.cell_sum_off)
        return values

    def hushes(self, name: str, t_s: float) -> bool:
        """Whether a name is not said at that time."""
        field = self.silent_field
        if field is None or t_s < self.after_s:
            return False
        return name in (field, EXTRA + field) or name.startswith((f"{field}[", f"{EXTRA}{field}["))
