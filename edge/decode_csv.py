"""Decoded values as rows of a CSV: the text of a whole block is one matrix of characters, built in numpy.

Row: t_s,channel,id,message,signal,value,unit,quality. A value reads back as what cantools gives: whole numbers in full,
others with the fewest digits that mean the same float64.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from edge.dbc.flat import QUALITIES, SHORT_FRAME, Decoded, FlatDecoder
from edge.dbc.model import Signal
from edge.decode_log import Part
from edge.logs.digits import Chars, decimals, whole
from edge.logs.frames import Block
from firmware_bridge.frames import id_text

HEADER: Final = ("t_s", "channel", "id", "message", "signal", "value", "unit", "quality")
_EXACT: Final = 2.0**53
_DIGITS: Final = 1e15
"""Decimals of up to 15 digits and float64 mean each other one to one."""
_FEW, _MANY = 4, 8
_MOST_KNOWN: Final = 1 << 17

Items = npt.NDArray[np.void]
"""Texts of one width below each other, each an item: numpy moves them whole."""


class CsvRows:
    """Writes parts of blocks to a file. rows: how many have been written."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._tables: dict[int, _Tables] = {}
        self._known: dict[float, bytes] = {}
        self.rows = 0
        out.write((",".join(HEADER) + "\n").encode())

    def write(
        self, block: Block, t_text: npt.NDArray[np.bytes_], channels: Sequence[str], parts: Sequence[Part]
    ) -> None:
        """The rows of a block, in the order of its frames. t_text S[n]: the time to write, by frame of the block."""
        texts = [self._text(block, t_text, channels, part) for part in parts if len(part.decoded)]
        if not texts:
            return
        text = texts[0]
        if len(texts) > 1:
            width = max(one.shape[1] for one in texts)
            text = np.concatenate([np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in texts])
            frame = np.concatenate([part.at[part.decoded.frame] for part in parts if len(part.decoded)])
            text = text[np.argsort(frame, kind="stable")]
        self.rows += len(text)
        self._out.write(text.tobytes().translate(None, b"\0"))

    def close(self) -> None:
        """All rows have been written."""
        self._out.flush()

    def _text(self, block: Block, t_text: npt.NDArray[np.bytes_], channels: Sequence[str], part: Part) -> Chars:
        """uint8[values, width], NUL where there is no character."""
        tables = self._tables.get(id(part.decoder))
        if tables is None:
            tables = self._tables[id(part.decoder)] = _Tables.of(part.decoder)
        decoded = part.decoded
        signal, quality = decoded.signal, decoded.quality
        head = _heads(t_text[part.at], block.channel[part.at], part.can_id, channels)
        ends = tables.ends.take(signal * len(QUALITIES) + quality) if quality.any() else tables.good_ends.take(signal)
        value = _items(value_chars(decoded, part.decoder, tables, self._known))
        columns = (head.take(decoded.frame), tables.names.take(signal), value, ends)
        rows = np.empty(len(decoded), [(f"c{i}", column.dtype) for i, column in enumerate(columns)])
        for i, column in enumerate(columns):
            rows[f"c{i}"] = column
        return rows.view(np.uint8).reshape(len(rows), rows.itemsize)


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    """Of a decoder, by signal: what stands before its value, after it (by quality too), and how it is printed."""

    names: Items
    ends: Items
    good_ends: Items
    is_whole: npt.NDArray[np.bool_]
    places: npt.NDArray[np.intp]

    @classmethod
    def of(cls, decoder: FlatDecoder) -> _Tables:
        signals = decoder.signals
        return cls(
            _items(_chars([f"{_cell(s.message)},{_cell(s.name)},".encode() for s in signals])),
            _items(_chars([f",{_cell(s.unit)},{quality}\n".encode() for s in signals for quality in QUALITIES])),
            _items(_chars([f",{_cell(s.unit)},\n".encode() for s in signals])),
            np.array([s.is_whole for s in signals], bool),
            np.array([_places(s) for s in signals], np.intp),
        )


def value_chars(decoded: Decoded, decoder: FlatDecoder, tables: _Tables, known: dict[float, bytes]) -> Chars:
    """The values as text, uint8[n, width]; nothing for one that a short frame does not reach. known: texts so far."""
    value, signal = decoded.value, decoded.signal
    is_whole = tables.is_whole[signal]
    places = tables.places[signal]
    size = np.abs(value)
    is_many = bool((places == _MANY).any())
    unit = 10.0 ** (_MANY if is_many else _FEW)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(size * unit)
        is_plain = np.where(is_whole, size < _EXACT, (scaled < _DIGITS) & (scaled / unit == size) & (places > 0))
        integral = np.where(is_whole, size, np.floor(scaled / unit))
        integral = np.where(is_plain, integral, 0.0).astype(np.int64)
        fraction = np.where(is_plain & ~is_whole, scaled - integral * unit, 0.0).astype(np.int64)
    digits = whole(integral)
    has_fraction = not is_whole.all()
    slow = np.flatnonzero(~is_plain & (decoded.quality != SHORT_FRAME))
    texts = _exact_texts(decoded, decoder, is_whole, slow, known)
    width = 1 + digits.shape[1] + (1 + (_MANY if is_many else _FEW) if has_fraction else 0)
    text = np.zeros((len(value), max(width, *map(len, texts)) if texts else width), np.uint8)
    text[:, 0] = np.where(np.where(is_whole, value < 0, np.signbit(value)), ord("-"), 0)
    text[:, 1 : 1 + digits.shape[1]] = digits
    if has_fraction:
        at = 1 + digits.shape[1]
        text[:, at] = ord(".")
        text[:, at + 1 : width] = decimals(fraction, _MANY if is_many else _FEW)
        text[is_whole, at:] = 0
    text[~is_plain] = 0
    if texts:
        text[slow] = np.array(texts, f"S{text.shape[1]}").view(np.uint8).reshape(len(texts), -1)
    return text


def _exact_texts(
    decoded: Decoded,
    decoder: FlatDecoder,
    is_whole: npt.NDArray[np.bool_],
    rows: npt.NDArray[np.intp],
    known: dict[float, bytes],
) -> list[bytes]:
    """What numpy has no fast text for: floats with many digits, and whole numbers that a float64 does not hold."""
    values = decoded.value[rows].tolist()
    if len(known) > _MOST_KNOWN:
        known.clear()
    for value in set(values).difference(known):
        known[value] = repr(value).encode()
    texts = [known[value] for value in values]
    for i in np.flatnonzero(is_whole[rows]).tolist():
        row = rows[i]
        texts[i] = str(decoder.exact(int(decoded.signal[row]), int(decoded.raw[row]), decoded.wide)).encode()
    return texts


def _heads(
    t_text: npt.NDArray[np.bytes_],
    channel: npt.NDArray[np.intp],
    can_id: npt.NDArray[np.uint32],
    channels: Sequence[str],
) -> Items:
    """`t_s,channel,id,` of each item."""
    keys, kind = np.unique(channel.astype(np.int64) << 32 | can_id, return_inverse=True)
    texts = [f",{_cell(channels[key >> 32])},{id_text(key & 0xFFFF_FFFF)},".encode() for key in keys.tolist()]
    table = _chars(texts)
    width = max(t_text.itemsize, 1)
    head = np.empty((len(t_text), width + table.shape[1]), np.uint8)
    head[:, :width] = np.ascontiguousarray(t_text).view(np.uint8).reshape(len(t_text), width)
    head[:, width:] = table.take(kind, axis=0)
    return _items(head)


def _places(signal: Signal) -> int:
    """Decimals that values of a signal have: 4 or 8; 0 when they have more."""
    if signal.is_float:
        return _MANY
    numbers = [Decimal(repr(float(number))) for number in (signal.scale, signal.offset)]
    if not all(number.is_finite() for number in numbers):
        return 0
    most = max(-int(number.normalize().as_tuple().exponent) for number in numbers)
    return _FEW if most <= _FEW else _MANY if most <= _MANY else 0


def _cell(text: str) -> str:
    """Text as a cell of a CSV, quoted where it must be."""
    if not any(character in text for character in ',"\n\r'):
        return text.replace("\0", "")
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([text.replace("\0", "")])
    return out.getvalue()


def _chars(texts: Sequence[bytes], width: int = 0) -> Chars:
    """Texts below each other, NUL where one is shorter."""
    width = max(width, 1, *map(len, texts)) if texts else max(width, 1)
    return np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), np.uint8).reshape(len(texts), width)


def _items(chars: Chars) -> Items:
    items: Items = np.ascontiguousarray(chars).view(f"V{chars.shape[1]}")[:, 0]
    return items
