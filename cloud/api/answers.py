"""How answers look: JSON by orjson, and each refusal as one sentence."""

from __future__ import annotations

from typing import Any, Final

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

RETRY_AFTER_S: Final = 2


class ApiProblem(Exception):
    """A request that cannot be answered: its status and one sentence for a person."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Problem(BaseModel):
    """The body of every refusal: one sentence that says what, where and what to do."""

    detail: str


class Json(JSONResponse):
    """A JSON body; NaN and infinity become null."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)


def problem_response(problem: ApiProblem) -> Response:
    """The answer to a request that ended in an ApiProblem."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if problem.status == 503 else None
    return Json({"detail": str(problem)}, problem.status, headers)


async def on_problem(_: Request, error: Exception) -> Response:
    """ApiProblem -> answer."""
    assert isinstance(error, ApiProblem)
    return problem_response(error)


async def on_invalid(_: Request, error: Exception) -> Response:
    """A parameter of the wrong kind -> 422 with one sentence that names it."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    given = f", not {str(first['input'])[:80]!r}" if "input" in first and first["type"] != "missing" else ""
    return Json({"detail": f"{name}: {first['msg']}{given}."}, 422)


async def on_http(_: Request, error: Exception) -> Response:
    """Unknown path, wrong method -> one sentence."""
    assert isinstance(error, HTTPException)
    words = {404: "There is nothing at this address; see /docs.", 405: "This address does not take that method."}
    return Json({"detail": words.get(error.status_code, str(error.detail))}, error.status_code, error.headers)


async def on_failure(_: Request, error: Exception) -> Response:
    """A bug: the log has the traceback, the reader one sentence."""
    return Json({"detail": f"The API failed at this ({type(error).__name__}); its log says where."}, 500)
