"""A bus without a CAN kernel: datagrams of 16 or 72 bytes on 127.0.0.1 look to a reader just as frames do."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from firmware_bridge.frames import CLASSIC_BYTES


class LoopbackBus:
    """Stands in for `edge.sources.socketcan.open_bus`; `send` is the other end."""

    def __init__(self) -> None:
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.opened: list[tuple[str, Sequence[tuple[int, int]]]] = []
        self.receiver: socket.socket | None = None

    def __call__(self, interface: str, filters: Sequence[tuple[int, int]]) -> socket.socket:
        self.opened.append((interface, filters))
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.receiver.bind(("127.0.0.1", 0))
        self._sender.connect(self.receiver.getsockname())
        return self.receiver

    def send(self, can_id: int, payload: bytes = b"") -> None:
        width = CLASSIC_BYTES if len(payload) <= CLASSIC_BYTES else 64
        self.send_raw(struct.pack("=IB3x", can_id, len(payload)) + payload.ljust(width, b"\0"))

    def send_raw(self, datagram: bytes) -> None:
        self._sender.send(datagram)

    def close(self) -> None:
        self._sender.close()
