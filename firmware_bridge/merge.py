"""Parts -> one picture of a pack: frames merge until a field repeats.

Some packs tell the same twice in a scan, in messages of two kinds: that is no second picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from firmware_bridge.protocol import ALARM, EXTRA, Part, Value
from firmware_bridge.rows import standing

_PLACE: Final = re.compile(r"(\w+)\[(\d+)\]")


@dataclass(slots=True)
class _Picture:
    """told: (kind of message, name) of all that was said."""

    values: dict[str, Value] = field(default_factory=dict)
    quality: dict[str, str] = field(default_factory=dict)
    told: set[tuple[str, str]] = field(default_factory=set)

    def put(self, part: Part) -> None:
        """What another message of the scan says of the same replaces what was said before."""
        for name, value in part.values.items():
            self.values[name] = value
            self.quality.pop(name, None)
            self.told.add((part.kind, name))
        self.quality.update(part.quality)
        for name in [name for name in self.values if _is_beyond(name, part.sizes)]:
            del self.values[name]
            self.quality.pop(name, None)


def _is_beyond(name: str, sizes: Mapping[str, int]) -> bool:
    """Whether a name is that of a place which the pack has not."""
    place = _PLACE.fullmatch(name) if sizes else None
    return place is not None and place[1] in sizes and int(place[2]) >= sizes[place[1]]


class Merger:
    """Collects the Parts of each address. A picture ends when a field of it comes again in a message of that kind."""

    def __init__(self) -> None:
        self._open: dict[int | None, _Picture] = {}

    def add(self, part: Part) -> dict[str, Any] | None:
        """The picture that this Part ends, because it begins the next one."""
        picture = self._open.setdefault(part.address, _Picture())
        done = None
        if any((part.kind, name) in picture.told for name in part.values):
            done = report(part.address, picture.values, picture.quality)
            picture = self._open[part.address] = _Picture()
        picture.put(part)
        return done

    def end(self) -> Iterator[dict[str, Any]]:
        """The pictures that are open, by the order in which they began."""
        for address, picture in self._open.items():
            if picture.values:
                yield report(address, picture.values, picture.quality)
        self._open.clear()


def report(address: int | None, values: dict[str, Value], quality: dict[str, str]) -> dict[str, Any]:
    """A picture by Sample's names, as JSON shows it. A place of an array that nobody told of is None, `absent`."""
    out: dict[str, Any] = {"address": address}
    extra: dict[str, Value] = {}
    arrays: dict[str, dict[int, Value]] = {}
    quality = dict(quality)
    for name, value in values.items():
        if name.startswith(EXTRA):
            extra[name[len(EXTRA) :]] = value
        elif place := _PLACE.fullmatch(name):
            arrays.setdefault(place[1], {})[int(place[2])] = value
        elif not name.startswith(ALARM):
            out[name] = value
    for name, places in arrays.items():
        out[name] = [places.get(i) for i in range(max(places) + 1)]
        for i in range(max(places)):
            if i not in places:
                quality[f"{name}[{i}]"] = "absent"
    return out | {"alarms": standing(values), "extra": extra, "quality": quality}
