"""The two ways onto a bus: a pty that behaves like a USB-CAN adapter, and any interface that python-can knows."""

from __future__ import annotations

import contextlib
import logging
import os
import termios
import tty
from pathlib import Path
from typing import Final, Protocol

from firmware_bridge import python_can, slcan
from firmware_bridge.frames import EXTENDED, FrameBatch
from shared.errors import ConfigError, PacktwinError

_QUEUE_BYTES: Final = 256 * 1024
_COMMAND_BYTES: Final = 256


class Bus(Protocol):
    """Where the frames of one car go. `dropped`: frames that did not get out; `where`: what to tell the user."""

    where: str
    dropped: int

    def send(self, frames: FrameBatch) -> None:
        """Sends the frames, or counts those that it cannot send now; never waits."""

    def fileno(self) -> int | None:
        """What to watch for `serve`; None = nothing."""

    @property
    def wants_to_write(self) -> bool:
        """Something waits until `fileno` is writable."""

    def serve(self) -> None:
        """Does what can be done now: answers commands, sends what waits."""

    def close(self) -> None:
        """Gives the bus back."""


class SlcanPty:
    """A pseudo terminal that speaks slcan as an adapter does, with a stable link to it at `link`.

    Frames flow while the channel is open (`O` or `L` .. `C`). When its reader is slow, frames are dropped and counted.
    """

    def __init__(self, link: Path) -> None:
        self.where = str(link)
        self.dropped = 0
        self._link = link
        self._open = False
        self._commands = b""
        self._queue = bytearray()
        try:
            # The simulator keeps the slave side open too, so that the settings stay and a leaving reader is no hang-up.
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            fresh = link.with_name(f".{link.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(os.ttyname(self._slave))
            fresh.replace(link)
        except OSError as error:
            raise PacktwinError(f"cannot make the serial port {link} ({error.strerror}): free or allow it") from error

    def fileno(self) -> int:
        """The master side."""
        return self._master

    @property
    def wants_to_write(self) -> bool:
        """Frames wait for the reader."""
        return bool(self._queue)

    def send(self, frames: FrameBatch) -> None:
        """Queues what the queue has room for, drops the rest, and writes what the pty takes."""
        if not self._open:
            return
        lines = slcan.encode(frames)
        room = _QUEUE_BYTES - len(self._queue)
        if len(lines) > room:
            lines = lines[: lines.rfind(b"\r", 0, max(room, 0)) + 1]
            self.dropped += len(frames) - lines.count(b"\r")
        self._queue += lines
        self._flush()

    def serve(self) -> None:
        """Answers commands of the reader and goes on writing."""
        with contextlib.suppress(BlockingIOError):
            self._commands += os.read(self._master, 4096)
        *commands, rest = self._commands.split(b"\r")
        self._commands = rest[-_COMMAND_BYTES:]
        for command in commands:
            self._queue += self._answer(command)
        self._flush()

    def close(self) -> None:
        """Removes the link, if it still is this bus's, and the terminal."""
        with contextlib.suppress(OSError):
            if self._link.readlink() == Path(os.ttyname(self._slave)):
                self._link.unlink()
        os.close(self._master)
        os.close(self._slave)

    def _answer(self, command: bytes) -> bytes:
        kind = command[:1]
        if kind in (b"O", b"L"):
            self._open = True
            return b"\r"
        if kind == b"C":
            # What an earlier reader left unread must not greet the next one.
            self._open = False
            self._queue.clear()
            termios.tcflush(self._slave, termios.TCIFLUSH)
            return b"\r"
        if kind in (b"t", b"r"):
            return b"z\r"
        if kind in (b"T", b"R"):
            return b"Z\r"
        replies = {b"": b"\r", b"S": b"\r", b"s": b"\r", b"V": b"V1013\r", b"N": b"NPTWN\r", b"F": b"F00\r"}
        return replies.get(kind, b"\r" if command == b"Z0" else b"\a")

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._queue:
                del self._queue[: os.write(self._master, self._queue)]


class CanBus:
    """A bus of python-can."""

    def __init__(self, interface: str, channel: str) -> None:
        try:
            can = python_can.load()
        except ImportError as error:
            raise ConfigError("other interfaces than slcan need python-can: install packtwin[edge]") from error
        logging.getLogger("can").setLevel(logging.CRITICAL)  # what goes wrong is said below, once
        self.where = f"{interface}:{channel}"
        self.dropped = 0
        self._can = can
        try:
            self._bus = can.Bus(channel=channel, interface=interface)
        except (can.CanError, OSError, ValueError, ImportError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"cannot open channel {channel} of {interface} ({reason}): check --interface and --channel"
            ) from error

    def fileno(self) -> None:
        """Nothing to watch."""

    wants_to_write = False

    def send(self, frames: FrameBatch) -> None:
        """Hands the frames to python-can one by one; what it refuses (queue full, interface down) is dropped."""
        for _, can_id, payload in frames.rows():
            message = self._can.Message(
                arbitration_id=can_id & 0x1FFF_FFFF, is_extended_id=bool(can_id & EXTENDED), data=payload
            )
            try:
                self._bus.send(message)
            except (self._can.CanError, OSError):
                self.dropped += 1

    def serve(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Shuts python-can's bus down."""
        self._bus.shutdown()
