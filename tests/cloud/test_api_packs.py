"""/api/v1: packs, samples with cursors and steps, events, devices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from api_server import Api, json_batch, running_api
from fake_batches import batch, block, with_nulls

from cloud.config import Config, Database

SECOND_NS = 10**9


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    with running_api(Config(database=database)) as running:
        running.until_healthy()
        yield running


def start_ns(age_s: int) -> int:
    return (time.time_ns() // SECOND_NS - age_s) // 60 * 60 * SECOND_NS


def iso(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns / SECOND_NS, UTC).isoformat()


def ask(api: Api, **query: Any) -> dict[str, Any]:
    answer = api.client.get("/api/v1/packs/P/samples", params={k.rstrip("_"): v for k, v in query.items()})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_every_value_of_every_sample_comes_back_equal_through_pages(api: Api) -> None:
    t0_ns = start_ns(600)
    sent = with_nulls(block("P", 100, t_ns=t0_ns), 0.1)
    api.send(batch("dev", sent))
    expected = list(sent.dicts())
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    for _ in range(20):
        page = ask(
            api, from_=iso(t0_ns), to=iso(t0_ns + 200 * SECOND_NS), limit=7, **({"cursor": cursor} if cursor else {})
        )
        rows += [dict(zip(page["columns"], row, strict=True)) for row in page["rows"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert len(rows) == 100
    for row, record in zip(rows, expected, strict=True):
        balancing = row.pop("balancing")
        assert (int(balancing, 16) if isinstance(balancing, str) else balancing) == record["balancing"]
        assert datetime.fromisoformat(row.pop("t")).timestamp() * SECOND_NS == record["t_ns"]
        assert row == {name: record[name] for name in row}


def test_rows_at_the_same_time_are_neither_lost_nor_twice_between_pages(api: Api) -> None:
    t_ns = start_ns(100)
    samples = [{"pack_id": "P", "t_ns": t_ns, "pack_v": float(i)} for i in range(10)]
    for boot in (1, 2):
        assert api.client.post("/device/v1/batches", json=json_batch(samples, boot=boot)).status_code == 200
    found: list[list[Any]] = []
    query = {"from": iso(t_ns), "to": iso(t_ns), "fields": "boot,seq", "limit": "3"}
    while True:
        page = api.client.get("/api/v1/packs/P/samples", params=query).json()
        found += [row[1:] for row in page["rows"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert found == [[f"{boot:016x}", seq] for boot in (1, 2) for seq in range(10)]


def test_elements_and_extras_can_be_asked_for_by_name(api: Api) -> None:
    t_ns = start_ns(60)
    sample = {"pack_id": "P", "t_ns": t_ns, "cell_v": [3.7, None, 3.8], "extra": {"motor_rpm": 1234.0}}
    api.client.post("/device/v1/batches", json=json_batch([sample]))
    page = ask(api, from_=iso(t_ns), fields="cell_v[2],cell_v[1],cell_v[9],extra.motor_rpm,extra.none,pack_v")
    assert page["columns"] == ["t", "cell_v[2]", "cell_v[1]", "cell_v[9]", "extra.motor_rpm", "extra.none", "pack_v"]
    assert page["rows"][0][1:] == [3.8, None, None, 1234.0, None, None]


def test_a_step_gives_means_least_most_and_last(api: Api) -> None:
    t_ns = start_ns(300)
    samples = [
        {"pack_id": "P", "t_ns": t_ns + i * SECOND_NS, "pack_v": 100.0 + i, "pack_v_min": 90.0 - i,
         "pack_v_max": 200.0 + i, "state": "park" if i < 9 else "drive", "cell_v": [3.0, 3.0 + i / 10],
         "temp_c": [20.0 + i]}
        for i in range(20)
    ]  # fmt: skip
    api.client.post("/device/v1/batches", json=json_batch(samples))
    fields = "pack_v,pack_v_min,pack_v_max,state,cell_v,cell_v[1],temp_c"
    page = ask(api, from_=iso(t_ns), to=iso(t_ns + 60 * SECOND_NS), step=10, fields=fields)
    assert [row[1:] for row in page["rows"]] == [
        [104.5, 81.0, 209.0, "drive", [3.0, 3.45], 3.45, [24.5]],
        [114.5, 71.0, 219.0, "drive", [3.0, 4.45], 4.45, [34.5]],
    ]
    first = ask(api, from_=iso(t_ns), to=iso(t_ns + 60 * SECOND_NS), step=10, fields="pack_v", limit=1)
    second = ask(api, from_=iso(t_ns), to=iso(t_ns + 60 * SECOND_NS), step=10, fields="pack_v", cursor=first["next"])
    assert [first["rows"][0][1], second["rows"][0][1], second["next"]] == [104.5, 114.5, None]


BAD_QUERIES: list[tuple[dict[str, str], str]] = [
    ({"from": "yesterday"}, "from"),
    ({"to": "2026-13-01T00:00:00Z"}, "to"),
    ({"to": "0001-01-01T00:00:00+14:00"}, "to"),
    ({"step": "0"}, "step"),
    ({"step": "nan"}, "step"),
    ({"step": "inf"}, "step"),
    ({"step": "abc"}, "step"),
    ({"fields": "pack_v,nonsense"}, "nonsense"),
    ({"fields": ""}, "fields"),
    ({"fields": "cell_v[x]"}, "cell_v[x]"),
    ({"fields": "extra.a'); DROP TABLE pack; --"}, "DROP"),
    ({"fields": "alarms", "step": "10"}, "with a step"),
    ({"limit": "0"}, "limit"),
    ({"limit": "10001"}, "limit"),
    ({"cursor": "%%%"}, "cursor"),
    ({"cursor": "MS4y"}, "cursor"),
    ({"cursor": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OS4xLjE"}, "cursor"),
]


def test_a_bad_query_is_422_in_one_sentence_that_names_it(api: Api) -> None:
    api.client.post("/device/v1/batches", json=json_batch([{"pack_id": "P", "t_ns": start_ns(60)}]))
    for query, names in BAD_QUERIES:
        answer = api.client.get("/api/v1/packs/P/samples", params=query)
        assert answer.status_code == 422, (query, answer.text)
        assert names in answer.json()["detail"]


def test_unknown_packs_are_404_everywhere(api: Api) -> None:
    for path in ("", "/samples", "/events"):
        answer = api.client.get(f"/api/v1/packs/NOPE{path}")
        assert answer.status_code == 404
        assert "NOPE" in answer.json()["detail"]
    assert api.client.get("/api/v1/live?pack_id=NOPE").status_code == 404


def test_text_that_no_database_takes_is_422(api: Api) -> None:
    for path in ("/api/v1/packs/%00", "/api/v1/live?pack_id=%00", "/api/battery/latest?battery_id=a%00b"):
        answer = api.client.get(path)
        assert answer.status_code == 422
        assert "NUL" in answer.json()["detail"]
    assert api.client.get("/api/v1/packs/%ED%A0%80").status_code == 404


def test_undated_samples_stay_out_of_packs_and_samples(api: Api) -> None:
    api.client.post("/device/v1/batches", json=json_batch([{"pack_id": "P", "pack_v": 300.0}]))
    pack = api.client.get("/api/v1/packs/P").json()
    assert (pack["latest"], pack["t"]) == (None, None)
    assert ask(api)["rows"] == []


def test_a_pack_shows_its_newest_sample_in_own_units(api: Api) -> None:
    t_ns = start_ns(60)
    sample = {"pack_id": "P", "t_ns": t_ns, "soc_bms": 0.5, "current_a": -7.5, "cell_v": [3.7], "balancing": 2**80 + 1,
              "alarms": ["low_soc:warning"], "quality": {"pack_v": "stale"}, "extra": {"rpm": 5.5}}  # fmt: skip
    api.client.post("/device/v1/batches", json=json_batch([sample]))
    latest = api.client.get("/api/v1/packs").json()["packs"][0]["latest"]
    assert (latest["soc_bms"], latest["current_a"], latest["cell_v"], latest["temp_c"]) == (0.5, -7.5, [3.7], [])
    assert (latest["alarms"], latest["quality"], latest["extra"]) == (
        ["low_soc:warning"], {"pack_v": "stale"}, {"rpm": 5.5},
    )  # fmt: skip
    assert int(latest["balancing"], 16) == 2**80 + 1
    assert (latest["t_ns"], latest["boot"], latest["device"]) == (t_ns, "0000000000000001", "car-1")


def test_events_come_once_as_they_stand_and_devices_with_their_last_report(api: Api) -> None:
    t_ns = start_ns(60)
    event = {"pack_id": "P", "mono_ns": 1, "t_ns": t_ns, "id": "e1", "code": "low_soc", "severity": "warning",
             "value": 0.1, "since_t_ns": t_ns}  # fmt: skip
    report = {"seq": 7, "mono_ns": 1, "t_ns": t_ns, "model_id": "base", "counter": 3, "step": "proven"}
    events = [event | {"seq": 5}, event | {"seq": 6, "cleared_t_ns": t_ns + SECOND_NS}]
    body = json_batch([{"pack_id": "P", "t_ns": t_ns}], events=events, reports=[report])
    api.client.post("/device/v1/batches", json=body)
    (found,) = api.client.get("/api/v1/packs/P/events").json()["events"]
    assert (found["id"], found["severity"], found["since"][-1]) == ("e1", "warning", "Z")
    assert datetime.fromisoformat(found["cleared"]) > datetime.fromisoformat(found["since"])
    assert api.client.get("/api/v1/events?only_open=true").json() == {"events": []}
    (device,) = api.client.get("/api/v1/devices").json()["devices"]
    assert (device["device"], device["packs"]) == ("car-1", ["P"])
    assert device["model"] == {"model_id": "base", "counter": 3, "step": "proven", "reason": None, "t": found["t"]}
