"""Uploads: JSON and protobuf alike, every refusal, and what a device is told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from api_server import PROTOBUF, Api, json_batch, running_api
from fake_batches import batch, block, with_nulls

from cloud import db
from cloud.config import Config, Database
from shared.batch import MAX_BODY_BYTES, Batch
from shared.block import Extra
from shared.records import Estimate, Event, Gap, Report
from shared.wire import decode_receipt, encode_batch
from shared.wire_json import batch_json

JSON = {"content-type": "application/json"}
UPLOAD = "/device/v1/batches"


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    with running_api(Config(database=database)) as running:
        running.until_healthy()
        yield running


MINUTE_AGO_NS = time.time_ns() // 10**9 * 10**9 - 60 * 10**9


def full_batch(device: str, pack_id: str, t_ns: int = MINUTE_AGO_NS) -> Batch:
    head = {"mono_ns": 1, "t_ns": t_ns}
    samples = with_nulls(block(pack_id, 20, t_ns=t_ns), 0.2)
    return batch(
        device,
        replace(samples, qualities=({}, {"pack_v": "stale"}), alarms=((), ("low_soc:warning",)),
                quality_index=samples.seq % 2, alarm_index=samples.seq % 2),
        estimates=(Estimate(pack_id=pack_id, seq=100, soc=0.5, r0_mohm=(0.5, 0.25), reason="no_model", **head),),
        events=(Event(pack_id=pack_id, seq=101, id="e", code="low_soc", severity="warning", value=0.5, **head),),
        reports=(Report(seq=102, model_id="m", counter=1, step="seen", numbers={"ms": 1.5}, **head),),
        gaps=(Gap(seq=103, of_boot=3, first_seq=0, last_seq=9, cause="killed", stored=((0, 4),), **head),),
    )  # fmt: skip


VIEWS = {
    "samples": "seq",
    "estimates": "seq",
    "events": "seq",
    "reports": "seq",
    "gaps": "first_seq",
}


def rows_of(database: Database, device: str) -> dict[str, list[dict[str, object]]]:
    """All that the views hold of a device, without what tells two devices apart."""
    found = {}
    with db.connect(database) as conn:
        for view, order in VIEWS.items():
            cursor = conn.execute(f"SELECT * FROM {view} WHERE device = %s ORDER BY {order}", (device,))
            names = [column.name for column in cursor.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in cursor]
            found[view] = [{k: v for k, v in row.items() if k not in ("device", "pack_id")} for row in rows]
    return found


def test_json_and_protobuf_store_the_same_and_answer_the_same(api: Api, database: Database) -> None:
    first = api.client.post(UPLOAD, content=encode_batch(full_batch("pb", "A")), headers=PROTOBUF)
    second = api.client.post(UPLOAD, content=batch_json(full_batch("js", "B")), headers=JSON)
    assert (first.headers["content-type"], second.headers["content-type"]) == tuple(
        headers["content-type"] for headers in (PROTOBUF, JSON)
    )
    receipt, told = decode_receipt(first.content), second.json()
    assert [list(pair) for pair in receipt.accepted] == told["accepted"] == [[0, 19], [100, 103]]
    assert (receipt.rejected, told["rejected"]) == ((), [])
    assert abs(told["t_ns"] - time.time_ns()) < 60 * 10**9
    stored = rows_of(database, "pb")
    assert {view: len(rows) for view, rows in stored.items()} == {
        "samples": 20, "estimates": 1, "events": 1, "reports": 1, "gaps": 1,
    }  # fmt: skip
    assert stored == rows_of(database, "js")


def test_extras_of_both_encodings_are_equal(api: Api, database: Database) -> None:
    t_ns = time.time_ns() // 10**9 * 10**9
    samples = [{"pack_id": "B", "t_ns": t_ns, "extra": {"rpm": 12.5, "odd": None}}]
    api.client.post(UPLOAD, json=json_batch(samples, device="js"))
    with db.connect(database) as conn:
        (row,) = conn.execute("SELECT extra FROM samples").fetchall()
    assert row[0] == {"rpm": 12.5, "odd": None}
    assert Extra("rpm").unit == ""


def test_the_same_batch_again_is_accepted_and_changes_nothing(api: Api, database: Database) -> None:
    sent = full_batch("dev", "A")
    first, again = api.send(sent), api.send(sent)
    assert (first.accepted, first.rejected) == (again.accepted, again.rejected)
    assert {view: len(rows) for view, rows in rows_of(database, "dev").items()}["samples"] == 20


def test_future_and_ancient_rows_are_rejected_row_by_row(api: Api) -> None:
    t_ns = time.time_ns()
    samples = [{"pack_id": "P", "t_ns": t} for t in (t_ns, t_ns + 2 * 3600 * 10**9, t_ns - 500 * 86400 * 10**9)]
    told = api.client.post(UPLOAD, json=json_batch(samples)).json()
    assert told["accepted"] == [[0, 0]]
    assert told["rejected"] == [
        {"first": 1, "last": 1, "reason": "bad_time"},
        {"first": 2, "last": 2, "reason": "too_old"},
    ]


REFUSALS: list[tuple[bytes, dict[str, str], int, str | None]] = [
    (b"", PROTOBUF, 400, "unknown_schema"),
    (b"\xff" * 40, PROTOBUF, 400, "malformed"),
    (b"{", JSON, 400, "malformed"),
    (b'{"schema": 2}', JSON, 400, "unknown_schema"),
    (b'{"schema": 1, "device": "d", "boot": "1", "samples": []}', JSON, 400, "malformed"),
    (b'{"schema": 1, "device": "d", "boot": "0000000000000001", "samples": []}', JSON, 400, "malformed"),
    (b"[" * 100_000, JSON, 400, "malformed"),
    (b"{}", {"content-type": "text/plain"}, 415, None),
    (b"{}", {}, 415, None),
    (b"{}", {**JSON, "content-encoding": "gzip"}, 415, None),
    (b"0" * (MAX_BODY_BYTES + 1), JSON, 413, "too_large"),
    (b"0" * (MAX_BODY_BYTES + 1), PROTOBUF, 413, "too_large"),
]


def test_what_cannot_be_taken_as_a_whole_is_refused_in_one_sentence(api: Api) -> None:
    for content, headers, status, reason in REFUSALS:
        answer = api.client.post(UPLOAD, content=content, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason), answer.text
        sentence = answer.json()["error"]
        assert sentence.endswith(".") and "Traceback" not in sentence and len(sentence) < 300


def test_texts_that_no_database_takes_are_refused_in_both_encodings(api: Api) -> None:
    head = {"pack_id": "P", "seq": 1, "mono_ns": 1, "code": "low_soc", "severity": "warning"}
    for text in ("a\x00b", "\ud800", "x" * 257, "two\nlines"):
        body = json.dumps(json_batch([], events=[head | {"id": text}]))
        answer = api.client.post(UPLOAD, content=body, headers=JSON)
        assert (answer.status_code, answer.json()["reason"]) == (400, "malformed"), answer.text
    event = Event(pack_id="P", seq=1, mono_ns=1, id="\x00", code="low_soc", severity="warning")
    loud = replace(event, id="e", severity="loud")
    far = replace(event, id="e", seq=2**63 + 1)  # a seq that no int64 holds was a traceback once
    for wrong in (event, loud, far):
        answer = api.client.post(UPLOAD, content=encode_batch(batch("dev", events=(wrong,))), headers=PROTOBUF)
        assert (answer.status_code, answer.json()["reason"]) == (400, "malformed"), answer.text


def test_a_chunked_body_is_refused_while_it_is_read(api: Api) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"0" * 65_536

    try:
        answer = api.client.post(UPLOAD, content=endless(), headers=PROTOBUF)
    except httpx.TransportError:  # the server closed the connection while we still wrote: refused, too
        return
    assert answer.status_code == 413


def test_parameters_of_the_content_type_do_not_matter(api: Api) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    body = batch_json(full_batch("dev", "A"))
    assert api.client.post(UPLOAD, content=body, headers=headers).status_code == 200


def test_without_a_database_uploads_wait_and_the_api_says_so(database: Database) -> None:
    with running_api(Config(database=replace(database, port=1))) as api:
        answer = api.client.post(UPLOAD, content=batch_json(full_batch("dev", "A")), headers=JSON)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        health = api.client.get("/health")
        assert (health.status_code, health.json()["status"], health.json()["database"]) == (503, "degraded", "down")
        for path in ("/api/batteries/list", "/api/battery/latest", "/api/v1/packs", "/api/v1/live?pack_id=P"):
            refused = api.client.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
            assert refused.json()["detail"].startswith("The database is down")
        assert api.client.get("/metrics").status_code == 200
        assert api.client.get("/device/v1/desired").json() == {"mode": "normal", "bundle": None}


def test_a_database_without_tables_is_named_so(pg_server: object, database: Database) -> None:
    with running_api(Config(database=replace(database, name="postgres"))) as api:
        answer = api.client.get("/api/v1/packs")
        assert answer.status_code == 503
        assert "cloud migrate" in answer.json()["detail"]


def test_desired_is_the_mode_of_the_settings_or_the_devices_own(api: Api, database: Database) -> None:
    api.send(full_batch("dev", "A"))
    assert api.client.get("/device/v1/desired?device=dev").json() == {"mode": "normal", "bundle": None}
    with db.connect(database) as conn:
        conn.execute("UPDATE device SET mode = 'economy'")
    assert api.client.get("/device/v1/desired?device=dev").json()["mode"] == "economy"
    assert api.client.get("/device/v1/desired?device=%00").json()["mode"] == "normal"
