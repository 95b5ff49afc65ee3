"""The signed repository as devices fetch it: metadata and bundles, files of exactly known names and nothing else."""

from __future__ import annotations

import re
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import FileResponse, Response

from cloud.api.answers import ApiProblem
from cloud.api.state import state_of
from shared.bundle import MODEL_ID, SUFFIX

router = APIRouter(prefix="/image")

_METADATA: Final = re.compile(r"timestamp\.json|[1-9][0-9]{0,9}\.(?:root|targets|snapshot)\.json")
_TARGET: Final = re.compile(rf"[0-9a-f]{{64}}\.{MODEL_ID.pattern}{re.escape(SUFFIX)}")
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_ANSWERS: Final = {
    200: {"description": "The file.", "content": {"application/octet-stream": {}}},
    404: {"description": "There is no such file; perhaps nothing is published yet."},
}


@router.head("/metadata/{name:path}", include_in_schema=False)
@router.get("/metadata/{name:path}", responses=_ANSWERS)  # type: ignore[arg-type]
def metadata(request: Request, name: str) -> Response:
    """Signed metadata, by python-tuf's names. All but timestamp.json never changes."""
    if not _METADATA.fullmatch(name):
        raise _nothing()
    try:  # read whole: timestamp.json may be replaced at any moment
        body = (state_of(request).config.release_dir / "metadata" / name).read_bytes()
    except OSError as error:
        raise _nothing() from error
    headers = {"cache-control": "no-cache" if name == "timestamp.json" else _FOR_EVER}
    return Response(body, media_type="application/json", headers=headers)


@router.head("/targets/{name:path}", include_in_schema=False)
@router.get("/targets/{name:path}", responses=_ANSWERS)  # type: ignore[arg-type]
def target(request: Request, name: str) -> Response:
    """A bundle, SHA256.NAME-COUNTER.bundle; a Range of it if one is asked for."""
    path = state_of(request).config.release_dir / "targets" / name
    try:
        if not _TARGET.fullmatch(name) or not path.is_file():
            raise _nothing()
        # A validator of its own: a file that was published again has another time, and the same content.
        headers = {"cache-control": _FOR_EVER, "etag": f'"{name[:64]}"'}
        return FileResponse(path, media_type="application/octet-stream", headers=headers, stat_result=path.stat())
    except OSError as error:
        raise _nothing() from error


def _nothing() -> ApiProblem:
    return ApiProblem(404, "There is no such file in the release.")
