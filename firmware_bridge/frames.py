"""Frames: raw bytes of one CAN bus, kept in columns so that a second of traffic costs a handful of numpy calls.

Also the candump log line, `(t) channel ID#HEX`, which is how frames look as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

EXTENDED: Final = 0x8000_0000
"""Bit of `can_id`: the id has 29 bits (as in SocketCAN)."""
REMOTE: Final = 0x4000_0000
"""Bit of `can_id`: a remote frame; `length` is what it asks for and its data are zeros."""
CLASSIC_BYTES: Final = 8
FD_LENGTHS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
"""Bytes of a frame by its DLC; the first nine are classic CAN."""

LARGEST_11_BIT: Final = 0x7FF
LARGEST_29_BIT: Final = 0x1FFF_FFFF

Mask = npt.NDArray[np.bool_] | npt.NDArray[np.intp] | slice


def id_of(text: str) -> int:
    """An id in hex, with EXTENDED when it has 8 digits or more than 11 bits. ValueError, as a sentence's end."""
    digits = text.strip().removeprefix("0x").removeprefix("0X")
    try:
        value = int(digits, 16)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST_29_BIT:
        raise ValueError(f'"{text}" is not an id in hex such as 7EC or 18DAF110')
    return value | EXTENDED if len(digits) == 8 or value > LARGEST_11_BIT else value


def id_text(can_id: int) -> str:
    """An id as hex: 8 digits = 29 bits, 3 digits = 11 bits."""
    return f"{can_id & LARGEST_29_BIT:08X}" if can_id & EXTENDED else f"{can_id & LARGEST_11_BIT:03X}"


@dataclass(frozen=True, slots=True, eq=False)
class FrameBatch:
    """Frames of one channel in the order they were seen; n may be 0.

    t_ns int64[n]: ns on whatever clock the source has. can_id uint32[n] with EXTENDED and REMOTE. length uint8[n]:
    bytes of payload. data uint8[n, width]: payload, zeros beyond `length`; width is 8, or 64 with a CAN FD frame in it.
    """

    channel: str
    t_ns: npt.NDArray[np.int64]
    can_id: npt.NDArray[np.uint32]
    length: npt.NDArray[np.uint8]
    data: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.t_ns)

    @classmethod
    def empty(cls, channel: str) -> FrameBatch:
        """No frames."""
        return cls.of(channel, ())

    @classmethod
    def of(cls, channel: str, frames: Iterable[tuple[int, int, bytes]]) -> FrameBatch:
        """Frames from (t_ns, can_id, payload) rows. ValueError if a payload is longer than 64 bytes."""
        rows = list(frames)
        longest = max((len(payload) for _, _, payload in rows), default=0)
        if longest > FD_LENGTHS[-1]:
            raise ValueError(f"a CAN frame carries at most {FD_LENGTHS[-1]} bytes, not {longest}")
        width = CLASSIC_BYTES if longest <= CLASSIC_BYTES else FD_LENGTHS[-1]
        padded = b"".join(payload.ljust(width, b"\0") for _, _, payload in rows)
        return cls(
            channel,
            np.array([t_ns for t_ns, _, _ in rows], np.int64),
            np.array([can_id for _, can_id, _ in rows], np.uint32),
            np.array([len(payload) for _, _, payload in rows], np.uint8),
            np.frombuffer(padded, np.uint8).reshape(len(rows), width),
        )

    @classmethod
    def concat(cls, channel: str, batches: Sequence[FrameBatch]) -> FrameBatch:
        """All frames of `batches`, one batch after the other, under one channel name."""
        if not batches:
            return cls.empty(channel)
        width = max(batch.data.shape[1] for batch in batches)
        return cls(
            channel,
            np.concatenate([batch.t_ns for batch in batches]),
            np.concatenate([batch.can_id for batch in batches]),
            np.concatenate([batch.length for batch in batches]),
            np.concatenate([_widened(batch.data, width) for batch in batches]),
        )

    def take(self, rows: Mask) -> FrameBatch:
        """The frames at `rows` (a mask, indices or a slice)."""
        return FrameBatch(self.channel, self.t_ns[rows], self.can_id[rows], self.length[rows], self.data[rows])

    def rows(self) -> Iterator[tuple[int, int, bytes]]:
        """Each frame as (t_ns, can_id, payload): for those who need them one by one."""
        flat, width = self.data.tobytes(), self.data.shape[1]
        columns: Iterable[Any] = zip(self.t_ns.tolist(), self.can_id.tolist(), self.length.tolist(), strict=True)
        for at, (t_ns, can_id, length) in enumerate(columns):
            yield t_ns, can_id, flat[at * width : at * width + length]

    def candump(self) -> list[str]:
        """One candump log line a frame, without line ends: `(1767225600.000000) can0 101#0A1B`, time in whole us."""
        lines = []
        for t_ns, can_id, payload in self.rows():
            t_s, rest_ns = divmod(t_ns, 1_000_000_000)
            if can_id & REMOTE:
                body = "#R"
            elif len(payload) > CLASSIC_BYTES:
                body = "##0" + payload.hex().upper()
            else:
                body = "#" + payload.hex().upper()
            lines.append(f"({t_s}.{rest_ns // 1000:06d}) {self.channel} {id_text(can_id)}{body}")
        return lines


def _widened(data: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.uint8]:
    return data if data.shape[1] == width else np.pad(data, ((0, 0), (0, width - data.shape[1])))
