"""What devices ask for: to take their records, and what the cloud would like of them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cloud.api import image
from cloud.api.answers import ApiProblem, Json
from cloud.api.gate import DEVICE
from cloud.api.state import State, state_of
from cloud.bus import BusAway
from cloud.db import queries_release
from shared.batch import MAX_BODY_BYTES, Batch
from shared.errors import WireError
from shared.fields import ID
from shared.records import Receipt, boot_hex
from shared.wire import decode_batch, encode_receipt
from shared.wire_json import decode_batch_json, receipt_json

log = logging.getLogger(__name__)
router = APIRouter(prefix="/device/v1", tags=["devices"])
router.include_router(image.router)

_INLINE_BYTES: Final = 16 << 10
"""Bodies up to this size are validated on the event loop: a thread costs more than they do."""
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_DECODERS: Final = {_PROTOBUF: decode_batch, _JSON: decode_batch_json}
_ENCODERS: Final = {_PROTOBUF: encode_receipt, _JSON: receipt_json}
_BODY_DOC: Final = {"requestBody": {"required": True, "content": {_PROTOBUF: {}, _JSON: {}}}}
_ANSWERS_DOC: Final = {
    200: {"description": "Receipt: what is durable now.", "content": {_PROTOBUF: {}, _JSON: {}}},
    400: {"description": "The body is no Batch; nothing was taken."},
    413: {"description": "The body is too large; nothing was taken."},
    415: {"description": "Neither JSON nor protobuf, or compressed."},
    503: {"description": "Not durable now; send it again after Retry-After seconds."},
}


class Refused(Exception):
    """An upload that is not taken as a whole: the status, one sentence and the reason of the closed list, if any."""

    def __init__(self, status: int, sentence: str, reason: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.retry_after_s = retry_after_s


@router.post("/batches", responses=_ANSWERS_DOC, openapi_extra=_BODY_DOC)  # type: ignore[arg-type]
async def batches(request: Request) -> Response:
    """Takes a Batch; the Receipt, in the same encoding, comes only after everything accepted is durable."""
    state = state_of(request)
    try:
        kind = content_kind(request)
        batch, body = await _read_batch(request, kind)
        if foreign := _foreign(request, batch.device):
            raise Refused(403, foreign, "not_yours")
        receipt = await _submit(state, batch, body if kind == _PROTOBUF else None)
    except Refused as refused:
        state.metrics.uploads.labels(refused.reason or str(refused.status)).inc()
        headers = {"retry-after": str(refused.retry_after_s)} if refused.retry_after_s is not None else None
        return Json({"error": str(refused), "reason": refused.reason}, refused.status, headers)
    state.metrics.count_receipt(receipt)
    return Response(_ENCODERS[kind](receipt), media_type=kind)


@router.get("/desired", response_class=Json)
async def desired(
    request: Request, device: Annotated[str | None, Query(description="The device's id; left out: any device.")] = None
) -> Json:
    """What the cloud wants of the device: its uplink mode (live while someone watches), and its model (null: keep)."""
    state = state_of(request)
    if foreign := _foreign(request, device):
        raise ApiProblem(403, foreign)
    device = device or caller_of(request)
    known = device if device is not None and ID.fullmatch(device) else None
    try:
        mode, bundle = await asyncio.to_thread(state.reader.ask, queries_release.desired, known)
    except ApiProblem:
        if known is not None:  # its own wishes are not known now
            raise
        mode = bundle = None
    live = "live" if state.hub.watches(device) else None
    return Json({"mode": live or mode or state.config.uplink_mode, "bundle": bundle})


def caller_of(request: Request) -> str | None:
    """The device whose token came with the request; None where no token is asked for, or a person asks."""
    caller: str | None = request.scope.get(DEVICE)
    return caller


def _foreign(request: Request, device: str | None) -> str | None:
    """Why the device whose token was sent may not speak for `device`; None = it may."""
    caller = caller_of(request)
    return None if caller is None or device in (None, caller) else f"This is {caller}'s token, not another device's."


def content_kind(request: Request) -> str:
    """The media type of the body without its parameters; Refused 415 if it is none of ours."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _DECODERS:
        raise Refused(415, f"Content-Type {kind[:80]!r} is not taken here; send {_PROTOBUF} or {_JSON}.")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Refused(415, f"Content-Encoding {encoding[:80]!r} is not taken here; send the body as it is.")
    return kind


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body; Refused 413 as soon as it is known to be larger than `limit`."""
    too_large = Refused(413, f"The body is larger than {limit} bytes; send fewer records at once.", "too_large")
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit:
        raise too_large
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def _read_batch(request: Request, kind: str) -> tuple[Batch, bytes]:
    body = await read_body(request)
    decode = _DECODERS[kind]
    try:
        batch = decode(body) if len(body) <= _INLINE_BYTES else await asyncio.to_thread(decode, body)
        return batch, body
    except WireError as error:
        log.info("upload refused bytes=%d reason=%s: %s", len(body), error.reason, error)
        status = 413 if error.reason == "too_large" else 400
        raise Refused(status, f"{error}.", error.reason) from error


async def _submit(state: State, batch: Batch, body: bytes | None) -> Receipt:
    try:
        receipt = await state.bus.submit(batch, body)
    except BusAway as error:
        log.warning("upload kept waiting device=%s boot=%s: %s", batch.device, boot_hex(batch.boot), error)
        sentence = "The database or the bus is down or busy; nothing was taken, send it again later."
        raise Refused(503, sentence, retry_after_s=error.retry_after_s) from error
    return dataclasses.replace(receipt, mode="live") if state.hub.watches(batch.device) else receipt
