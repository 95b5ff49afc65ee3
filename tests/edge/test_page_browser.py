"""The local page in a browser: the prediction with all that belongs to it, or why there is none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from edge.config import Listen
from edge.page.server import serve_page

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ANY = Listen(host="127.0.0.1", port=0, variable="EDGE_PORT")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
MODEL: dict[str, Any] = {
    "active": {"model_id": "ring-7", "counter": 7, "sha256": "0" * 64},
    "previous": None,
    "candidate": None,
    "floor": 7,
    "last": {"step": "proven", "reason": None, "t_ns": 1_770_000_000_000_000_000},
    "problem": None,
    "inference": {
        "state": "running", "pid": 42, "model_id": "ring-7", "simulated": True, "problem": None, "restarts": 0,
        "answer_s": 0.001, "dropped": 0,
    },
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "rul_cycles": 812.4, "rul_cycles_lo": 640.1, "rul_cycles_hi": 1480.0, "failure_probability": 0.341,
    "in_domain": True, "model_id": "ring-7", "reason": None, "age_s": 1.0,
}  # fmt: skip
SAMPLE: dict[str, Any] = {
    "pack_v": 380.0, "current_a": -12.0, "soc_bms": 0.7, "temp_c": [21.0], "cell_v": [3.9] * 12, "state": "drive",
    "current_a_min": -12.0, "current_a_max": -12.0, "alarms": [], "quality": {}, "extra": {},
}  # fmt: skip


def pack(pack_id: str, estimate: dict[str, Any] | None, *, simulated: bool = False) -> dict[str, Any]:
    return {
        "pack_id": pack_id,
        "pack": {"chemistry": "nmc", "series": 12, "nominal_ah": 50.0, "nominal_v": 44.0},
        "source": {
            "interface": "slcan", "channel": "can0", "state": "live", "problem": None, "silent_s": 0.0, "frames": 9,
            "frames_per_s": 9.0, "frames_skipped": 0, "retries": 0, "errors": {},
            "drops": 3, "error_frames": {"bus_off": 1}, "buffer_bytes": 425_984, "notes": ["can0 is bus-off"],
        },
        "age_s": 0.1,
        "sample": copy.deepcopy(SAMPLE),
        "estimate": estimate,
        "predictions": 1,
        "simulated_past": simulated,
        "units": {},
        "balancing_cells": None,
    }  # fmt: skip


def status() -> dict[str, Any]:
    counts = ("acquired", "filtered", "rejected", "stored", "acked", "refused", "pending", "evicted", "lost")
    return {
        "device": "box",
        "version": "0",
        "uptime_s": 5,
        "sample_s": 1.0,
        "prediction_s": 5.0,
        "clock": {"trusted": True, "source": "system", "t_ns": 1_770_000_000_000_000_000},
        "uplink": None,
        "samples": dict.fromkeys(counts, 0),
        "outbox": {
            "problem": None, "hot_bytes": 0, "cold_bytes": 0, "max_bytes": 1 << 20, "oldest_age_s": None,
        },
        "model": copy.deepcopy(MODEL),
        "packs": [
            pack("A", ANSWER, simulated=True),
            pack("B", {**dict.fromkeys(ANSWER), "reason": "no_features", "age_s": 1.0}),
            pack("C", {**ANSWER, "rul_cycles": 80.0, "rul_cycles_lo": 0.0, "rul_cycles_hi": 95.0, "in_domain": False}),
            pack("D", None),
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def shown() -> Iterator[tuple[dict[str, Any], str]]:
    told = status()
    with serve_page(ANY, lambda: told) as url:
        yield told, url


def opened(browser: Any, url: str, width: int = 1100) -> tuple[Any, list[str]]:
    page = browser.new_page(viewport={"width": width, "height": 900})
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("console", lambda said: failures.append(said.text) if said.type == "error" else None)
    page.goto(url)
    page.wait_for_selector('[data-pack="A"] [data-field="rul_cycles"]')
    return page, failures


def text(page: Any, pack_id: str, field: str) -> str:
    return str(page.inner_text(f'[data-pack="{pack_id}"] [data-field="{field}"]'))


def test_a_prediction_comes_with_its_interval_its_probability_and_its_model(
    browser: Any, shown: tuple[dict[str, Any], str]
) -> None:
    page, failures = opened(browser, shown[1])
    assert text(page, "A", "rul_cycles") == "812cycles"
    assert (text(page, "A", "rul_cycles_lo"), text(page, "A", "rul_cycles_hi")) == ("640", "1,480")
    assert text(page, "A", "failure_probability") == "34.1%"
    assert text(page, "A", "model_id") == "ring-7" and "proven" in text(page, "A", "model_step")
    panel = page.inner_text('article[data-pack="A"]')
    assert "trained on simulated packs" in panel and "simulated past" in panel
    assert "simulated past" not in page.inner_text('article[data-pack="C"]')
    assert page.get_attribute('[data-pack="C"] [data-field="rul_cycles"]', "data-tone") == "critical"
    assert "take it with care" in text(page, "C", "in_domain")
    assert not failures


def test_why_there_is_none_is_said_in_words(browser: Any, shown: tuple[dict[str, Any], str]) -> None:
    told, url = shown
    page, failures = opened(browser, url)
    assert "first full cycle" in text(page, "B", "prediction_reason")
    assert page.locator('[data-pack="B"] [data-field="rul_cycles"]').count() == 0
    assert "not been asked" in page.inner_text('article[data-pack="D"]')
    told["packs"][0]["estimate"] = {**dict.fromkeys(ANSWER), "reason": "no_model", "age_s": 0.0}
    told["model"] |= {"active": None, "last": None, "inference": {**MODEL["inference"], "state": "none", "pid": None}}
    page.wait_for_selector('[data-pack="A"] [data-field="prediction_reason"]')
    assert "No model is installed" in text(page, "A", "prediction_reason")
    assert not failures


def test_it_fits_a_phone(browser: Any, shown: tuple[dict[str, Any], str]) -> None:
    page, _ = opened(browser, shown[1], width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
