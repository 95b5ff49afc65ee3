"""The page in a real browser: what the models say of a pack, live; why they say nothing; lists of many packs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import Api, json_batch, running_api
from conftest import missing
from fakes.bundles import make_bundle
from waiting import until

from cloud import db
from cloud.api.page import DIST
from cloud.config import Config, Database

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SECOND_NS = 10**9
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
ANSWER: dict[str, object] = {
    "rul_cycles": 480.4, "rul_cycles_lo": 400.0, "rul_cycles_hi": 600.0, "failure_probability": 0.35, "p_eol_100": 0.35,
    "in_domain": False, "model_id": "fake-3", "model_sha256": "ab" * 32,
}  # fmt: skip
Send = Callable[..., None]


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[Api]:
    if not (DIST / "index.html").is_file():
        missing("needs the built page; run `make setup`")
    (tmp_path / "fake-3.bundle").write_bytes(make_bundle(3, simulated=True))
    (tmp_path / "fake-4.bundle").write_bytes(make_bundle(4, simulated=False))
    with running_api(Config(database=database, models_dir=tmp_path, release_dir=tmp_path / "none")) as running:
        running.until_healthy()
        with db.connect(database) as conn:
            conn.execute("""INSERT INTO pack (pack_id, tags) VALUES ('P', '["simulated"]')""")
        yield running


@pytest.fixture
def send(api: Api) -> Send:
    """Sends one pack's records of now; `age_s` makes them older."""
    seqs = itertools.count()

    def send(pack_id: str = "P", age_s: float = 0.0, **kinds: dict[str, object]) -> None:
        t_ns = time.time_ns() - int(age_s * SECOND_NS)
        body = json_batch([], device=f"of-{pack_id}")
        for kind, record in kinds.items():
            pack = {} if kind == "reports" else {"pack_id": pack_id}
            body[kind] = [{"seq": next(seqs), "mono_ns": 1, "t_ns": t_ns, **pack, **record}]
        answer = api.client.post("/device/v1/batches", json=body)
        assert answer.status_code == 200 and not answer.json()["rejected"], answer.text

    return send


@pytest.fixture
def page(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        yield page
        assert not failures
        browser.close()


def field(page: Any, name: str, pack_id: str = "P") -> Any:
    return page.locator(f'[data-pack="{pack_id}"][data-field="{name}"]')


def sees(locator: Any, text: str) -> None:
    from playwright.sync_api import expect

    expect(locator).to_have_text(text)


def report(step: str, counter: int, reason: str | None = None) -> dict[str, object]:
    return {"model_id": f"fake-{counter}", "counter": counter, "step": step, "reason": reason}


def test_a_prediction_is_on_the_page_and_follows_the_stream(api: Api, send: Send, page: Any) -> None:
    send(samples={"soc_bms": 0.5}, estimates=ANSWER, reports=report("proven", 3))
    page.goto(f"http://127.0.0.1:{api.port}/#/pack/P")
    for name, text in (
        ("rul_cycles", "480"), ("rul_cycles_lo", "400"), ("rul_cycles_hi", "600"), ("failure_probability", "35.0"),
        ("model_id", "fake-3"), ("in_domain", "no, take with care"), ("model_step", "proven"),
    ):  # fmt: skip
        sees(field(page, name), text)
    assert field(page, "prediction_reason").is_hidden()
    assert page.get_by_role("img", name="480 cycles, 90 % between 400 and 600").is_visible()
    page.get_by_text("trained on simulated packs").wait_for()
    assert page.locator(".pack-name .badge").inner_text() == "simulated"
    send(samples={"soc_bms": 0.5}, estimates=ANSWER | {"rul_cycles": 470.0, "model_id": "fake-4", "in_domain": True},
         reports=report("activated", 4))  # fmt: skip
    sees(field(page, "rul_cycles"), "470")
    sees(field(page, "model_id"), "fake-4")
    sees(field(page, "in_domain"), "yes")
    sees(field(page, "model_step"), "activated")
    page.get_by_text("trained on simulated packs").wait_for(state="hidden")
    send(age_s=60, estimates=ANSWER | {"rul_cycles": 9999.0})  # from a backlog
    send(samples={"soc_bms": 0.51}, reports=report("rolled_back", 4, "crash"))
    sees(field(page, "soc_bms"), "51.0")
    sees(field(page, "rul_cycles"), "470")
    sees(field(page, "model_step"), "rolled back")
    page.get_by_text("fake-4 was taken back: it crashed.").wait_for()


def test_without_an_answer_the_page_says_why(api: Api, send: Send, page: Any) -> None:
    send(samples={"soc_bms": 0.5})
    page.goto(f"http://127.0.0.1:{api.port}/#/pack/P")
    sees(field(page, "prediction_reason"), "No model runs in this car yet.")
    sees(field(page, "rul_cycles"), "no model yet")
    sees(field(page, "model_step"), "none")
    send(estimates={"reason": "chemistry", "model_id": "fake-3"}, reports=report("refused", 4, "target_hash"))
    sees(field(page, "prediction_reason"), "The model in this car was not made for this pack's chemistry.")
    page.get_by_text("fake-4 was refused: its bytes are not those that were signed. fake-3 goes on.").wait_for()
    send(age_s=310, pack_id="Q", samples={"soc_bms": 0.5}, estimates=ANSWER)
    page.goto(f"http://127.0.0.1:{api.port}/#/pack/Q")
    sees(field(page, "rul_cycles", "Q"), "480")
    send(pack_id="Q", samples={"soc_bms": 0.5})
    sees(field(page, "rul_cycles", "Q"), "stale")
    sees(field(page, "prediction_reason", "Q"), "The car goes on sending samples, but no predictions.")


def test_events_of_the_bands_are_said_in_the_units_of_people(api: Api, send: Send, page: Any) -> None:
    send(samples={"soc_bms": 0.5})
    page.goto(f"http://127.0.0.1:{api.port}/#/pack/P")
    field(page, "soc_bms").wait_for()
    event = {"id": "e", "severity": "warning", "since_t_ns": time.time_ns() - 90 * SECOND_NS}
    send(events=event | {"code": "failure_probability_band", "value": 0.345, "threshold": 0.3})
    sees(field(page, "events"), "Failure probability: 34.5 % (limit 30 %)")
    send(events=event | {"code": "failure_probability_band", "value": 0.2, "cleared_t_ns": time.time_ns()})
    page.get_by_text("No alarm, nothing open.").wait_for()


def test_an_event_of_the_stream_outlives_an_older_answer(api: Api, send: Send, page: Any) -> None:
    """The answer with the open events was made before the event, and comes after it."""
    asked: list[Any] = []

    def hold_the_second(route: Any) -> None:
        asked.append((route, route.fetch()))
        if len(asked) != 2:
            route.fulfill(response=asked[-1][1])

    send(samples={"soc_bms": 0.5})
    page.route("**/events?*", hold_the_second)
    page.goto(f"http://127.0.0.1:{api.port}/#/pack/P")
    while len(asked) < 2:
        page.wait_for_timeout(20)
    send(events={"id": "e", "severity": "warning", "since_t_ns": time.time_ns(), "code": "rul_band", "value": 90.0,
                 "threshold": 100.0})  # fmt: skip
    field(page, "events").wait_for()
    with page.expect_request("**/samples?*"):  # of the history, asked for after that answer
        asked[1][0].fulfill(response=asked[1][1])
    assert field(page, "events").is_visible()


def test_cards_of_few_packs_show_life_and_risk_live(api: Api, send: Send, page: Any) -> None:
    send(samples={"soc_bms": 0.5}, estimates=ANSWER)
    page.goto(f"http://127.0.0.1:{api.port}/")
    sees(field(page, "rul_cycles"), "480")
    sees(field(page, "failure_probability"), "35.0")
    assert page.locator('.pack[data-pack="P"] .badge').inner_text() == "simulated"
    send(samples={"soc_bms": 0.4}, estimates=ANSWER | {"rul_cycles": 90.0})
    sees(field(page, "rul_cycles"), "90")


def test_a_large_fleet_is_chosen_by_the_server_and_the_address_remembers(api: Api, page: Any) -> None:
    """5,000 packs once were 10 MB every 20 s, and going back from a pack forgot what had been chosen."""
    now_ns = time.time_ns()
    packs = [f"PACK_{i}" for i in range(230)]
    samples: list[dict[str, object]] = [
        {"pack_id": pack, "t_ns": now_ns, "soc_bms": (i + 1) / 1000} for i, pack in enumerate(packs)
    ]
    estimates = [
        {"pack_id": pack, "seq": 1000 + i, "mono_ns": 1, "t_ns": now_ns, **ANSWER, "rul_cycles": 1000.0 - i}
        for i, pack in enumerate(packs[:-1])
    ]
    api.client.post("/device/v1/batches", json=json_batch(samples, estimates=estimates)).raise_for_status()
    page.goto(f"http://127.0.0.1:{api.port}/")
    first = page.locator(".packs .pack .pack-id").first
    sees(first, "P")
    assert page.locator(".packs .pack").count() == 50
    page.get_by_role("button", name="Life left, cycles").click()
    sees(first, "PACK_228")
    page.get_by_role("button", name="Next").click()
    sees(first, "PACK_178")
    page.get_by_label("Find").fill("pack_22")
    sees(first, "PACK_228")
    sees(page.locator(".where"), "1–11 of 11")
    sees(page.locator('[data-filter="unpredicted"]'), "no prediction 2")
    assert page.url.endswith("#/?search=pack_22&order=rul")
    first.click()
    page.get_by_text("All packs").click()
    sees(first, "PACK_228")
    sees(page.locator(".where"), "1–11 of 11")
    page.get_by_label("Find").fill("no such")
    sees(page.locator(".where"), "No pack fits this choice.")
    until("no stream of everything", lambda: "packtwin_live_readers 0.0" in api.client.get("/metrics").text)


@pytest.mark.parametrize("width", [390, 700, 1000, 1200, 1366, 1920])
def test_no_width_makes_the_page_scroll_sideways(api: Api, send: Send, page: Any, width: int) -> None:
    for i in range(14):
        send(pack_id=f"A_PACK_WITH_QUITE_A_LONG_NAME_{i}", samples={"soc_bms": 0.5, "cell_v": [3.7] * 96},
             estimates=ANSWER | {"model_id": "a-model-with-quite-a-long-name-that-goes-on-3"},
             reports=report("refused", 4, "signature"))  # fmt: skip
    page.set_viewport_size({"width": width, "height": 900})
    for address in ("", "#/pack/A_PACK_WITH_QUITE_A_LONG_NAME_3"):
        page.goto(f"http://127.0.0.1:{api.port}/{address}")
        field(page, "rul_cycles", "A_PACK_WITH_QUITE_A_LONG_NAME_3").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
