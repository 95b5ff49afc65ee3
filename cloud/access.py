"""Who gets in, and how: by which door the API is reached, what logs people in, how long a login holds."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
from dataclasses import dataclass
from typing import Final

from cloud.config import Access, Config
from cloud.release_keys import make_folder, write_atomically
from shared.errors import ConfigError
from shared.hosts import is_loopback, plain_is_allowed

SESSION_S: Final = 14 * 86_400
"""A login in a browser holds so long."""
API_TOKEN_FILE: Final = "api-token"
_PREFIX: Final = "pta_"
SHORT_CHARS: Final = 16
"""An API_TOKEN with fewer characters may be guessed."""
_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Door:
    """How the API is reached. asks: whoever comes must have a token; no door asks on loopback.

    plain_names: where there is no TLS, the names it may be called by; a door with TLS goes by any.
    """

    tls: bool = False
    asks: bool = False
    plain_names: tuple[str, ...] = ()


def door_of(config: Config) -> Door:
    """The door that API_HOST makes: open on loopback; else it asks, with TLS unless that very address is excepted."""
    host, allowed = config.api_host, config.access.plaintext_hosts
    if is_loopback(host):
        return Door()
    if plain_is_allowed(host, allowed):
        return Door(asks=True, plain_names=tuple(name.strip("[]").lower() for name in allowed))
    return Door(tls=True, asks=True)


def api_token(access: Access) -> tuple[str, bool]:
    """(what logs people in, whether it was made now): API_TOKEN, else the one kept in TLS_DIR."""
    if access.api_token:
        return access.api_token, False
    file = access.tls_dir / API_TOKEN_FILE
    try:
        if file.exists():
            if stat.S_IMODE(file.stat().st_mode) & _OTHERS:
                raise ConfigError(f"{file} can be read by others; run: chmod 600 {file}")
            return file.read_text("utf-8").strip(), False
        token = _PREFIX + secrets.token_urlsafe(24)
        make_folder(access.tls_dir)
        write_atomically(file, f"{token}\n".encode(), 0o600)
    except OSError as error:
        raise ConfigError(f"{file} cannot be used: {error.strerror}; set API_TOKEN, or correct TLS_DIR") from None
    return token, True


def new_session(token: str, now_s: float) -> str:
    """What a browser keeps instead of the token: until when it holds, and our seal on it."""
    until = str(int(now_s) + SESSION_S)
    return f"{until}.{_seal(token, until)}"


def session_holds(token: str, session: str, now_s: float) -> bool:
    """Whether this is a session that `new_session` gave for the same token, and not over."""
    until, _, seal = session.partition(".")
    sealed = hmac.compare_digest(seal.encode(), _seal(token, until).encode())
    return sealed and until.isascii() and until.isdigit() and now_s < int(until)


def same(given: str, token: str) -> bool:
    """Whether a token was given; the time that this takes tells nothing of it."""
    return bool(token) and hmac.compare_digest(given.encode(), token.encode())


def _seal(token: str, until: str) -> str:
    return hmac.new(token.encode(), f"packtwin session {until}".encode(), hashlib.sha256).hexdigest()
