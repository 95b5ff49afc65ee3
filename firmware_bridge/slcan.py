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

from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED, FD_LENGTHS, REMOTE, FrameBatch

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
_ENDS_LINE: Final = _by_byte({b"\r\n\a": 1}, 0)
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
        ends = np.flatnonzero(_ENDS_LINE[raw])
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
    # A margin on both sides, so that a window over a line's digits never runs out of the buffer.
    text = np.concatenate((np.zeros(8, np.uint8), raw, np.zeros(MAX_LINE_BYTES, np.uint8)))
    id_digits = np.where(kind & _EXT, 8, 3)
    dlc_at = 8 + starts + id_digits + 1
    dlc = np.where(size > id_digits + 1, _NIBBLE[text[dlc_at]], _BAD)
    length = np.where(kind & _FD, _FD_LENGTH[dlc], _CLASSIC_LENGTH[dlc])
    data_digits = np.where(kind & _REMOTE, 0, 2 * length.astype(np.intp))
    spare = size - (id_digits + 2 + data_digits)
    good = (length != _BAD) & ((spare == 0) | (spare == _TIMESTAMP_DIGITS))
    if not good.all():
        kind, id_digits, dlc_at, length = kind[good], id_digits[good], dlc_at[good], length[good]
        data_digits, spare = data_digits[good], spare[good]

    width = CLASSIC_BYTES if not len(length) or length.max() <= CLASSIC_BYTES else FD_LENGTHS[-1]
    id_nibbles = _nibbles(text, dlc_at - 8, 8, np.arange(8) >= (8 - id_digits)[:, None])
    nibbles = _nibbles(text, dlc_at + 1, 2 * width, np.arange(2 * width) < data_digits[:, None])
    sane = (id_nibbles != _BAD).all(axis=1) & (nibbles != _BAD).all(axis=1)
    if spare.any():
        stamp = _nibbles(text, dlc_at + 1 + data_digits, _TIMESTAMP_DIGITS, (spare > 0)[:, None])
        sane &= (stamp != _BAD).all(axis=1)
    can_id = ((id_nibbles[:, ::2] << 4) | id_nibbles[:, 1::2]).view(">u4")[:, 0].astype(np.uint32)
    extended = kind & _EXT != 0
    sane &= can_id <= np.where(extended, 0x1FFF_FFFF, 0x7FF)
    can_id |= np.where(extended, np.uint32(EXTENDED), np.uint32(0))
    can_id |= np.where(kind & _REMOTE, np.uint32(REMOTE), np.uint32(0))
    data = (nibbles[:, ::2] << 4) | nibbles[:, 1::2]
    n = int(np.count_nonzero(sane))
    return FrameBatch(channel, np.full(n, t_ns, np.int64), can_id[sane], length[sane], data[sane])


def _nibbles(text: Bytes, at: npt.NDArray[np.intp], count: int, wanted: npt.NDArray[np.bool_]) -> Bytes:
    """The values of `count` hex digits from each of `at`: uint8[n, count]; 0 where not wanted, _BAD where not hex."""
    digits = np.lib.stride_tricks.sliding_window_view(text, count)[at]
    return np.where(wanted, _NIBBLE[digits], np.uint8(0))
