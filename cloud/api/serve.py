"""Runs the API process: the socket first (so that a busy port is one sentence), then uvicorn until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from cloud.tls import Served
from shared.errors import ConfigError

log = logging.getLogger(__name__)

_REFRESH_EVERY_S: Final = 60
_STOP_WITHIN_S: Final = 2
_KEEP_ALIVE_S: Final = 75  # longer than devices are silent in any mode: each sends over the connection it has


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to host:port; ConfigError in one sentence if that cannot be."""
    family, address = _resolved(host, port)
    # IPPROTO_TCP in so many words: asyncio sets TCP_NODELAY on nothing else; without it answers wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        listener.bind(address)
        listener.listen(256)  # bind alone lets two sockets share a port under SO_REUSEADDR until one listens
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is in use; stop what uses it or set API_PORT.") from error
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}); check API_HOST and API_PORT.") from error
    return listener


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """(family, address) of a host's name or number; IPv4 first, as names like localhost have both."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE) if host else []
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"API_HOST={host[:80]!r} is no address of this machine ({error}).") from error
    if not found:
        raise ConfigError("API_HOST is empty; set an address of this machine, such as 127.0.0.1.")
    family, *_, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    return family, address


class Server(uvicorn.Server):
    """uvicorn that lets the open streams go first, and leaves the exit code to us.

    `before_stop` runs on the event loop when the end begins, to end what would not end by itself. `served`: with TLS.
    """

    def __init__(self, app: ASGIApp, before_stop: Callable[[], None], served: Served | None = None) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_STOP_WITHIN_S,
            timeout_keep_alive=_KEEP_ALIVE_S,
            ws_max_size=1 << 16,
            callback_notify=self._refresh if served else None,
            timeout_notify=_REFRESH_EVERY_S,
        )
        super().__init__(config)
        self._before_stop = before_stop
        self._served = served
        if served is not None:
            config.load()
            config.ssl = served.context

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

    async def _refresh(self) -> None:
        """Serves a certificate that was renewed, or must be; the one that is served stays where that fails."""
        assert self._served is not None
        try:
            if self._served.refresh(datetime.now(UTC)):
                log.info("serving the renewed certificate")
        except ConfigError as error:
            log.warning("the certificate cannot be renewed, the earlier one is served: %s", error)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_stop()
        await super().shutdown(sockets)
