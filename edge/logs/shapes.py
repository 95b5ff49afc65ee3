"""Text logs of millions of lines: the lines of one shape are read together, column by column in numpy.

A reader says of one line where its time, id and data stand (its shape). All lines of the same length whose other
characters are the same are then read at once; whatever has no common shape is read line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, Protocol

import numpy as np
import numpy.typing as npt

from edge.logs.digits import seconds_column
from edge.logs.frames import LATEST_NS, BadLine, Block, Notes, Row
from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED, FD_LENGTHS, LARGEST_11_BIT, LARGEST_29_BIT, FrameBatch

SECOND_NS: Final = 1_000_000_000
MS_NS: Final = 1_000_000
US_NS: Final = 1_000
_PIECE_BYTES: Final = 1 << 18
_LONGEST_LINE: Final = 512
_FEW_LINES: Final = 16  # not worth a shape of their own
_MOST_SHAPES: Final = 128  # of one piece
_MOST_DIGITS: Final = 15  # that float64 holds
_NIBBLE: Final = np.full(256, 255, np.uint8)
for _digit, _character in enumerate(b"0123456789ABCDEF"):
    _NIBBLE[[_character, ord(chr(_character).lower())]] = _digit

Span = tuple[int, int]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Where what stands in a line. time: digits with a point or none, of `unit_ns`. data: where each byte (2 digits)
    begins. loose: what may be anything; all other characters are the same in each line of this shape.
    """

    time: Span
    unit_ns: int
    can_id: Span
    is_extended: bool
    data: tuple[int, ...]
    channel: str
    loose: tuple[Span, ...] = ()


class LineReader(Protocol):
    """A format."""

    @property
    def restarts(self) -> re.Pattern[bytes] | None:
        """What begins a new header, from which on lines may mean something else; None = nothing does."""

    def parse(self, line: bytes) -> Row | None:
        """The frame in a line without blanks around it; None = it is none and need not be. BadLine, ValueError,
        IndexError otherwise.
        """

    def shape(self, line: bytes) -> Shape | None:
        """The shape of a line as it stands in the file; None = only `parse` can read it."""


def shaped_blocks(file: IO[bytes], reader: LineReader, notes: Notes, *, first_line: int = 1) -> Iterator[Block]:
    """The frames of a file, a piece of it at a time; bad lines are counted in `notes`, blank ones passed over."""
    line, rest = first_line, b""
    while chunk := file.read(_PIECE_BYTES):
        piece, end, rest_of = (rest + chunk).rpartition(b"\n")
        if not end and len(rest_of) < _PIECE_BYTES:
            rest = rest_of
            continue
        rest = rest_of if end else b""
        piece = piece + end if end else rest_of
        yield from _piece(piece, line, reader, notes)
        line += piece.count(b"\n")
    if rest:
        yield from _piece(rest + b"\n", line, reader, notes)


class _Columns:
    """The frames of a piece by line; `is_frame` says which lines are."""

    def __init__(self, lines: int) -> None:
        self.is_frame = np.zeros(lines, bool)
        self.t_ns = np.zeros(lines, np.int64)
        self.t_text = np.zeros(lines, "S24")
        self.channel = np.zeros(lines, np.intp)
        self.can_id = np.zeros(lines, np.uint32)
        self.length = np.zeros(lines, np.uint8)
        self.data = np.zeros((lines, CLASSIC_BYTES), np.uint8)

    def put(self, at: int, row: Row) -> None:
        t_ns, t_text, channel, can_id, payload = row
        self.widen(len(payload))
        self.is_frame[at], self.t_ns[at], self.t_text[at] = True, t_ns, t_text
        self.channel[at], self.can_id[at], self.length[at] = channel, can_id, len(payload)
        self.data[at, : len(payload)] = np.frombuffer(payload, np.uint8)

    def widen(self, length: int) -> None:
        if length > self.data.shape[1]:
            self.data = np.pad(self.data, ((0, 0), (0, FD_LENGTHS[-1] - self.data.shape[1])))

    def block(self) -> Block:
        keep = slice(None) if self.is_frame.all() else self.is_frame
        frames = FrameBatch("", self.t_ns[keep], self.can_id[keep], self.length[keep], self.data[keep])
        return Block(frames, self.channel[keep], self.t_text[keep])


def _piece(piece: bytes, first_line: int, reader: LineReader, notes: Notes) -> Iterator[Block]:
    """The frames of whole lines."""
    text = np.frombuffer(piece, np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    if not len(ends) or ends[-1] != len(text) - 1:
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1])
    columns = _Columns(len(ends))
    todo = np.arange(len(ends))
    if reader.restarts is not None and reader.restarts.search(piece):
        left = todo  # what a line means depends on those before it
    else:
        left = _by_shape(text, starts, ends - starts, columns, reader, notes)
    for at in left.tolist():
        line = piece[starts[at] : ends[at]].strip()
        if not line:
            continue
        try:
            row = reader.parse(line)
        except (BadLine, ValueError, IndexError) as error:
            notes.spoiled(error.reason if isinstance(error, BadLine) else "not a frame", first_line + at)
            continue
        if row is not None:
            columns.put(at, row)
    block = columns.block()
    notes.frames += len(block.frames)
    if len(block.frames):
        yield block


def _by_shape(
    text: npt.NDArray[np.uint8],
    starts: Indices,
    lengths: Indices,
    columns: _Columns,
    reader: LineReader,
    notes: Notes,
) -> Indices:
    """Reads the lines that look like others of their length; the numbers of those that are left."""
    left: list[Indices] = []
    shapes = 0
    for length in np.unique(lengths).tolist():
        lines = np.flatnonzero(lengths == length)
        if not 0 < length < _LONGEST_LINE:
            left.append(lines)
            continue
        windows = np.lib.stride_tricks.sliding_window_view(text, length)
        while len(lines) > _FEW_LINES and shapes < _MOST_SHAPES:
            shapes += 1
            done = _take(windows[starts[lines]], lines, columns, reader, notes)
            if not done[0]:  # the model is no frame itself: it is left, and must not be the model again
                left.append(lines[:1])
                done[0] = True
            lines = lines[~done]
        left.append(lines)
    return np.sort(np.concatenate(left)) if left else np.empty(0, np.intp)


def _take(
    rows: npt.NDArray[np.uint8], lines: Indices, columns: _Columns, reader: LineReader, notes: Notes
) -> npt.NDArray[np.bool_]:
    """Reads those of `rows` (characters, a line each) that are shaped like the first one; which these are."""
    model = rows[0].tobytes()
    shape = reader.shape(model)
    whole, fraction = _time_columns(model, shape) if shape else ([], [])
    if shape is None or not 0 < len(whole) <= _MOST_DIGITS or len(shape.data) > FD_LENGTHS[-1]:
        return np.zeros(len(rows), bool)
    id_at = np.arange(*shape.can_id)
    high = np.array(shape.data, np.intp)
    is_same = np.ones(len(model), bool)
    for begin, end in shape.loose:
        is_same[begin:end] = False
    is_same[[*whole, *fraction, *id_at, *high, *(high + 1)]] = False
    digits = rows[:, [*whole, *fraction]] - np.uint8(ord("0"))
    ident, upper, lower = _NIBBLE[rows[:, id_at]], _NIBBLE[rows[:, high]], _NIBBLE[rows[:, high + 1]]
    done: npt.NDArray[np.bool_] = (rows[:, is_same] == rows[0, is_same]).all(axis=1) & (digits < 10).all(axis=1)
    done &= (ident < 16).all(axis=1) & ((upper | lower) < 16).all(axis=1)
    numbers = digits.astype(np.float64)
    units = numbers[:, : len(whole)] @ _powers(10, len(whole))
    done &= units < LATEST_NS // shape.unit_ns
    can_id = ident.astype(np.float64) @ _powers(16, len(id_at))
    done &= can_id <= (LARGEST_29_BIT if shape.is_extended else LARGEST_11_BIT)
    if not done.any():
        return done
    at = lines
    if not done.all():
        at, rows, numbers, units, can_id = lines[done], rows[done], numbers[done], units[done], can_id[done]
        upper, lower = upper[done], lower[done]
    t_ns = units.astype(np.int64) * shape.unit_ns
    parts = numbers[:, len(whole) :] @ _powers(10, len(fraction))
    t_ns += parts.astype(np.int64) * (shape.unit_ns // 10 ** len(fraction))
    begin, end = shape.time
    if shape.unit_ns == SECOND_NS:
        columns.t_text[at] = np.ascontiguousarray(rows[:, begin:end]).view(f"S{end - begin}")[:, 0]
    else:
        columns.t_text[at] = seconds_column(t_ns)
    columns.widen(len(high))
    columns.is_frame[at] = True
    columns.t_ns[at] = t_ns
    columns.channel[at] = notes.channel(shape.channel)
    columns.can_id[at] = can_id.astype(np.uint32) | np.uint32(EXTENDED if shape.is_extended else 0)
    columns.length[at] = len(high)
    columns.data[at, : len(high)] = upper << 4 | lower
    return done


def _time_columns(model: bytes, shape: Shape) -> tuple[list[int], list[int]]:
    """Where the digits of the time stand, before its point and after it; none where it is too fine."""
    begin, end = shape.time
    point = model.find(b".", begin, end)
    whole = list(range(begin, end if point < 0 else point))
    fraction = list(range(point + 1, end)) if point >= 0 else []
    return (whole, fraction) if 10 ** len(fraction) <= shape.unit_ns else ([], [])


def _powers(base: int, count: int) -> npt.NDArray[np.float64]:
    """What each digit counts, the first one most; numbers of up to 15 digits are exact."""
    return np.array([float(base) ** i for i in range(count - 1, -1, -1)], np.float64)
