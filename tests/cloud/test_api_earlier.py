"""The earlier system's endpoints, over HTTP, with a real database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from api_server import Api, json_batch, running_api
from prometheus_client.parser import text_string_to_metric_families

from cloud import db, rollup
from cloud.api.earlier import POINTS, step_ns
from cloud.config import Config, Database

SECOND_NS = 10**9
READINGS = ("battery_id", "timestamp", "soc", "soh", "voltage", "current", "temperature", "charge_cycles",
            "power_consumption", "is_charging", "status", "rul_prediction", "failure_probability",
            "prediction_reason")  # fmt: skip


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    with running_api(Config(database=database)) as running:
        running.until_healthy()
        yield running


def now_s() -> int:
    return time.time_ns() // SECOND_NS


def upload(api: Api, samples: list[dict[str, object]], **more: object) -> None:
    answer = api.client.post("/device/v1/batches", json=json_batch(samples, **more))
    assert answer.status_code == 200, answer.text
    assert answer.json()["rejected"] == []


def drive(age_s: float, **readings: object) -> dict[str, object]:
    t_ns = int((now_s() - age_s) * SECOND_NS)
    sample: dict[str, object] = {
        "pack_id": "BATTERY_001", "t_ns": t_ns, "pack_v": 350.0, "current_a": -20.0, "soc_bms": 0.8, "soh_bms": 0.95,
        "temp_c": [24.0, 31.5, None], "cycles": 12.5, "state": "drive",
    }  # fmt: skip
    return sample | readings


def test_latest_keeps_the_earlier_names_percent_and_sign(api: Api) -> None:
    upload(api, [drive(1)])
    body = api.client.get("/api/battery/latest?battery_id=BATTERY_001").json()
    assert tuple(body) == READINGS
    assert (body["soc"], body["soh"], body["voltage"]) == (80.0, 95.0, 350.0)
    assert (body["current"], body["power_consumption"]) == (20.0, 7000.0)  # > 0 discharges here
    assert (body["temperature"], body["charge_cycles"], body["is_charging"]) == (31.5, 12.5, False)
    assert (body["status"], body["rul_prediction"], body["prediction_reason"]) == ("good", None, "no_model")
    assert datetime.fromisoformat(body["timestamp"]).tzinfo is not None


def test_battery_id_left_out_is_the_first_pack_by_id(api: Api) -> None:
    upload(api, [drive(2, pack_id="PACK_B"), drive(1, pack_id="PACK_A", soc_bms=0.5)])
    assert api.client.get("/api/batteries/list").json() == ["PACK_A", "PACK_B"]
    assert api.client.get("/api/battery/latest").json()["battery_id"] == "PACK_A"


def test_without_any_pack_lists_are_empty_and_latest_is_404_with_a_sentence(api: Api) -> None:
    assert api.client.get("/api/batteries/list").json() == []
    assert api.client.get("/api/alerts").json() == []
    answer = api.client.get("/api/battery/latest")
    assert answer.status_code == 404
    assert "no pack yet" in answer.json()["detail"]


def test_an_unknown_id_is_404(api: Api) -> None:
    upload(api, [drive(1)])
    for path in ("latest", "history", "predictions", "stats"):
        answer = api.client.get(f"/api/battery/{path}?battery_id=NOPE")
        assert answer.status_code == 404
        assert "NOPE" in answer.json()["detail"]


def test_absurd_hours_are_422_in_one_sentence(api: Api) -> None:
    for hours in ("0", "-1", "8760.01", "nan", "inf", "-inf", "1e999", "soon", "", "1,5"):
        for path in ("history", "stats"):
            answer = api.client.get(f"/api/battery/{path}", params={"hours": hours})
            assert answer.status_code == 422, hours
            assert answer.json()["detail"].startswith("hours: ")


def test_a_short_history_has_every_sample_as_it_was(api: Api) -> None:
    upload(api, [drive(10 - i, soc_bms=0.5 + i / 100) for i in range(10)])
    history = api.client.get("/api/battery/history?battery_id=BATTERY_001&hours=1").json()
    assert [point["soc"] for point in history] == [50.0 + i for i in range(10)]
    assert all(tuple(point) == READINGS for point in history)
    assert history[-1] == api.client.get("/api/battery/latest").json()


def test_a_history_without_samples_in_the_span_is_empty(api: Api) -> None:
    upload(api, [drive(7200)])
    assert api.client.get("/api/battery/history?hours=1").json() == []
    assert len(api.client.get("/api/battery/history?hours=3").json()) == 1


def test_a_long_history_has_at_most_1000_points_of_means_in_order(api: Api) -> None:
    upload(api, [drive(3500 - i, current_a=-1.0 if i % 2 else -3.0) for i in range(3500)])
    history = api.client.get("/api/battery/history?hours=1").json()
    assert 800 <= len(history) <= 1000
    assert {point["current"] for point in history[1:-1]} == {2.0}
    times = [point["timestamp"] for point in history]
    assert times == sorted(set(times))


@pytest.mark.parametrize("hours", [0.001, 0.5, 1, 6, 16.6, 16.7, 24, 48, 336, 700, 8760])
def test_no_span_needs_more_than_1000_steps(hours: float) -> None:
    width_ns = step_ns(timedelta(hours=hours))
    assert hours * 3600 * SECOND_NS / width_ns + 1 <= POINTS
    assert width_ns % (60 * SECOND_NS) == 0 or width_ns < 60 * SECOND_NS


@pytest.mark.parametrize("rolled_up", [False, True])
def test_stats_and_days_of_history_are_the_same_before_and_after_the_rollups(
    api: Api, database: Database, rolled_up: bool
) -> None:
    samples = [drive(90_000 - 30 * i, soc_bms=round(0.9 - i / 10_000, 3)) for i in range(3000)]
    upload(api, samples)
    if rolled_up:
        with db.connect(database) as conn:
            rollup.run_pass(conn, datetime.now(UTC))
            assert conn.execute("SELECT count(*) FROM samples_1m").fetchone() != (0,)
        upload(api, [drive(-1, soc_bms=0.6)], boot=2)
    stats = api.client.get("/api/battery/stats?hours=48").json()
    assert stats["count"] == 3000 + rolled_up
    assert (stats["soc"]["min"], stats["soc"]["max"]) == (60.0, 90.0)
    assert (stats["voltage"], stats["current"]) == (
        {"avg": 350.0, "min": 350.0, "max": 350.0},
        {"avg": 20.0, "min": 20.0, "max": 20.0},
    )
    history = api.client.get("/api/battery/history?hours=48").json()
    assert 480 <= len(history) <= 1000
    assert history[0]["soc"] > history[-1]["soc"]


@pytest.mark.parametrize("hours", [1.5, 24.0, 47.3, 800.0, 8760.0])
def test_stats_equal_the_samples_whatever_the_rollups_lack(api: Api, database: Database, hours: float) -> None:
    """The first minute of the span once counted whole, and late rows only when the next rollup pass had seen them."""
    ages_s = [1.0, 40.0, 3000.0, *(hours * 3600 + edge_s for edge_s in (-1900.0, -130.0, -20.0, 20.0, 130.0, 1900.0))]
    with db.connect(database) as conn:
        for boot in (1, 2):  # the second time all rows are late: the rollups know their minutes, but not them
            soc = 0.5 + boot / 10
            late_s = 7.0 * (boot - 1)
            upload(api, [drive(age_s - late_s, soc_bms=soc + i / 1000) for i, age_s in enumerate(ages_s)], boot=boot)
            if boot == 1:
                rollup.run_pass(conn, datetime.now(UTC))
        stats = api.client.get(f"/api/battery/stats?hours={hours}").json()
        wanted = conn.execute(
            "SELECT count(*), round(avg(soc_bms * 100)::numeric, 4)::float8, min(soc_bms) * 100 FROM samples"
            " WHERE t >= now() - %s * interval '1 hour'",
            (hours,),
        ).fetchone()
    assert wanted is not None and wanted[0] in range(10, 14)
    assert (stats["count"], stats["soc"]["avg"], stats["soc"]["min"]) == pytest.approx(wanted)


def test_no_model_yet_is_200_with_null_and_a_reason(api: Api) -> None:
    upload(api, [drive(1)])
    body = api.client.get("/api/battery/predictions").json()
    assert (body["rul_prediction"], body["model"], body["failure_probability"]) == (None, None, None)
    assert body["reason"] == "no_model"


def test_an_estimate_shows_in_predictions_latest_and_history(api: Api) -> None:
    t_ns = now_s() * SECOND_NS
    estimate = {"pack_id": "BATTERY_001", "seq": 9, "mono_ns": 1, "t_ns": t_ns, "rul_cycles": 480.0,
                "rul_cycles_lo": 400.0, "rul_cycles_hi": 600.0, "failure_probability": 0.1, "p_eol_100": 0.1,
                "in_domain": True, "model_id": "base-3", "model_sha256": "ab" * 32}  # fmt: skip
    upload(api, [drive(5), drive(-1)], estimates=[estimate])
    body = api.client.get("/api/battery/predictions").json()
    assert (body["rul_prediction"], body["rul_lo"], body["rul_hi"], body["model"]) == (480.0, 400.0, 600.0, "base-3")
    assert body["reason"] is None
    latest = api.client.get("/api/battery/latest").json()
    assert (latest["rul_prediction"], latest["status"], latest["prediction_reason"]) == (480.0, "warning", None)
    history = api.client.get("/api/battery/history").json()
    assert [point["rul_prediction"] for point in history] == [None, 480.0]
    assert 'battery_rul_cycles{battery_id="BATTERY_001"} 480.0' in api.client.get("/metrics").text
    assert 'battery_predictions_total{battery_id="BATTERY_001"} 1.0' in api.client.get("/metrics").text


def test_alerts_hold_bands_open_events_and_standing_alarms_worst_first(api: Api) -> None:
    t_ns = now_s() * SECOND_NS
    event = {"pack_id": "BATTERY_001", "mono_ns": 1, "t_ns": t_ns, "code": "cell_imbalance", "severity": "warning",
             "cell": 17, "value": 0.05, "threshold": 0.03, "since_t_ns": t_ns}  # fmt: skip
    cleared = event | {"id": "e2", "seq": 12, "cleared_t_ns": t_ns}
    upload(
        api,
        [drive(1, soc_bms=0.15, temp_c=[45.0], alarms=["low_soc:warning", "contactor_fault"])],
        events=[event | {"id": "e1", "seq": 10}, event | {"id": "e2", "seq": 11}, cleared],
    )
    found = api.client.get("/api/alerts").json()
    assert [(alert["severity"], alert["code"], alert["value"]) for alert in found] == [
        ("critical", "contactor_fault", None),
        ("critical", "soc_band", 15.0),
        ("warning", "cell_imbalance", 0.05),
        ("warning", "low_soc", None),
        ("warning", "temperature_band", 45.0),
    ]
    assert found[2]["text"] == "Cells drift apart, cell 17: 0.05 (limit 0.03)"
    assert {tuple(alert) for alert in found} == {("battery_id", "severity", "code", "text", "since", "value")}
    assert all(datetime.fromisoformat(alert["since"]) for alert in found)


def test_metrics_show_every_pack_and_leave_out_what_is_not_known(api: Api) -> None:
    upload(api, [drive(1), drive(1, pack_id="BATTERY_002", soc_bms=None)])
    families = {family.name: family for family in text_string_to_metric_families(api.client.get("/metrics").text)}
    soc = {sample.labels["battery_id"]: sample.value for sample in families["battery_soc_percent"].samples}
    assert soc == {"BATTERY_001": 80.0}
    temperature = families["battery_temperature_celsius"].samples
    assert {sample.value for sample in temperature} == {31.5}
    accepted = [s.value for s in families["packtwin_ingest_records"].samples if s.labels.get("outcome") == "accepted"]
    assert 2.0 in accepted
    routes = {sample.labels.get("route") for sample in families["packtwin_http_request_seconds"].samples}
    assert "/device/v1/batches" in routes
