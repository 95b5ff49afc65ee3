"""What the API says of predictions and models, over HTTP with a real database: their age, reasons and alerts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_server import Api, json_batch, running_api

from cloud import db
from cloud.config import Config, Database

SECOND_NS = 10**9
ANSWER: dict[str, object] = {
    "rul_cycles": 480.0, "rul_cycles_lo": 400.0, "rul_cycles_hi": 600.0, "failure_probability": 0.35, "p_eol_100": 0.35,
    "in_domain": True, "model_id": "base-3", "model_sha256": "ab" * 32,
}  # fmt: skip


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    with running_api(Config(database=database)) as running:
        running.until_healthy()
        yield running


def t_ns(age_s: float) -> int:
    return int((time.time() - age_s) * 1000) * 1_000_000


class Car:
    """Sends records of one boot with rising seq."""

    def __init__(self, api: Api, device: str = "car-1", pack: str = "P", boot: int = 1) -> None:
        self.api, self.device, self.pack, self.boot, self.seq = api, device, pack, boot, 0

    def send(self, **kinds: list[dict[str, object]]) -> None:
        """samples, estimates, events, reports; each gets this car's pack, a seq and a mono_ns unless it has them."""
        for kind, records in kinds.items():
            kinds[kind] = [self._filled(kind, record) for record in records]
        body = json_batch([], self.device, self.boot) | kinds
        answer = self.api.client.post("/device/v1/batches", json=body)
        assert answer.status_code == 200 and not answer.json()["rejected"], answer.text

    def _filled(self, kind: str, record: dict[str, object]) -> dict[str, object]:
        self.seq += 1
        pack = {} if kind == "reports" else {"pack_id": self.pack}
        return {**pack, "seq": self.seq, "mono_ns": self.seq * SECOND_NS, **record}

    def sample(self, age_s: float, **readings: object) -> None:
        good = {"soc_bms": 0.8, "soh_bms": 0.95, "temp_c": [25.0]}
        self.send(samples=[{"t_ns": t_ns(age_s), **good, **readings}])

    def estimate(self, age_s: float | None, **values: object) -> None:
        self.send(estimates=[{"t_ns": None if age_s is None else t_ns(age_s), **values}])

    def report(self, age_s: float | None, step: str, counter: int = 3, reason: str | None = None) -> None:
        at = None if age_s is None else t_ns(age_s)
        self.send(
            reports=[{"t_ns": at, "model_id": f"base-{counter}", "counter": counter, "step": step, "reason": reason}]
        )


def told(api: Api, path: str) -> Any:
    answer = api.client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_prediction_that_no_longer_comes_while_samples_go_on_is_stale_everywhere(api: Api) -> None:
    """An hour-old RUL once stood beside samples of this second as if it were theirs."""
    car = Car(api)
    car.sample(400)
    car.estimate(430, **ANSWER)
    car.sample(390)
    assert told(api, "/health")["models"] == ["base-3"]
    assert told(api, "/api/battery/latest")["rul_prediction"] == 480.0
    car.sample(1)
    latest = told(api, "/api/battery/latest")
    assert (latest["rul_prediction"], latest["failure_probability"], latest["prediction_reason"]) == (
        None,
        None,
        "stale",
    )
    assert latest["status"] == "good"  # it was warning by the RUL
    prediction = told(api, "/api/battery/predictions")
    assert [prediction[k] for k in ("rul_prediction", "rul_lo", "rul_hi", "failure_probability", "in_domain")] == [
        None
    ] * 5
    assert (prediction["reason"], prediction["model"]) == ("stale", "base-3")
    assert prediction["timestamp"] is not None
    history = told(api, "/api/battery/history?hours=1")
    assert [(p["rul_prediction"], p["prediction_reason"]) for p in history] == [
        (480.0, None), (480.0, None), (None, "stale"),
    ]  # fmt: skip
    estimate = told(api, "/api/v1/packs/P")["estimate"]
    assert (estimate["rul_cycles"], estimate["stale"]) == (480.0, True)  # what was said stays readable, and is marked
    assert told(api, "/health")["models"] == []
    assert not [alert for alert in told(api, "/api/alerts") if alert["code"].startswith(("rul", "failure"))]
    assert "battery_rul_cycles{" not in api.client.get("/metrics").text


def test_a_parked_car_keeps_its_last_prediction(api: Api) -> None:
    car = Car(api)
    car.sample(86_400)
    car.estimate(86_400, **ANSWER)
    assert told(api, "/api/battery/latest")["rul_prediction"] == 480.0
    assert told(api, "/api/v1/packs/P")["estimate"]["stale"] is False


@pytest.mark.parametrize("reason", ["chemistry", "no_features", "model_restarting", "no_model"])
def test_an_estimate_without_an_answer_gives_its_own_reason(api: Api, reason: str) -> None:
    car = Car(api)
    car.sample(5)
    car.estimate(4, **ANSWER)
    car.estimate(2, reason=reason, model_id="base-3")
    for body, key in (("/api/battery/latest", "prediction_reason"), ("/api/battery/predictions", "reason")):
        assert (told(api, body)["rul_prediction"], told(api, body)[key]) == (None, reason)
    estimate = told(api, "/api/v1/packs")["packs"][0]["estimate"]
    assert (estimate["rul_cycles"], estimate["reason"], estimate["model_id"]) == (None, reason, "base-3")


def test_a_late_estimate_of_a_backlog_and_one_without_time_hide_no_newer_one(api: Api) -> None:
    car = Car(api)
    car.sample(5)
    car.estimate(2, **ANSWER)
    car.estimate(200, rul_cycles=9999.0, model_id="old-1")
    car.estimate(None, rul_cycles=9999.0, model_id="old-1")
    assert told(api, "/api/battery/predictions")["rul_prediction"] == 480.0
    assert told(api, "/api/v1/packs/P")["estimate"]["model_id"] == "base-3"
    assert told(api, "/health")["models"] == ["base-3"]


def test_a_pack_without_samples_or_estimates_has_neither(api: Api, database: Database) -> None:
    with db.connect(database) as conn:
        conn.execute("INSERT INTO pack (pack_id) VALUES ('NEW')")
    pack = told(api, "/api/v1/packs/NEW")
    assert (pack["latest"], pack["estimate"], pack["model"], pack["status"]) == (None, None, None, None)
    assert told(api, "/api/battery/predictions")["reason"] == "no_model"
    Car(api, pack="NEW").estimate(3, **ANSWER)
    assert told(api, "/api/battery/predictions")["rul_prediction"] == 480.0
    assert told(api, "/api/v1/packs/NEW")["estimate"]["stale"] is False


def test_history_of_a_year_reads_one_prediction_a_point(api: Api, database: Database) -> None:
    """All estimates of the span were once read and sorted: at one every 5 s a year took longer than the API waits."""
    car = Car(api)
    car.sample(86_400 * 20)
    car.sample(3)
    with db.connect(database) as conn:
        conn.execute(
            """INSERT INTO estimate (device_key, boot, seq, mono_ns, t_ns, t, pack_key, rul_cycles, model_id)
               SELECT 1, 9, i, i, (extract(epoch FROM t) * 1e9)::int8, t, 1, 1000 - i / 1000.0, 'base-3'
               FROM generate_series(1, 200000) i, LATERAL (SELECT now() - i * interval '5 s' AS t) at"""
        )
        conn.execute("ANALYZE estimate")
    took_s = []
    for _ in range(5):
        began = time.monotonic()
        history = told(api, "/api/battery/history?hours=8760")
        took_s.append(time.monotonic() - began)
    assert min(took_s) < 1.0
    assert history[0]["prediction_reason"] == "no_model"
    assert history[-1]["rul_prediction"] == pytest.approx(1000, abs=0.1)


def test_a_devices_own_band_event_stands_for_the_computed_alert_of_that_pack_and_code(api: Api) -> None:
    one, two = Car(api, "car-1", "P1"), Car(api, "car-2", "P2")
    for car in (one, two):
        car.sample(3, soc_bms=0.4)
        car.estimate(2, **ANSWER)
    event: dict[str, object] = {
        "t_ns": t_ns(600), "id": "e1", "code": "rul_band", "severity": "warning", "value": 499.6, "threshold": 500.0,
        "since_t_ns": t_ns(600),
    }  # fmt: skip
    one.send(events=[event])
    alerts = [(a["battery_id"], a["code"], a["severity"], a["value"], a["text"]) for a in told(api, "/api/alerts")]
    failure = "Failure probability: 35 % (warning above 30 %)"
    charge = "State of charge: 40 % (warning below 50 %)"
    assert alerts == [
        ("P1", "failure_probability_band", "warning", 0.35, failure),
        ("P1", "rul_band", "warning", 499.6, "Remaining useful life: 499.6 cycles (limit 500 cycles)"),
        ("P1", "soc_band", "warning", 40.0, charge),
        ("P2", "failure_probability_band", "warning", 0.35, failure),
        ("P2", "rul_band", "warning", 480.0, "Remaining useful life: 480 cycles (warning below 500 cycles)"),
        ("P2", "soc_band", "warning", 40.0, charge),
    ]
    one.send(events=[event | {"t_ns": t_ns(1), "cleared_t_ns": t_ns(1)}])
    alerts = [a for a in told(api, "/api/alerts") if (a["battery_id"], a["code"]) == ("P1", "rul_band")]
    assert [a["value"] for a in alerts] == [480.0]  # the device says it is over: the reading is judged again


def test_an_event_that_was_cleared_stays_so_whatever_arrives_late(api: Api) -> None:
    """Records of one event come in any order: the road up sends what is urgent first and a backlog last."""
    car = Car(api)
    car.sample(3)
    raised: dict[str, object] = {"id": "e1", "code": "rul_band", "severity": "warning", "value": 490.0}
    worse = raised | {"severity": "critical", "value": 90.0}
    car.send(events=[worse | {"t_ns": t_ns(20)}])
    car.send(events=[raised | {"t_ns": t_ns(30)}])
    (event,) = told(api, "/api/v1/packs/P/events?only_open=true")["events"]
    assert (event["severity"], event["value"]) == ("critical", 90.0)
    car.send(events=[raised | {"t_ns": t_ns(10), "cleared_t_ns": t_ns(10), "value": 600.0}])
    car.send(events=[worse | {"t_ns": t_ns(5)}])
    assert told(api, "/api/v1/events?only_open=true")["events"] == []
    (event,) = told(api, "/api/v1/events")["events"]
    assert event["cleared"] is not None
    assert not [alert for alert in told(api, "/api/alerts") if alert["code"] == "rul_band"]


def test_events_of_bands_are_told_in_the_units_of_people(api: Api) -> None:
    car = Car(api)
    car.sample(3)
    for code, value, threshold in (
        ("failure_probability_band", 0.62, 0.6), ("soc_band", 0.15, 0.2), ("temperature_band", 61.0, 60.0),
        ("end_of_life", 1234.0, 0.8),
    ):  # fmt: skip
        at = t_ns(5)
        car.send(
            events=[{"t_ns": at, "id": code, "code": code, "severity": "critical", "value": value,
                     "threshold": threshold, "since_t_ns": at}]
        )  # fmt: skip
    alerts = {alert["code"]: (alert["value"], alert["text"]) for alert in told(api, "/api/alerts")}
    assert alerts == {
        "failure_probability_band": (0.62, "Failure probability: 62 % (limit 60 %)"),
        "soc_band": (15.0, "State of charge: 15 % (limit 20 %)"),
        "temperature_band": (61.0, "Hottest temperature: 61 degC (limit 60 degC)"),
        "end_of_life": (1234.0, "End of life after 1234 cycles (health below 80 %)"),
    }
    events = {event["code"]: event["value"] for event in told(api, "/api/v1/events")["events"]}
    assert events["soc_band"] == 0.15  # a record keeps its own unit


def test_a_device_shows_the_step_that_its_model_took_last(api: Api) -> None:
    car = Car(api)
    car.sample(3)
    assert told(api, "/api/v1/devices")["devices"][0]["model"] is None
    for age_s, step in ((9.0, "seen"), (8.0, "fetched"), (7.0, "verified"), (6.0, "probed"), (5.0, "activated")):
        car.report(age_s, step)
    car.report(4, "rolled_back", reason="crash")
    (device,) = told(api, "/api/v1/devices")["devices"]
    assert {k: device["model"][k] for k in ("model_id", "counter", "step", "reason")} == {
        "model_id": "base-3", "counter": 3, "step": "rolled_back", "reason": "crash",
    }  # fmt: skip
    assert told(api, "/api/v1/packs/P")["model"] == device["model"]
    assert told(api, "/api/v1/packs")["packs"][0]["model"] == device["model"]


def test_packs_and_devices_show_the_model_that_they_are_told_to_run(api: Api, database: Database) -> None:
    one, two = Car(api, "car-1", "P1"), Car(api, "car-2", "P2")
    for car in (one, two):
        car.sample(3)
    assert told(api, "/api/v1/packs/P1")["desired"] is None
    with db.connect(database) as conn:
        for device, bundle in (("NULL", "base-1"), ("NULL", "base-2"), ("2", "base-3")):
            counter = int(bundle[-1])
            conn.execute(
                f"INSERT INTO assignment (device_key, bundle, counter, sha256) VALUES ({device}, %s, %s, 'x')",
                (bundle, counter),
            )
    assert [pack["desired"] for pack in told(api, "/api/v1/packs")["packs"]] == ["base-2", "base-3"]
    assert [device["desired"] for device in told(api, "/api/v1/devices")["devices"]] == ["base-2", "base-3"]


def test_a_report_from_a_boot_that_knows_no_time_is_not_older_than_all_others(api: Api) -> None:
    """`refused clock` has no time of its own, and so the report of last week's model hid it."""
    car = Car(api)
    car.sample(86_400)
    car.report(86_400, "proven", counter=2)
    Car(api, boot=2).report(None, "refused", counter=3, reason="clock")
    (device,) = told(api, "/api/v1/devices")["devices"]
    assert (device["model"]["step"], device["model"]["reason"], device["model"]["t"]) == ("refused", "clock", None)


def test_predictions_are_counted_by_pack_and_only_when_there_is_one(api: Api) -> None:
    one, two = Car(api, "car-1", "P1"), Car(api, "car-2", "P2")
    for car in (one, two):
        car.sample(9)
    for age_s in (8, 7, 6):
        one.estimate(age_s, **ANSWER)
    one.estimate(5, reason="model_restarting", model_id="base-3")
    two.estimate(5, reason="no_model")
    text = api.client.get("/metrics").text
    assert 'battery_predictions_total{battery_id="P1"} 3.0' in text
    assert 'battery_predictions_total{battery_id="P2"} 0.0' in text
    assert 'battery_failure_probability{battery_id="P1"}' not in text  # the newest estimate has none
