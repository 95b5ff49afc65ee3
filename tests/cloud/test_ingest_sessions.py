"""Sessions are kept whole and for ever, once each, and a pack's end of life with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_batches import NOW_NS, T0_NS, batch
from psycopg.rows import dict_row

from cloud import db
from cloud.config import Config
from cloud.ingest import DAY_NS, HOUR_NS, Ingest
from shared.records import Event, Rejected, Session
from shared.wire_json import record_dict


@pytest.fixture
def ingest(conn: db.Connection) -> Ingest:
    return Ingest(conn, Config(), lambda: NOW_NS)


def session(seq: int, **changes: object) -> Session:
    known = Session(
        pack_id="P", seq=seq, mono_ns=seq + 1, t_ns=T0_NS + seq, duration_s=9e4, cycles=1.5 * seq, r_step_mohm=0.43,
        simulated=True, reasons={"window_ah": "no_charge"},
    )  # fmt: skip
    return replace(known, **changes)


def end_of_life(seq: int, t_ns: int, code: str = "end_of_life") -> Event:
    at = {"mono_ns": 1, "t_ns": t_ns}
    return Event(pack_id="P", seq=seq, id="eol", code=code, severity="critical", value=812.0, threshold=0.8, **at)


def test_a_session_comes_back_as_it_was_sent_and_is_told_to_who_watches(ingest: Ingest, conn: db.Connection) -> None:
    sent = (session(0), session(1, t_ns=None, simulated=False, reasons={}))
    (outcome,) = ingest.write([batch("dev", sessions=sent, boot=2**64 - 1)])
    assert (outcome.receipt.accepted, outcome.sessions) == (((0, 1),), sent)
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SELECT * FROM sessions ORDER BY seq").fetchall()
    for row, record in zip(rows, sent, strict=True):
        assert record_dict(record).items() <= row.items()
        assert (row["device"], row["boot"]) == ("dev", "f" * 16)


def test_the_same_batch_twice_and_the_same_session_under_another_seq_is_one(
    ingest: Ingest, conn: db.Connection
) -> None:
    one = session(0)
    ingest.write([batch("dev", sessions=(one,)), batch("dev", sessions=(one,))])
    ingest.write([batch("dev", sessions=(replace(one, seq=4),), boot=8)])
    assert conn.execute("SELECT seq, boot FROM sessions").fetchall() == [(0, f"{7:016x}")]


def test_a_life_of_years_is_taken_and_the_future_is_not(ingest: Ingest, conn: db.Connection) -> None:
    old = NOW_NS - 4000 * DAY_NS
    sent = batch(
        "dev",
        sessions=(session(0, t_ns=old), session(1, t_ns=NOW_NS + HOUR_NS + 1)),
        events=(end_of_life(2, old), end_of_life(3, old, "low_soc")),
    )
    receipt = ingest.write([sent])[0].receipt
    assert receipt.accepted == ((0, 0), (2, 2))
    assert receipt.rejected == (Rejected(1, 1, "bad_time"), Rejected(3, 3, "too_old"))
    assert conn.execute("SELECT code, value FROM events").fetchall() == [("end_of_life", 812.0)]


def test_sessions_of_a_pack_of_another_device_are_refused(ingest: Ingest) -> None:
    ingest.write([batch("dev", sessions=(session(0),))])
    assert ingest.write([batch("other", sessions=(session(0),))])[0].receipt.rejected == (Rejected(0, 0, "not_yours"),)
