"""TLS with a certification authority of our own: made on first start in TLS_DIR, its keys for their owner only.

`ca.pem` goes to devices and browsers, `ca.key` signs, NAME.pem and NAME.key are a server's (`api`, `mqtt`).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import socket
import ssl
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.config import Access
from cloud.release_keys import make_folder, write_atomically
from shared.errors import ConfigError

log = logging.getLogger(__name__)

CA_FILE: Final = "ca.pem"
_BACK: Final = timedelta(days=400)
"""A box without a clock of its own may start a year behind; the certificate must be good for it, too."""
_CA_LIFE: Final = timedelta(days=3650)
_LIFE: Final = timedelta(days=397)  # with _BACK less than the 825 days that Apple's devices accept
_RENEW_BEFORE: Final = timedelta(days=30)
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a server's certificate (with all that is between it and the CA) and of its key, both PEM."""

    cert_file: Path
    key_file: Path


class Authority:
    """The CA in one folder. Every error is a ConfigError of one sentence."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / CA_FILE
        self._key_file = folder / "ca.key"

    def prepare(self, now: datetime) -> bool:
        """Makes the CA unless it is here; whether it was made now. Any number of processes may race."""
        with self._locked():
            if self.ca_file.exists():
                return False
            key = ec.generate_private_key(ec.SECP256R1())
            write_atomically(self._key_file, _pem(key), 0o600)
            write_atomically(self.ca_file, _authority(key, now).public_bytes(serialization.Encoding.PEM))
            return True

    def fingerprint(self) -> str:
        """SHA-256 of the CA's certificate, AB:CD:..., as browsers and openssl show it."""
        return fingerprint_of(self.ca_file)

    def pair(self, name: str, hosts: Iterable[str], now: datetime) -> Pair:
        """A server's certificate for these names and addresses; made anew when it lacks one or will end soon."""
        pair = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        wanted = sorted({host.strip("[]").lower() for host in hosts if host})
        with self._locked():
            ca = _certificate(self.ca_file)
            if not _is_good(pair, ca, wanted, now):
                key = ec.generate_private_key(ec.SECP256R1())
                issued = _issued(key, ca, self._ca_key(ca), wanted, now)
                write_atomically(pair.key_file, _pem(key), 0o600)
                write_atomically(pair.cert_file, issued.public_bytes(serialization.Encoding.PEM))
                log.info("made the certificate %s for %s", pair.cert_file, ", ".join(wanted))
        return pair

    def _ca_key(self, ca: x509.Certificate) -> ec.EllipticCurvePrivateKey:
        with _told(self._key_file):
            if stat.S_IMODE(self._key_file.stat().st_mode) & _OTHERS:
                raise ConfigError(f"{self._key_file} can be read by others; run: chmod 600 {self._key_file}")
            key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != ca.public_key():
            raise ConfigError(f"{self._key_file} is not the key of {self.ca_file}; restore both from one backup")
        return key

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time makes files in the folder."""
        with _told(self.folder):
            if not self.folder.exists():
                make_folder(self.folder, 0o755)  # ca.pem is for everyone; keys have modes of their own
            lock = (self.folder / ".lock").open("a")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with _told(self.folder):
                yield


class Served:
    """The API's certificate as TLS serves it: that of the settings, or one of our own CA; `refresh` keeps it fresh."""

    def __init__(self, access: Access, host: str, now: datetime) -> None:
        """host: where the API listens. ConfigError where there is no certificate and none can be made."""
        self._access, self._host = access, host
        self.authority = None if access.cert_file else Authority(access.tls_dir)
        self.made = self.authority.prepare(now) if self.authority else False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded: bytes | None = None
        self.refresh(now)

    def refresh(self, now: datetime) -> bool:
        """Loads the certificate if it has changed, was replaced or will end soon; whether it did. For new connections.

        Call it on the thread that does the handshakes.
        """
        pair = self._pair(now)
        with _told(pair.cert_file):
            content = pair.cert_file.read_bytes() + pair.key_file.read_bytes()
        if content == self._loaded:
            return False
        try:
            self.context.load_cert_chain(pair.cert_file, pair.key_file, password="")  # "": nobody is there to be asked
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise ConfigError(
                f"{pair.cert_file} and {pair.key_file} are no certificate with its key: {reason}"
            ) from None
        self._loaded = content
        return True

    def _pair(self, now: datetime) -> Pair:
        if self._access.cert_file and self._access.key_file:
            return Pair(self._access.cert_file, self._access.key_file)
        assert self.authority is not None
        return self.authority.pair("api", names_of(self._host, self._access), now)


def names_of(host: str, access: Access) -> list[str]:
    """What a server of this machine that listens on `host` is called: its names and addresses, and TLS_NAMES."""
    machine = socket.gethostname().lower()
    addresses = local_addresses() if host in ("", "0.0.0.0", "::") else [host]
    own = ["localhost", machine, f"{machine.partition('.')[0]}.local", "127.0.0.1", "::1"]
    return [*own, *addresses, *access.tls_names]


def local_addresses() -> list[str]:
    """This machine's addresses as the kernel has them, without link-local ones; [] where it does not tell."""
    found = []
    with contextlib.suppress(OSError):
        leaf = ""
        for line in Path("/proc/net/fib_trie").read_text().splitlines():
            if "|-- " in line:
                leaf = line.split("|-- ")[1].strip()
            elif "/32 host LOCAL" in line:
                found.append(leaf)
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/if_inet6").read_text().splitlines():
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))))
    return sorted({address for address in found if not ipaddress.ip_address(address).is_link_local})


def fingerprint_of(cert_file: Path) -> str:
    """SHA-256 of the file's first certificate, AB:CD:..."""
    return _certificate(cert_file).fingerprint(hashes.SHA256()).hex(":").upper()


def _authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    mark = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    # The mark keeps the CAs of two machines apart in a list of trusted ones.
    name = _name(f"packtwin CA {socket.gethostname()[:32]} {mark.digest.hex()[:8]}")
    return (
        _begun(name, name, key.public_key(), now - _BACK, now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(mark, critical=False)
        .sign(key, hashes.SHA256())
    )


def _issued(
    key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    hosts: list[str],
    now: datetime,
) -> x509.Certificate:
    ends = min(now + _LIFE, ca.not_valid_after_utc)
    if ends < now + _RENEW_BEFORE:
        raise ConfigError(f"the CA ends on {ends:%Y-%m-%d}; move its files away, and give devices the new ca.pem")
    return (
        _begun(_name("packtwin"), ca.subject, key.public_key(), max(now - _BACK, ca.not_valid_before_utc), ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), begins, ends)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except UnicodeError:
        raise ConfigError(f"TLS_NAMES: {host[:80]!r} is no name of a host") from None


def _is_good(pair: Pair, ca: x509.Certificate, wanted: list[str], now: datetime) -> bool:
    """Whether the server's certificate is there, of this CA, for these hosts, and for long enough."""
    if not (pair.cert_file.exists() and pair.key_file.exists()):
        return False
    try:
        cert = x509.load_pem_x509_certificate(pair.cert_file.read_bytes())
        key = serialization.load_pem_private_key(pair.key_file.read_bytes(), None)
        cert.verify_directly_issued_by(ca)
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    enough = cert.not_valid_before_utc <= now < cert.not_valid_after_utc - _RENEW_BEFORE
    return enough and key.public_key() == cert.public_key() and {_general(host) for host in wanted} <= set(names)


def _certificate(file: Path) -> x509.Certificate:
    with _told(file):
        body = file.read_bytes()
    try:
        return x509.load_pem_x509_certificate(body)
    except ValueError:
        raise ConfigError(f"{file} is no certificate; restore it from a backup") from None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@contextlib.contextmanager
def _told(place: Path) -> Iterator[None]:
    """OSError -> one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename or place} is missing; restore it, or correct TLS_DIR") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or place} cannot be used: {error.strerror}; check TLS_DIR") from None
