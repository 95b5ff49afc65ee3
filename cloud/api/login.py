"""The login page: one field for API_TOKEN, a cookie for the browser, and the CA for whoever wants to trust it."""

from __future__ import annotations

import asyncio
from html import escape
from typing import Annotated, Final
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from cloud.access import SESSION_S
from cloud.api.answers import ApiProblem
from cloud.api.gate import COOKIE, Gate
from cloud.api.state import state_of
from cloud.tls import CA_FILE

router = APIRouter(include_in_schema=False)

_MAX_FORM_BYTES: Final = 4096
_WRONG_PAUSE_S: Final = 1.0
"""Who guesses shall wait."""
_POLICY: Final = "default-src 'self'; script-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "referrer-policy": "same-origin",  # with none at all a browser hides the form's origin, and the form is refused
    "www-authenticate": 'Bearer realm="packtwin"',
}
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif;
  --page: #f4f6f7; --surface: #fff; --border: #dde2e6; --text: #14191d; --muted: #59656f;
  --accent: #0f766e; --on-accent: #fff; --critical: #c01f2e; }
@media (prefers-color-scheme: dark) { :root {
  --page: #0d1114; --surface: #151b1f; --border: #273138; --text: #e7ecef; --muted: #96a3ad;
  --accent: #41c9b4; --on-accent: #0d1114; --critical: #ff7a80; } }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--page); color: var(--text); }
form { box-sizing: border-box; width: min(25rem, calc(100vw - 2rem)); padding: 1.75rem; border-radius: 10px;
  background: var(--surface); border: 1px solid var(--border); }
h1 { margin: 0 0 .2rem; font-size: 1.35rem; }
p { margin: 0 0 1.1rem; color: var(--muted); font-size: .93rem; }
p[role=alert] { color: var(--critical); }
label { display: block; margin-bottom: .3rem; font-weight: 600; font-size: .93rem; }
input, button { box-sizing: border-box; width: 100%; min-height: 44px; padding: .5rem .75rem; border-radius: 8px;
  font: inherit; }
input { border: 1px solid var(--border); background: var(--page); color: inherit; }
button { margin-top: 1rem; border: 0; background: var(--accent); color: var(--on-accent); font-weight: 600;
  cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
"""


def login_page(to: str, problem: str = "") -> Response:
    """The form, as the 401 that it is; `to`: where to go after it."""
    told = f"<p role=alert>{escape(problem)}</p>" if problem else "<p>Digital twins of electric-vehicle batteries.</p>"
    return HTMLResponse(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>packtwin: log in</title>"
        "<meta name=viewport content='width=device-width, initial-scale=1'><link rel=icon href=favicon.svg>"
        "<link rel=stylesheet href=login.css></head><body>"
        f"<form method=post action=login><h1>packtwin</h1>{told}"
        f"<input type=hidden name=to value='{escape(to, quote=True)}'>"
        "<label for=token>API token</label>"
        "<input id=token name=token type=password autocomplete=current-password required autofocus>"
        "<button>Log in</button></form></body></html>",
        401,
        _HEADERS,
    )


@router.get("/login")
def form(to: Annotated[str, Query()] = "/") -> Response:
    """The page; 200, as this is what was asked for."""
    page = login_page(local_path(to))
    page.status_code = 200
    return page


@router.post("/login")
async def log_in(request: Request) -> Response:
    """A good token becomes a cookie and leads on; any other one, the form again."""
    gate: Gate | None = request.app.state.gate
    fields = parse_qs(await _body(request))
    to = local_path(fields.get("to", ["/"])[0])
    if gate is not None:
        if not gate.is_api_token(fields.get("token", [""])[0].strip()):
            await asyncio.sleep(_WRONG_PAUSE_S)
            return login_page(
                to, "This is not the API token. It is API_TOKEN of the settings, or printed at first start."
            )
        answer = RedirectResponse(to, 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, gate.new_session(), SESSION_S, secure=secure, httponly=True, samesite="lax")
        return answer
    return RedirectResponse(to, 303)  # on loopback everybody is in


@router.post("/logout")
def log_out() -> Response:
    """Forgets the cookie."""
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE)
    return answer


@router.get("/login.css")
def style() -> Response:
    """Its style: a file of its own, as the content security policy wants it."""
    return Response(_STYLE, media_type="text/css")


@router.get("/ca.pem")
def ca(request: Request) -> Response:
    """The CA that signed this server's certificate, to be trusted only after its fingerprint was compared."""
    settings = state_of(request).config.access
    try:
        if settings.cert_file is None:
            return Response((settings.tls_dir / CA_FILE).read_bytes(), media_type="application/x-pem-file")
    except OSError:
        pass
    raise ApiProblem(404, "This server's certificate is of no CA of its own.")


def local_path(to: str) -> str:
    """`to` where it is a place on this server, else the start page: a login leads nowhere else."""
    parts = urlsplit(to)
    local = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return to if local and to.isprintable() and "\\" not in to else "/"


async def _body(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise ApiProblem(413, "The form is too large.")
    return body.decode("utf-8", "replace")
