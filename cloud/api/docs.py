"""/docs: every endpoint on one page, made from the OpenAPI description, without scripts from elsewhere."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_STYLE: Final = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; padding: .6rem 0 1rem; }
h3 { font: 600 1rem/1.4 ui-monospace, monospace; margin: .4rem 0; overflow-wrap: anywhere; }
h3 b { display: inline-block; min-width: 3.5rem; color: #2a7de1; }
p { margin: .3rem 0; white-space: pre-line; }
table { border-collapse: collapse; font-size: .93rem; }
td { padding: .1rem 1.2rem .1rem 0; vertical-align: top; }
td:first-child { font-family: ui-monospace, monospace; }
"""


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """The page."""
    schema = request.app.openapi()
    parts = [_operation(path, method, spec) for path, ways in schema["paths"].items() for method, spec in ways.items()]
    intro = escape(schema["info"]["description"]).replace("`", "")
    return HTMLResponse(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>packtwin API</title>"
        "<meta name=viewport content='width=device-width'><link rel=icon href=favicon.svg>"
        "<link rel=stylesheet href=docs.css></head><body>"
        f"<h1>packtwin API</h1><p>{intro}</p><p>For programs: <a href=openapi.json>openapi.json</a></p>"
        f"{''.join(parts)}</body></html>"
    )


@router.get("/docs.css")
def style() -> Response:
    """Its style: a file of its own, as the content security policy wants it."""
    return Response(_STYLE, media_type="text/css")


def _operation(path: str, method: str, spec: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(p['name'])}<td>{escape(_kind(p.get('schema', {})))}<td>{escape(p.get('description', ''))}"
        for p in spec.get("parameters", [])
    )
    text = escape(spec.get("description", "")).replace("`", "")
    return f"<section><h3><b>{method.upper()}</b>{escape(path)}</h3><p>{text}</p><table>{rows}</table></section>"


def _kind(schema: dict[str, Any]) -> str:
    kinds = [part.get("type", "") for part in schema.get("anyOf", [schema])]
    text = " or ".join(kind for kind in kinds if kind != "null")
    default = schema.get("default")
    return f"{text} = {default}" if default is not None else text
