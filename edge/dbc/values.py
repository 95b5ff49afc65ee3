"""Bits of payloads -> raw numbers -> values, for many (frame, signal) pairs at once. Pure.

The gathers are `take` with a plain index and mode clip: of all that numpy has it is by far the fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.dbc.model import Signal
from edge.dbc.plan import WORD_BITS, Floats, Index, SignalTables, Words

_LITTLE: Final = np.dtype("<u8")
_BIG: Final = np.dtype(">u8")
_ALL: Final = (1 << WORD_BITS) - 1


class Payloads:
    """The bytes of frames as words, `width` places (SignalTables) each. data uint8[n, 8 k]: zeros at the end."""

    __slots__ = ("data", "has_beyond", "width", "words")

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        little = np.ascontiguousarray(data).view(_LITTLE)
        self.data = data
        self.width = 2 * little.shape[1]
        words = np.empty((*little.shape, 2), np.uint64)
        words[:, :, 0] = little
        words[:, :, 1] = little.view(_BIG)
        self.words: Words = words.reshape(-1)
        self.has_beyond = False  # whether signals beyond the payload are asked for: what they are is then not looked at


class Values:
    """Reads the signals of one plan."""

    def __init__(self, signals: Sequence[Signal], table: SignalTables) -> None:
        self.signals, self.table = signals, table
        self._has_sign, self._has_next = bool(table.sign.any()), bool(table.has_next.any())
        self._has_unsigned, self.has_float = bool(table.is_unsigned.any()), bool(table.float_bits.any())
        self.has_wide = bool(table.is_wide.any())
        self.has_slow = self.has_wide or bool(table.is_slow.any())
        self.is_whole = not (self.has_float or self.has_wide or self._has_unsigned)
        """Whether every raw number is what int64 holds."""

    def raw(self, payloads: Payloads, begin: Index, signal: Index) -> npt.NDArray[np.int64]:
        """The bits of signals of at most 64 bits, with their sign. begin: frame x width of each pair."""
        table, words = self.table, payloads.words
        place = table.place.take(signal, mode="clip")
        if payloads.has_beyond:
            np.minimum(place, payloads.width - 1, out=place)
        place += begin
        raw = words.take(place, mode="clip")
        raw >>= table.shift.take(signal, mode="clip")
        if self._has_next and len(across := table.has_next[signal].nonzero()[0]):
            told = signal[across]
            place = begin[across] + np.minimum(table.next_place[told], payloads.width - 1)
            raw[across] |= words[place] << (np.uint64(WORD_BITS) - table.shift[told])
        raw &= table.mask.take(signal, mode="clip")
        if self._has_sign:
            sign = table.sign.take(signal, mode="clip")
            raw ^= sign
            raw -= sign
        signed: npt.NDArray[np.int64] = raw.view(np.int64)
        return signed

    def value(self, signal: Index, raw: npt.NDArray[np.int64], wide: Sequence[int] = ()) -> Floats:
        """The values of raw numbers as float64, rounded once as `exact` would be."""
        table = self.table
        if self.has_float:
            with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity say so in their quality
                value = self._numbers(signal, raw) * table.scale[signal] + table.offset[signal]
        else:
            value = self._numbers(signal, raw)
            value *= table.scale.take(signal, mode="clip")
            value += table.offset.take(signal, mode="clip")
        if self.has_slow:
            for at in (table.is_slow[signal] | table.is_wide[signal]).nonzero()[0].tolist():
                try:
                    value[at] = self.exact(int(signal[at]), int(raw[at]), wide)
                except OverflowError:
                    value[at] = np.nan
        return value

    def _numbers(self, signal: Index, raw: npt.NDArray[np.int64]) -> Floats:
        """The raw numbers as float64: those without sign and floats seen as what they are."""
        table = self.table
        number = raw.astype(np.float64)
        if self._has_unsigned:
            at = table.is_unsigned[signal].nonzero()[0]
            number[at] = raw[at].view(np.uint64)
        if self.has_float:
            bits = table.float_bits[signal]
            for size, unsigned, kind in ((16, np.uint16, np.float16), (32, np.uint32, np.float32)):
                at = (bits == size).nonzero()[0]
                number[at] = raw[at].astype(unsigned).view(kind)
            at = (bits == WORD_BITS).nonzero()[0]
            number[at] = raw[at].view(np.float64)
        return number

    def exact(self, signal: int, raw: int, wide: Sequence[int] = ()) -> int | float:
        """The value as cantools gives it, an int where it gives one. wide: numbers of more than 64 bits."""
        told = self.signals[signal]
        if told.is_float:
            pattern = (raw & _ALL).to_bytes(8, "little")[: told.bits // 8]
            return told.value(float(np.frombuffer(pattern, f"<f{told.bits // 8}")[0]))
        if told.bits > WORD_BITS:
            return told.value(wide[raw])
        return told.value(raw if told.signed else raw & _ALL)

    def wide(self, payloads: Payloads, frame: Index, signal: Index, raw: npt.NDArray[np.int64]) -> tuple[int, ...]:
        """Reads signals of more than 64 bits one by one; `raw` becomes their index."""
        found: list[int] = []
        for at in self.table.is_wide[signal].nonzero()[0].tolist():
            told = self.signals[signal[at]]
            payload = payloads.data[frame[at]].tobytes()
            if told.big_endian:
                number = int.from_bytes(payload, "big") >> max(8 * len(payload) - told.end_bit, 0)
            else:
                number = int.from_bytes(payload, "little") >> told.first_bit
            number &= (1 << told.bits) - 1
            if told.signed and number >> told.bits - 1:
                number -= 1 << told.bits
            raw[at] = len(found)
            found.append(number)
        return tuple(found)
