"""What several polls of a SocketCAN bus took, made into frames with the agent's time. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edge.sources.recvmmsg import Datagrams, Piece, unpacked
from firmware_bridge.frames import FD_LENGTHS, REMOTE, FrameBatch

HEAD_BYTES: Final = 8
"""Of struct can_frame and struct canfd_frame, before the data."""
_LENGTH_AT: Final = 4
_WITHIN: Final = np.arange(FD_LENGTHS[-1], dtype=np.uint8) < np.arange(FD_LENGTHS[-1] + 1, dtype=np.uint8)[:, None]
"""bool[65, 64]: which bytes of the data a frame of that length has."""


class Polled(NamedTuple):
    """What one poll took, no error frame among it.

    times: how many frames; mono_ns for those of which the kernel tells no time; mono - wall; and between which mono_ns
    they came.
    """

    pieces: list[Piece]
    times: tuple[int, int, int, int, int]


def joined(channel: str, polled: Sequence[Polled]) -> FrameBatch:
    """The frames of at least one poll."""
    datagrams = unpacked([piece for poll in polled for piece in poll.pieces])
    return _batch(channel, datagrams, _moved(datagrams.wall_ns, polled))


def _batch(channel: str, datagrams: Datagrams, t_ns: npt.NDArray[np.int64]) -> FrameBatch:
    """The frames; beyond its length a frame is junk, and so is all of a remote one."""
    width = datagrams.rows.shape[1] - HEAD_BYTES
    can_id = np.ascontiguousarray(datagrams.rows[:, :4].view(np.uint32)[:, 0])
    data = np.ascontiguousarray(datagrams.rows[:, HEAD_BYTES:])
    length = np.minimum(datagrams.rows[:, _LENGTH_AT], width)
    filled = np.where(can_id & REMOTE, 0, length)
    if filled.min() < width:
        data *= _WITHIN[filled, :width]
    return FrameBatch(channel, t_ns, can_id, length, data)


def _moved(stamps: npt.NDArray[np.int64], polled: Sequence[Polled]) -> npt.NDArray[np.int64]:
    """The kernel's times on the agent's clock.

    They cannot lie outside of the time since the buffer was last empty, which is how far a step of the host's clock in
    between can put them wrong.
    """
    count, t_ns, offset_ns, lo_ns, hi_ns = np.array([poll.times for poll in polled], np.int64).T
    count = count.astype(np.intp)  # what `repeat` takes, also where that has 32 bits
    moved: npt.NDArray[np.int64] = stamps + offset_ns.repeat(count)
    if not stamps.all():
        moved[stamps == 0] = t_ns.repeat(count)[stamps == 0]
    moved.clip(lo_ns.repeat(count), hi_ns.repeat(count), out=moved)
    np.maximum.accumulate(moved, out=moved)
    return moved
