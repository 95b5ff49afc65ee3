"""The live stream over a real socket: SSE and WebSocket, the live mode, a hundred readers, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from api_server import Api, json_batch, running_api
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cloud.config import Config, Database

SECOND_NS = 10**9


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    with running_api(Config(database=database)) as running:
        running.until_healthy()
        upload(running, 0)
        yield running


def upload(api: Api, number: int, pack_id: str = "P") -> dict[str, Any]:
    sample = {"pack_id": pack_id, "seq": number, "t_ns": time.time_ns(), "pack_v": 300.0 + number}
    boot = 1 if pack_id == "P" else 2
    answer = api.client.post("/device/v1/batches", json=json_batch([sample], boot=boot))
    assert answer.status_code == 200, answer.text
    receipt: dict[str, Any] = answer.json()
    return receipt


@contextlib.asynccontextmanager
async def stream(client: httpx.AsyncClient, query: str = "") -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))

    async with client.stream("GET", f"/api/v1/live{query}") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-transform" in answer.headers["cache-control"]
        yield events(answer)


def in_loop(api: Api, work: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            limits = httpx.Limits(max_connections=None)
            at = f"http://127.0.0.1:{api.port}"
            async with httpx.AsyncClient(base_url=at, limits=limits, timeout=30) as client:
                await work(client)

    asyncio.run(run())


async def until_readers(api: Api, count: int) -> None:
    for _ in range(1000):
        if api.hub.readers == count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{api.hub.readers} readers, not {count}")


def test_a_committed_sample_reaches_the_stream_of_its_pack(api: Api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async with stream(client, "?pack_id=P") as events:
            await until_readers(api, 1)
            await asyncio.to_thread(upload, api, 1, "Q")
            await asyncio.to_thread(upload, api, 2)
            kind, record = await anext(events)
            assert (kind, record["pack_id"], record["pack_v"], record["seq"]) == ("sample", "P", 302.0, 2)
        await until_readers(api, 0)

    in_loop(api, work)


def test_a_hundred_readers_all_get_every_sample(api: Api) -> None:
    async def read(client: httpx.AsyncClient) -> list[int]:
        async with stream(client) as events:
            return [(await anext(events))[1]["seq"] for _ in range(5)]

    async def work(client: httpx.AsyncClient) -> None:
        readers = [asyncio.create_task(read(client)) for _ in range(100)]
        await until_readers(api, 100)
        for number in range(1, 6):
            await asyncio.to_thread(upload, api, number)
        assert await asyncio.gather(*readers) == [[1, 2, 3, 4, 5]] * 100

    in_loop(api, work)


def test_watching_a_pack_makes_its_device_live_within_one_send(api: Api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert "mode" not in await asyncio.to_thread(upload, api, 1)
        async with stream(client), stream(client, "?pack_id=P"):
            await until_readers(api, 2)
            assert (await asyncio.to_thread(upload, api, 2))["mode"] == "live"
            assert (await client.get("/device/v1/desired?device=car-1")).json()["mode"] == "live"
            assert (await client.get("/device/v1/desired?device=other")).json()["mode"] == "normal"
            assert (await client.get("/device/v1/desired")).json()["mode"] == "live"
        await until_readers(api, 0)
        assert (await client.get("/device/v1/desired?device=car-1")).json()["mode"] == "normal"

    in_loop(api, work)


def test_the_websocket_carries_the_same_records(api: Api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        async with connect(f"ws://127.0.0.1:{api.port}/api/v1/ws?pack_id=P", proxy=None) as socket:
            await until_readers(api, 1)
            await socket.send("ignored")
            await asyncio.to_thread(upload, api, 3)
            message = json.loads(await socket.recv())
            assert (message["type"], message["data"]["pack_v"]) == ("sample", 303.0)
        await until_readers(api, 0)

    in_loop(api, work)


def test_the_websocket_refuses_foreign_pages_and_unknown_packs(api: Api) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        url = f"ws://127.0.0.1:{api.port}/api/v1/ws"
        for path, origin, status in (("", "http://evil.example", 403), ("?pack_id=NOPE", None, 404)):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url + path, origin=origin, proxy=None):  # type: ignore[arg-type]
                    pass
            assert refused.value.response.status_code == status
        async with connect(url, origin=f"http://127.0.0.1:{api.port}", proxy=None):  # type: ignore[arg-type]
            await until_readers(api, 1)

    in_loop(api, work)


def test_streams_end_when_the_api_stops(database: Database) -> None:
    with running_api(Config(database=database)) as api:
        api.until_healthy()

        async def work(client: httpx.AsyncClient) -> None:
            socket = await connect(f"ws://127.0.0.1:{api.port}/api/v1/ws", proxy=None)
            async with stream(client) as events:
                await until_readers(api, 2)
                began_s = time.monotonic()
                api.stop()
                assert [event async for event in events] == []
                await socket.wait_closed()
                assert time.monotonic() - began_s < 5

        in_loop(api, work)
