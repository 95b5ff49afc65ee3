"""Whose request it is, by token or login, and what that one may ask for. Only doors that ask need it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from starlette.datastructures import Headers

from cloud import access, devices
from cloud.api.answers import ApiProblem
from cloud.api.reader import Reader

COOKIE: Final = "packtwin"
OPEN_PATHS: Final = frozenset({"/health", "/login", "/login.css", "/ca.pem", "/favicon.svg"})
"""What anybody may ask: whether it works, how to log in, whose certificate this is."""
DEVICE: Final = "packtwin.device"
"""Key of a request's scope: the device whose token was sent. Not there, or None: whoever asks is no device."""
FOR_DEVICES: Final = "/device/v1/"
_ASKED_AGAIN_S: Final = 5.0
"""A revoked token is refused at the latest so much later."""
_WITHOUT_DATABASE_S: Final = 3600.0
"""So long is a token good that was good when the database went away: nobody could revoke it since."""
_MOST_KNOWN: Final = 100_000


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. device: whose token it is; None = a person."""

    device: str | None = None


class Refusal(Exception):
    """401 (nobody known) or 403 (not this one's), in one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Gate:
    """Knows API_TOKEN, and asks the database for the tokens of devices."""

    def __init__(self, api_token: str, reader: Reader, now_s: Callable[[], float] = time.time) -> None:
        self._api_token, self._reader, self._now_s = api_token, reader, now_s
        self._devices: dict[bytes, tuple[str, float]] = {}  # digest of a token -> device, and when that was true

    async def admit(self, method: str, path: str, headers: Headers) -> Caller | None:
        """Who asks; None for what is open to all. Raises Refusal, or ApiProblem where that cannot be known now."""
        if path in OPEN_PATHS:
            return None
        caller = await self._caller(headers)
        if caller.device is not None and not path.startswith(FOR_DEVICES):
            raise Refusal(403, f"This is a device's token; it opens {FOR_DEVICES} only, people use API_TOKEN.")
        if caller.device is None and path.startswith(FOR_DEVICES) and method not in ("GET", "HEAD"):
            raise Refusal(403, "Only a device sends records; use the token that `cloud device add` printed.")
        return caller

    def is_api_token(self, given: str) -> bool:
        """Whether this logs people in."""
        return access.same(given, self._api_token)

    def new_session(self) -> str:
        """The cookie of a person who has logged in."""
        return access.new_session(self._api_token, self._now_s())

    async def _caller(self, headers: Headers) -> Caller:
        given = headers.get("authorization")
        if given is not None:
            return await self._by_token(given)
        session = cookie_of(headers.get("cookie", ""))
        if session and self._api_token and access.session_holds(self._api_token, session, self._now_s()):
            return Caller()
        raise Refusal(401, "This needs a token: log in at /login, or send Authorization: Bearer TOKEN.")

    async def _by_token(self, given: str) -> Caller:
        scheme, _, token = given.partition(" ")
        token = token.strip()
        if scheme.lower() == "bearer" and token:
            if self.is_api_token(token):
                return Caller()
            device = await self._device(token)
            if device is not None:
                return Caller(device)
        raise Refusal(401, "This token is wrong, or it was revoked.")

    async def _device(self, token: str) -> str | None:
        if not token.startswith(devices.PREFIX):
            return None
        digest, now_s = devices.digest(token), self._now_s()
        device, seen_s = self._devices.get(digest, ("", -_WITHOUT_DATABASE_S))
        if 0 <= now_s - seen_s < _ASKED_AGAIN_S:
            return device
        try:
            found = await asyncio.to_thread(self._reader.ask, devices.device_of_token, token)
        except ApiProblem:
            if 0 <= now_s - seen_s < _WITHOUT_DATABASE_S:
                return device
            raise
        if found is None:
            self._devices.pop(digest, None)
            return None
        if len(self._devices) >= _MOST_KNOWN:
            self._devices.clear()
        self._devices[digest] = (found, now_s)
        return found


def cookie_of(header: str) -> str:
    """Our cookie's value in a Cookie header; "" when it is not there."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return unquote(value.strip().strip('"'))
    return ""
