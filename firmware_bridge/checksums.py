"""The checks that BMSs put behind their frames. Each takes the bytes that are checked and returns a number."""

from __future__ import annotations

import binascii
from functools import lru_cache
from typing import Final


def sum8(data: bytes) -> int:
    """Sum of all bytes, its low 8 bits (Daly, JK)."""
    return sum(data) & 0xFF


def sum16(data: bytes) -> int:
    """Sum of all bytes, its low 16 bits (JK UART)."""
    return sum(data) & 0xFFFF


def negated_sum16(data: bytes) -> int:
    """Two's complement of the sum of all bytes, 16 bits (JBD; Seplos V2 over its ASCII letters)."""
    return -sum(data) & 0xFFFF


def crc16_modbus(data: bytes) -> int:
    """CRC-16/MODBUS: polynomial 0x8005 reflected, start 0xFFFF. On the line it stands low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = crc >> 8 ^ _MODBUS[(crc ^ byte) & 0xFF]
    return crc


def crc16_xmodem(data: bytes) -> int:
    """CRC-16/XMODEM: polynomial 0x1021, start 0 (Seplos V2 over Bluetooth)."""
    return binascii.crc_hqx(data, 0)


def _modbus_row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xA001 if byte & 1 else 0)
    return byte


_MODBUS: Final = tuple(map(_modbus_row, range(256)))


class ModbusSums:
    """CRC-16/MODBUS of pieces of a buffer, each in the same short time however long it is.

    A CRC is linear: that of a piece follows from those of what lies before its two ends. So it does when the buffer has
    moved on: what lay before is the same.
    """

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        self._before = [0]

    def begin(self, data: bytes, at: int) -> None:
        """Pieces that begin at `at` of a buffer are asked for.

        What the buffer has had since the last beginning, and still has, is not summed up again.
        """
        if data is not self._data:
            self._follow(data)
        self._at = at

    def is_good(self, size: int) -> bool:
        """Whether the last two of so many bytes are the CRC of those before them."""
        state, moved = self._before[self._at] ^ 0xFFFF, _behind_zeros(size)
        low, high = moved[state & 0xF] ^ moved[16 + (state >> 4 & 0xF)], moved[32 + (state >> 8 & 0xF)]
        return low ^ high ^ moved[48 + (state >> 12)] == self._before[self._at + size]

    def _follow(self, data: bytes) -> None:
        """The buffer became `data`."""
        kept = self._data[self._at :]
        if not data.startswith(kept):
            kept = b""
        before = self._before
        del before[: len(self._data) - len(kept)]
        crc = before[-1]
        for byte in data[len(kept) :]:
            crc = crc >> 8 ^ _MODBUS[(crc ^ byte) & 0xFF]
            before.append(crc)
        self._data = data


@lru_cache(600)
def _behind_zeros(size: int) -> tuple[int, ...]:
    """What each value of each four bits of a CRC has become after so many zeros, the lowest four bits first."""
    bits = [1 << i for i in range(16)]
    for _ in range(size):
        bits = [bit >> 8 ^ _MODBUS[bit & 0xFF] for bit in bits]
    found: list[int] = []
    for one, two, four, eight in (bits[i : i + 4] for i in (0, 4, 8, 12)):
        few = [0, one, two, one ^ two]
        few += [value ^ four for value in few]
        found += [*few, *(value ^ eight for value in few)]
    return tuple(found)
