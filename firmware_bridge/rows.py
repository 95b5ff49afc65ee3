"""A byte layout as a table: rows that read a payload into values, and write values into a payload.

A row that lies beyond the payload's end reads nothing: makers' frames are of many lengths. What a number means is
`sign * (raw - zero) * times / per`, so that both ways are exact to the wire's own step.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol as Shape

from firmware_bridge.protocol import ALARM, Value, Values


@dataclass(slots=True)
class Read:
    """What a payload says, by name."""

    values: dict[str, Value] = field(default_factory=dict)
    quality: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, value: Value, reason: str | None = None) -> None:
        """A value; a reason: there is none, because of it."""
        self.values[name] = None if reason else value
        if reason:
            self.quality[name] = reason


class Row(Shape):
    """One line of a table."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what it reads; an array's as `cell_v[]`."""

    def read(self, data: bytes, into: Read) -> None:
        """Reads it from a payload."""

    def write(self, data: bytearray, values: Values) -> None:
        """Writes it into a payload that is long enough; values that are not given leave it as it is."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number. form: of struct, such as `>H`. absent: raw numbers that mean that nothing is measured.

    shift, bits: only these bits of it (bits 0 = all), as a signed number when `signed`. lo, hi: of the value; what lies
    outside is `invalid`.
    """

    name: str
    at: int
    form: str
    per: float = 1
    times: float = 1
    zero: int = 0
    sign: int = 1
    absent: tuple[int, ...] = ()
    shift: int = 0
    bits: int = 0
    signed: bool = False
    lo: float | None = None
    hi: float | None = None
    reason: str = "absent"

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return (self.name,)

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""
        if self.at + struct.calcsize(self.form) <= len(data):
            into.put(self.name, *self.meaning(self.raw(data, self.at)))

    def raw(self, data: bytes, at: int) -> int:
        """The number as it stands on the wire."""
        raw: int = struct.unpack_from(self.form, data, at)[0] >> self.shift
        if not self.bits:
            return raw
        raw &= (1 << self.bits) - 1
        return raw - (1 << self.bits) if self.signed and raw >> self.bits - 1 else raw

    def meaning(self, raw: int) -> tuple[float | None, str | None]:
        """(value, None), or (None, why there is none)."""
        if raw in self.absent:
            return None, self.reason
        value = self.sign * (raw - self.zero) * self.times / self.per
        if (self.lo is not None and value < self.lo) or (self.hi is not None and value > self.hi):
            return None, "invalid"
        return value, None

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        if self.name in values:
            self.put(data, self.at, values[self.name])

    def put(self, data: bytearray, at: int, value: Value) -> None:
        """Writes a value at another place; None is the first of `absent`, or what stands there.

        What is beyond the wire's numbers is written as the outermost of them.
        """
        if value is None:
            if not self.absent:
                return
            raw = self.absent[0]
        else:
            lowest, highest = self._reach()
            raw = min(max(round(float(value) * self.per / self.times * self.sign) + self.zero, lowest), highest)
        if self.bits:
            mask = (1 << self.bits) - 1
            before = struct.unpack_from(self.form, data, at)[0]
            size = 8 * struct.calcsize(self.form)
            merged = (before & ~(mask << self.shift) | (raw & mask) << self.shift) & (1 << size) - 1
            if struct.calcsize(self.form) and self.form[-1].islower() and merged >> size - 1:
                merged -= 1 << size
            struct.pack_into(self.form, data, at, merged)
        else:
            struct.pack_into(self.form, data, at, raw)

    def _reach(self) -> tuple[int, int]:
        """The smallest and the largest number that the wire holds."""
        bits = self.bits or 8 * struct.calcsize(self.form)
        is_signed = self.signed if self.bits else self.form[-1].islower()
        return (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers side by side: `name[0]`, `name[1]` ... each as `each` reads it (its `name` and `at` count from here).

    count: how many; None = as many as fit. count_at: of the byte of the payload that says how many there are.
    first: the position of the first. stride: bytes from one to the next. no_place: raw numbers that stand, behind the
    last place that a pack has, where others have more.
    """

    each: Number
    count: int | None = None
    count_at: int | None = None
    first: int = 0
    stride: int = 0
    no_place: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return (f"{self.each.name}[]",)

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""
        places = list(self._places(data))
        raws = [self.each.raw(data, at) for _, at in places]
        while raws and raws[-1] in self.no_place:
            raws.pop()
        for (i, _), raw in zip(places, raws, strict=False):
            into.put(f"{self.each.name}[{i}]", *self.each.meaning(raw))
        if self.count_at is not None and self.count_at < len(data):
            for i in range(len(places), data[self.count_at]):
                into.put(f"{self.each.name}[{self.first + i}]", None, "short_frame")

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        if self.count_at is not None:
            data[self.count_at] = size_of(self.each.name, values)
        for i, at in self._places(data):
            if (name := f"{self.each.name}[{i}]") in values:
                self.each.put(data, at, values[name])

    def _places(self, data: bytes | bytearray) -> Iterator[tuple[int, int]]:
        """(position, where it stands) of each."""
        size = struct.calcsize(self.each.form)
        stride = self.stride or size
        count = max(0, (len(data) - self.each.at - size) // stride + 1)
        if self.count is not None:
            count = min(count, self.count)
        if self.count_at is not None:
            count = min(count, data[self.count_at]) if self.count_at < len(data) else 0
        for i in range(count):
            yield self.first + i, self.each.at + i * stride


@dataclass(frozen=True, slots=True)
class Count:
    """How many places an array has, for a payload that says so beside the array; reading it says nothing new."""

    of: str
    at: int
    form: str = ">B"

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return ()

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        struct.pack_into(self.form, data, self.at, size_of(self.of, values))


@dataclass(frozen=True, slots=True)
class BitSet:
    """A bit a cell, in words side by side, the word of the first cells first (`words` of them, each of `form`)."""

    name: str
    at: int
    form: str
    words: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return (self.name,)

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""
        size = struct.calcsize(self.form)
        if self.at + self.words * size <= len(data):
            words = [struct.unpack_from(self.form, data, self.at + i * size)[0] for i in range(self.words)]
            into.put(self.name, sum(word << 8 * size * i for i, word in enumerate(words)))

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        bits = values.get(self.name)
        if bits is None:
            return
        size = struct.calcsize(self.form)
        mask = (1 << 8 * size) - 1
        for i in range(self.words):
            struct.pack_into(self.form, data, self.at + i * size, int(bits) >> 8 * size * i & mask)


@dataclass(frozen=True, slots=True)
class Choice:
    """A number that stands for something else: `{0: False, 1: True}`. A raw number without a meaning is `invalid`."""

    name: str
    at: int
    means: Mapping[int, Value]
    form: str = ">B"

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return (self.name,)

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""
        if self.at + struct.calcsize(self.form) <= len(data):
            raw = struct.unpack_from(self.form, data, self.at)[0]
            into.put(self.name, self.means.get(raw), None if raw in self.means else "invalid")

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        if self.name in values:
            raw = next((raw for raw, value in self.means.items() if value == values[self.name]), None)
            if raw is not None:
                struct.pack_into(self.form, data, self.at, raw)


@dataclass(frozen=True, slots=True)
class Flags:
    """Bits with a name each, such as alarms: bit (0 = lowest) -> name. raw_name: also the whole number, by this name.

    Several bits may have one name: it stands when any of them is set, and is written as the first.
    """

    at: int
    form: str
    bits: Mapping[int, str]
    raw_name: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return (*dict.fromkeys(self.bits.values()), *([self.raw_name] if self.raw_name else []))

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""
        if self.at + struct.calcsize(self.form) > len(data):
            return
        raw = struct.unpack_from(self.form, data, self.at)[0]
        for bit, name in self.bits.items():
            into.values[name] = bool(into.values.get(name)) or bool(raw >> bit & 1)
        if self.raw_name:
            into.put(self.raw_name, float(raw))

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        before = struct.unpack_from(self.form, data, self.at)[0]
        raw = before
        written: set[str] = set()
        for bit, name in self.bits.items():
            if name in values and name not in written:
                written.add(name)
                raw = raw | 1 << bit if values[name] else raw & ~(1 << bit)
        if self.raw_name and values.get(self.raw_name) is not None:
            raw |= int(values[self.raw_name] or 0)
        if raw != before:
            struct.pack_into(self.form, data, self.at, raw)


@dataclass(frozen=True, slots=True)
class Text:
    """Letters; zeros and blanks at their end do not count. size None = to the end of the payload."""

    name: str
    at: int
    size: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """See Row."""
        return (self.name,)

    def read(self, data: bytes, into: Read) -> None:
        """See Row."""
        end = len(data) if self.size is None else self.at + self.size
        if self.at < end <= len(data):
            raw = data[self.at : end].split(b"\0")[0]
            text = "".join(chr(byte) for byte in raw if 0x20 <= byte < 0x7F).strip()
            into.put(self.name, text or None, None if text else "absent")

    def write(self, data: bytearray, values: Values) -> None:
        """See Row."""
        value = values.get(self.name)
        if isinstance(value, str):
            size = len(data) - self.at if self.size is None else self.size
            data[self.at : self.at + size] = value.encode("ascii", "replace")[:size].ljust(size, b"\0")


Table = Sequence[Row]


def read(table: Table, data: bytes) -> Read:
    """What a payload says."""
    found = Read()
    for row in table:
        row.read(data, found)
    return found


def written(table: Table, values: Values, size: int, fill: int = 0) -> bytes:
    """A payload of `size` bytes that says these values; what no row fills is `fill`."""
    data = bytearray([fill]) * size
    for row in table:
        row.write(data, values)
    return bytes(data)


def size_of(array: str, values: Values) -> int:
    """How many places of an array (`cell_v`) there are in the values, counted from 0 up."""
    n = 0
    while f"{array}[{n}]" in values:
        n += 1
    return n


def names_of(*tables: Table) -> tuple[str, ...]:
    """All names that the tables read, each once."""
    return tuple(dict.fromkeys(name for table in tables for row in table for name in row.names))


def standing(values: Values) -> list[str]:
    """The alarm codes that stand, in the order of the tables."""
    return [name[len(ALARM) :] for name, value in values.items() if name.startswith(ALARM) and value]
