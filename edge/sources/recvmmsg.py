"""Many datagrams for one system call: recvmmsg through ctypes, with the kernel's time and drop counter of each.

Where libc has no recvmmsg, or Python no ctypes, the same by one recvmsg each: slower, otherwise equal. Nothing in here
knows CAN: a frame is a datagram of 16 bytes (classic) or 72 (FD), on an AF_CAN socket as on any other.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

ROW_BYTES: Final = 72
"""The longest datagram there is: struct canfd_frame."""
SO_TIMESTAMPNS: Final = 35  # not in Python's socket before 3.15; the kernel's old form, whose timespec is two longs
SO_RXQ_OVFL: Final = 40
_CALL_FRAMES: Final = 512  # of one system call; more is not measurably cheaper
_SECOND_NS: Final = 1_000_000_000
_ALIGN: Final = ctypes.sizeof(ctypes.c_size_t)
_NOTHING_THERE: Final = (errno.EAGAIN, errno.EWOULDBLOCK)


@dataclass(frozen=True, slots=True, eq=False)
class Drained:
    """What the socket held. `error`: what the socket told of itself meanwhile, None = nothing.

    rows uint8[n, 72]: the datagrams, junk beyond their own size. size int64[n]: bytes of each. wall_ns int64[n]: when
    the kernel took it in, on its realtime clock, 0 = it did not say. drops: the socket's drop counter as the newest
    datagram tells it (32 bits), None = none told any. is_empty: nothing was left to read.
    """

    rows: npt.NDArray[np.uint8]
    size: npt.NDArray[np.int64]
    wall_ns: npt.NDArray[np.int64]
    drops: int | None
    is_empty: bool
    error: OSError | None


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
_CONTROL: Final = np.dtype(
    {  # what the kernel writes for each datagram, in this order: its time, then the drop counter once that is not 0
        "names": ["type", "s", "ns", "drops_type", "drops"],
        "formats": [np.int32, ctypes.c_long, ctypes.c_long, np.int32, np.uint32],
        "offsets": [
            _ALIGN + 4,
            _HEAD_BYTES,
            _HEAD_BYTES + ctypes.sizeof(ctypes.c_long),
            _STAMP_BYTES + _ALIGN + 4,
            _STAMP_BYTES + _HEAD_BYTES,
        ],
        "itemsize": _STAMP_BYTES + _padded(_HEAD_BYTES + 4),
    }
)


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
        self._rows = np.zeros((_CALL_FRAMES, ROW_BYTES), np.uint8)
        self._control = np.zeros(_CALL_FRAMES, _CONTROL)
        self._iovecs = (_Iovec * _CALL_FRAMES)()
        self._messages = (_Message * _CALL_FRAMES)()
        for i, (iovec, message) in enumerate(zip(self._iovecs, self._messages, strict=True)):
            iovec.base, iovec.len = self._rows.ctypes.data + i * ROW_BYTES, ROW_BYTES
            header = message.header
            header.iov, header.iovlen = ctypes.addressof(iovec), 1
            header.control = self._control.ctypes.data + i * _CONTROL.itemsize
            header.controllen = _CONTROL.itemsize
        self._at = ctypes.addressof(self._messages)
        view = np.frombuffer(self._messages, np.dtype(_Message))  # type: ignore[call-overload]
        self._size, self._told = view["size"], view["header"]["controllen"]

    def drain(self, limit: int) -> Drained:
        """See Receiver."""
        parts: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        drops: int | None = None
        error: OSError | None = None
        total, is_empty = 0, False
        while total < limit and not is_empty:
            count = self._call(self._fd, self._at, _CALL_FRAMES, socket.MSG_DONTWAIT, None)
            if count >= 0:
                stamps, told = self._stamps(count)
                drops = told if told is not None else drops
                parts.append((self._rows[:count].copy(), self._size[:count].astype(np.int64), stamps))
                total += count
                is_empty = count < _CALL_FRAMES  # or an error waits, which the next call tells
                continue
            number = ctypes.get_errno()
            if number in _NOTHING_THERE or (error is not None and number != errno.EINTR):
                is_empty = True
            elif number != errno.EINTR:
                error = OSError(number, os.strerror(number))  # comes before the frames that came before it
        return _joined(parts, drops, is_empty, error)

    def _stamps(self, count: int) -> tuple[npt.NDArray[np.int64], int | None]:
        """(times of the datagrams, newest drop counter); the control lengths are made ready for the next call."""
        control, told = self._control[:count], self._told[:count].copy()
        self._told[:count] = _CONTROL.itemsize
        stamps: npt.NDArray[np.int64] = control["s"] * np.int64(_SECOND_NS)
        stamps += control["ns"]
        if not count:
            return stamps, None
        if told.min() < _STAMP_BYTES or (control["type"] != SO_TIMESTAMPNS).any():
            stamps[(told < _STAMP_BYTES) | (control["type"] != SO_TIMESTAMPNS)] = 0
        drops = None
        if told.max() > _STAMP_BYTES:
            has_drops = (told > _STAMP_BYTES) & (control["drops_type"] == SO_RXQ_OVFL)
            drops = int(control["drops"][has_drops][-1]) if has_drops.any() else None
        return stamps, drops


class RecvMsg:
    """By Python's own recvmsg, one system call each."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def drain(self, limit: int) -> Drained:
        """See Receiver."""
        payloads: list[bytes] = []
        stamps: list[int] = []
        drops: int | None = None
        error: OSError | None = None
        is_empty = False
        while len(payloads) < limit:
            try:
                payload, told, _, _ = self._sock.recvmsg(ROW_BYTES, 2 * _CONTROL.itemsize, socket.MSG_DONTWAIT)
            except BlockingIOError:
                is_empty = True
                break
            except OSError as failed:
                if error is not None:
                    is_empty = True
                    break
                error = failed  # comes before the frames that came before it
                continue
            payloads.append(payload)
            stamps.append(0)
            for level, kind, data in told:
                if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                    s, ns = struct.unpack("@ll", data)
                    stamps[-1] = s * _SECOND_NS + ns
                elif level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                    drops = int(struct.unpack("@I", data[:4])[0])
        joined = bytearray().join(p.ljust(ROW_BYTES, b"\0") for p in payloads)
        rows = np.frombuffer(joined, np.uint8).reshape(-1, ROW_BYTES)
        size = np.array([len(p) for p in payloads], np.int64)
        return Drained(rows, size, np.array(stamps, np.int64), drops, is_empty, error)


def _joined(
    parts: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]],
    drops: int | None,
    is_empty: bool,
    error: OSError | None,
) -> Drained:
    if len(parts) == 1:
        return Drained(*parts[0], drops, is_empty, error)
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Drained(np.zeros((0, ROW_BYTES), np.uint8), nothing, nothing, drops, is_empty, error)
    rows, size, stamps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return Drained(rows, size, stamps, drops, is_empty, error)
