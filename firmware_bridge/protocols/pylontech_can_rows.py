"""Rows that only the low-voltage CAN language has (`pylontech_can.py`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from firmware_bridge.protocol import Values
from firmware_bridge.rows import Number, Read, Text, read

_VERSION: Final = re.compile(r"(\d+)\.(\d+)")
_NO_SOC: Final = 0xFFFF
_MOST_SOC: Final = 2.0


@dataclass(frozen=True, slots=True)
class Soc:
    """State of charge: whole percent at byte 0 and, where a maker has it, hundredths at byte 4 (0 = it has not)."""

    @property
    def names(self) -> tuple[str, ...]:
        return ("soc_bms",)

    def read(self, data: bytes, into: Read) -> None:
        raw = int.from_bytes(data[:2], "little")
        fine = int.from_bytes(data[4:6], "little") if len(data) >= 6 else 0
        if raw == _NO_SOC:
            into.put("soc_bms", None, "absent")
        elif raw > 100 * _MOST_SOC:
            into.put("soc_bms", None, "invalid")
        else:
            # Hundredths that contradict the percent are something else of that maker's.
            is_fine = fine and abs(fine / 100 - raw) <= 1
            into.put("soc_bms", fine / 10000 if is_fine else raw / 100)

    def write(self, data: bytearray, values: Values) -> None:
        if "soc_bms" not in values:
            return
        value = values["soc_bms"]
        if value is None:
            data[:2] = _NO_SOC.to_bytes(2, "little")
            return
        fine = round(min(max(float(value), 0.0), _MOST_SOC) * 10000)
        data[:2] = round(fine / 100).to_bytes(2, "little")
        data[4:6] = fine.to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two bits a name, the lowest pair first: 01 it stands, 10 it does not, 00 the BMS does not watch it."""

    at: int
    what: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.what

    def read(self, data: bytes, into: Read) -> None:
        for i, name in enumerate(self.what):
            at = self.at + i // 4
            pair = data[at] >> 2 * (i % 4) & 3 if at < len(data) else 0
            if pair in (1, 2):
                into.put(name, pair == 1)

    def write(self, data: bytearray, values: Values) -> None:
        for i, name in enumerate(self.what):
            if values.get(name) is not None:
                data[self.at + i // 4] |= (1 if values[name] else 2) << 2 * (i % 4)


@dataclass(frozen=True, slots=True)
class NotFilledUp:
    """Numbers in the first `size` bytes, each of which may be 0, but not all: then a maker only filled the frame up."""

    size: int
    rows: tuple[Number, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.rows)

    def read(self, data: bytes, into: Read) -> None:
        is_filled_up = not any(data[: self.size])
        told = read(self.rows, data)
        for name, value in told.values.items():
            into.put(name, value, "absent" if is_filled_up else told.quality.get(name))

    def write(self, data: bytearray, values: Values) -> None:
        for row in self.rows:
            row.write(data, values)


@dataclass(frozen=True, slots=True)
class Version:
    """Two bytes of a version: 0D 05 is 13.5."""

    at: int

    @property
    def names(self) -> tuple[str, ...]:
        return ("extra.sw_version",)

    def read(self, data: bytes, into: Read) -> None:
        if self.at + 2 <= len(data):
            major, minor = data[self.at : self.at + 2]
            into.put(self.names[0], f"{major}.{minor}", None if major or minor else "absent")

    def write(self, data: bytearray, values: Values) -> None:
        parts = _VERSION.fullmatch(str(values.get(self.names[0])))
        if parts is not None:
            data[self.at : self.at + 2] = bytes(min(int(part), 0xFF) for part in parts.groups())


@dataclass(frozen=True, slots=True)
class Model:
    """The first half of the model's name (Victron, JBD), or what the hottest and the fullest cell is (Eco-Worthy).

    The extremes are the maker's own meaning of the id, so they are taken only where nothing else makes sense of them.
    """

    @property
    def names(self) -> tuple[str, ...]:
        return ("extra.model", *(name for row in self._extremes for name in row.names))

    @property
    def _extremes(self) -> tuple[Number, ...]:
        return (
            Number("extra.temp_max_fine_c", 0, "<h", per=10, lo=-60, hi=150),
            Number("extra.temp_min_fine_c", 2, "<h", per=10, lo=-60, hi=150),
            Number("extra.cell_max_v", 4, "<H", per=1000, lo=0.5, hi=5),
            Number("extra.cell_min_v", 6, "<H", per=1000, lo=0.5, hi=5),
        )

    def read(self, data: bytes, into: Read) -> None:
        if _is_text(data):
            Text("extra.model", 0).read(data, into)
            return
        told = read(self._extremes, data)
        if len(told.values) == len(self._extremes) and not told.quality:
            into.values.update(told.values)

    def write(self, data: bytearray, values: Values) -> None:
        if isinstance(values.get("extra.model"), str):
            Text("extra.model", 0).write(data, values)
        elif all(values.get(row.name) is not None for row in self._extremes):
            for row in self._extremes:
                row.write(data, values)


@dataclass(frozen=True, slots=True)
class Letters:
    """Text, where it is text."""

    name: str

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def read(self, data: bytes, into: Read) -> None:
        if _is_text(data):
            Text(self.name, 0).read(data, into)

    def write(self, data: bytearray, values: Values) -> None:
        Text(self.name, 0).write(data, values)


def _is_text(data: bytes) -> bool:
    letters = data.rstrip(b"\0")
    return bool(letters.strip()) and all(0x20 <= byte < 0x7F for byte in letters)
