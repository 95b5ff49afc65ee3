"""Runs the API process: the socket first (so that a busy port is one sentence), then uvicorn until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from shared.errors import ConfigError

_LOOPBACK: Final = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
_STOP_WITHIN_S: Final = 2
_KEEP_ALIVE_S: Final = 75  # longer than devices are silent in any mode: each sends over the connection it has


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to host:port; ConfigError in one sentence if that cannot be."""
    family = _LOOPBACK.get(host)
    if family is None:
        raise ConfigError(
            f"API_HOST {host!r} is not loopback: this release has no login yet, so it serves only this machine; "
            "set API_HOST=127.0.0.1."
        )
    # IPPROTO_TCP in so many words: asyncio sets TCP_NODELAY on nothing else; without it answers wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(256)  # bind alone lets two sockets share a port under SO_REUSEADDR until one listens
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use; stop what uses it or set API_PORT.") from error
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); check API_HOST and API_PORT.") from error
    return listener


class Server(uvicorn.Server):
    """uvicorn that lets the open streams go first, and leaves the exit code to us.

    `before_stop` runs on the event loop when the end begins, to end what would not end by itself.
    """

    def __init__(self, app: ASGIApp, before_stop: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
            ws_max_size=1 << 16,
        )
        super().__init__(config)
        self._before_stop = before_stop

    def stop(self) -> None:
        """Lets `run` return within seconds; from any thread."""
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(each, self.stop)
        yield
        for each in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(each)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_stop()
        await super().shutdown(sockets)
