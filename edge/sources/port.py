"""A serial port for one reader that never waits: what came so far, and what becomes of it when the adapter goes."""

from __future__ import annotations

import contextlib
import os
import termios
from typing import Final

import serial

from edge.sources import usb
from edge.sources.source import SourceError, plain_reason

_CHUNK_BYTES: Final = 1 << 16
_MOST_CHUNKS: Final = 64  # of one read, so that a flood cannot hold up the other packs
_SILENT_NS: Final = 1_000_000_000
_HELD: Final[dict[int, str]] = {}
"""The ports that this process has open, by their device number -> the channel by which they were opened."""


class SerialPort:
    """A port, 8N1. `channel` is its path, best a link of /dev/serial/by-id, or `usb:SERIAL`.

    Both follow the adapter to whatever port it gets next.
    """

    def __init__(self, channel: str, baudrate: int) -> None:
        self._channel, self._baudrate = channel, baudrate
        self._port: serial.Serial | None = None
        self._device = 0
        self._heard_ns = 0

    @property
    def is_open(self) -> bool:
        """Whether it is."""
        return self._port is not None

    def fileno(self) -> int:
        """Its number, -1 when it is not open."""
        return -1 if self._port is None else int(self._port.fileno())

    def open(self, hello: bytes = b"") -> None:
        """Opens it for us alone, forgets what lies there, and writes `hello`. SourceError: it cannot be had."""
        self.close()
        path = usb.name_of(self._channel, "tty")
        if path is None:
            raise SourceError(f"{self._channel} cannot be opened: no such adapter is plugged in")
        try:
            port = serial.Serial(path, self._baudrate, timeout=0, write_timeout=1, exclusive=True)
            try:
                _tell_silence_from_end(port.fileno())
                port.reset_input_buffer()
                if hello:
                    port.write(hello)
            except (OSError, serial.SerialException, termios.error):
                port.close()
                raise
        except (OSError, serial.SerialException, termios.error, ValueError) as error:
            raise SourceError(self._refused(path, error)) from None
        self._port, self._device = port, os.fstat(port.fileno()).st_rdev
        _HELD[self._device] = self._channel

    def _refused(self, path: str, error: Exception) -> str:
        """Why it cannot be had. Two names of one port are told: which is whose can change with the next plugging."""
        with contextlib.suppress(OSError):
            if (other := _HELD.get(os.stat(path).st_rdev, self._channel)) != self._channel:
                mend = "give the packs of one line the same channel, and others that of their own adapter"
                return f"{self._channel} cannot be opened: it is the port of {other}, which is read already: {mend}"
        return f"{self._channel} cannot be opened: {plain_reason(error)}"

    def read(self, now_ns: int) -> bytes:
        """What came since the last call. SourceError: the port has gone, or its name means another one now."""
        if self._port is None:
            raise SourceError(f"{self._channel} is not open")
        chunks = []
        try:
            for _ in range(_MOST_CHUNKS):
                chunk = os.read(self._port.fileno(), _CHUNK_BYTES)
                if not chunk:
                    raise SourceError(f"{self._channel} has gone")
                chunks.append(chunk)
        except BlockingIOError:
            pass
        except (OSError, serial.SerialException) as error:
            raise SourceError(f"{self._channel} has gone: {plain_reason(error)}") from None
        if chunks:
            self._heard_ns = now_ns
        else:
            self._find_moved(now_ns)
        return b"".join(chunks)

    def write(self, data: bytes) -> None:
        """Puts a few bytes on the line, without waiting for them. SourceError: they cannot be put there."""
        if self._port is None:
            raise SourceError(f"{self._channel} is not open")
        try:
            if os.write(self._port.fileno(), data) != len(data):
                raise SourceError(f"{self._channel} takes no more: nothing drains it")
        except OSError as error:
            raise SourceError(f"{self._channel} cannot be written: {plain_reason(error)}") from None

    def _find_moved(self, now_ns: int) -> None:
        """A port that is silent may be one that the adapter has left: SourceError when its name means another now."""
        if now_ns - self._heard_ns < _SILENT_NS:
            return
        self._heard_ns = now_ns
        path = usb.name_of(self._channel, "tty")
        try:
            is_same = path is not None and os.stat(path).st_rdev == os.fstat(self.fileno()).st_rdev
        except OSError:
            is_same = False
        if not is_same:
            raise SourceError(f"{self._channel} has gone")

    def close(self) -> None:
        """Closes it; may be called when it is not open."""
        if self._port is not None:
            with contextlib.suppress(OSError, serial.SerialException):
                self._port.close()
            self._port = None
            _HELD.pop(self._device, None)


def _tell_silence_from_end(fd: int) -> None:
    """Makes reads fail with EAGAIN while nothing is there, so that an empty read means that the line is gone."""
    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    os.set_blocking(fd, False)
