"""What packs say in a language, and how many cells of theirs it carries. Pure."""

from __future__ import annotations

import struct
from typing import Final

from firmware_bridge.protocol import Part, Protocol, Said, Value, Values
from firmware_bridge.rows import size_of

_CELL_V, _TEMP_C = 3.3, 21.0
_MANY: Final = (192, 96, 48, 32, 24, 16, 8, 4, 2, 1)


def said_of(spoken: Protocol, values: Values, address: int | None, vehicle: str | None) -> list[Said]:
    """What a decoder makes of all that a pack with these values would say."""
    said: list[Said] = []
    if spoken.bytes_decoder is not None and spoken.answer is not None:
        line = spoken.bytes_decoder()
        for poll in spoken.polls(address, vehicle):
            line.sent(poll.request)
            for reply in spoken.answer(poll.request, values, address):
                said += line.feed(reply)
        said += line.end()
    elif spoken.frames_decoder is not None and spoken.frames is not None:
        bus = spoken.frames_decoder(vehicle)
        for can_id, payload in spoken.frames(values, address, vehicle):
            said += bus.frame(0, can_id, payload)
        said += bus.end()
    return said


def carried(spoken: Protocol, array: str, wanted: int | None, vehicle: str | None) -> int:
    """How many places of an array (`cell_v`, `temp_c`) a pack has: `wanted` or fewer.

    Where a language's places are always all there, it has all of them. wanted None: as many as there are.
    """
    if f"{array}[]" not in spoken.vehicle_fields.get(vehicle or "", spoken.fields):
        return wanted or 1
    most = next((found for count in _MANY if (found := _told(spoken, array, count, vehicle))), 0)
    counts = range(most if wanted is None else min(wanted, most), 0, -1)
    return next((count for count in counts if _told(spoken, array, count, vehicle) == count), most)


def _told(spoken: Protocol, array: str, count: int, vehicle: str | None) -> int:
    """How many places a decoder is told of by a pack with so many; 0 = a pack cannot have so many."""
    values: dict[str, Value] = {"cell_v[0]": _CELL_V, "temp_c[0]": _TEMP_C}
    values |= {f"{array}[{i}]": _CELL_V if array == "cell_v" else _TEMP_C for i in range(count)}
    try:
        said = said_of(spoken, values, None, vehicle)
    except (struct.error, IndexError, ValueError, OverflowError):
        return 0
    back: dict[str, Value] = {}
    for it in said:
        if isinstance(it, Part):
            back.update({name: value for name, value in it.values.items() if value is not None})
    return size_of(array, back)
