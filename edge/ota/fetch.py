"""GET from the cloud's own origin: no redirects, a hard deadline for each request, never a byte more than announced.

A connection of its own for each request: they are rare, and one that is shut down at its deadline is no loss.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from edge.transport import Refused, Unavailable, checked_origin, failure_of, plainly

_CONNECT_S: Final = 5.0
_CHUNK_BYTES: Final = 1 << 14
_PROGRESS_BYTES: Final = 1 << 14
"""An answer that brought less than this is worth a pause before the next request."""
_MAX_ERROR_BYTES: Final = 1 << 14
_NOT_FOUND: Final = 404
_CONTENT_RANGE: Final = re.compile(r"bytes (?:([0-9]{1,15})-[0-9]{1,15}|\*)/([0-9]{1,15}|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where bundles come from: uplink's url and token. ca_file: a CA of one's own; None = the system's.

    deadline_s: of a whole request; read_s: the longest silence within.
    """

    url: str
    token: str = ""
    plaintext_hosts: tuple[str, ...] = ()
    ca_file: str | None = None
    deadline_s: float = 60.0
    read_s: float = 15.0


class WrongLength(Exception):
    """The server's file is longer (`longer`) or shorter than what was signed."""

    def __init__(self, longer: bool) -> None:
        super().__init__("longer than signed" if longer else "shorter than signed")
        self.longer = longer


class NotThere(Unavailable):
    """The cloud says that it has no such file (404)."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a whole file took. whole: it came in one answer, from its first byte."""

    requests: int
    received_bytes: int
    whole: bool


class Web:
    """One origin. `stop` ends what is under way from another thread; then nothing is fetched any more."""

    def __init__(self, origin: Origin) -> None:
        self._url, self._prefix = checked_origin(origin.url, origin.token, origin.plaintext_hosts)
        self._ca_file = origin.ca_file
        self._deadline_s, self._read_s = origin.deadline_s, origin.read_s
        # identity: what is counted is what is on the wire, and no answer can swell here
        self._headers = {"User-Agent": "packtwin", "Accept-Encoding": "identity"}
        if origin.token:
            self._headers["Authorization"] = f"Bearer {origin.token}"
        self._stopped = False
        self._connection: HTTPConnection | None = None

    def get(self, path: str, max_bytes: int) -> bytes:
        """The body at `path`. Raises WrongLength (longer than max_bytes), NotThere, Unavailable, Forbidden."""
        with self._answer(path, {}) as answer:
            _require(answer, 200)
            return b"".join(_chunks(answer, max_bytes))

    def resume(self, path: str, part: Path, length: int) -> Fetched:
        """Completes `part` to `length` bytes, going on where it ends. What arrived stays, whatever happens.

        Raises WrongLength, NotThere, Unavailable, Forbidden; OSError where `part` cannot be written.
        """
        have = first = part.stat().st_size if part.exists() else 0
        requests = received = 0
        while have < length:
            requests += 1
            start, came = self._part(path, part, have, length)
            received += came
            grown, have = start + came - have, start + came
            if have < length and grown < _PROGRESS_BYTES:
                raise Unavailable(f"{path} arrives too slowly or not at all: {have} of {length} bytes are here")
        if have > length:
            part.unlink()
            raise Unavailable(f"{part} was longer than what is signed: starting anew")
        return Fetched(requests, received, whole=requests == 1 and first == 0)

    def stop(self) -> None:
        """Ends what is under way. May be called from any thread."""
        self._stopped = True
        _shut(self._connection)

    def _part(self, path: str, part: Path, have: int, length: int) -> tuple[int, int]:
        """(from which byte on, how many) one answer brought. A cut or a deadline while it arrives is no error."""
        with self._answer(path, {"Range": f"bytes={have}-"} if have else {}) as answer:
            _require(answer, 200, 206, 416)
            start, total = _extent(answer)
            if total not in (None, length):
                raise WrongLength(longer=(total or 0) > length)
            if start not in (0, have) or answer.status == 416:
                part.unlink(missing_ok=True)
                raise Unavailable(f"the cloud cannot go on with {path} at byte {have}: starting anew")
            came, ended = 0, False
            with part.open("ab" if start else "wb") as file:
                try:
                    for chunk in _chunks(answer, length - start):
                        file.write(chunk)
                        came += len(chunk)
                    ended = "Transfer-Encoding" in answer.headers  # only then does an end say that it is the end
                except Unavailable:
                    pass
        if ended and start + came < length:
            raise WrongLength(longer=False)
        return start, came

    @contextlib.contextmanager
    def _answer(self, path: str, headers: dict[str, str]) -> Iterator[urllib3.BaseHTTPResponse]:
        """The head of the answer, its body still to be read; the deadline runs until the block is left."""
        connection = self._connection = self._new_connection()
        late = threading.Event()

        def end() -> None:
            late.set()
            _shut(connection)

        timer = threading.Timer(self._deadline_s, end)
        timer.daemon = True
        timer.start()
        try:
            try:
                if not self._stopped:
                    connection.connect()
                # Asked again: while it connects there is nothing that `stop` or the deadline could end.
                if self._stopped or late.is_set():
                    raise Unavailable("stopped" if self._stopped else "it took too long to connect")
                connection.timeout = self._read_s
                connection.request("GET", self._prefix + path, headers=self._headers | headers, preload_content=False)
                answer = connection.getresponse()
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
                raise Unavailable(plainly(error)) from None
            yield answer
        finally:
            timer.cancel()
            self._connection = None
            connection.close()

    def _new_connection(self) -> HTTPConnection:
        host, port = self._url.host or "", self._url.port
        if self._url.scheme == "https":
            tls = {"cert_reqs": "CERT_REQUIRED", "ca_certs": self._ca_file}
            return HTTPSConnection(host, port, timeout=_CONNECT_S, **tls)  # type: ignore[arg-type]
        return HTTPConnection(host, port, timeout=_CONNECT_S)


def _shut(connection: HTTPConnection | None) -> None:
    """Wakes whoever reads from it."""
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


def _require(answer: urllib3.BaseHTTPResponse, *statuses: int) -> None:
    if answer.status in statuses:
        return
    try:
        said = answer.read(_MAX_ERROR_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError):
        said = b""
    failure = failure_of(answer, said)
    if answer.status == _NOT_FOUND:
        raise NotThere(str(failure))
    raise Unavailable(str(failure)) if isinstance(failure, Refused) else failure


def _extent(answer: urllib3.BaseHTTPResponse) -> tuple[int, int | None]:
    """(from which byte on, how long the whole file is; None = it does not say)."""
    if answer.status == 200:
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isascii() and length.isdigit() else None
    match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if not match:
        return -1, None
    return int(match[1] or -1), None if match[2] == "*" else int(match[2])


def _chunks(answer: urllib3.BaseHTTPResponse, max_bytes: int) -> Iterator[bytes]:
    """The body as it arrives. Raises WrongLength beyond `max_bytes`, Unavailable where it is cut."""
    left = max_bytes
    while True:
        try:
            chunk = answer.read1(min(_CHUNK_BYTES, left + 1), decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError) as error:
            raise Unavailable(plainly(error)) from None
        if not chunk:
            return
        if len(chunk) > left:
            raise WrongLength(longer=True)
        left -= len(chunk)
        yield chunk
