"""The CA of our own: made once, kept, its certificates good for whoever trusts it; or a certificate that was given."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import missing
from cryptography import x509

from cloud.config import Access
from cloud.tls import Authority, Served, local_addresses, names_of
from shared.errors import ConfigError

NOW = datetime.now(UTC)


def test_the_ca_is_made_once_and_its_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    assert authority.prepare(NOW) and not authority.prepare(NOW)
    pair = authority.pair("api", ["localhost"], NOW)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "tls").glob("*.key")} == {0o600}
    assert pair.key_file.name == "api.key"
    assert len(authority.fingerprint().split(":")) == 32


def test_many_starters_make_one_ca(tmp_path: Path) -> None:
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(Authority(tmp_path / "t").prepare(NOW))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


def test_openssl_finds_the_certificate_good(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        missing("needs openssl (apt-get install openssl)")
    authority = Authority(tmp_path)
    authority.prepare(NOW)
    pair = authority.pair("api", ["localhost", "10.1.2.3", "::1"], NOW)
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "10.1.2.3",
         "-CAfile", str(authority.ca_file), str(pair.cert_file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(authority.ca_file), "-noout", "-fingerprint", "-sha256"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert authority.fingerprint() in shown, "the fingerprint is written as openssl writes it"


def test_the_certificate_is_made_anew_when_it_lacks_a_name_or_ends_soon(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.prepare(NOW)
    first = authority.pair("api", ["a.example"], NOW).cert_file.read_bytes()
    assert authority.pair("api", ["a.example"], NOW).cert_file.read_bytes() == first
    assert authority.pair("api", ["a.example"], NOW + timedelta(days=360)).cert_file.read_bytes() == first
    second = authority.pair("api", ["a.example", "10.0.0.9"], NOW).cert_file.read_bytes()
    assert second != first
    third = authority.pair("api", ["10.0.0.9"], NOW + timedelta(days=380)).cert_file.read_bytes()
    assert third not in (first, second)
    cert = x509.load_pem_x509_certificate(third)
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.IPAddress(ipaddress.ip_address("10.0.0.9"))]
    assert cert.not_valid_after_utc - cert.not_valid_before_utc <= timedelta(days=825), "Apple takes no longer ones"


def test_a_key_that_does_not_fit_its_certificate_is_replaced(tmp_path: Path) -> None:
    """A kill between the writing of the two files."""
    authority = Authority(tmp_path)
    authority.prepare(NOW)
    api, mqtt = authority.pair("api", ["x"], NOW), authority.pair("mqtt", ["x"], NOW)
    shutil.copy(mqtt.key_file, api.key_file)
    assert authority.pair("api", ["x"], NOW).cert_file.read_bytes() != mqtt.cert_file.read_bytes()
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(api.cert_file, api.key_file)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "ca.key").unlink(), "ca.key is missing"),
        (lambda folder: (folder / "ca.key").chmod(0o644), "chmod 600"),
        (lambda folder: (folder / "ca.pem").write_text("none"), "is no certificate"),
        (lambda folder: shutil.copy(folder / "api.key", folder / "ca.key"), "is not the key of"),
    ],
)
def test_a_damaged_ca_is_one_sentence(tmp_path: Path, harm, says: str) -> None:  # type: ignore[no-untyped-def]
    authority = Authority(tmp_path)
    authority.prepare(NOW)
    authority.pair("api", ["x"], NOW)
    harm(tmp_path)
    with pytest.raises(ConfigError, match=says):
        authority.pair("mqtt", ["x"], NOW)


def test_the_certificate_stays_good_without_the_key_of_the_ca(tmp_path: Path) -> None:
    """The careful keep it elsewhere."""
    authority = Authority(tmp_path)
    authority.prepare(NOW)
    authority.pair("api", ["x"], NOW)
    (tmp_path / "ca.key").unlink()
    authority.pair("api", ["x"], NOW)


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="TLS_DIR"):
        Authority(tmp_path / "file" / "tls").prepare(NOW)
    with pytest.raises(ConfigError, match="TLS_NAMES"):
        Served(Access(tls_dir=tmp_path / "t", tls_names=("x" * 70 + ".example",)), "127.0.0.1", NOW)


def test_a_server_on_all_addresses_goes_by_all_of_them() -> None:
    assert "127.0.0.1" in local_addresses()
    names = names_of("0.0.0.0", Access(tls_names=("twin.example",)))
    assert {"localhost", "twin.example", socket.gethostname().lower(), *local_addresses()} <= set(names)
    assert "10.9.8.7" in names_of("10.9.8.7", Access())


def test_a_given_certificate_is_served_and_followed_when_it_is_renewed(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "public")
    authority.prepare(NOW)
    pair = authority.pair("given", ["a.example"], NOW)
    served = Served(Access(cert_file=pair.cert_file, key_file=pair.key_file, tls_dir=tmp_path / "own"), "0.0.0.0", NOW)
    assert served.authority is None and not (tmp_path / "own").exists()
    assert not served.refresh(NOW)
    authority.pair("given", ["a.example", "b.example"], NOW)
    assert served.refresh(NOW)


def test_a_given_certificate_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.prepare(NOW)
    one, other = authority.pair("one", ["x"], NOW), authority.pair("other", ["x"], NOW)
    for cert, key in ((one.cert_file, other.key_file), (one.key_file, one.key_file)):
        with pytest.raises(ConfigError, match="no certificate with its key"):
            Served(Access(cert_file=cert, key_file=key), "0.0.0.0", NOW)
    with pytest.raises(ConfigError, match="missing"):
        Served(Access(cert_file=tmp_path / "no.pem", key_file=tmp_path / "no.key"), "0.0.0.0", NOW)
