"""What a vehicle's table is made of, and rows that several vehicles have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from firmware_bridge.protocol import Values
from firmware_bridge.rows import Read, Table, names_of, written

SILENT: Final = 0xAA
"""What fills the unused bytes of a last frame; cars send AA, 00 or FF there."""


@dataclass(frozen=True, slots=True)
class Ecu:
    """A control unit: the CAN id that it listens to, and the one that it answers with."""

    ask: int
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One thing that an ECU can be asked. request: such as 22 01 01.

    layouts: by the least bytes that an answer of that layout has behind the echo of its identifier; the longest that
    fits is taken. size: of what a virtual vehicle answers there. every: see Poll; 0 = it is understood, but not asked.
    """

    ecu: Ecu
    request: bytes
    layouts: Mapping[int, Table]
    size: int
    every: int = 1

    @property
    def kind(self) -> str:
        """Its name: the request in hex."""
        return self.request.hex().upper()

    @property
    def least(self) -> int:
        """The fewest bytes of an answer behind the echo."""
        return min(self.layouts)

    def table(self, size: int) -> Table:
        """The layout of an answer with so many bytes behind the echo, at least `least`."""
        return self.layouts[max(least for least in self.layouts if least <= size)]

    def answer(self, values: Values) -> bytes:
        """What an ECU with these values answers."""
        return bytes([self.request[0] + 0x40]) + self.request[1:] + written(self.table(self.size), values, self.size)


@dataclass(frozen=True)
class Vehicle:
    """A vehicle. title: what it is, and what of its table no capture has proved."""

    name: str
    title: str
    readings: tuple[Reading, ...]

    @cached_property
    def by_answer(self) -> Mapping[tuple[int, bytes], Reading]:
        """The readings by the CAN id of the answer and the request."""
        return {(reading.ecu.answer, reading.request): reading for reading in self.readings}

    @cached_property
    def ecus(self) -> tuple[Ecu, ...]:
        """Its control units, each once."""
        return tuple(dict.fromkeys(reading.ecu for reading in self.readings))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """All names that its answers can hold."""
        return names_of(*(table for reading in self.readings for table in reading.layouts.values()))


@dataclass(frozen=True, slots=True)
class Fixed:
    """Bytes that are always the same, such as the mask in front; they say nothing."""

    at: int
    data: bytes

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return ()

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        data[self.at : self.at + len(self.data)] = self.data
