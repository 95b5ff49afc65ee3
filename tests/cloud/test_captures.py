"""Captures in the cloud: each part once, downloadable when whole, gone when the retention says so."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import zstandard
from api_server import Api, running_api
from fake_batches import NOW_NS, T0_NS, batch, block

from cloud import db
from cloud.config import Config, Database, Retention
from cloud.ingest import DAY_NS, Ingest
from cloud.rollup import drop_expired
from edge.capture.store import packed
from shared.records import Capture, Rejected

ID = "3f81aa0011223344"
LOG = b"".join(
    f"(17{n:08}.{n % 10**6:06}) can0 100#{random.Random(n).getrandbits(64):016X}\n".encode() for n in range(9000)
)
STATE = b'{"format":1}'


def parts_of(id_: str = ID, **changes: object) -> list[Capture]:
    files = [("log", frame) for frame in packed(LOG[at : at + 1000] for at in range(0, len(LOG), 1000))]
    files += [("state", frame) for frame in packed([STATE])]
    return [
        replace(
            Capture(
                pack_id="P", seq=n, mono_ns=n + 1, t_ns=T0_NS, id=id_, part=n, parts=len(files), file=name,
                cause="low_soc", note="why", begin_t_ns=T0_NS - 90 * 10**9, end_t_ns=T0_NS, data=data,
            ),
            **changes,  # type: ignore[arg-type]
        )
        for n, (name, data) in enumerate(files)
    ]  # fmt: skip


@pytest.fixture
def ingest(conn: db.Connection) -> Ingest:
    return Ingest(conn, Config(), lambda: NOW_NS)


@pytest.fixture
def api(database: Database) -> Iterator[Api]:
    with running_api(Config(database=database)) as running:
        running.until_healthy()
        yield running


def count(conn: db.Connection) -> tuple[int, int]:
    found = conn.execute("SELECT (SELECT count(*) FROM capture), (SELECT count(*) FROM capture_chunk)").fetchone()
    assert found is not None
    return found[0], found[1]


def test_a_part_that_comes_again_under_another_seq_or_boot_is_there_once(ingest: Ingest, conn: db.Connection) -> None:
    parts = parts_of()
    assert len(parts) >= 3
    (one,) = ingest.write([batch("dev", captures=tuple(parts[:2]))])
    assert one.receipt.accepted == ((0, 1),) and one.written == 2
    ingest.write([batch("dev", captures=tuple(parts[:2]))])
    ingest.write([batch("dev", boot=8, captures=tuple(replace(p, seq=p.seq + 50) for p in reversed(parts)))])
    assert count(conn) == (1, len(parts))
    row = conn.execute("SELECT whole, parts_here, cause, note, pack_id, device FROM captures").fetchone()
    assert row == (True, len(parts), "low_soc", "why", "P", "dev")


def test_a_part_travels_beside_samples_and_one_that_is_not_ones_own_is_refused(
    ingest: Ingest, conn: db.Connection
) -> None:
    parts = parts_of()
    ingest.write([batch("dev", block("P", 3), captures=(replace(parts[0], seq=9),))])
    (other,) = ingest.write([batch("thief", captures=(replace(parts[1], seq=0),))])
    assert other.receipt.rejected == (Rejected(0, 0, "not_yours"),)
    (old,) = ingest.write([batch("dev", boot=9, captures=(replace(parts[1], t_ns=NOW_NS - 500 * DAY_NS),))])
    assert old.receipt.rejected == (Rejected(1, 1, "too_old"),)
    assert count(conn) == (1, 1)


def test_parts_that_do_not_fit_what_came_first_change_nothing(ingest: Ingest, conn: db.Connection) -> None:
    parts = parts_of()
    ingest.write([batch("dev", captures=(parts[0],))])
    (outcome,) = ingest.write([batch("dev", captures=(replace(parts[1], parts=1000, part=999),))])
    assert outcome.receipt.accepted and count(conn) == (1, 1)


def test_the_log_can_be_fetched_when_all_parts_are_there(api: Api) -> None:
    parts = parts_of()
    now_ns = round(datetime.now(UTC).timestamp()) * 10**9
    parts = [replace(p, t_ns=now_ns) for p in parts]
    assert api.client.get("/api/v1/captures").json() == {"captures": []}
    for path in (f"/api/v1/captures/{ID}", "/api/v1/captures?pack_id=P", "/api/v1/captures/..%2F..%2Fetc"):
        answer = api.client.get(path)
        assert answer.status_code == 404 and set(answer.json()) == {"detail"}
    api.send(batch("dev", captures=tuple(parts[1:])))
    answer = api.client.get(f"/api/v1/captures/{ID}")
    assert answer.status_code == 409
    assert answer.json()["detail"] == (
        f"Capture {ID} is still on its way: {len(parts) - 1} of {len(parts)} parts are here."
    )
    (listed,) = api.client.get("/api/v1/captures?pack_id=P").json()["captures"]
    assert (listed["whole"], listed["parts_here"], listed["parts"]) == (False, len(parts) - 1, len(parts))
    api.send(batch("dev", captures=(parts[0],)))
    log = api.client.get(f"/api/v1/captures/{ID}")
    assert log.status_code == 200 and log.content == LOG
    assert log.headers["content-type"].startswith("text/plain")
    assert log.headers["content-disposition"] == f'attachment; filename="P-{ID}.log"'
    assert api.client.get(f"/api/v1/captures/{ID}?file=state").content == STATE
    assert api.client.get(f"/api/v1/captures/{ID}?file=serial").status_code == 404
    assert api.client.get(f"/api/v1/captures/{ID}?file=meta").status_code == 422
    (listed,) = api.client.get("/api/v1/captures").json()["captures"]
    assert listed["whole"] and listed["cause"] == "low_soc" and listed["pack_id"] == "P"
    assert listed["bytes_here"] == sum(len(p.data) for p in parts)
    assert listed["end"].startswith("2026-05-28T") and listed["note"] == "why"


def test_a_bus_that_was_silent_gives_an_empty_log(api: Api) -> None:
    now_ns = round(datetime.now(UTC).timestamp()) * 10**9
    (state,) = packed([STATE])
    silent = replace(parts_of()[0], t_ns=now_ns, part=0, parts=1, file="state", data=state)
    api.send(batch("dev", captures=(silent,)))
    answer = api.client.get(f"/api/v1/captures/{ID}")
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_newest_are_listed_first_and_as_many_as_asked_for(ingest: Ingest, api: Api) -> None:
    for number in range(5):
        ingest.write([batch("dev", boot=number + 1, captures=tuple(parts_of(f"a{number}")))])
    listed = api.client.get("/api/v1/captures?limit=2").json()["captures"]
    assert [one["id"] for one in listed] == ["a4", "a3"]


def test_captures_go_with_the_samples_of_their_time(ingest: Ingest, conn: db.Connection) -> None:
    ingest.write([batch("dev", captures=tuple(parts_of("old", t_ns=NOW_NS - 300 * DAY_NS)))])
    ingest.write([batch("dev", boot=8, captures=tuple(parts_of("new")))])
    now = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    drop_expired(conn, now, Retention(raw_days=299))
    assert conn.execute("SELECT id FROM capture").fetchall() == [("old",), ("new",)]  # a day more, as for samples
    drop_expired(conn, now + timedelta(days=1), Retention(raw_days=299))
    assert conn.execute("SELECT id, whole FROM captures").fetchall() == [("new", True)]
    assert count(conn) == (1, len(parts_of()))


def test_captures_are_kept_whatever_keeps_the_samples(database_of_any_flavour: Database) -> None:
    with db.connect(database_of_any_flavour) as conn:
        Ingest(conn, Config(), lambda: NOW_NS).write([batch("dev", block("P", 5, seq=100), captures=tuple(parts_of()))])
        rows = conn.execute("SELECT data FROM capture_chunk WHERE file = 'log' ORDER BY part").fetchall()
    unpack = zstandard.ZstdDecompressor()
    assert b"".join(unpack.decompress(bytes(data)) for (data,) in rows) == LOG
