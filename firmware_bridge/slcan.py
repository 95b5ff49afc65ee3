"""The serial line language of USB-CAN adapters ("slcan", LAWICEL), in bulk.

A frame is one line ending in CR: `t` + 3 hex digits of id (`T` + 8 for 29 bits) + DLC + data in hex; `r`/`R` are remote
frames, `d D b B` CAN FD. An adapter with timestamps on adds 4 hex digits (ms within a minute), which are not used.
Source: LAWICEL CANUSB manual; the FD letters as in the CANable 2.0 firmware. Adapter replies (CR, BEL, `z`, `V1013` ..)
stand between frames and are no frames.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from firmware_bridge.frames import (
    CLASSIC_BYTES,
    EXTENDED,
    FD_LENGTHS,
    LARGEST_11_BIT,
    LARGEST_29_BIT,
    REMOTE,
    FrameBatch,
)

Bytes = npt.NDArray[np.uint8]

MAX_LINE_BYTES: Final = 1 + 8 + 1 + 2 * FD_LENGTHS[-1] + 4
_CR: Final = 13
_BAD: Final = 255
_FRAME, _EXT, _REMOTE, _FD = 1, 2, 4, 8
_TIMESTAMP_DIGITS: Final = 4
_DIGITS: Final = np.frombuffer(b"0123456789ABCDEF", np.uint8)


def _by_byte(values: dict[bytes, int], default: int) -> Bytes:
    """Look-up table over the 256 byte values; each key is a set of bytes."""
    table = np.full(256, default, np.uint8)
    for keys, value in values.items():
        table[list(keys)] = value
    return table


_KIND: Final = _by_byte(
    {
        b"t": _FRAME,
        b"T": _FRAME | _EXT,
        b"r": _FRAME | _REMOTE,
        b"R": _FRAME | _REMOTE | _EXT,
        b"db": _FRAME | _FD,
        b"DB": _FRAME | _FD | _EXT,
    },
    0,
)
_NIBBLE: Final = _by_byte(
    {bytes({ord(f"{n:x}"), ord(f"{n:X}")}): n for n in range(16)},
    _BAD,
)
_IS_REPLY: Final = _by_byte({b"zZVvNF\r\n\a": 1}, 0)
_CLASSIC_LENGTH: Final = np.array([*range(9), *[_BAD] * 7, *[_BAD] * 240], np.uint8)
_FD_LENGTH: Final = np.array([*FD_LENGTHS, *[_BAD] * 240], np.uint8)
_DLC_OF_LENGTH: Final = np.searchsorted(FD_LENGTHS, np.arange(FD_LENGTHS[-1] + 1)).astype(np.uint8)


def encode(frames: FrameBatch) -> bytes:
    """The frames as an adapter sends them, one line each. Channel and times are not part of the language.

    ValueError if a length is none that CAN FD knows.
    """
    n, width = frames.data.shape
    if n == 0:
        return b""
    length = frames.length.astype(np.intp)
    dlc = _DLC_OF_LENGTH[length]
    if (np.array(FD_LENGTHS)[dlc] != length).any():
        raise ValueError(f"a CAN frame of {int(length.max())} bytes cannot be sent: lengths are {FD_LENGTHS}")
    extended = frames.can_id & EXTENDED != 0
    remote = frames.can_id & REMOTE != 0
    fd = length > CLASSIC_BYTES
    # One row a frame with room for all a line can hold; what a frame does not need is left out by `keep` at the end.
    line = np.empty((n, 10 + 2 * width + 1), np.uint8)
    line[:, 0] = np.where(fd, ord("d"), np.where(remote, ord("r"), ord("t"))) - np.where(extended, 32, 0)
    shifts = np.arange(28, -4, -4, dtype=np.uint32)
    line[:, 1:9] = _DIGITS[((frames.can_id & 0x1FFF_FFFF)[:, None] >> shifts) & 15]
    line[:, 9] = _DIGITS[dlc]
    line[:, 10:-1:2] = _DIGITS[frames.data >> 4]
    line[:, 11:-1:2] = _DIGITS[frames.data & 15]
    line[:, -1] = _CR
    keep = np.ones(line.shape, np.bool_)
    keep[:, 1:6] = extended[:, None]
    keep[:, 10:-1] = np.arange(2 * width) < np.where(remote, 0, 2 * length)[:, None]
    return line[keep].tobytes()


class SlcanParser:
    """Turns the bytes of an adapter into frames, whatever the pieces in which they arrive. Never raises on bytes.

    `bad_lines` counts lines that are neither a frame nor a reply; `replies` those that are replies.
    """

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.bad_lines = 0
        self.replies = 0
        self._tail = b""

    def feed(self, chunk: bytes, t_ns: int) -> FrameBatch:
        """The frames whose line ends within `chunk`, all stamped with `t_ns` (when the chunk was read)."""
        text = self._tail + chunk
        raw = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero((raw == 13) | (raw == 10) | (raw == 7))
        if not len(ends):
            # A line that never ends is junk: its first bytes are kept, enough to know it as too long when it does end.
            self._tail = text[: MAX_LINE_BYTES + 1]
            return FrameBatch.empty(self.channel)
        self._tail = text[int(ends[-1]) + 1 :][: MAX_LINE_BYTES + 1]
        starts = np.empty_like(ends)
        starts[0], starts[1:] = 0, ends[:-1] + 1
        size = ends - starts
        first = raw[starts]
        kind = np.where(raw[ends] == _CR, _KIND[first], 0)  # BEL or LF after something is no frame
        framed = kind != 0
        replies = int(np.count_nonzero(~framed & (_IS_REPLY[first] == 1) & (size <= 8)))
        frames = _frames(raw, starts[framed], size[framed], kind[framed], t_ns, self.channel)
        self.replies += replies
        self.bad_lines += len(ends) - replies - len(frames)
        return frames


def _frames(
    raw: Bytes, starts: npt.NDArray[np.intp], size: npt.NDArray[np.intp], kind: Bytes, t_ns: int, channel: str
) -> FrameBatch:
    """The well-formed among the lines at `starts`; `kind` says what the first byte of each promises."""
    # Hex digits as numbers, with a margin on both sides so that a window over a line's digits never runs out.
    hexes = np.full(8 + len(raw) + MAX_LINE_BYTES, _BAD, np.uint8)
    np.take(_NIBBLE, raw, out=hexes[8 : 8 + len(raw)])
    extended = kind & _EXT != 0
    dlc_at = starts + np.where(extended, 8 + 9, 8 + 4)
    dlc = np.where(dlc_at < starts + 8 + size, hexes[dlc_at], _BAD)
    length = np.where(kind & _FD, _FD_LENGTH[dlc], _CLASSIC_LENGTH[dlc])
    data_digits = np.where(kind & _REMOTE, 0, 2 * length.astype(np.intp))
    spare = starts + 8 + size - (dlc_at + 1 + data_digits)
    good = (length != _BAD) & ((spare == 0) | (spare == _TIMESTAMP_DIGITS))
    if not good.all():
        kind, extended, dlc_at, length = kind[good], extended[good], dlc_at[good], length[good]
        data_digits, spare = data_digits[good], spare[good]

    width = CLASSIC_BYTES if not len(length) or length.max() <= CLASSIC_BYTES else FD_LENGTHS[-1]
    id_digits = _windows(hexes, dlc_at - 8, 8)
    id_digits[~extended, :5] = 0
    digits = _windows(hexes, dlc_at + 1, 2 * width)
    digits[np.arange(2 * width) >= data_digits[:, None]] = 0
    sane = (id_digits.max(axis=1, initial=0) < 16) & (digits.max(axis=1, initial=0) < 16)
    if spare.any():
        stamp = _windows(hexes, dlc_at + 1 + data_digits, _TIMESTAMP_DIGITS)
        sane &= (spare == 0) | (stamp.max(axis=1, initial=0) < 16)
    can_id = _bytes_of(id_digits).view(">u4")[:, 0].astype(np.uint32)
    sane &= can_id <= np.where(extended, LARGEST_29_BIT, LARGEST_11_BIT)
    can_id |= np.where(extended, np.uint32(EXTENDED), np.uint32(0))
    can_id |= np.where(kind & _REMOTE, np.uint32(REMOTE), np.uint32(0))
    frames = FrameBatch(channel, np.full(len(can_id), t_ns, np.int64), can_id, length, _bytes_of(digits))
    return frames if sane.all() else frames.take(sane)


def _windows(values: Bytes, at: npt.NDArray[np.intp], count: int) -> Bytes:
    """A copy of `count` values from each of `at`: uint8[n, count]."""
    shape = (len(values) - count + 1, count)
    windows: Bytes = np.lib.stride_tricks.as_strided(values, shape, (1, 1), writeable=False)[at]
    return windows


def _bytes_of(digits: Bytes) -> Bytes:
    """Pairs of hex digits put together: uint8[n, count] -> uint8[n, count / 2]."""
    return digits[:, ::2] * np.uint8(16) + digits[:, 1::2]
