"""Many datagrams for one system call: recvmmsg through ctypes, with the kernel's time and drop counter of each.

What was received is only copied out of the kernel's reach; it is unpacked later, many reads at once. Where libc has no
recvmmsg, or Python no ctypes, the same by one recvmsg each: slower, otherwise equal. Nothing in here knows CAN: a frame
is a datagram of 16 bytes (classic) or 72 (FD), on an AF_CAN socket as on any other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

ROW_BYTES: Final = 72
"""The longest datagram there is: struct canfd_frame."""
SHORT_BYTES: Final = 16
"""struct can_frame."""
SO_TIMESTAMPNS: Final = 35  # not in Python's socket before 3.15; the kernel's old form, whose timespec is two longs
SO_RXQ_OVFL: Final = 40
_CALL_FRAMES: Final = 512  # of one system call; more is not measurably cheaper
_SECOND_NS: Final = 1_000_000_000
_ALIGN: Final = ctypes.sizeof(ctypes.c_size_t)
_NOTHING_THERE: Final = (errno.EAGAIN, errno.EWOULDBLOCK)


class Piece(NamedTuple):
    """n datagrams as the kernel left them, all of one system call.

    heads uint8[n, 64]: a struct mmsghdr of each, which says how far the rest is of now. slots uint8[n, 128]: the
    datagram, then what was told beside it (_SLOT). Both are narrower where a pointer has 32 bits.
    """

    heads: npt.NDArray[np.uint8]
    slots: npt.NDArray[np.uint8]

    def take(self, rows: npt.NDArray[np.bool_]) -> Piece:
        """Those at `rows`."""
        return Piece(self.heads[rows], self.slots[rows])

    def drops(self) -> int | None:
        """The socket's drop counter (32 bits) as the newest of them tells it; None = it tells none, or it is 0."""
        head, slot = self.heads[-1:].view(_MESSAGE)[0, 0], self.slots[-1:].view(_SLOT)[0, 0]
        is_told = head["header"]["controllen"] > _STAMP_BYTES and slot["drops_type"] == SO_RXQ_OVFL
        return int(slot["drops"]) if is_told else None


class Drained(NamedTuple):
    """What the socket held. is_empty: nothing was left; error: what the socket told of itself, None = nothing."""

    pieces: list[Piece]
    is_empty: bool
    error: OSError | None


class Datagrams(NamedTuple):
    """Pieces, unpacked.

    rows uint8[n, 16 or 72]: as wide as the longest, junk beyond each one's size. wall_ns int64[n]: when the kernel took
    it in, on its realtime clock, 0 = it did not say.
    """

    rows: npt.NDArray[np.uint8]
    wall_ns: npt.NDArray[np.int64]


class Receiver(Protocol):
    """Empties a non-blocking socket that has SO_TIMESTAMPNS and SO_RXQ_OVFL set."""

    def drain(self, limit: int) -> Drained:
        """The datagrams that are there, about `limit` of them at most. Never blocks, never raises."""


def receiver_of(sock: socket.socket) -> Receiver:
    """The fastest receiver that this system has."""
    call = _libc_recvmmsg()
    return RecvMsg(sock) if call is None else RecvMmsg(sock, call)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_size_t), ("len", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr; pointers as numbers, so that numpy can look at a whole array of them."""

    _fields_ = (
        ("name", ctypes.c_size_t),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.c_size_t),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_size_t),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("header", _Header), ("size", ctypes.c_uint))


def _padded(n: int) -> int:
    return -(-n // _ALIGN) * _ALIGN


_HEAD_BYTES: Final = _padded(_ALIGN + 8)  # struct cmsghdr: size_t, int, int
_STAMP_BYTES: Final = _padded(_HEAD_BYTES + 2 * ctypes.sizeof(ctypes.c_long))
_SLOT: Final = np.dtype(
    {  # a datagram; beside it the kernel tells, in this order: its time, then the drop counter once that is not 0
        "names": ["data", "type", "s", "ns", "drops_type", "drops"],
        "formats": [(np.uint8, ROW_BYTES), np.int32, ctypes.c_long, ctypes.c_long, np.int32, np.uint32],
        "offsets": [
            0,
            ROW_BYTES + _ALIGN + 4,
            ROW_BYTES + _HEAD_BYTES,
            ROW_BYTES + _HEAD_BYTES + ctypes.sizeof(ctypes.c_long),
            ROW_BYTES + _STAMP_BYTES + _ALIGN + 4,
            ROW_BYTES + _STAMP_BYTES + _HEAD_BYTES,
        ],
        "itemsize": ROW_BYTES + _STAMP_BYTES + _padded(_HEAD_BYTES + 4),
    }
)
_TOLD_BYTES: Final = _SLOT.itemsize - ROW_BYTES
_MESSAGE: Final = np.dtype(_Message)


def _libc_recvmmsg() -> Any:
    """libc's recvmmsg; None where it has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).recvmmsg
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    return call


class RecvMmsg:
    """By recvmmsg, many at a time into the same memory."""

    def __init__(self, sock: socket.socket, call: Any) -> None:
        self._fd, self._call = sock.fileno(), call
        self._slots = np.zeros((_CALL_FRAMES, _SLOT.itemsize), np.uint8)
        self._iovecs = (_Iovec * _CALL_FRAMES)()
        self._messages = (_Message * _CALL_FRAMES)()
        for i, (iovec, message) in enumerate(zip(self._iovecs, self._messages, strict=True)):
            iovec.base, iovec.len = self._slots.ctypes.data + i * _SLOT.itemsize, ROW_BYTES
            header = message.header
            header.iov, header.iovlen = ctypes.addressof(iovec), 1
            header.control, header.controllen = iovec.base + ROW_BYTES, _TOLD_BYTES
        self._at = ctypes.addressof(self._messages)
        self._heads = np.frombuffer(memoryview(self._messages).cast("B"), np.uint8).reshape(_CALL_FRAMES, -1)
        self._told_size = self._heads.view(_MESSAGE)[:, 0]["header"]["controllen"]

    def drain(self, limit: int) -> Drained:
        """See Receiver."""
        pieces: list[Piece] = []
        error: OSError | None = None
        total, is_empty = 0, False
        while total < limit and not is_empty:
            count = self._call(self._fd, self._at, _CALL_FRAMES, socket.MSG_DONTWAIT, None)
            if count > 0:
                pieces.append(self._piece(count))
                total += count
            if count >= 0:
                is_empty = count < _CALL_FRAMES  # or an error waits, which the next call tells
                continue
            number = ctypes.get_errno()
            if number in _NOTHING_THERE or (error is not None and number != errno.EINTR):
                is_empty = True
            elif number != errno.EINTR:
                error = OSError(number, os.strerror(number))  # comes before the frames that came before it
        return Drained(pieces, is_empty, error)

    def _piece(self, count: int) -> Piece:
        """Copies what the last call brought; the control lengths are made ready for the next."""
        heads = self._heads[:count].copy()
        self._told_size[:count] = _TOLD_BYTES
        return Piece(heads, self._slots[:count].copy())


class RecvMsg:
    """By Python's own recvmsg, one system call each."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def drain(self, limit: int) -> Drained:
        """See Receiver."""
        slots: list[tuple[Any, ...]] = []  # as _SLOT
        sizes: list[int] = []
        error: OSError | None = None
        is_empty = False
        while len(slots) < limit:
            try:
                payload, said, _, _ = self._sock.recvmsg(ROW_BYTES, 2 * _TOLD_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                is_empty = True
                break
            except OSError as failed:
                if error is not None:
                    is_empty = True
                    break
                error = failed  # comes before the frames that came before it
                continue
            by_kind = {kind: data for level, kind, data in said if level == socket.SOL_SOCKET}
            stamp, drops = by_kind.get(SO_TIMESTAMPNS), by_kind.get(SO_RXQ_OVFL)
            of_stamp = (0, 0, 0) if stamp is None else (SO_TIMESTAMPNS, *struct.unpack("@ll", stamp))
            of_drops = (0, 0) if drops is None else (SO_RXQ_OVFL, *struct.unpack("@I", drops[:4]))
            slots.append((np.frombuffer(payload.ljust(ROW_BYTES, b"\0"), np.uint8), *of_stamp, *of_drops))
            sizes.append(len(payload))
        if not slots:
            return Drained([], is_empty, error)
        heads = np.zeros(len(slots), _MESSAGE)
        heads["size"], heads["header"]["controllen"] = sizes, _TOLD_BYTES
        piece = Piece(_as_bytes(heads), _as_bytes(np.array(slots, _SLOT)))
        return Drained([piece], is_empty, error)


def unpacked(pieces: Sequence[Piece]) -> Datagrams:
    """All of at least one piece, in their order. For many pieces at once it costs hardly more than for one."""
    heads = np.concatenate([piece.heads for piece in pieces]).view(_MESSAGE)[:, 0]
    slots = np.concatenate([piece.slots for piece in pieces]).view(_SLOT)[:, 0]
    told_size = heads["header"]["controllen"]
    stamps: npt.NDArray[np.int64] = slots["s"] * np.int64(_SECOND_NS)
    stamps += slots["ns"]
    stamps[(told_size < _STAMP_BYTES) | (slots["type"] != SO_TIMESTAMPNS)] = 0
    width = SHORT_BYTES if heads["size"].max() <= SHORT_BYTES else ROW_BYTES
    return Datagrams(slots["data"][:, :width], stamps)


def _as_bytes(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Structured rows as uint8[n, size of one]."""
    return rows.view(np.uint8).reshape(len(rows), -1)
