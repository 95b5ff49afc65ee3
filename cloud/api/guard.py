"""Who may talk to the API. On loopback: this machine, and only pages that this API served. Elsewhere: who has a token.

A web page elsewhere can make a browser send requests to localhost (CSRF), or point its own name here (DNS rebinding);
the Host and Origin headers give both away.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.access import Door
from cloud.api.answers import ApiProblem, problem_response
from cloud.api.gate import DEVICE, Gate, Refusal
from cloud.api.login import login_page

_LOOPBACK: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
_NAME: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.IGNORECASE)
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_NOBODY: Final = {"www-authenticate": 'Bearer realm="packtwin"'}
SECURITY_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


def refusal(method: str, host: str | None, origin: str | None, door: Door | None = None) -> str | None:
    """Why a request must not be answered, in one sentence; None = it may. `method`: "WEBSOCKET" for a WebSocket."""
    door = door or Door()
    if not door.tls and not _may_be_called(host, door):
        return f"Host {(host or '')[:80]!r} is not this machine; use http://localhost with the API's port."
    if method not in _SAFE_METHODS and origin is not None and origin.lower() not in _own_origins(host or "", door):
        return f"A page from {origin[:80]!r} may not change anything here; open the page that this API serves."
    return None


def _may_be_called(host: str | None, door: Door) -> bool:
    if host is None:
        return False
    name = _NAME.fullmatch(host)
    return bool(_LOOPBACK.fullmatch(host)) or (name is not None and name[1].strip("[]").lower() in door.plain_names)


def _own_origins(host: str, door: Door) -> tuple[str, ...]:
    own = f"https://{host.lower()}"
    return (own,) if door.tls else (own, f"http://{host.lower()}")


class Guard:
    """ASGI middleware: refuses foreign hosts and origins with 403, strangers with 401 where the door asks, and adds the
    security headers to every answer."""

    def __init__(self, app: ASGIApp, door: Door | None = None, gate: Gate | None = None) -> None:
        """gate: who is asked for a token; needed by a door that asks."""
        self._app = app
        self._door = door or Door()
        self._gate = gate
        assert gate is not None or not self._door.asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = await self._refused(scope)
        if answer is None:
            await self._app(scope, receive, send_guarded)
        elif scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
            await answer(scope, receive, send_guarded)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})

    async def _refused(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None = it does, and `scope` says whose it is."""
        headers = Headers(scope=scope)
        method = scope.get("method", "WEBSOCKET")
        reason = refusal(method, headers.get("host"), headers.get("origin"), self._door)
        if reason is not None:
            return JSONResponse({"detail": reason}, 403)
        if self._gate is None or not self._door.asks:
            return None
        try:
            caller = await self._gate.admit(method, scope["path"], headers)
        except Refusal as refused:
            if refused.status == 401 and _is_for_a_person(method, scope["path"], headers):
                return login_page(scope["path"])
            return JSONResponse({"detail": str(refused)}, refused.status, _NOBODY if refused.status == 401 else None)
        except ApiProblem as problem:
            return problem_response(problem)
        scope[DEVICE] = caller.device if caller else None
        return None


def _is_for_a_person(method: str, path: str, headers: Headers) -> bool:
    """Whether a browser wants to show the answer: a page at the top, for which no token was sent."""
    wants = "text/html" in headers.get("accept", "")
    return method == "GET" and wants and path.count("/") == 1 and "authorization" not in headers
