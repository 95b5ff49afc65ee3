"""SocketCAN read in bulk: every frame with the kernel's time, and every one that the kernel had to drop counted.

The socket's buffer is to hold a second of a full bus; where the kernel grants less, the source says so and asks to be
read so often that the buffer is half full at most.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from edge.clock import both_ns
from edge.config_sources import SourceConfig
from edge.sources import usb
from edge.sources.can_errors import ALL_KINDS, ERROR, BusErrors
from edge.sources.polled import HEAD_BYTES, Polled, joined
from edge.sources.recvmmsg import SO_RXQ_OVFL, SO_TIMESTAMPNS, Piece, Receiver, receiver_of
from edge.sources.source import READ_TICK_S, SourceError, only_where_allowed, plain_reason
from firmware_bridge.frames import FrameBatch
from shared.errors import ConfigError

Filter = tuple[int, int]
"""(can_id, mask), both with the bits EXTENDED and REMOTE: a frame passes when they agree wherever mask has a 1."""

FULL_LOAD: Final = 9_000
"""Frames of 8 bytes and 11 bits of id per s on a bus of 1 Mbit/s that is never idle."""
FRAME_BYTES: Final = 1024
"""What a frame takes of the receive buffer: 768 in Linux 6.1, more in newer ones."""
MOST_FILTERS: Final = 512  # of one socket (CAN_RAW_FILTER_MAX)
_WANTED_BYTES: Final = FULL_LOAD * FRAME_BYTES
_MOST_FRAMES: Final = 20_000  # of one read, so that a flood cannot hold up the other packs
_LEAST_TICK_S: Final = 0.002
_MARGIN: Final = 1.5  # the next second may be busier than any before
_SECOND_NS: Final = 1_000_000_000

_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_CAN_RAW_ERR_FILTER: Final = 2
_MEMINFO: Final = struct.Struct("@9I")
_DROPS: Final = 8  # its place in there
_FRAME: Final = struct.Struct("=IB3x8s")  # struct can_frame
_NO_ROOM: Final = (errno.ENOBUFS, errno.EAGAIN)  # nobody acknowledges, or the bus is full


def open_bus(interface: str, filters: Sequence[Filter]) -> socket.socket:
    """A CAN_RAW socket of an interface that takes classic, FD and error frames. Raises OSError."""
    if not hasattr(socket, "AF_CAN"):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    bus = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
    try:
        if 0 < len(filters) <= MOST_FILTERS:
            told = b"".join(struct.pack("=II", can_id, mask) for can_id, mask in filters)
            bus.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FILTER, told)
        bus.setsockopt(socket.SOL_CAN_RAW, _CAN_RAW_ERR_FILTER, struct.pack("=I", ALL_KINDS))
        with contextlib.suppress(OSError):  # a kernel of before 3.6 knows no FD
            bus.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
        bus.bind((interface,))
        # A bus that is down can be bound to; the socket then says so by its error.
        number = bus.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
    except OSError:
        bus.close()
        raise
    return bus


class SocketCanSource:
    """One interface of SocketCAN. `channel` is its name, or `usb:SERIAL` for that of an adapter."""

    bad_lines = 0

    def __init__(
        self,
        config: SourceConfig,
        filters: Sequence[Filter] = (),
        *,
        clocks: Callable[[], tuple[int, int]] = both_ns,
    ) -> None:
        """filters: what is of interest; none or too many = everything. clocks: see edge.clock.both_ns."""
        for key in dict(config.options).keys() - {"fd"}:  # always on; what python-can's users write
            raise ConfigError(f'options of {config.pack_id}: socketcan has no option "{key}": leave it out')
        self._config = config
        self._filters = tuple(filters)
        self._clocks = clocks
        self._bus: socket.socket | None = None
        self._receiver: Receiver | None = None
        self._interface = config.channel
        self._errors = BusErrors()
        self._polled: list[Polled] = []  # not yet given on
        self._newest: Piece | None = None  # that this socket gave
        self._failed: OSError | None = None  # what ended a read that still had frames; told by the next
        self._seen_drops = 0  # the socket's own counter, 32 bits
        self._emptied_ns = 0  # when the buffer was empty last, mono_ns
        self._rate = float(FULL_LOAD)
        self.drops = 0
        self.buffer_bytes: int | None = None

    @property
    def error_frames(self) -> Mapping[str, int]:
        """Error frames by kind since the start."""
        return self._errors.counts

    @property
    def notes(self) -> tuple[str, ...]:
        """See Source."""
        notes = [self._small_buffer()] if self.buffer_bytes is not None and self.buffer_bytes < _WANTED_BYTES else []
        if self._errors.is_off:
            notes.append(
                f"{self._interface} is bus-off: the controller is silent until `ip link set {self._interface} type can "
                "restart`; with `restart-ms 100` it comes back by itself"
            )
        return tuple(notes)

    @property
    def tick_s(self) -> float:
        """See Source. A full bus leaves the buffer at most half full in that time."""
        if self.buffer_bytes is None:
            return READ_TICK_S
        return min(READ_TICK_S, max(_LEAST_TICK_S, self._half_s()))

    def open(self) -> None:
        """Binds to the interface with as large a receive buffer as the kernel grants."""
        self.close()
        name = usb.name_of(self._config.channel, "net")
        if name is None:
            raise SourceError(f"{self._config.channel} cannot be opened: no such adapter is plugged in")
        try:
            bus = open_bus(name, self._filters)
        except OSError as error:
            raise SourceError(f"{name} cannot be opened: {_why(error, name)}") from None
        bus.setblocking(False)
        bus.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        bus.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self.buffer_bytes = _enlarged(bus, _WANTED_BYTES)
        self._newest, self._failed, self._seen_drops, self._errors.is_off = None, None, 0, False
        self._emptied_ns = self._clocks()[0]
        # Last, as the loop counts what this thread opens.
        self._receiver, self._interface, self._bus = receiver_of(bus), name, bus

    def poll(self, t_ns: int) -> int:
        """See Source. Error frames are counted, and left out."""
        if self._receiver is None:
            raise SourceError(f"{self._config.channel} is not open")
        if self._failed is not None:
            raise SourceError(f"{self._interface} has gone: {_why(self._failed, self._interface)}")
        drained = self._receiver.drain(_MOST_FRAMES)
        if drained.error is not None and not self._is_up_again(drained.error):
            self._failed = drained.error
        self._newest = drained.pieces[-1] if drained.pieces else self._newest
        mono_ns, wall_ns = self._clocks()
        pieces = [kept for piece in drained.pieces if len((kept := self._without_errors(piece)).slots)]
        count = sum(len(piece.slots) for piece in pieces)
        self._note_rate(sum(len(piece.slots) for piece in drained.pieces), mono_ns)  # of all that takes room
        if count:
            times = (count, t_ns, mono_ns - wall_ns, min(self._emptied_ns, mono_ns), mono_ns)
            self._polled.append(Polled(pieces, times))
        self._emptied_ns = mono_ns if drained.is_empty else self._emptied_ns
        return self.poll(t_ns) if self._failed is not None and not count else count

    def frames(self) -> FrameBatch:
        """See Source. Each with the kernel's time on the agent's clock, or where it tells none, that of the poll."""
        if not self._polled:
            return FrameBatch.empty(self._config.channel)
        polled, self._polled = self._polled, []
        return joined(self._config.channel, polled)

    def read(self, t_ns: int) -> FrameBatch:
        """See Source."""
        self.poll(t_ns)
        self.count_drops()
        return self.frames()

    def send(self, can_id: int, payload: bytes) -> bool:
        """See SendingSource."""
        only_where_allowed(self._config)
        if self._bus is None:
            raise SourceError(f"{self._config.channel} is not open")
        try:
            self._bus.send(_FRAME.pack(can_id, len(payload), payload))
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise SourceError(f"{self._interface} cannot be asked: {_why(error, self._interface)}") from None
        return True

    def close(self) -> None:
        """Lets the interface go."""
        if self._bus is not None:
            self.count_drops()
            self._bus.close()
        self._bus = self._receiver = self.buffer_bytes = None

    def _without_errors(self, piece: Piece) -> Piece:
        can_id = piece.slots[:, :4].view(np.uint32)[:, 0]
        if not np.bitwise_or.reduce(can_id) & ERROR:
            self._errors.is_off = False  # who is off hears nothing
            return piece
        is_error = (can_id & ERROR) != 0
        self._errors.take(can_id[is_error], piece.slots[is_error, HEAD_BYTES:])
        if not is_error[-1]:
            self._errors.is_off = False
        return piece.take(~is_error)

    def count_drops(self) -> int:
        """See Source. The socket itself also tells of drops after which no frame has come yet."""
        if self._bus is not None:
            try:
                told = _MEMINFO.unpack(self._bus.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_DROPS]
            except (OSError, struct.error):  # before Linux 4.12
                told = self._newest.drops() if self._newest is not None else None
            if told is not None:
                self.drops += (told - self._seen_drops) & 0xFFFF_FFFF
                self._seen_drops = told
        return self.drops

    def _note_rate(self, frames: int, mono_ns: int) -> None:
        """Remembers how busy the bus can be, where that is more than a full classic one."""
        past_s = (mono_ns - self._emptied_ns) / _SECOND_NS
        if past_s > _LEAST_TICK_S:
            self._rate = max(FULL_LOAD, _MARGIN * frames / past_s, 0.99 * self._rate)

    def _half_s(self) -> float:
        """How long the fullest bus takes to fill half of the buffer."""
        assert self.buffer_bytes is not None
        return self.buffer_bytes / 2 / FRAME_BYTES / self._rate

    def _small_buffer(self) -> str:
        assert self.buffer_bytes is not None
        holds_ms = 1000 * self.buffer_bytes / _WANTED_BYTES
        return (
            f"the kernel grants {self._interface} a receive buffer of {self.buffer_bytes >> 10} KiB, which holds "
            f"{holds_ms:.0f} ms of a full bus instead of 1 s: a longer stall loses frames (and counts them); "
            f"`sysctl -w net.core.rmem_max={_WANTED_BYTES // 2}` mends it, and so does CAP_NET_ADMIN"
        )

    def _is_up_again(self, error: OSError) -> bool:
        """Whether the bus only went down and up between two reads: the socket is still bound, nothing is to be done."""
        if error.errno != errno.ENETDOWN or self._bus is None:
            return False
        try:
            return bool(_flags(self._interface) & 1) and self._bus.getsockname()[0] == self._interface
        except OSError:
            return False


def _enlarged(bus: socket.socket, wanted: int) -> int:
    """Makes the receive buffer `wanted` bytes, as far as the kernel lets; returns what it is."""
    # The kernel doubles what is asked for, to make room for its own bookkeeping, which is counted here already.
    try:
        bus.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted // 2)
    except OSError:
        bus.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted // 2)
    return bus.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _flags(interface: str) -> int:
    """IFF_UP and its like."""
    with open(f"/sys/class/net/{interface}/flags", encoding="ascii") as file:
        return int(file.read(), 16)


def _why(error: OSError, interface: str) -> str:
    if error.errno == errno.ENETDOWN:
        return f"it is down; `ip link set {interface} up` starts it"
    if error.errno == errno.EAFNOSUPPORT:
        return "this system's kernel has no SocketCAN"
    return plain_reason(error)
