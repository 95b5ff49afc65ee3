"""What an API beyond loopback needs before it serves: a certificate, and what logs people in; said once, at start."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cloud import access
from cloud.config import Config
from cloud.tls import Served

log = logging.getLogger(__name__)


def prepared(config: Config) -> tuple[Config, Served | None]:
    """(the settings with an API_TOKEN, the certificate), None = served without TLS. ConfigError where it cannot be."""
    door = access.door_of(config)
    if not door.asks:
        return config, None
    served = Served(config.access, config.api_host, datetime.now(UTC)) if door.tls else None
    token, made = access.api_token(config.access)
    _say(config, served, token if made else None)
    if len(token) < access.SHORT_CHARS:
        log.warning("API_TOKEN has only %d characters and may be guessed; leave it out and one is made", len(token))
    return replace(config, access=replace(config.access, api_token=token)), served


def _say(config: Config, served: Served | None, new_token: str | None) -> None:
    if served is None:
        log.warning("no TLS on %s, as ALLOW_PLAINTEXT_HOSTS wants it; tokens are asked for", config.api_host)
    elif served.authority is not None:
        made = "a new CA" if served.made else "the CA"
        log.info("%s is %s, its SHA-256 fingerprint %s", made, served.authority.ca_file, served.authority.fingerprint())
    file: Path = config.access.tls_dir / access.API_TOKEN_FILE
    if new_token is not None:
        log.info("people log in with the API token %s (made now, kept in %s)", new_token, file)
    else:
        log.info("people log in with %s", "API_TOKEN" if config.access.api_token else f"the token in {file}")
