"""The road to the cloud: what every transport is, and HTTP(S). Every way in which a transport can fail has a name."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import urllib3

from shared.errors import ConfigError, PacktwinError, WireError
from shared.hosts import is_loopback, plain_is_allowed
from shared.records import MODES, Receipt
from shared.wire import decode_receipt

if TYPE_CHECKING:
    from edge.config import UplinkConfig

PROTOBUF: Final = "application/x-protobuf"
CONNECT_S: Final = 5.0
READ_S: Final = 20.0
_MAX_ANSWER_BYTES: Final = 4 << 20
_DETAIL_CHARS: Final = 200
_LONGEST_RETRY_S: Final = 3600.0
_HAS_NO_WISHES: Final = (404, 405, 501)  # a cloud that takes batches and knows no more must not hold them up
_VERIFY_FAILED: Final = re.compile(r"certificate verify failed: (.+?)\.?(?: \(_ssl|['\"]?\)|$)")
_DATE_ERROR_NS: Final = 1_000_000_000  # whole seconds, and servers renew the header once a second


class Unavailable(PacktwinError):
    """The cloud cannot be reached or cannot take anything now: keep the records, try again later."""

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class Untrusted(Unavailable):
    """Somebody answers, but cannot show that it is the cloud: nothing is sent there."""


class Forbidden(PacktwinError):
    """The cloud does not accept this device's token (401, 403): keep the records until a person has put it right."""


class Refused(PacktwinError):
    """The cloud cannot read this body (400, 413): it will not do so next time either. reason: as in a Receipt."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Desired:
    """What the cloud would like of this device. t_ns: the cloud's time as told beside it, good to error_ns.

    asked: whether that was a question and its answer just now; False = it is what was told before.
    """

    mode: str | None
    bundle: str | None
    t_ns: int | None
    error_ns: int
    asked: bool = True


class Transport(Protocol):
    """One way to the cloud. Thread-safe; whatever it does not raise has arrived."""

    def send(self, body: bytes) -> Receipt:
        """Sends an encoded Batch and waits for its Receipt. Raises Unavailable, Forbidden or Refused."""
        ...

    def desired(self, device: str) -> Desired:
        """Asks what the cloud would like of `device`. Raises Unavailable or Forbidden."""
        ...

    def told(self) -> Desired | None:
        """What the cloud has said of that by itself, last; None where it says nothing without being asked."""
        ...

    def close(self) -> None:
        """Lets go of the connections."""
        ...


def transport_of(uplink: UplinkConfig, device: str, *, announce: bool = True) -> Transport | None:
    """The transport that uplink.url asks for; None = no cloud. ConfigError where the address must not be used.

    announce: whether this is the device's own agent, whose coming and going a broker may tell.
    """
    if not uplink.url:
        return None
    ca_file = str(uplink.ca_file) if uplink.ca_file else None
    if urlsplit(uplink.url).scheme.startswith("mqtt"):
        from edge.transport_mqtt import MqttTransport

        return MqttTransport(
            uplink.url,
            device,
            token=uplink.token,
            plaintext_hosts=uplink.plaintext_hosts,
            ca_file=ca_file,
            announce=announce,
        )
    return HttpTransport(uplink.url, token=uplink.token, plaintext_hosts=uplink.plaintext_hosts, ca_file=ca_file)


class HttpTransport:
    """One origin, kept connections, no redirects, no proxies from the environment."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        plaintext_hosts: Collection[str] = (),
        ca_file: str | None = None,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
    ) -> None:
        origin, self._prefix = checked_origin(url, token, plaintext_hosts)
        check_ca(ca_file)
        tls: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", "ca_certs": ca_file} if origin.scheme == "https" else {}
        pool = urllib3.HTTPSConnectionPool if origin.scheme == "https" else urllib3.HTTPConnectionPool
        self._pool = pool(
            origin.host or "",
            origin.port,
            maxsize=2,
            timeout=urllib3.Timeout(connect=connect_s, read=read_s),
            retries=False,
            **tls,
        )
        self._headers = {"Accept": PROTOBUF, "User-Agent": "packtwin"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def send(self, body: bytes) -> Receipt:
        """Posts an encoded Batch. Raises Unavailable, Forbidden or Refused."""
        answer, data = self._request("POST", "/device/v1/batches", body)
        if answer.status != 200:
            raise failure_of(answer, data)
        try:
            return decode_receipt(data)
        except WireError as error:
            raise Unavailable(f"the answer to a batch is no Receipt ({error}): is uplink.url right?") from None

    def desired(self, device: str) -> Desired:
        """Asks what the cloud would like of `device`. Raises Unavailable or Forbidden."""
        answer, data = self._request("GET", f"/device/v1/desired?device={device}", None)
        told = _told(data)
        if answer.status in _HAS_NO_WISHES:
            told = {}
        elif answer.status != 200:
            failure = failure_of(answer, data)
            raise Unavailable(str(failure)) if isinstance(failure, Refused) else failure
        elif told is None:
            raise Unavailable("the answer to /device/v1/desired is no JSON object: is uplink.url right?")
        mode, bundle = told.get("mode"), told.get("bundle")
        return Desired(
            mode if isinstance(mode, str) and mode in MODES else None,
            bundle if isinstance(bundle, str) else None,
            _date_ns(answer.headers.get("Date", "")),
            _DATE_ERROR_NS,
        )

    def told(self) -> None:
        """Over HTTP the cloud speaks only when it is asked."""

    def close(self) -> None:
        """Closes the kept connections."""
        self._pool.close()

    def _request(self, method: str, path: str, body: bytes | None) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        headers = self._headers | ({"Content-Type": PROTOBUF} if body is not None else {"Accept": "application/json"})
        try:
            answer = self._pool.urlopen(
                method, self._prefix + path, body=body, headers=headers, redirect=False, preload_content=False
            )
            data = answer.read(_MAX_ANSWER_BYTES)
            if len(data) == _MAX_ANSWER_BYTES:
                answer.close()
                raise Unavailable(f"the answer to {path} is larger than {_MAX_ANSWER_BYTES} bytes")
            answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(error) from None
        return answer, data


def checked_origin(url: str, token: str, plaintext_hosts: Collection[str]) -> tuple[urllib3.util.Url, str]:
    """(origin, path before /device/v1); ConfigError where the address must not be used."""
    origin = checked_address(url, "http", plaintext_hosts)
    check_token(origin, token)
    return origin, (origin.path or "").rstrip("/")


def checked_address(
    url: str, plain: str, plaintext_hosts: Collection[str], key: str = "uplink.url"
) -> urllib3.util.Url:
    """The parts of an address whose scheme is `plain` or `plain`s; ConfigError, naming `key`, where it is no good.

    Clear text goes only to this machine and to `plaintext_hosts`.
    """
    try:
        address = urllib3.util.parse_url(url)
        query = urlsplit(url).query or urlsplit(url).fragment or address.auth
    except (urllib3.exceptions.LocationParseError, ValueError):
        address, query = urllib3.util.Url(), None
    if address.scheme not in (plain, f"{plain}s") or not address.host or query:
        raise ConfigError(f'{key} = "{url}" must look like {plain}s://cloud.example ({plain}:// only to this machine)')
    if plain == "mqtt" and address.path not in (None, "", "/"):
        raise ConfigError(f'{key} = "{url}" has a path: a broker has a host and a port only')
    host = address.host.strip("[]").lower()
    if address.scheme == plain and not plain_is_allowed(host, plaintext_hosts):
        raise ConfigError(
            f'{key} = "{url}" would send in clear text: use {plain}s://, '
            f"or name {host} in ALLOW_PLAINTEXT_HOSTS if the network between is your own"
        )
    return address


def check_token(address: urllib3.util.Url, token: str) -> None:
    """ConfigError where uplink.url leaves this machine without a token, or with something that is none."""
    if not is_loopback((address.host or "").strip("[]")) and not token:
        raise ConfigError(f'uplink.url = "{address}" leaves this machine: set uplink.token_file to the device\'s token')
    if any(not 0x20 < ord(char) < 0x7F for char in token):
        raise ConfigError("uplink.token_file holds more than one token: keep just the one that `device add` printed")


def check_ca(ca_file: Path | str | None, where: str = "uplink.ca_file", whose: str = "the cloud's") -> None:
    """ConfigError where the file holds no certificate: no connection could ever be trusted."""
    if ca_file is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"{where} {ca_file} holds no certificate: copy {whose} ca.pem there") from None


def failure_of(answer: urllib3.BaseHTTPResponse, data: bytes) -> PacktwinError:
    """What an answer that is no success means: Forbidden, Refused or Unavailable."""
    status, told = answer.status, _told(data) or {}
    said = " ".join(str(told.get("error", told.get("detail", "")))[:_DETAIL_CHARS].split())
    detail = f"the cloud answered {status}" + (f" ({said})" if said else "")
    if status in (401, 403):
        return Forbidden(f"{detail}: check uplink.token_file and that this device is registered")
    if told.get("reason") == "unknown_schema":  # a newer cloud will take these records
        return Unavailable(f"{detail}: bring the cloud up to this agent's version")
    if status == 413:
        return Refused("too_large", detail)
    # Only the API itself answers in JSON; a captive portal's 400 must not cost a single record.
    if status == 400 and "json" in answer.headers.get("Content-Type", ""):
        return Refused("malformed", detail)
    if 300 <= status < 400:
        place = answer.headers.get("Location", "nowhere")[:_DETAIL_CHARS]
        return Unavailable(f"{detail} (to {place}): set uplink.url to the final address")
    return Unavailable(detail, _retry_after_s(answer.headers))


def _told(data: bytes) -> dict[str, Any] | None:
    """The JSON object of an answer; None if it is anything else."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) else None


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Retry-After, in s from now: a number, or a date (then counted from the answer's own)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_RETRY_S)
    until_ns, now_ns = _date_ns(value), _date_ns(headers.get("Date", ""))
    return None if until_ns is None or now_ns is None else min(max((until_ns - now_ns) / 1e9, 0.0), _LONGEST_RETRY_S)


def _date_ns(value: str) -> int | None:
    try:
        return int(parsedate_to_datetime(value).timestamp() * 1e9) + 500_000_000
    except (ValueError, OverflowError):
        return None


def unreachable(error: Exception, who: str = "the cloud", table: str = "uplink.") -> Unavailable:
    """What a failed connection to `who` means: Unavailable, or Untrusted for a certificate that is not theirs.

    table: what stands before the names of the settings of that connection.
    """
    return (Untrusted if _is_untrusted(error) else Unavailable)(plainly(error, who, table))


def _is_untrusted(error: Exception) -> bool:
    reason = getattr(error, "reason", None) or error
    return isinstance(reason, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(reason)


def plainly(error: Exception, who: str = "the cloud", table: str = "uplink.") -> str:
    """What went wrong, without the object names that urllib3 puts before it; see `unreachable`."""
    reason = getattr(error, "reason", None) or error
    if _is_untrusted(error):
        match = _VERIFY_FAILED.search(str(reason))
        why = match[1] if match else "it cannot be verified"
        cure = f"{table}ca_file to its CA, or {table}url to a name in the certificate"
        if "not yet valid" in why or "expired" in why:
            cure = "this machine's clock, or renew the certificate"
        return f"{who}'s certificate is not trusted ({why}): set {cure}"
    if isinstance(reason, urllib3.exceptions.HTTPError) and len(reason.args) > 1:  # its cause stands behind
        reason = reason.args[0]
    text = getattr(reason, "strerror", None) or str(reason).rsplit(">: ", 1)[-1].split("): ", 1)[-1]
    return f"{who} cannot be reached: {text[:200]}"
