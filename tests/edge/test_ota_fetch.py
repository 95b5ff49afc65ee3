"""A file comes over a bad line whole, in about as many bytes as it has, in bounded time; and never from elsewhere."""

from __future__ import annotations

import random
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fakes.image_server import PREFIX, ImageServer, serving
from urllib3.connection import HTTPConnection

from edge.ota.fetch import NotThere, Origin, Web, WrongLength
from edge.transport import Forbidden, Unavailable
from shared.errors import ConfigError

BODY = random.Random(1).randbytes(4_000_000)
PATH = PREFIX + "targets/x.bundle"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ImageServer]:
    (tmp_path / "image" / "targets").mkdir(parents=True)
    (tmp_path / "image" / "targets" / "x.bundle").write_bytes(BODY)
    server = ImageServer(tmp_path / "image")
    with serving(server):
        yield server


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "x.part"


def web(server: ImageServer, **more: object) -> Web:
    return Web(Origin(url=server.url, **more))  # type: ignore[arg-type]


def test_four_megabytes_over_a_link_that_is_cut_every_64_kib(server: ImageServer, part: Path) -> None:
    server.cut_bytes = 64 << 10
    fetched = web(server).resume(PATH, part, len(BODY))
    assert part.read_bytes() == BODY
    assert fetched.requests == -(-len(BODY) // (64 << 10)) and not fetched.whole
    assert server.target_bytes <= 1.05 * len(BODY), f"{server.target_bytes / len(BODY):.3f}"
    print(f"{fetched.requests} requests, {server.target_bytes / len(BODY):.4f} x the payload")


def test_a_file_in_one_answer_is_whole(server: ImageServer, part: Path) -> None:
    fetched = web(server).resume(PATH, part, len(BODY))
    assert (fetched.requests, fetched.received_bytes, fetched.whole) == (1, len(BODY), True)
    assert web(server).resume(PATH, part, len(BODY)).requests == 0, "all of it is here"


def test_it_goes_on_where_an_earlier_process_ended(server: ImageServer, part: Path) -> None:
    part.write_bytes(BODY[:3_000_000])
    fetched = web(server).resume(PATH, part, len(BODY))
    assert part.read_bytes() == BODY and not fetched.whole
    assert server.target_bytes == 1_000_000


def test_a_server_without_range_sends_all_of_it_again(server: ImageServer, part: Path) -> None:
    server.no_range = True
    part.write_bytes(b"?" * 1000)
    web(server).resume(PATH, part, len(BODY))
    assert part.read_bytes() == BODY
    part.write_bytes(BODY[:100_000])
    server.cut_bytes = 64 << 10
    with pytest.raises(Unavailable):  # it would never get further: not for ever at full speed
        web(server).resume(PATH, part, len(BODY))
    assert len(server.requests) < 5


@pytest.mark.parametrize("chunked", [True, False])
def test_a_longer_or_shorter_file_than_signed_is_known_for_what_it_is(
    server: ImageServer, part: Path, chunked: bool
) -> None:
    server.chunked = chunked
    server.extra = b"!"
    with pytest.raises(WrongLength) as longer:
        web(server).resume(PATH, part, len(BODY))
    server.extra = b""
    server.alter = lambda path, body: body[:-1]
    part.unlink(missing_ok=True)
    with pytest.raises(WrongLength) as shorter:
        web(server).resume(PATH, part, len(BODY))
    assert longer.value.longer and not shorter.value.longer
    assert not part.exists() or part.stat().st_size <= len(BODY)


def test_a_part_beyond_the_servers_file_is_known_too(server: ImageServer, part: Path) -> None:
    part.write_bytes(BODY)
    with pytest.raises(WrongLength):
        web(server).resume(PATH, part, len(BODY) + 5)


def test_a_part_that_is_too_long_starts_anew(server: ImageServer, part: Path) -> None:
    part.write_bytes(BODY + b"x")
    with pytest.raises(Unavailable):
        web(server).resume(PATH, part, len(BODY))
    assert web(server).resume(PATH, part, len(BODY)).whole


def test_a_drip_ends_at_the_deadline_and_what_came_stays(server: ImageServer, part: Path) -> None:
    server.drip_s = 0.02
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="too slowly"):
        web(server, deadline_s=1.0).resume(PATH, part, len(BODY))
    assert time.monotonic() - begun < 3
    assert BODY.startswith(part.read_bytes()) and part.stat().st_size > 3
    with pytest.raises(Unavailable):
        web(server, deadline_s=1.0).get(PATH, len(BODY))


def test_a_deadline_that_falls_into_the_connecting_is_not_lost(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = HTTPConnection.connect

    def late(self: HTTPConnection) -> None:
        time.sleep(0.3)  # there is no socket yet that the deadline could end
        connect(self)

    monkeypatch.setattr(HTTPConnection, "connect", late)
    with pytest.raises(Unavailable, match="too long to connect"):
        web(server, deadline_s=0.1).get(PATH, len(BODY))


def test_a_head_that_never_ends_is_cut_at_the_deadline(part: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"HTTP/1.1 200 OK\r\nX: y"[:1])
                        time.sleep(0.05)
                except OSError:
                    pass

        threading.Thread(target=drip, daemon=True).start()
        begun = time.monotonic()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Unavailable):
            Web(Origin(url=url, deadline_s=1.0)).resume(PATH, part, 10)
        assert time.monotonic() - begun < 3


def test_stop_ends_a_download_from_another_thread(server: ImageServer, part: Path) -> None:
    server.drip_s = 0.01
    client = web(server)
    server.on_request = lambda path: threading.Timer(0.1, client.stop).start()
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        client.resume(PATH, part, len(BODY))
    assert time.monotonic() - begun < 3
    with pytest.raises(Unavailable, match="stopped"):
        client.get(PATH, 10)


def test_no_redirect_is_followed(server: ImageServer, part: Path, tmp_path: Path) -> None:
    other = ImageServer(server.folder)
    with serving(other) as elsewhere:
        server.redirect = elsewhere
        with pytest.raises(Unavailable, match="302"):
            web(server, token="secret").resume(PATH, part, len(BODY))
        with pytest.raises(Unavailable, match="302"):
            web(server, token="secret").get(PATH, 100)
    assert other.requests == [] and other.tokens == set()


def test_each_request_carries_the_token_and_wants_the_bytes_as_they_are(server: ImageServer, part: Path) -> None:
    web(server, token="secret").resume(PATH, part, len(BODY))
    assert server.tokens == {"Bearer secret"}


def test_a_body_larger_than_allowed_is_not_read(server: ImageServer) -> None:
    with pytest.raises(WrongLength):
        web(server).get(PATH, len(BODY) - 1)
    assert web(server).get(PATH, len(BODY)) == BODY


def test_what_is_not_there_has_a_name_of_its_own(server: ImageServer, part: Path) -> None:
    with pytest.raises(NotThere):
        web(server).get(PREFIX + "metadata/2.root.json", 10)
    server.away = True
    with pytest.raises(Unavailable) as away:
        web(server).get(PATH, 10)
    assert not isinstance(away.value, NotThere | Forbidden)


def test_nobody_there_is_unavailable(part: Path) -> None:
    with pytest.raises(Unavailable):
        Web(Origin(url="http://127.0.0.1:1")).resume(PATH, part, 10)


def test_a_disk_that_is_full_is_not_the_clouds_fault(server: ImageServer) -> None:
    with pytest.raises(OSError, match="No space") as full:
        web(server).resume(PATH, Path("/dev/full"), len(BODY))
    assert not isinstance(full.value, Unavailable)


@pytest.mark.parametrize("url", ["http://cloud.example", "https://cloud.example", "ftp://x", ""])
def test_an_origin_is_held_to_the_uplinks_rules(url: str) -> None:
    with pytest.raises(ConfigError):
        Web(Origin(url=url))


def test_tls_is_checked_against_the_ca_that_is_given(server: ImageServer, part: Path, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = ImageServer(server.folder)
    with serving(secure, context) as url:
        with pytest.raises(Unavailable, match="certificate is not trusted"):
            Web(Origin(url=url)).resume(PATH, part, len(BODY))
        assert Web(Origin(url=url, ca_file=str(certificate))).resume(PATH, part, len(BODY)).whole


def self_signed(folder: Path) -> Path:
    """A certificate of 127.0.0.1 and its key in one file."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path = folder / "server.pem"
    path.write_bytes(
        certificate.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path
