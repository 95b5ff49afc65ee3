"""Chevrolet Bolt EV and Opel Ampera-e: an identifier a value; 96 cells, six sections.

Layout: https://github.com/OBDb/Chevrolet-Bolt-EV, checked on its captures: both states of charge, the temperature and
cells 1 to 9. Not proved: the pack's voltage and current (of the drive's controller, as in the Volt, whose number is
the discharge), the sections' temperatures, the cells from 10 on.
"""

from __future__ import annotations

import struct
from typing import Final

from firmware_bridge.protocols.vehicles.vehicle import Ecu, Reading, Vehicle
from firmware_bridge.rows import Number, Numbers, Row

DRIVE: Final = Ecu(0x7E1, 0x7E9)
BATTERY: Final = Ecu(0x7E4, 0x7EC)
CELLS: Final = Ecu(0x7E7, 0x7EF)
_CELL_IDENTIFIERS: Final = (*range(0x4181, 0x41A0), *range(0x4200, 0x4241))
_SECTION_IDENTIFIERS: Final = (0x40D7, 0x40D9, 0x40DB, 0x40DD, 0x40DF, 0x40E1)


def _reading(ecu: Ecu, identifier: int, number: Number, *, place: int | None = None, every: int = 1) -> Reading:
    """One number, or the one at a place of an array."""
    row: Row = number if place is None else Numbers(number, count=1, first=place)
    size = struct.calcsize(number.form)
    request = b"\x22" + identifier.to_bytes(2, "big")
    return Reading(ecu=ecu, request=request, layouts={size: (row,)}, size=size, every=every)


BOLT: Final = Vehicle(
    "bolt",
    "Chevrolet Bolt EV, Opel Ampera-e (unverified on hardware: pack_v, current_a, cells from 10 on, sections' temp_c)",
    (
        _reading(DRIVE, 0x2414, Number("current_a", 0, ">h", per=20, sign=-1)),
        _reading(DRIVE, 0x2429, Number("pack_v", 0, ">H", per=64)),
        _reading(BATTERY, 0x43AF, Number("soc_bms", 0, ">H", per=0xFFFF)),
        _reading(BATTERY, 0x8334, Number("extra.soc_display", 0, ">B", per=0xFF)),
        # The pack's own temperature comes first, then those of its sections.
        _reading(BATTERY, 0x434F, Number("temp_c", 0, ">B", zero=40), place=0),
        *(
            _reading(CELLS, identifier, Number("temp_c", 0, ">B", zero=40), place=place, every=5)
            for place, identifier in enumerate(_SECTION_IDENTIFIERS, 1)
        ),
        *(
            _reading(CELLS, identifier, Number("cell_v", 0, ">H", times=5, per=0xFFFF), place=place, every=5)
            for place, identifier in enumerate(_CELL_IDENTIFIERS)
        ),
    ),
)
