"""What a DBC says, in plain records: Database, Message, Signal, and a Note of each statement that was not right."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

from firmware_bridge.frames import EXTENDED


@dataclass(frozen=True, slots=True)
class Note:
    """A statement of a DBC that was repaired or left out. line counts from 1; what: its beginning; reason: why."""

    path: Path
    line: int
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal of a message. value = raw x scale + offset in `unit`; lo, hi: outside is no measurement (infinite when
    the DBC does not say). start counts bits as the DBC does: of the least bit, big_endian of the greatest.

    switch: the signal (of the same message) that says whether this one is in a frame, None = always;
    groups: the numbers it then has. is_switch: others depend on this one. values: its value table by raw number.
    """

    message: str
    name: str
    start: int
    bits: int
    big_endian: bool = False
    signed: bool = False
    is_float: bool = False
    scale: int | float = 1
    offset: int | float = 0
    unit: str = ""
    comment: str = ""
    lo: float = -math.inf
    hi: float = math.inf
    values: Mapping[int, str] | None = None
    is_switch: bool = False
    switch: str | None = None
    groups: frozenset[int] | None = None

    @property
    def path(self) -> str:
        """`Message.Signal`."""
        return f"{self.message}.{self.name}"

    @property
    def limits(self) -> tuple[float, float]:
        """What is beyond them is out of range: lo and hi, and what a DBC rounds off when it prints them."""
        if self.is_float:
            return self.lo, self.hi
        step = abs(float(self.scale))
        return self.lo - _rounded_off(self.lo, step), self.hi + _rounded_off(self.hi, step)

    @property
    def is_plain(self) -> bool:
        """Whether the value is the raw number itself."""
        return self.scale == 1 and self.offset == 0

    @property
    def is_whole(self) -> bool:
        """Whether the value is a whole number, exact however large."""
        return not self.is_float and float(self.scale).is_integer() and float(self.offset).is_integer()

    def value(self, raw: int | float) -> int | float:
        """The value of a raw number: an int when it `is_whole`. OverflowError beyond what a float can hold."""
        if self.is_plain:
            return raw
        if self.is_whole:
            return raw * int(self.scale) + int(self.offset)
        return raw * self.scale + self.offset

    @property
    def first_bit(self) -> int:
        """The bit where it begins, counted from the least bit of byte 0 on; big endian: from its greatest."""
        return 8 * (self.start // 8) + 7 - self.start % 8 if self.big_endian else self.start

    @property
    def end_bit(self) -> int:
        """One beyond its last bit; all of it is in a payload of at least end_bit / 8 bytes."""
        return self.first_bit + self.bits


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message: can_id with EXTENDED for 29 bits; length in bytes (more than 64: a payload that comes in pieces).

    is_j1939: the DBC says that its id stands for a PGN from any source.
    """

    name: str
    can_id: int
    length: int
    signals: tuple[Signal, ...]
    is_j1939: bool = False
    comment: str = ""
    cycle_s: float | None = None

    @property
    def pgn(self) -> int | None:
        """The J1939 parameter group of its id; None with 11 bits."""
        return pgn_of(self.can_id) if self.can_id & EXTENDED else None


@dataclass(frozen=True)
class Database:
    """A DBC file. Names need not be unique: the same message may come under two ids."""

    path: Path
    messages: tuple[Message, ...]
    notes: tuple[Note, ...] = ()

    @cached_property
    def signals(self) -> Mapping[str, Signal]:
        """By `Message.Signal`; of several with one name the first."""
        found: dict[str, Signal] = {}
        for message in self.messages:
            for signal in message.signals:
                found.setdefault(signal.path, signal)
        return found


def pgn_of(can_id: int) -> int:
    """The J1939 parameter group number in a 29-bit id; below 240 its second byte is an address and no part of it."""
    group = can_id >> 8 & 0x3FFFF
    return group if group >> 8 & 0xFF >= 240 else group & 0x3FF00


def _rounded_off(limit: float, step: float) -> float:
    """Half of the last digit that the limit is printed with, half a step at most."""
    if not math.isfinite(limit):
        return 0.0
    exponent = Decimal(repr(limit)).normalize().as_tuple().exponent
    return min(step, 10.0 ** min(int(exponent), 0)) / 2
