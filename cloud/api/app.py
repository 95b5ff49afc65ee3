"""The app: routes, middleware, error answers; the parts it works with are handed in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from cloud.access import door_of
from cloud.api import captures, device, docs, earlier, login, metrics, models, packs, stream
from cloud.api.answers import ApiProblem, on_failure, on_http, on_invalid, on_problem
from cloud.api.gate import Gate
from cloud.api.guard import Guard
from cloud.api.page import Page
from cloud.api.state import State

_ABOUT: Final = (
    "`/api/battery/*` keeps the earlier system's names, percent and sign (current > 0 discharges); `/api/v1` has "
    "packtwin's own names and units (SoC 0..1, current > 0 charges, times ISO 8601 UTC)."
)
Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def build_app(state: State, lifespan: Lifespan, page: Page | None = None) -> ASGIApp:
    """The ASGI app of the API process; `lifespan` starts and stops what runs beside it."""

    @asynccontextmanager
    async def run(_: FastAPI) -> AsyncIterator[None]:
        state.hub.start()
        async with lifespan():
            yield
        state.reader.close()

    app = FastAPI(
        title="packtwin", version="1", description=_ABOUT, lifespan=run, docs_url=None, redoc_url=None,
        openapi_url="/openapi.json",
    )  # fmt: skip
    door = door_of(state.config)
    gate = Gate(state.config.access.api_token, state.reader) if door.asks else None
    app.state.packtwin, app.state.gate = state, gate
    for part in (device, earlier, packs, captures, models, stream, metrics, docs, login):
        app.include_router(part.router)
    app.router.default = page or Page()  # asked last, so that a wrong method on our own paths stays a 405
    app.add_exception_handler(ApiProblem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)
    return Guard(metrics.Timing(app, state.metrics.latency), door, gate)
