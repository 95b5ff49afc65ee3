"""A TCP proxy that ends each connection after so many bytes have gone back through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass


@dataclass
class Cutter:
    """cut_bytes: None = never. back_bytes: all that went back to the client, heads too."""

    url: str
    cut_bytes: int | None = None
    back_bytes: int = 0
    connections: int = 0


@contextmanager
def cutting(port: int) -> Iterator[Cutter]:
    """In front of 127.0.0.1:port."""
    listener = socket.create_server(("127.0.0.1", 0))
    cutter = Cutter(f"http://127.0.0.1:{listener.getsockname()[1]}")

    def forth(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)

    def back(client: socket.socket, server: socket.socket) -> None:
        left = cutter.cut_bytes
        with client, server, suppress(OSError):
            while data := server.recv(65536 if left is None else min(65536, left)):
                client.sendall(data)
                cutter.back_bytes += len(data)
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        client.shutdown(socket.SHUT_RDWR)  # `forth` still reads from it: closing would not end it
                        return

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                cutter.connections += 1
                server = socket.create_connection(("127.0.0.1", port))
                for way in (forth, back):
                    threading.Thread(target=way, args=(client, server), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield cutter
    finally:
        listener.close()
