"""Packs, their samples over time, events and devices: `/api/v1` in packtwin's own names and units."""

from __future__ import annotations

import base64
import binascii
import math
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request

from cloud.api.answers import ApiProblem, Json, Problem
from cloud.api.fleet import Choice, Order, Show, choose
from cloud.api.records import bits, device_record, event_record, pack_record, when
from cloud.api.state import state_of
from cloud.db import Connection, queries_packs, queries_samples
from cloud.live import iso
from shared.fields import MAX_CELLS

router = APIRouter(prefix="/api/v1", tags=["packs"], default_response_class=Json)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DEFAULT_SPAN: Final = timedelta(hours=1)
_MAX_FIELDS: Final = 64
_MAX_LIMIT: Final = 10_000
_STEP_S: Final = (0.001, 31 * 86_400)
_UNKNOWN: Final[dict[int | str, dict[str, Any]]] = {404: {"model": Problem}}
_WRONG: Final[dict[int | str, dict[str, Any]]] = {**_UNKNOWN, 422: {"model": Problem}}
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/packs", responses={422: {"model": Problem}})
def packs(
    request: Request,
    search: Annotated[str, Query(description="Words that its names, state, tags or model must all have.")] = "",
    show: Annotated[Show, Query(description="Only those; `unpredicted`: without a remaining life.")] = "all",
    order: Annotated[Order, Query(description="What comes first: the worst; by `id`: as people count.")] = "id",
    limit: Annotated[int | None, Query(ge=1, le=_MAX_LIMIT, description="Left out: all.")] = None,
    offset: Annotated[int, Query(ge=0, le=2**31)] = 0,
) -> Json:
    """Packs: what is known of each, its newest Sample (`latest`, null = none yet), its status and newest prediction.

    `total` = how many fit, whatever the limit; `counts` = how many of all packs each `show` has; `t` = of the newest
    Sample of all. With a limit, what the choice is made by may be 2 s old.
    """
    state = state_of(request)
    mode = state.config.uplink_mode
    rows = state.fleet.rows(fresh=limit is None)
    newest = max((row["t"] for row in rows if row["t"]), default=None)
    ids, counts = choose(rows, Choice(search=search, show=show, order=order), datetime.now(UTC), mode)
    page = ids[offset : None if limit is None else offset + limit]
    found = {row["pack_id"]: row for row in state.reader.ask(queries_packs.packs, page)} if page else {}
    records = [pack_record(found[pack_id], mode) for pack_id in page if pack_id in found]
    return Json({"packs": records, "total": len(ids), "counts": counts, "t": when(newest)})


@router.get("/packs/{pack_id}", responses=_UNKNOWN)
def pack(request: Request, pack_id: str) -> Json:
    """One pack, as in the list."""
    state = state_of(request)
    found = state.reader.ask(queries_packs.packs, [pack_id])
    if not found:
        raise no_pack(pack_id)
    return Json(pack_record(found[0], state.config.uplink_mode))


@router.get("/packs/{pack_id}/samples", responses=_WRONG)
def samples(  # noqa: PLR0913, PLR0917 - one argument per query parameter
    request: Request,
    pack_id: str,
    since: Annotated[str | None, Query(alias="from", description="ISO 8601; left out: an hour before `to`.")] = None,
    until: Annotated[str | None, Query(alias="to", description="ISO 8601; left out: now.")] = None,
    step: Annotated[float | None, Query(description="s; means of equal steps instead of every Sample.")] = None,
    fields: Annotated[
        str | None, Query(description="Comma list of Sample's names, cell_v[17], extra.NAME; left out: all.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_LIMIT)] = 1000,
    cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> Json:
    """A pack's Samples in [from, to], oldest first, as rows of `columns`; `next` = cursor of the next page or null.

    With `step`, a row stands for the step that begins at `t`: means; the least of `_min`, the most of `_max`, the last
    of states and switches.
    """
    end = read_time("to", until) if until is not None else datetime.now(UTC)
    begin = read_time("from", since) if since is not None else end - _DEFAULT_SPAN
    names = read_fields(fields, step is not None)
    reader = state_of(request).reader

    def answer(conn: Connection) -> dict[str, Any]:
        key = queries_packs.pack_key(conn, pack_id)
        if key is None:
            raise no_pack(pack_id)
        if step is None:
            return _rows(conn, key, begin, end, names, limit, cursor)
        return _steps(conn, key, begin, end, names, limit, cursor, read_step_ns(step))

    return Json({"pack_id": pack_id, "step": step, "columns": ["t", *names]} | reader.ask(answer))


@router.get("/packs/{pack_id}/events", responses=_UNKNOWN)
def pack_events(request: Request, pack_id: str, only_open: bool = False, limit: Limit = 200) -> Json:
    """Events of one pack, newest first, each once as it stands now."""
    reader = state_of(request).reader
    if reader.ask(queries_packs.pack_key, pack_id) is None:
        raise no_pack(pack_id)
    return Json({"events": list(map(event_record, reader.ask(queries_packs.events, pack_id, only_open, limit)))})


@router.get("/events")
def events(request: Request, only_open: bool = False, limit: Limit = 200) -> Json:
    """Events of all packs, newest first, each once as it stands now."""
    rows = state_of(request).reader.ask(queries_packs.events, None, only_open, limit)
    return Json({"events": list(map(event_record, rows))})


@router.get("/devices")
def devices(request: Request) -> Json:
    """Every device by id, its packs, and what it last reported of its model (null = nothing yet)."""
    return Json({"devices": list(map(device_record, state_of(request).reader.ask(queries_packs.devices)))})


def no_pack(pack_id: str) -> ApiProblem:
    """The 404 for a pack that nobody knows."""
    return ApiProblem(404, f"No pack is called {pack_id[:80]!r}; see /api/v1/packs.")


def read_time(name: str, text: str) -> datetime:
    """An ISO 8601 time; without a zone it is UTC. ApiProblem 422 if it is none."""
    try:
        t = datetime.fromisoformat(text.strip().replace(" ", "+"))
        t = t.replace(tzinfo=UTC) if t.tzinfo is None else t.astimezone(UTC)
    except (ValueError, OverflowError):
        t = None
    if t is None or not 1970 <= t.year < 2262:
        raise ApiProblem(422, f"{name}: {text[:80]!r} is not a time such as 2026-11-24T08:00:00Z.")
    return t


def read_step_ns(step_s: float) -> int:
    """The step in ns; ApiProblem 422 if it is absurd."""
    low, high = _STEP_S
    if not (math.isfinite(step_s) and low <= step_s <= high):
        raise ApiProblem(422, f"step: {step_s} is not a number of seconds from {low} to {high}.")
    return round(step_s * 1e9)


def read_fields(text: str | None, stepped: bool) -> list[str]:
    """The fields asked for, in their order; ApiProblem 422 for one that does not exist or has no mean."""
    if text is None:
        return list(queries_samples.MEAN_FIELDS if stepped else queries_samples.ALL_FIELDS)
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    names = [name for name in names if name not in ("t", "pack_id")] or [""]
    if len(names) > _MAX_FIELDS + MAX_CELLS:
        raise ApiProblem(422, f"fields: {len(names)} are too many.")
    for name in names:
        if not queries_samples.known_field(name, stepped):
            also = " with a step" if stepped and queries_samples.known_field(name, False) else ""
            raise ApiProblem(422, f"fields: {name[:80]!r} is not a field that a Sample can be asked for{also}.")
    return names


def _rows(
    conn: Connection, key: int, begin: datetime, end: datetime, names: list[str], limit: int, cursor: str | None
) -> dict[str, Any]:
    after = queries_samples.Position(*_read_cursor(cursor, 3)) if cursor is not None else None
    found = queries_samples.rows(conn, key, begin, end, names, limit + 1, after)
    more = len(found) > limit
    last = found[limit - 1] if more else None
    at = names.index("balancing") if "balancing" in names else None
    page = [[iso(t_ns), *values] for t_ns, _, _, _, *values in found[:limit]]
    if at is not None:
        for row in page:
            row[at + 1] = bits(row[at + 1])
    return {"rows": page, "next": _cursor(*last[1:4]) if last else None}


def _steps(  # noqa: PLR0913, PLR0917
    conn: Connection, key: int, begin: datetime, end: datetime, names: list[str], limit: int, cursor: str | None,
    step_ns: int,
) -> dict[str, Any]:  # fmt: skip
    if cursor is not None:
        (next_ns,) = _read_cursor(cursor, 1)
        begin = max(
            begin, datetime.fromtimestamp(next_ns // 10**9, UTC) + timedelta(microseconds=next_ns // 1000 % 10**6)
        )
    found = queries_samples.steps(conn, key, begin, end, names, limit + 1, step_ns)
    more = found[limit][0] if len(found) > limit else None
    page = [[iso(t_ns), *map(_short, values)] for t_ns, *values in found[:limit]]
    return {"rows": page, "next": _cursor(more) if more is not None else None}


def _short(value: Any) -> Any:
    """A mean without the digits that nobody measured."""
    if isinstance(value, float):
        return round(value, 6)
    return [_short(item) for item in value] if isinstance(value, list) else value


def _cursor(*parts: int) -> str:
    return base64.urlsafe_b64encode(".".join(map(str, parts)).encode()).decode().rstrip("=")


def _read_cursor(text: str, count: int) -> list[int]:
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        parts = [int(part) for part in base64.b64decode(padded, b"-_", validate=True).decode("ascii").split(".")]
        if len(parts) != count or not 0 <= parts[0] < 2**63 or any(not -(2**63) <= part < 2**63 for part in parts):
            raise ValueError
    except (ValueError, binascii.Error):
        raise ApiProblem(422, f"cursor: {text[:80]!r} is not the `next` of an earlier answer.") from None
    return parts
