"""HTTP: which addresses are allowed, and what each way of failing becomes. A real server on a free port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fakes.cloud import FakeCloud, served
from fakes.outbox import measured

from edge.outbox_records import batch_of, row_of
from edge.transport import Forbidden, HttpTransport, Refused, Unavailable
from shared.errors import ConfigError
from shared.wire import encode_batch

BODY = encode_batch(batch_of("device-1", 7, [row_of(measured(n, t_ns=n), n, "device-1", 7) for n in range(5)]))


class Answers:
    """A server that answers what it is told and remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, {"Content-Type": "application/json"}, b"{}"
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.connections: set[tuple[str, int]] = set()


@pytest.fixture
def server() -> Iterator[tuple[str, Answers]]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.asked.append((self.path, dict(self.headers)))
            answers.connections.add(self.client_address)
            self.send_response(answers.status)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            self.wfile.write(answers.body)

        do_GET = do_POST = _any

        def log_message(self, *_: object) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_address[1]}", answers
    http.shutdown()
    http.server_close()


def test_a_batch_goes_up_and_a_receipt_comes_back() -> None:
    cloud = FakeCloud()
    with served(cloud) as url:
        receipt = HttpTransport(url).send(BODY)
    assert receipt.accepted == ((0, 4),)
    assert sorted(cloud.rows[7]) == [0, 1, 2, 3, 4]


def test_connections_are_kept(server: tuple[str, Answers]) -> None:
    url, answers = server
    transport = HttpTransport(url)
    for _ in range(5):
        transport.desired()
    assert len(answers.connections) == 1


def test_desired_says_mode_bundle_and_time(server: tuple[str, Answers]) -> None:
    url, answers = server
    answers.body = b'{"mode": "live", "bundle": "soh-3", "new": 1}'
    desired = HttpTransport(url).desired()
    assert (desired.mode, desired.bundle) == ("live", "soh-3")
    assert desired.t_ns is not None and desired.t_ns > 1_700_000_000 * 10**9
    answers.body = b'{"mode": "warp", "bundle": null}'
    assert HttpTransport(url).desired().mode is None


@pytest.mark.parametrize(
    ("status", "kind", "body", "error", "says"),
    [
        (400, "application/json", b'{"detail": "bad planes"}', Refused, "bad planes"),
        (400, "text/html", b"<h1>Welcome to Hotel WiFi</h1>", Unavailable, "400"),
        (413, "text/html", b"", Refused, "413"),
        (401, "application/json", b"{}", Forbidden, "token_file"),
        (403, "application/json", b"{}", Forbidden, "token_file"),
        (404, "text/html", b"", Unavailable, "404"),
        (301, "text/html", b"", Unavailable, "redirect|final address"),
        (500, "text/html", b"", Unavailable, "500"),
        (503, "application/json", b"{}", Unavailable, "503"),
        (200, "text/html", b"<h1>Please log in</h1>", Unavailable, "no Receipt"),
    ],
)
def test_each_failure_has_its_meaning(
    server: tuple[str, Answers], status: int, kind: str, body: bytes, error: type[Exception], says: str
) -> None:
    url, answers = server
    answers.status, answers.body, answers.headers = status, body, {"Content-Type": kind, "Location": "/elsewhere"}
    with pytest.raises(error, match=says):
        HttpTransport(url).send(BODY)
    assert len(answers.asked) == 1, "no redirect was followed, nothing was repeated"


def test_retry_after_is_read(server: tuple[str, Answers]) -> None:
    url, answers = server
    answers.status, answers.headers = 503, {"Retry-After": "7"}
    with pytest.raises(Unavailable) as caught:
        HttpTransport(url).send(BODY)
    assert caught.value.retry_after_s == 7.0


def test_a_closed_port_and_a_silent_server_are_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Unavailable, match="cannot be reached"):
            HttpTransport(f"http://127.0.0.1:{port}", read_s=0.05).send(BODY)
    with pytest.raises(Unavailable, match="refused"):
        HttpTransport(f"http://127.0.0.1:{port}").send(BODY)


def test_a_token_is_sent_and_a_path_before_the_api_is_kept(server: tuple[str, Answers]) -> None:
    url, answers = server
    with pytest.raises(Unavailable):
        HttpTransport(url + "/twin/", token="secret").send(BODY)
    path, headers = answers.asked[0]
    assert path == "/twin/device/v1/batches"
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Content-Type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("cloud.example", "must look like"),
        ("ftp://cloud.example", "must look like"),
        ("https://", "must look like"),
        ("https://user:pass@cloud.example", "must look like"),
        ("https://cloud.example?x=1", "must look like"),
        ("http://cloud.example", "clear text"),
        ("http://localhost.example", "clear text"),
        ("http://127.0.0.1.example", "clear text"),
        ("http://10.0.0.1", "clear text"),
    ],
)
def test_addresses_that_must_not_be_used_are_one_sentence(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        HttpTransport(url, token="t")


def test_plain_http_is_allowed_to_this_machine_and_to_named_hosts() -> None:
    for url in ("http://localhost:5001", "http://127.0.0.1", "http://127.9.9.9", "http://[::1]:5001"):
        HttpTransport(url).close()
    HttpTransport("http://api:5001", token="t", plaintext_hosts=["api"]).close()


def test_beyond_this_machine_a_token_is_needed() -> None:
    with pytest.raises(ConfigError, match="token_file"):
        HttpTransport("https://cloud.example")
    with pytest.raises(ConfigError, match="one token"):
        HttpTransport("https://cloud.example", token="a\nb")
