"""The one thing that the page's server does on request: `edge capture trigger` asks it for a window of raw input.

The page itself may be open to a whole network; this is for who can read the key that the running agent leaves in its
own folder. A header carries it, which no web page of another origin can send.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from edge.capture.recorder import Recorder
from shared.batch import MAX_TEXT_CHARS
from shared.errors import ConfigError

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

WISH_PATH: Final = "/capture"
KEY_HEADER: Final = "X-Packtwin-Key"
_MOST_BYTES: Final = 4096
_OFF: Final = "the flight recorder is off: set [recorder] max_bytes in edge.toml"
Answer = tuple[str, bytes, str]


@dataclass(frozen=True, slots=True)
class Wishes:
    """recorder: None = it is off. key: what the caller must know."""

    recorder: Recorder | None
    key: str

    def answer(self, environ: WSGIEnvironment) -> Answer:
        """(status, body, kind) of the answer to a POST of {"pack_id": text or null, "note": text or null}."""
        given = str(environ.get("HTTP_X_PACKTWIN_KEY", ""))
        if not hmac.compare_digest(given.encode(), self.key.encode()):
            return _sentence("403 Forbidden", "only who may read the agent's own folder may ask for this")
        if self.recorder is None:
            return _sentence("409 Conflict", _OFF)
        wish = _wish(environ)
        if wish is None:
            return _sentence("400 Bad Request", "not a wish for a capture")
        try:
            captures = self.recorder.trigger(*wish)
        except ConfigError as error:
            return _sentence("404 Not Found", str(error))
        return "200 OK", json.dumps({"captures": captures}).encode(), "application/json"


def _wish(environ: WSGIEnvironment) -> tuple[str | None, str | None] | None:
    """(pack_id, note) of a request; None if it says anything else."""
    try:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        told: Any = json.loads(environ["wsgi.input"].read(size)) if 0 < size <= _MOST_BYTES else None
        pack_id, note = told["pack_id"], told["note"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    texts = [text for text in (pack_id, note) if text is not None]
    fit = all(isinstance(text, str) and len(text) <= MAX_TEXT_CHARS and text.isprintable() for text in texts)
    return (pack_id, note) if fit else None


def _sentence(status: str, sentence: str) -> Answer:
    return status, f"{sentence}\n".encode(), "text/plain"
