"""Captures: the raw input that devices kept around alarms, as lists and as candump logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import zstandard
from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from cloud.api.answers import ApiProblem, Json, Problem
from cloud.api.packs import Limit, no_pack
from cloud.api.reader import Reader
from cloud.api.state import state_of
from cloud.db import queries_captures, queries_packs
from cloud.db.queries_packs import Row
from cloud.live import iso
from shared.batch import MAX_PLAIN_BYTES

router = APIRouter(prefix="/api/v1", tags=["captures"], default_response_class=Json)

_NAMES: Final = {"log": ".log", "serial": ".serial.jsonl", "state": ".state.json"}
"""Of the files as `edge capture export` writes them."""
_KINDS: Final = {"log": "text/plain", "serial": "application/jsonl", "state": "application/json"}
_UNKNOWN: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem}}
_NOT_WHOLE: Final[dict[int | str, dict[str, Any]]] = {
    **_UNKNOWN,
    409: {"model": Problem},
    200: {"content": {"text/plain": {}}, "description": "The file, as the device wrote it."},
}
File = Literal["log", "serial", "state"]


@router.get("/captures", responses=_UNKNOWN)
def captures(request: Request, pack_id: str | None = None, limit: Limit = 200) -> Json:
    """What devices kept around alarms, of one pack or of all, those that came last first.

    `whole` = all its parts are here, so that its log can be fetched.
    """
    reader = state_of(request).reader
    if pack_id is not None and reader.ask(queries_packs.pack_key, pack_id) is None:
        raise no_pack(pack_id)
    return Json({"captures": list(map(_record, reader.ask(queries_captures.captures, pack_id, limit)))})


@router.get("/captures/{id}", responses=_NOT_WHOLE, response_class=StreamingResponse)
def capture(
    request: Request,
    id: str,
    file: Annotated[
        File, Query(description="`log`: candump; `state`: what `edge replay` needs beside it; `serial`: other lines.")
    ] = "log",
) -> StreamingResponse:
    """A file of a capture: the CAN frames as a candump log, in us."""
    reader = state_of(request).reader
    found = reader.ask(queries_captures.capture, id)
    if found is None:
        raise ApiProblem(404, f"No capture is called {id[:80]!r}; see /api/v1/captures.")
    if not found["whole"]:
        raise ApiProblem(
            409, f"Capture {id} is still on its way: {found['parts_here']} of {found['parts']} parts are here."
        )
    parts = reader.ask(queries_captures.parts_of, found["capture_key"], file)
    if not parts and file != "log":
        raise ApiProblem(404, f"Capture {id} has no {file}.")
    name = f"{found['pack_id']}-{found['id']}{_NAMES[file]}"
    return StreamingResponse(
        _unpacked(reader, found["capture_key"], parts),
        media_type=_KINDS[file],
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _unpacked(reader: Reader, capture_key: int, parts: list[int]) -> Iterator[bytes]:
    """The file in pieces, a part in memory at a time. What breaks here cuts the answer off."""
    unpack = zstandard.ZstdDecompressor()
    for part in parts:
        data = reader.ask(queries_captures.data_of, capture_key, part)
        if data is None:
            raise ApiProblem(404, "This capture has just been deleted.")
        yield unpack.decompress(data, max_output_size=MAX_PLAIN_BYTES)


def _record(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "pack_id": row["pack_id"],
        "device": row["device"],
        "t": iso(row["t_ns"]),
        "begin": iso(row["begin_t_ns"]),
        "end": iso(row["end_t_ns"]),
        "cause": row["cause"],
        "note": row["note"],
        "parts": row["parts"],
        "parts_here": row["parts_here"],
        "bytes_here": row["bytes_here"],
        "whole": row["whole"],
    }
