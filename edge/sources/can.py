"""CAN buses as sources: slcan adapters read in bulk by our own parser, everything else through python-can."""

from __future__ import annotations

import contextlib
import os
import socket
import termios
from typing import Any, Final, Protocol

import serial

from edge.config import SourceConfig
from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch
from firmware_bridge.slcan import SlcanParser
from shared.errors import ConfigError, PacktwinError

_CHUNK_BYTES: Final = 1 << 16
_MOST_CHUNKS: Final = 64  # of one tick, so that a flood cannot hold up the other packs
_MOST_FRAMES: Final = 20_000
_RECEIVE_BYTES: Final = 4 << 20
_BITRATES: Final = {
    10_000: "S0",
    20_000: "S1",
    50_000: "S2",
    100_000: "S3",
    125_000: "S4",
    250_000: "S5",
    500_000: "S6",
    800_000: "S7",
    1_000_000: "S8",
}


class SourceError(PacktwinError):
    """The bus cannot be opened or read now; worth another try later."""


class Source(Protocol):
    """A bus. `open` may take long, `read` never does; both raise SourceError."""

    @property
    def bad_lines(self) -> int:
        """Junk lines since the start."""

    def open(self) -> None:
        """Makes the bus ready; after a SourceError it may be called again."""

    def read(self, t_ns: int) -> FrameBatch:
        """What came since the last call, all of it stamped with `t_ns`."""

    def close(self) -> None:
        """Lets the bus go; may be called when it is not open."""


def source_of(config: SourceConfig) -> Source:
    """The source for a [[source]]. ConfigError if it cannot be had like that."""
    return SlcanSource(config) if config.interface == "slcan" else PythonCanSource(config)


class SlcanSource:
    """A USB-CAN adapter (or a simulated car) that speaks slcan on a serial port or pty."""

    def __init__(self, config: SourceConfig) -> None:
        if config.bitrate not in _BITRATES:
            known = ", ".join(map(str, _BITRATES))
            raise ConfigError(f"bitrate = {config.bitrate} of {config.pack_id}: slcan adapters know {known}")
        self._config = config
        self._port: serial.Serial | None = None
        self._parser = SlcanParser(config.channel)

    @property
    def bad_lines(self) -> int:
        """Lines that were neither a frame nor a reply."""
        return self._parser.bad_lines

    def open(self) -> None:
        """Opens the port for us alone and starts the adapter: close, bitrate, then listen (or open)."""
        self.close()
        channel = self._config.channel
        start = "L" if self._config.listen_only else "O"
        try:
            port = serial.Serial(channel, self._config.tty_baudrate, timeout=0, write_timeout=1, exclusive=True)
            try:
                _tell_silence_from_end(port.fileno())
                port.reset_input_buffer()
                port.write(f"C\r{_BITRATES[self._config.bitrate]}\r{start}\r".encode())
            except (OSError, serial.SerialException, termios.error):
                port.close()
                raise
        except (OSError, serial.SerialException, termios.error, ValueError) as error:
            raise SourceError(f"{channel} cannot be opened: {_why(error)}") from None
        self._port = port

    def read(self, t_ns: int) -> FrameBatch:
        """The frames whose line ended since the last call."""
        if self._port is None:
            raise SourceError(f"{self._config.channel} is not open")
        chunks = []
        try:
            for _ in range(_MOST_CHUNKS):
                chunk = os.read(self._port.fileno(), _CHUNK_BYTES)
                if not chunk:
                    raise SourceError(f"{self._config.channel} has gone")
                chunks.append(chunk)
        except BlockingIOError:
            pass
        except (OSError, serial.SerialException) as error:
            raise SourceError(f"{self._config.channel} has gone: {_why(error)}") from None
        if not chunks:
            return FrameBatch.empty(self._config.channel)
        return self._parser.feed(b"".join(chunks), t_ns)

    def close(self) -> None:
        """Closes the port."""
        if self._port is not None:
            with contextlib.suppress(OSError, serial.SerialException):
                self._port.close()
            self._port = None


class PythonCanSource:
    """SocketCAN or any other interface of python-can, which is imported only when it is needed."""

    bad_lines = 0

    def __init__(self, config: SourceConfig) -> None:
        import can

        if config.interface not in can.VALID_INTERFACES:
            raise ConfigError(
                f'interface = "{config.interface}" of {config.pack_id} is not one of slcan, '
                + ", ".join(sorted(set(can.VALID_INTERFACES) - {"slcan"}))
            )
        self._config = config
        self._can: Any = can
        self._bus: Any = None

    def open(self) -> None:
        """Opens the bus with a receive buffer that outlasts a stall of this process."""
        self.close()
        config = self._config
        try:
            self._bus = self._can.Bus(
                interface=config.interface, channel=config.channel, bitrate=config.bitrate, **dict(config.options)
            )
        except (self._can.CanError, OSError, ValueError, TypeError, ImportError, AttributeError) as error:
            raise SourceError(f"{config.interface} {config.channel} cannot be opened: {_why(error)}") from None
        with contextlib.suppress(OSError, AttributeError):
            self._bus.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)

    def read(self, t_ns: int) -> FrameBatch:
        """The frames received since the last call; error frames are left out."""
        if self._bus is None:
            raise SourceError(f"{self._config.channel} is not open")
        rows: list[tuple[int, int, bytes]] = []
        try:
            while len(rows) < _MOST_FRAMES and (message := self._bus.recv(timeout=0)) is not None:
                if not message.is_error_frame:
                    flags = EXTENDED * message.is_extended_id | REMOTE * message.is_remote_frame
                    rows.append((t_ns, message.arbitration_id | flags, bytes(message.data)))
        except (self._can.CanError, OSError) as error:
            raise SourceError(f"{self._config.channel} has gone: {_why(error)}") from None
        return FrameBatch.of(self._config.channel, rows)

    def close(self) -> None:
        """Shuts the bus down."""
        if self._bus is not None:
            with contextlib.suppress(self._can.CanError, OSError):
                self._bus.shutdown()
            self._bus = None


def _tell_silence_from_end(fd: int) -> None:
    """Makes reads fail with EAGAIN while nothing is there, so that an empty read means that the line is gone."""
    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    os.set_blocking(fd, False)


def _why(error: Exception) -> str:
    """The plain reason, without what the libraries put around it."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error) or type(error).__name__
