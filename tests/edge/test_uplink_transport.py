"""HTTP: which addresses are allowed, and what each way of failing becomes. A real server on a free port."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fakes.cloud import FakeCloud, served
from fakes.outbox import measured

from edge.outbox.records import batch_of, row_of
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
            self.send_response_only(answers.status)
            if "Date" not in answers.headers:
                self.send_header("Date", self.date_time_string())
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
        transport.desired("device-1")
    assert len(answers.connections) == 1


def test_desired_says_mode_bundle_and_time(server: tuple[str, Answers]) -> None:
    url, answers = server
    answers.body = b'{"mode": "live", "bundle": "soh-3", "new": 1}'
    desired = HttpTransport(url).desired("device-1")
    assert (desired.mode, desired.bundle) == ("live", "soh-3")
    assert desired.t_ns is not None and desired.t_ns > 1_700_000_000 * 10**9
    answers.body = b'{"mode": "warp", "bundle": null}'
    assert HttpTransport(url).desired("device-1").mode is None


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


def test_desired_is_asked_for_this_device(server: tuple[str, Answers]) -> None:
    url, answers = server
    HttpTransport(url).desired("device-1")
    assert answers.asked[0][0] == "/device/v1/desired?device=device-1"


@pytest.mark.parametrize(
    "body", [b'{"mode": []}', b'{"mode": {}, "bundle": []}', b"[" * 100_000, b"null", b"\xff\xfe", b"9" * 9999]
)
def test_nonsense_about_wishes_is_no_wish_and_no_crash(server: tuple[str, Answers], body: bytes) -> None:
    """A list as mode, or brackets nested 100,000 deep, ended the whole agent."""
    url, answers = server
    answers.body = body
    with contextlib.suppress(Unavailable):
        assert HttpTransport(url).desired("device-1").mode is None


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_cloud_that_knows_no_wishes_has_none(server: tuple[str, Answers], status: int) -> None:
    """Each such answer held the batches up for a second or more."""
    url, answers = server
    answers.status, answers.body = status, b"<h1>no</h1>"
    assert HttpTransport(url).desired("device-1").mode is None


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [("7", 7.0), ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0), ("\u00b2", None), ("-1", None), ("9" * 400, 3600.0)],
)
def test_retry_after_is_read(server: tuple[str, Answers], value: str, wait_s: float | None) -> None:
    """A superscript two counts as a digit and ended the whole agent."""
    url, answers = server
    answers.status = 503
    answers.headers = {"Retry-After": value, "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}
    with pytest.raises(Unavailable) as caught:
        HttpTransport(url).send(BODY)
    assert caught.value.retry_after_s == wait_s


def test_a_date_beyond_all_numbers_is_none(server: tuple[str, Answers]) -> None:
    url, answers = server
    answers.headers = {"Date": "Mon, 01 Jan 2026 00:00:00 +99999999999999999999"}
    assert HttpTransport(url).desired("device-1").t_ns is None


def test_what_the_cloud_says_of_a_refusal_is_told_on_one_line(server: tuple[str, Answers]) -> None:
    """The cloud's own word for it is `error`, which nobody read."""
    url, answers = server
    answers.status, answers.body = 400, b'{"error": "a block of\\n0 rows", "reason": "malformed"}'
    with pytest.raises(Refused, match=r"\(a block of 0 rows\)"):
        HttpTransport(url).send(BODY)


def test_a_cloud_that_is_too_old_for_the_records_does_not_cost_them(server: tuple[str, Answers]) -> None:
    url, answers = server
    answers.status, answers.body = 400, b'{"error": "schema 2", "reason": "unknown_schema"}'
    with pytest.raises(Unavailable, match="version"):
        HttpTransport(url).send(BODY)
