"""A real HTTP server for a repository's folder, Range and all, that can be told to behave badly."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fakes.cloud import FakeCloud

from shared.wire import decode_batch, encode_receipt

PREFIX = "/device/v1/image/"


class ImageServer:
    """What it shall do, and what it did. Set the fields at any time.

    cut_bytes: the connection is reset after so many bytes of a target; drip_s: a byte of a body each so many seconds;
    no_range: answers with the whole file; extra: bytes after the body; chunked: no Content-Length; alter(path, body):
    what is sent instead; redirect: where each request is sent to; away: every answer is 503. cloud, desired: what takes
    batches, and what /device/v1/desired says.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.cut_bytes: int | None = None
        self.drip_s: float | None = None
        self.no_range = False
        self.chunked = False
        self.extra = b""
        self.alter: Callable[[str, bytes], bytes] = lambda path, body: body
        self.redirect: str | None = None
        self.away = False
        self.cloud: FakeCloud | None = None
        self.desired: str | None = None
        self.target_bytes = 0
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.on_request: Callable[[str], None] = lambda path: None
        self.ended = threading.Event()


@contextmanager
def serving(server: ImageServer, tls: Any = None) -> Iterator[str]:
    """Serves until the block is left; yields the origin's URL. tls: an ssl.SSLContext."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append(self.path)
            server.tokens.add(self.headers.get("Authorization"))
            server.on_request(self.path)
            if self.path.startswith("/device/v1/desired"):
                self._whole(json.dumps({"mode": None, "bundle": server.desired}).encode(), "application/json")
                return
            if server.redirect is not None:
                self._head(302, {"Location": server.redirect + self.path, "Content-Length": "0"})
                return
            name = self.path.removeprefix(PREFIX)
            path = server.folder / name
            if server.away or name == self.path or not path.is_file():
                self._head(503 if server.away else 404, {"Content-Length": "0"})
                return
            self._file(name, server.alter(name, path.read_bytes()))

        def do_POST(self) -> None:
            assert server.cloud is not None
            batch = decode_batch(self.rfile.read(int(self.headers["Content-Length"])))
            self._whole(encode_receipt(server.cloud.receive(batch)), "application/x-protobuf")

        def _whole(self, body: bytes, kind: str) -> None:
            self._head(200, {"Content-Type": kind, "Content-Length": str(len(body))})
            self.wfile.write(body)

        def _file(self, name: str, body: bytes) -> None:
            first, status = 0, 200
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            headers = {}
            if asked and not server.no_range:
                first, status = int(asked[1]), 206
                if first >= len(body):
                    self._head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
                    return
                headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
            part = body[first:] + server.extra
            if server.chunked:
                self._head(status, headers | {"Transfer-Encoding": "chunked"})
                self._send(f"{len(part):x}\r\n".encode() + part + b"\r\n0\r\n\r\n")
                return
            self._head(status, headers | {"Content-Length": str(len(part))})
            target = name.startswith("targets/")
            if target and server.cut_bytes is not None and len(part) > server.cut_bytes:
                self._send(part[: server.cut_bytes])
                server.target_bytes += server.cut_bytes
                self._reset()
                return
            server.target_bytes += len(part) * target  # before: the other side may ask as soon as it has the last byte
            self._send(part)

        def _send(self, part: bytes) -> None:
            if server.drip_s is None:
                self.wfile.write(part)
                return
            for i in range(len(part)):
                if server.ended.wait(server.drip_s):
                    return
                self.wfile.write(part[i : i + 1])

        def _reset(self) -> None:
            """What was sent arrives, then the connection is gone."""
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
            self.close_connection = True

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """The client went away: that is what most of these tests are about."""

    http = Quiet(("127.0.0.1", 0), Handler)
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http.server_address[1]}"
    try:
        yield server.url
    finally:
        server.ended.set()
        http.shutdown()
        http.server_close()
