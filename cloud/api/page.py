"""The web page: the files that `make setup` built into cloud/web/dist, with the right cache headers."""

from __future__ import annotations

from os import PathLike, stat_result
from pathlib import Path
from typing import Final

from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIST: Final = Path(__file__).resolve().parent.parent / "web" / "dist"
_NOT_BUILT: Final = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>packtwin</title>"
    "<p>The page is not built yet: run <code>make setup</code> in the checkout and load this page again. "
    'The API works; see <a href="docs">its endpoints</a>.</p></html>'
)


class Page(StaticFiles):
    """Files under `directory`; names with a hash (assets/) may be kept for ever, all others are asked for again."""

    def __init__(self, directory: Path = DIST) -> None:
        super().__init__(directory=directory, html=True, check_dir=False)
        self._index = directory / "index.html"

    async def check_config(self) -> None:
        """Nothing to check at the start: the page may be built while the API runs."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        if path == "." and not self._index.is_file():
            return HTMLResponse(_NOT_BUILT, 503)
        return await super().get_response(path, scope)

    def file_response(
        self, full_path: str | PathLike[str], stat_result: stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        hashed = Path(full_path).parent.name == "assets"
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
        return response
