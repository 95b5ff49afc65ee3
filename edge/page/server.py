"""A small WSGI server for the local page and for metrics: threads, no framework; reads, but for `edge.page.wishes`."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from edge.config import Listen
from edge.page.wishes import WISH_PATH, Wishes
from shared.errors import ConfigError, PacktwinError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_FOLDER: Final = Path(__file__).parent
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/dom.js": ("dom.js", "text/javascript; charset=utf-8"),
    "/prediction.js": ("prediction.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_IDLE_S: Final = 60.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_HEADERS: Final = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'"),
]


class PageApp:
    """GET / (the page), /status.json (what it shows) and /health; POST /capture where `wishes` answers that."""

    def __init__(self, status: Callable[[], dict[str, Any]], wishes: Wishes | None = None) -> None:
        self._status, self._wishes = status, wishes
        self._files = {path: ((_FOLDER / name).read_bytes(), kind) for path, (name, kind) in _FILES.items()}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == WISH_PATH and environ["REQUEST_METHOD"] == "POST" and self._wishes is not None:
            return _answer(start_response, *self._wishes.answer(environ))
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _answer(start_response, "405 Method Not Allowed", b"only GET\n", "text/plain")
        if path == "/status.json":
            body = json.dumps(self._status(), allow_nan=False).encode()
            return _answer(start_response, "200 OK", body, "application/json")
        if path == "/health":
            return _answer(start_response, "200 OK", b'{"status": "ok"}', "application/json")
        if path in self._files:
            return _answer(start_response, "200 OK", *self._files[path])
        return _answer(start_response, "404 Not Found", b"nothing here, the page is at /\n", "text/plain")


def _answer(start_response: StartResponse, status: str, body: bytes, kind: str) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *_HEADERS])
    return [body]


@contextlib.contextmanager
def serve_page(listen: Listen, status: Callable[[], dict[str, Any]], wishes: Wishes | None = None) -> Iterator[str]:
    """Serves the local page until the end of the block; yields its address (with the port really taken)."""
    with serve_wsgi(listen, PageApp(status, wishes), "page") as address:
        yield address


@contextlib.contextmanager
def serve_wsgi(listen: Listen, app: WSGIApplication, what: str) -> Iterator[str]:
    """Serves `app` in threads until the end of the block. ConfigError when the port is taken.

    On a loopback address only requests for this machine's own names are answered, so that no web page from elsewhere
    can read along by pointing its own name here.
    """
    try:
        server = make_server(listen.host, listen.port, _guarded(app, listen.host), _Server, _Handler)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"{what}: cannot listen on {listen.host}:{listen.port} ({why.lower()}): "
            f"stop who does, or set {listen.variable} or [{what}] port to a free one"
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(_IDLE_S,), name=what, daemon=True)
    thread.start()
    host = "127.0.0.1" if listen.host in ("", "0.0.0.0", "::") else listen.host
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        with contextlib.suppress(OSError):  # wakes the thread, which else would look up only after _IDLE_S
            server.socket.shutdown(socket.SHUT_RDWR)
        server.shutdown()
        server.server_close()


def _guarded(app: WSGIApplication, host: str) -> WSGIApplication:
    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if host in _LOOPBACK and not _asks_this_machine(environ.get("HTTP_HOST", "localhost")):
            return _answer(start_response, "403 Forbidden", b"ask for localhost\n", "text/plain")
        try:
            body = app(environ, start_response)
        except PacktwinError as error:
            return _answer(start_response, "503 Service Unavailable", f"{error}\n".encode(), "text/plain")
        return body if environ["REQUEST_METHOD"] != "HEAD" else ()

    return guarded


def _asks_this_machine(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").hostname in _LOOPBACK
    except ValueError:
        return False


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Only a bug is worth a word: a peer that says nothing or goes away is none."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def server_bind(self) -> None:
        """Binds without asking the resolver for this machine's name: a box without a network must not wait for it."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Handler(WSGIRequestHandler):
    timeout = 10  # s; a connection that says nothing must not hold a thread for ever

    def address_string(self) -> str:
        """The peer's number; its name is nobody's business and may take long to find out."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""
