"""`/metrics` and `/health` of a process without an API: on a thread of its own, so that a busy loop still answers."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shared.errors import ConfigError

log = logging.getLogger(__name__)

_PATHS: Final = "This is /metrics and /health.\n"
Ask = Callable[[], dict[str, bool]]
"""Name of what the process needs (`database`, `bus`) -> whether it answers now. Called from other threads."""


class HealthServer:
    """Serves from `start` to `stop`. /health is 200 {"status": "ok", ...} or 503 {"status": "degraded", ...}."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, ask: Ask, setting: str) -> None:
        """port 0 = any free one. ConfigError, naming `setting`, when nobody can listen there."""

        class Handler(_Handler):
            pass

        Handler.registry, Handler.ask = registry, staticmethod(ask)
        try:
            self._server = _Server((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"metrics cannot listen on {host}:{port}: {error}; set {setting}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="health", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Answers from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def health(answers: dict[str, bool], now: datetime) -> tuple[int, dict[str, str]]:
    """(HTTP status, body) of /health."""
    good = all(answers.values())
    parts = {name: "ok" if up else "down" for name, up in answers.items()}
    body = {"status": "ok" if good else "degraded", **parts, "timestamp": now.isoformat(timespec="milliseconds")}
    return 200 if good else 503, body


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    ask: Ask
    timeout = 10  # s without a word from the client

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/health":
            status, body = health(self.ask(), datetime.now(UTC))
            self._answer(status, "application/json", json.dumps(body).encode())
        elif path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest(self.registry))
        else:
            self._answer(404, "text/plain; charset=utf-8", _PATHS.encode())

    do_HEAD = do_GET

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)
