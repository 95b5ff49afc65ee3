"""Who may talk to an API without login: only this machine, and only pages that this API served.

A web page elsewhere can make a browser send requests to localhost (CSRF), or point its own name here (DNS rebinding);
the Host and Origin headers give both away.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


def refusal(method: str, host: str | None, origin: str | None) -> str | None:
    """Why a request must not be answered, in one sentence; None = it may. `method`: "WEBSOCKET" for a WebSocket."""
    if host is None or not _LOOPBACK.fullmatch(host):
        return f"Host {(host or '')[:80]!r} is not this machine; use http://localhost with the API's port."
    if method not in _SAFE_METHODS and origin is not None and origin.lower() not in _own_origins(host):
        return f"A page from {origin[:80]!r} may not change anything here; open the page that this API serves."
    return None


def _own_origins(host: str) -> tuple[str, str]:
    return f"http://{host.lower()}", f"https://{host.lower()}"


class Guard:
    """ASGI middleware: refuses foreign hosts and origins with 403, adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        method = scope.get("method", "WEBSOCKET")
        reason = refusal(method, headers.get("host"), headers.get("origin"))
        if reason is None:
            await self._app(scope, receive, send_guarded)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await JSONResponse({"detail": reason}, 403)(scope, receive, send_guarded)
