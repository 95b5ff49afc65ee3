"""The live stream: server-sent events for pages, a WebSocket for programs; both carry the same records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Request, WebSocket, WebSocketDisconnect
from starlette.responses import StreamingResponse

from cloud.api.answers import ApiProblem, problem_response
from cloud.api.state import State, state_of
from cloud.db import queries_packs
from cloud.live import Hub, Message

HEARTBEAT_S: Final = 10.0
"""A stream without news says so this often, so that both ends notice a dead connection."""

router = APIRouter(prefix="/api/v1", tags=["live"])


@router.get("/live", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}})
async def live(
    request: Request, pack_id: Annotated[str | None, Query(description="Left out: all packs.")] = None
) -> StreamingResponse:
    """Server-sent events `sample`, `estimate` and `event` as they are committed; data = the record as JSON.

    `dropped` tells how many a reader that was too slow has missed. Watching one pack makes its device send live.
    """
    state = state_of(request)
    await seed(state, pack_id)
    headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
    return StreamingResponse(server_sent(state.hub, pack_id), media_type="text/event-stream", headers=headers)


@router.websocket("/ws")
async def websocket(socket: WebSocket, pack_id: str | None = None) -> None:
    """Messages {"type": "sample|estimate|event|dropped|heartbeat", "data": {..}}; what the client sends is ignored."""
    state = state_of(socket)
    try:
        await seed(state, pack_id)
    except ApiProblem as problem:
        await socket.send_denial_response(problem_response(problem))
        return
    await socket.accept()
    subscriber = state.hub.subscribe(pack_id)
    gone = asyncio.create_task(_until_gone(socket), name="websocket-reader")
    gone.add_done_callback(lambda _: subscriber.end())
    try:
        while not subscriber.ended:
            dropped, messages = await subscriber.take(HEARTBEAT_S)
            for text in _texts(dropped, messages):
                await socket.send_text(text)
        if not gone.done():
            await socket.close(1001)
    except (WebSocketDisconnect, RuntimeError):
        pass  # the client left in the middle of a message
    finally:
        state.hub.unsubscribe(subscriber)
        gone.cancel()


async def seed(state: State, pack_id: str | None) -> None:
    """Tells the hub what is stored of the pack(s), so that a stream begins after it; ApiProblem 404 if unknown."""
    for row in await asyncio.to_thread(state.reader.ask, queries_packs.newest, pack_id):
        state.hub.seed(row["pack_id"], row["device"], row["t_ns"])
        if row["pack_id"] == pack_id:
            return
    if pack_id is not None:
        raise ApiProblem(404, f"No pack is called {pack_id[:80]!r}; see /api/v1/packs.")


async def server_sent(hub: Hub, pack_id: str | None) -> AsyncIterator[bytes]:
    """The bytes of an SSE answer until the reader leaves or the hub closes."""
    subscriber = hub.subscribe(pack_id)
    try:
        yield b"retry: 1000\n\n"
        while not subscriber.ended:
            dropped, messages = await subscriber.take(HEARTBEAT_S)
            yield b"".join(_frames(dropped, messages))
    finally:
        hub.unsubscribe(subscriber)


def _frames(dropped: int, messages: list[Message]) -> Iterable[bytes]:
    if dropped:
        yield b'event: dropped\ndata: {"count": %d}\n\n' % dropped
    for message in messages:
        yield b"event: %s\ndata: %s\n\n" % (message.kind.encode(), message.body)
    if not messages:
        yield b": heartbeat\n\n"


def _texts(dropped: int, messages: list[Message]) -> Iterable[str]:
    if dropped:
        yield orjson.dumps({"type": "dropped", "data": {"count": dropped}}).decode()
    for message in messages:
        yield f'{{"type":"{message.kind}","data":{message.body.decode()}}}'
    if not messages:
        yield '{"type":"heartbeat","data":{}}'


async def _until_gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
