"""What a mapping with `protocol = "jbd"` may name: what that language of `firmware_bridge` says, by its own names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.sources.ble_names import BLE
from edge.tables import Table, nearest
from firmware_bridge.protocol import EXTRA, EXTRAS, Protocol
from firmware_bridge.shelf import protocol
from shared.errors import ConfigError
from shared.fields import Resolution, resolution

_PLACE: Final = re.compile(r"(\w+)\[\d{1,4}\]")


@dataclass(frozen=True, slots=True)
class Spoken:
    """A language of a BMS, and of which vehicle where it needs one."""

    protocol: Protocol
    vehicle: str | None

    @classmethod
    def read(cls, table: Table) -> Spoken | None:
        """`protocol` and `vehicle` of a mapping; None = it has no `protocol`."""
        vehicle = table.text("vehicle", "") or None
        if "protocol" not in table:
            if vehicle is not None:
                raise table.fail("vehicle", "is only for a mapping with a protocol: leave it out")
            return None
        try:
            name = table.text("protocol")
            found = BLE if name == BLE.name else protocol(name)
        except ConfigError as error:
            raise ConfigError(f"{table.where}: {error}") from None
        if found.vehicles and vehicle is None:
            raise table.fail("vehicle", f"is missing: {found.name} needs one of {', '.join(found.vehicles)}")
        if vehicle is not None and vehicle not in found.vehicles:
            known = f"must be one of {', '.join(found.vehicles)}" if found.vehicles else "has no meaning: leave it out"
            raise table.fail("vehicle", f'= "{vehicle}" {known}{nearest(vehicle, found.vehicles)}')
        return cls(found, vehicle)

    def check(self, table: Table, signals: Sequence[str]) -> tuple[str, Resolution | None]:
        """The unit and step of what `from` names; "" and None = those of its field. ConfigError: there is no such."""
        unit, step = "", None
        for signal in signals:
            place = _PLACE.fullmatch(signal)
            name = f"{place[1]}[]" if place else signal
            fields = self.protocol.vehicle_fields.get(self.vehicle or "", self.protocol.fields)
            if name not in fields:
                known = [field.replace("[]", "[0]") for field in fields]
                raise table.fail(
                    "from", f'= "{signal}" is nothing that {self.protocol.name} says{nearest(signal, known)}'
                )
            if signal.startswith(EXTRA):
                extra = signal[len(EXTRA) :]
                told, size = {**EXTRAS, **self.protocol.extras}.get(extra, ("", 0.0))
                if told is None:
                    raise table.fail("from", f'= "{signal}" is a text, which no Sample can hold: leave it out')
                unit, step = told, resolution(size) if size else None
        return unit, step
