"""The login in a real browser, over TLS: what policies and cookies say on paper is what it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import Api, json_batch, running_api
from conftest import missing

from cloud import db, devices
from cloud.api.page import DIST
from cloud.config import Access, Config, Database, Mqtt

pytestmark = [pytest.mark.slow, pytest.mark.browser]
API_TOKEN = "the-token-of-these-tests"


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[Api]:
    access = Access(api_token=API_TOKEN, tls_dir=tmp_path / "tls")
    with running_api(Config(database=database, api_host="0.0.0.0", access=access)) as running:
        running.until_healthy()
        with db.connect(database) as conn:
            bearer = {"authorization": f"Bearer {devices.add(conn, 'car-1', Mqtt())}"}
        upload = json_batch([{"pack_id": "PACK-1", "t_ns": time.time_ns(), "pack_v": 300.0, "soc_bms": 0.5}])
        assert running.client.post("/device/v1/batches", json=upload, headers=bearer).status_code == 200
        yield running


@pytest.fixture
def page(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_context(ignore_https_errors=True).new_page()
        browser.close()


def test_a_person_logs_in_sees_the_packs_live_and_is_asked_again_when_it_is_over(api: Api, page: Any) -> None:
    if not (DIST / "index.html").exists():
        missing("needs the page (make setup)")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"https://127.0.0.1:{api.port}/")
    page.get_by_label("API token").fill("a guess")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("This is not the API token").wait_for()
    page.get_by_label("API token").fill(API_TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.locator('[data-pack="PACK-1"]').first.wait_for()
    page.get_by_text("Connected").first.wait_for()
    assert not [text for text in complaints if "401" not in text], complaints

    page.context.clear_cookies()
    page.get_by_label("API token").wait_for()  # the list asks by itself
