"""CAN buses as sources: slcan adapters read in bulk by our own parser, everything else through python-can."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Any, Final

from edge.config_sources import SourceConfig
from edge.sources.port import SerialPort
from edge.sources.socketcan import Filter, SocketCanSource
from edge.sources.source import Listed, SendingSource, SourceError, only_where_allowed, plain_reason
from firmware_bridge import python_can
from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch
from firmware_bridge.slcan import SlcanParser, encode
from shared.errors import ConfigError

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


def source_of(config: SourceConfig, filters: Sequence[Filter] = ()) -> SendingSource:
    """The source for a [[source]]. ConfigError if it cannot be had like that.

    filters: what is of interest; a source that cannot filter gives everything.
    """
    if config.interface == "slcan":
        return SlcanSource(config)
    return SocketCanSource(config, filters) if config.interface == "socketcan" else PythonCanSource(config)


class SlcanSource(Listed):
    """A USB-CAN adapter (or a simulated car) that speaks slcan on a serial port or pty.

    `channel` is the port's path, best a link of /dev/serial/by-id, or `usb:SERIAL`: both follow the adapter to
    whatever port it gets next.
    """

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config.channel)
        if config.bitrate not in _BITRATES:
            known = ", ".join(map(str, _BITRATES))
            raise ConfigError(f"bitrate = {config.bitrate} of {config.pack_id}: slcan adapters know {known}")
        self._config = config
        self._port = SerialPort(config.channel, config.tty_baudrate)
        self._parser = SlcanParser(config.channel)

    @property
    def bad_lines(self) -> int:  # type: ignore[override]
        """Lines that were neither a frame nor a reply."""
        return self._parser.bad_lines

    def open(self) -> None:
        """Opens the port for us alone and starts the adapter: close, bitrate, then listen (or open)."""
        start = "L" if self._config.listen_only else "O"
        self._port.open(f"C\r{_BITRATES[self._config.bitrate]}\r{start}\r".encode())

    def _received(self, t_ns: int) -> FrameBatch:
        """The frames whose line ended since the last call."""
        data = self._port.read(t_ns)
        return self._parser.feed(data, t_ns) if data else FrameBatch.empty(self._config.channel)

    def send(self, can_id: int, payload: bytes) -> bool:
        """See SendingSource."""
        only_where_allowed(self._config)
        self._port.write(encode(FrameBatch.of(self._config.channel, [(0, can_id, payload)])))
        return True

    def close(self) -> None:
        """Closes the port."""
        self._port.close()


class PythonCanSource(Listed):
    """Any other interface of python-can, which is imported only when it is needed."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__(config.channel)
        can = python_can.load()
        if config.interface not in can.VALID_INTERFACES:
            raise ConfigError(
                f'interface = "{config.interface}" of {config.pack_id} is not one of slcan, socketcan, '
                + ", ".join(sorted(set(can.VALID_INTERFACES) - {"slcan", "socketcan"}))
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
        except Exception as error:  # vendors' code raises anything: a NameError where their driver is missing
            raise SourceError(f"{config.interface} {config.channel} cannot be opened: {plain_reason(error)}") from None
        with contextlib.suppress(OSError, AttributeError):
            self._bus.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)

    def _received(self, t_ns: int) -> FrameBatch:
        """The frames received since the last call; error frames are counted and left out."""
        if self._bus is None:
            raise SourceError(f"{self._config.channel} is not open")
        rows: list[tuple[int, int, bytes]] = []
        try:
            while len(rows) < _MOST_FRAMES and (message := self._bus.recv(timeout=0)) is not None:
                if message.is_error_frame:
                    self.error_frames["error"] = self.error_frames.get("error", 0) + 1
                else:
                    flags = EXTENDED * message.is_extended_id | REMOTE * message.is_remote_frame
                    rows.append((t_ns, message.arbitration_id | flags, bytes(message.data)))
        except Exception as error:  # see open
            raise SourceError(f"{self._config.channel} has gone: {plain_reason(error)}") from None
        return FrameBatch.of(self._config.channel, rows)

    def send(self, can_id: int, payload: bytes) -> bool:
        """See SendingSource."""
        only_where_allowed(self._config)
        if self._bus is None:
            raise SourceError(f"{self._config.channel} is not open")
        message = self._can.Message(
            arbitration_id=can_id & ~(EXTENDED | REMOTE), is_extended_id=bool(can_id & EXTENDED), data=payload
        )
        try:
            self._bus.send(message, timeout=0)
        except self._can.CanOperationError:
            return False
        except Exception as error:  # see open
            raise SourceError(f"{self._config.channel} has gone: {plain_reason(error)}") from None
        return True

    def close(self) -> None:
        """Shuts the bus down."""
        if self._bus is not None:
            with contextlib.suppress(Exception):
                self._bus.shutdown()
            self._bus = None
