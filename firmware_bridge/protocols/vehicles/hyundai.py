"""What Hyundai's and Kia's battery ECU (7E4 -> 7EC) tells alike in all of them; kona.py and egmp.py add what differs.

Layout: https://github.com/JejuSoul/OBD-PIDs-for-HKMC-EVs and https://github.com/OBDb, checked on captures of five cars.

The current's sign on the wire is + for discharge: in the log of an E-GMP car that drives (CSS Electronics,
63BEF5CD.MF4) the pack voltage falls from 771 V to 766 V as the number grows from -11 A to 18.5 A, and OBDb's EV6 shows
703.6 V at 101 A beside 721 V at -11.6 A. (A test holds this.)
"""

from __future__ import annotations

from typing import Final

from firmware_bridge.protocols.vehicles.vehicle import Ecu, Fixed, Reading
from firmware_bridge.rows import Number, Numbers, Table

BATTERY: Final = Ecu(0x7E4, 0x7EC)
CLIMATE: Final = Ecu(0x7B3, 0x7BB)
_CELL: Final = Number("cell_v", 4, ">B", per=50, absent=(0x00, 0xFF))
# The pack has fewer cells than the answers have places: those are 0, or FF.
_CELLS_EACH: Final = 32

STATUS: Final[Table] = (
    Number("soc_bms", 4, ">B", per=200),
    Number("current_a", 10, ">h", per=10, sign=-1),
    Number("pack_v", 12, ">H", per=10),
    Number("extra.temp_max_c", 14, ">b"),
    Number("extra.temp_min_c", 15, ">b"),
    Number("extra.cell_max_v", 23, ">B", per=50, absent=(0x00, 0xFF)),
    Number("extra.cell_max_number", 24, ">B"),
    Number("extra.cell_min_v", 25, ">B", per=50, absent=(0x00, 0xFF)),
    Number("extra.cell_min_number", 26, ">B"),
    Number("extra.aux_v", 29, ">B", per=10),
    Number("extra.charged_ah", 30, ">I", per=10),
    Number("extra.discharged_ah", 34, ">I", per=10),
    Number("extra.charged_kwh", 38, ">I", per=10),
    Number("extra.discharged_kwh", 42, ">I", per=10),
    Number("extra.operating_s", 46, ">I"),
    Number("extra.inverter_v", 51, ">H"),
    Number("extra.motor_rpm", 53, ">h"),
    Number("insulation_kohm", 57, ">H"),
)
"""0101, without what differs: the mask, the modules' temperatures, the inlet."""
STATUS_BYTES: Final = 59
STATUS_LEAST: Final = 14  # up to the pack's voltage
HEALTH: Final[Table] = (
    Number("extra.charge_limit_kw", 16, ">H", per=100),
    Number("extra.discharge_limit_kw", 18, ">H", per=100),
    Number("extra.cell_deviation_v", 20, ">B", per=50),
    Number("extra.heater_c", 23, ">b"),
    Number("soh_bms", 25, ">H", per=1000, hi=2),
    Number("extra.soc_display", 31, ">B", per=200),
)
"""0105, without what differs."""
HEALTH_BYTES: Final = 43
HEALTH_LEAST: Final = 27  # up to the state of health
_AIR: Final[Table] = (
    Fixed(0, bytes.fromhex("7e5007c8")),
    Number("extra.cabin_c", 5, ">B", per=2, zero=80, absent=(0xFF,)),
    Number("ambient_c", 6, ">B", per=2, zero=80, absent=(0xFF,)),
)


def cells(identifier: int, first: int) -> Reading:
    """32 cells, from the position `first` on."""
    table = (Fixed(0, b"\xff\xff\xff\xff"), Numbers(_CELL, count=_CELLS_EACH, first=first))
    return Reading(ecu=BATTERY, request=identifier_of(identifier), layouts={5: table}, size=4 + _CELLS_EACH)


def identifier_of(identifier: int) -> bytes:
    """The request of an identifier."""
    return b"\x22" + identifier.to_bytes(2, "big")


AIR: Final = Reading(ecu=CLIMATE, request=identifier_of(0x0100), layouts={7: _AIR}, size=36, every=10)
"""Both temperatures of the air, from the climate control."""
