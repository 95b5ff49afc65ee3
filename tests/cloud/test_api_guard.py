"""Loopback rules: who may ask, what a page elsewhere may not do, and the page's own files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import ASGIApp

from cloud.api.guard import refusal
from cloud.api.page import Page
from cloud.api.process import assemble
from cloud.api.serve import bind
from cloud.config import Config, Database
from shared.errors import ConfigError


@pytest.mark.parametrize("host", ["localhost", "localhost:5001", "LOCALHOST:1", "127.0.0.1:80", "[::1]:5001", "[::1]"])
def test_this_machine_may_ask(host: str) -> None:
    assert refusal("GET", host, None) is None
    assert refusal("POST", host, f"http://{host}") is None


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:5001", "localhost.evil.example", "127.0.0.1.evil.example", "localhost:",
     "127.0.0.2", "0.0.0.0", "localhost:5001@evil", "localhost:5001 ", "a@localhost", "localhost:123456"],
)  # fmt: skip
def test_any_other_host_is_refused(host: str | None) -> None:
    assert refusal("GET", host, None) is not None


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://127.0.0.1:5001", ""]
)
def test_a_page_from_elsewhere_may_change_nothing(origin: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "WEBSOCKET"):
        assert refusal(method, "localhost:5001", origin) is not None
    assert refusal("GET", "localhost:5001", origin) is None


def browse(app: ASGIApp, ask: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def run() -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5001") as client:
            await ask(client)

    asyncio.run(run())


def app_without_database(bus: str = "direct") -> ASGIApp:
    return assemble(Config(database=Database(port=1), bus=bus))[0]


def test_foreign_hosts_and_origins_get_403_with_the_security_headers() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            answer = await client.post("/device/v1/batches", headers=headers, json={})
            assert answer.status_code == 403
            assert "detail" in answer.json()
            assert answer.headers["x-content-type-options"] == "nosniff"

    browse(app_without_database(), ask)


def test_predictions_are_counted_by_the_process_that_writes_them() -> None:
    """Beside a Kafka the API told of 0 predictions for every pack, for ever."""
    for bus, told in (("direct", True), ("kafka", False)):

        async def ask(client: httpx.AsyncClient, told: bool = told) -> None:
            text = (await client.get("/metrics")).text
            assert ("battery_predictions_total" in text) == ("packtwin_ingest_rows_total" in text) == told
            assert "battery_soc_percent" in text and "packtwin_ingest_records_total" in text

        browse(app_without_database(bus), ask)


def test_every_answer_has_the_security_headers() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        for path in ("/", "/docs", "/health", "/nope", "/openapi.json", "/api/battery/history?hours=x", "/metrics"):
            answer = await client.get(path)
            assert answer.headers["content-security-policy"].startswith("default-src 'self'"), path
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in answer.headers

    browse(app_without_database(), ask)


def test_unknown_paths_and_methods_are_one_sentence() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        unknown, method = await client.get("/api/nope"), await client.get("/device/v1/batches")
        assert (unknown.status_code, method.status_code) == (404, 405)
        assert unknown.json()["detail"].endswith("/docs.") and method.json()["detail"].endswith(".")

    browse(app_without_database(), ask)


def test_docs_list_every_endpoint_and_load_nothing_from_elsewhere() -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        page, schema = (await client.get("/docs")).text, (await client.get("/openapi.json")).json()
        assert {"/health", "/api/battery/latest", "/api/v1/live", "/device/v1/batches"} <= set(schema["paths"])
        assert all(path in page for path in schema["paths"])
        assert "://" not in page and "<script" not in page
        assert (await client.get("/docs.css")).headers["content-type"].startswith("text/css")

    browse(app_without_database(), ask)


def test_the_page_is_served_with_lasting_assets_and_a_fresh_index(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "index-abc123.js").write_text("1")
    (tmp_path / "index.html").write_text("<title>page</title>")
    (tmp_path.parent / "secret").write_text("s")
    app = page_app(tmp_path)

    async def ask(client: httpx.AsyncClient) -> None:
        index = await client.get("/")
        assert (index.text, index.headers["cache-control"]) == ("<title>page</title>", "no-cache")
        asset = await client.get("/assets/index-abc123.js")
        assert "immutable" in asset.headers["cache-control"]
        again = await client.get("/", headers={"if-none-match": index.headers["etag"]})
        assert again.status_code == 304
        for path in ("/../secret", "/%2e%2e/secret", "/assets/%2e%2e/%2e%2e/secret", "/assets/none.js"):
            assert (await client.get(path)).status_code == 404

    browse(app, ask)


def test_a_page_that_is_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient) -> None:
        answer = await client.get("/")
        assert answer.status_code == 503
        assert "make setup" in answer.text

    browse(page_app(tmp_path / "none"), ask)


def page_app(folder: Path) -> ASGIApp:
    return assemble(Config(database=Database(port=1)), Page(folder))[0]


@pytest.mark.parametrize("host", ["192.0.2.7", "nowhere.invalid", "", "a..b", "x" * 300])
def test_an_address_that_is_not_ours_is_one_sentence(host: str) -> None:
    with pytest.raises(ConfigError, match="API_HOST") as raised:
        bind(host, 0)
    assert "\n" not in str(raised.value)


def test_a_busy_port_is_one_sentence() -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            bind("127.0.0.1", port)
