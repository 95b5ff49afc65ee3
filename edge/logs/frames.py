"""What every format of log becomes: blocks of frames, and what was wrong with the rest, by reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from firmware_bridge.frames import EXTENDED, FD_LENGTHS, LARGEST_11_BIT, LARGEST_29_BIT, REMOTE, FrameBatch
from shared.errors import PacktwinError

BLOCK_FRAMES: Final = 2000
LATEST_NS: Final = 1 << 61
"""Beyond is no time, and sums of two are still an int64."""
_MOST_BYTES: Final = FD_LENGTHS[-1]

Row = tuple[int, bytes, int, int, bytes]
"""t_ns, the time as the log prints it (s), index of the channel, can_id, payload."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Frames in the order of the log, whatever their channel.

    frames: of all channels (its own name is empty). channel intp[n]: index into `Notes.channels`. t_text S[n]: the time
    as the log prints it, in s; empty where the log has no times.
    """

    frames: FrameBatch
    channel: npt.NDArray[np.intp]
    t_text: npt.NDArray[np.bytes_]

    @classmethod
    def of(cls, rows: list[Row]) -> Block:
        """The block of some rows."""
        return cls(
            FrameBatch.of("", [(t_ns, can_id, payload) for t_ns, _, _, can_id, payload in rows]),
            np.array([channel for _, _, channel, _, _ in rows], np.intp),
            np.array([t_text for _, t_text, _, _, _ in rows], np.bytes_),
        )


class BadLine(PacktwinError):
    """A line (or an object) of a log that is no frame and should be. `reason` is what its counter is called."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Bad:
    """How many lines were bad for one reason, and the first of them (from 1; of a binary log: its object)."""

    count: int
    first_line: int


@dataclass(slots=True)
class Notes:
    """What a reader says of its log beside the frames; complete when the last block has been read.

    start_ns: UTC of the log's time 0; 0 when it does not say, or prints UTC. has_times: False = the format has none.
    fault: why nothing more could be read, a sentence; "" = the log was read to its end.
    """

    channels: list[str] = field(default_factory=list)
    bad: dict[str, Bad] = field(default_factory=dict)
    error_frames: int = 0
    frames: int = 0
    start_ns: int = 0
    has_times: bool = True
    fault: str = ""
    unit: str = "line"
    _index: dict[str, int] = field(default_factory=dict)

    def channel(self, name: str) -> int:
        """The index of a channel, which may be new."""
        index = self._index.get(name)
        if index is None:
            index = self._index[name] = len(self.channels)
            self.channels.append(name)
        return index

    def spoiled(self, reason: str, line: int, count: int = 1) -> None:
        """Counts bad lines."""
        bad = self.bad.get(reason)
        if bad is None:
            self.bad[reason] = Bad(count, line)
        else:
            bad.count += count
            bad.first_line = min(bad.first_line, line)

    @property
    def bad_lines(self) -> int:
        """All bad lines."""
        return sum(bad.count for bad in self.bad.values())

    def told(self) -> Iterator[str]:
        """What a person should hear, a line each."""
        for reason, bad in self.bad.items():
            are = f"{bad.count} {self.unit}s of the log are" if bad.count > 1 else f"1 {self.unit} of the log is"
            yield f"{are} no frame: {reason} (first: {self.unit} {bad.first_line})"
        if self.error_frames:
            yield f"{self.error_frames} error frames in the log, left out"
        if self.fault:
            yield self.fault


def blocks_of(rows: Iterable[Row]) -> Iterator[Block]:
    """The rows in blocks."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == BLOCK_FRAMES:
            yield Block.of(held)
            held = []
    if held:
        yield Block.of(held)


def identifier(value: int, is_extended: bool) -> int:
    """The can_id of an identifier. BadLine if it is negative, or has more bits than it can have."""
    if value < 0:
        raise BadLine("an id that is no number")
    if value > (LARGEST_29_BIT if is_extended else LARGEST_11_BIT):
        raise BadLine("an id with too many bits")
    return value | EXTENDED if is_extended else value


def remote(can_id: int, length: int) -> tuple[int, bytes]:
    """can_id and payload of a remote frame that asks for `length` bytes."""
    return can_id | REMOTE, bytes(min(max(length, 0), 8))


def payload_of(cells: list[bytes], length: int, base: int = 16) -> bytes:
    """The first `length` bytes of `cells`, each a number as text. BadLine if they are fewer or no bytes."""
    if not 0 <= length <= _MOST_BYTES:
        raise BadLine("an impossible length")
    if len(cells) < length:
        raise BadLine("fewer bytes than its length says")
    try:
        if base == 16 and all(len(cell) == 2 for cell in cells[:length]):
            return bytes.fromhex(b"".join(cells[:length]).decode("ascii"))
        return bytes([int(cell, base) for cell in cells[:length]])
    except ValueError:
        raise BadLine("data that are no bytes") from None


def decimal_ns(text: bytes) -> int:
    """Nanoseconds of a time in s as text, exactly; digits below 1 ns are cut. BadLine if it is none."""
    whole, _, fraction = text.partition(b".")
    digits = whole[1:] if whole[:1] in (b"-", b"+") else whole
    if not digits.isdigit() or not (fraction.isdigit() or not fraction) or len(digits) > 10:
        raise BadLine("a time that is none")
    t_ns = int(digits) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if t_ns >= LATEST_NS:
        raise BadLine("a time that is none")
    return -t_ns if whole[:1] == b"-" else t_ns


def seconds_text(t_ns: int) -> bytes:
    """A time as text, in s: six decimals, or nine where there is something below 1 us."""
    sign = "-" if t_ns < 0 else ""
    whole, rest = divmod(abs(t_ns), 1_000_000_000)
    fraction = f"{rest // 1000:06d}" if rest % 1000 == 0 else f"{rest:09d}"
    return f"{sign}{whole}.{fraction}".encode()
