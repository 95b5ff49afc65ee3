"""What is ingested is there once and as it was sent; what cannot be taken is refused with its reason."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_batches import NOW_NS, SECOND_NS, T0_NS, batch, block, layout, with_nulls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from cloud import db
from cloud.config import Config, Database, Retention
from cloud.ingest import DAY_NS, HOUR_NS, Ingest
from shared.batch import Batch
from shared.block import Extra, Layout, SampleBlock
from shared.fields import FLOAT32, NULL, SCALARS, Resolution
from shared.records import Estimate, Event, Gap, Rejected, Report

SMALL = layout(cells=4, temps=2)


@pytest.fixture
def ingest(conn: db.Connection) -> Ingest:
    return Ingest(conn, Config(), lambda: NOW_NS)


def stored(conn: db.Connection, order: str = "pack_id, seq") -> list[dict[str, Any]]:
    """All samples by the names of a record, as the view shows them."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(f"SELECT * FROM samples ORDER BY {order}").fetchall()
    for row in rows:
        bits = row["balancing"]
        row["balancing"] = None if bits is None else int(bits[::-1], 2)
    return rows


def sent(*blocks: SampleBlock) -> list[dict[str, Any]]:
    return sorted((row for one in blocks for row in one.dicts()), key=lambda row: (row["pack_id"], row["seq"]))


def assert_equal(rows: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert {name: row[name] for name in record} == record
        absent = {spec.name for spec in SCALARS} - record.keys()
        assert all(row[name] is None for name in absent)


def seqs(conn: db.Connection) -> list[int]:
    return [seq for (seq,) in conn.execute("SELECT seq FROM samples ORDER BY seq").fetchall()]


# --- every value ---


def test_every_value_comes_back_equal(ingest: Ingest, conn: db.Connection) -> None:
    whole, holes = block("P1", 50, seed=1), with_nulls(block("P2", 50, seq=50, seed=2), 0.3)
    ingest.write([batch("dev", whole, holes, boot=2**64 - 3)])
    rows = stored(conn)
    assert_equal(rows, sent(whole, holes))
    assert {row["boot"] for row in rows} == {"fffffffffffffffd"}
    assert {row["device"] for row in rows} == {"dev"}
    assert all(row["t"].timestamp() == pytest.approx(row["t_ns"] / 1e9, abs=1e-6) for row in rows)


resolutions = st.builds(Resolution, st.integers(1, 2**31 - 1), st.integers(0, 9))


@st.composite
def odd_layouts(draw: st.DrawFn) -> Layout:
    scalars = draw(st.lists(st.sampled_from(SCALARS), unique_by=lambda spec: spec.name))
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), unique=True, max_size=3))
    units = st.sampled_from(["", "V", "°C"])
    return Layout(
        scalars=tuple((s.name, draw(resolutions) if s.kind == "float" else Resolution(1, 0)) for s in scalars),
        cells=draw(st.integers(0, 5)),
        cell_step=draw(resolutions),
        temps=draw(st.integers(0, 3)),
        temp_step=draw(resolutions),
        balancing_words=draw(st.integers(0, 3)),
        extras=tuple(Extra(name, draw(units), draw(resolutions | st.just(FLOAT32))) for name in names),
    )  # fmt: skip


@st.composite
def odd_blocks(draw: st.DrawFn) -> SampleBlock:
    of = draw(odd_layouts())
    n = draw(st.integers(1, 6))
    low, high = of.limits
    random_state = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = random_state.integers(np.minimum(low, high), np.maximum(low, high) + 1, (of.width, n))
    for i, column in enumerate(of.columns):
        if column.step == FLOAT32:
            values = [draw(st.floats(width=32, allow_nan=False, allow_infinity=False)) for _ in range(n)]
            rows[i] = np.array(values, np.float32).view(np.int32)
    rows[random_state.random(rows.shape) < draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))] = NULL
    base = block("P", n, of=SMALL)
    table: tuple[dict[str, str], ...] = ({}, {"pack_v": "absent", "cell_v[12]": "stale"}, {"extra.a": "invalid"})
    alarms = ((), ("bms_fault",), ("low_soc:warning", "other"))
    pick = st.lists(st.integers(0, 2), min_size=n, max_size=n).map(lambda items: np.array(items, np.int64))
    return SampleBlock(
        "P", of, base.seq, base.mono_ns, base.t_ns, rows, draw(pick), draw(pick), table, alarms
    )  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(blocks=st.lists(odd_blocks(), min_size=1, max_size=3))
def test_any_layout_resolution_null_alarm_and_quality_comes_back_equal(
    conn: db.Connection, blocks: list[SampleBlock]
) -> None:
    conn.execute("TRUNCATE received, sample")
    ingest = Ingest(conn, Config(), lambda: NOW_NS)
    named = [replace_block(one, pack_id=f"P{i}", seq=one.seq + 100 * i) for i, one in enumerate(blocks)]
    ingest.write([batch("dev", *named)])
    rows = stored(conn)
    for row in rows:  # a JSON number without a point is an int to Python, and more digits than a double has
        row["extra"] = {name: float(value) for name, value in row["extra"].items() if value is not None}
    expected = sent(*named)
    for record in expected:
        record["extra"] = {name: value for name, value in record["extra"].items() if value is not None}
    assert_equal(rows, expected)


def replace_block(one: SampleBlock, **changed: Any) -> SampleBlock:
    fields = {name: getattr(one, name) for name in SampleBlock.__slots__}
    return SampleBlock(**(fields | changed))


def test_a_batch_of_the_greatest_size_is_one_transaction(ingest: Ingest, conn: db.Connection) -> None:
    of = layout(cells=2, temps=1, names=("pack_v", "current_a"))
    outcome = ingest.write([batch("dev", block("P", 100_000, of=of, every_ns=SECOND_NS // 2))])[0]
    assert (outcome.written, outcome.receipt.accepted) == (100_000, ((0, 99_999),))
    assert conn.execute("SELECT count(*), count(DISTINCT seq) FROM samples").fetchone() == (100_000, 100_000)


# --- exactly once ---


def test_the_same_batch_again_changes_nothing_and_gets_the_same_receipt(ingest: Ingest, conn: db.Connection) -> None:
    estimate = Estimate(pack_id="P", seq=10, mono_ns=1, t_ns=T0_NS, soc=0.5, cell_soc=(0.1, 0.2))
    event = Event(seq=11, mono_ns=1, t_ns=T0_NS, id="e", code="low_soc", severity="warning", pack_id="P")
    one = batch("dev", block("P", 10), estimates=(estimate,), events=(event,))
    first, again = ingest.write([one])[0], ingest.write([one])[0]
    assert first.receipt == again.receipt
    assert (first.written, again.written, again.duplicates) == (12, 0, 12)
    assert not again.blocks and not again.estimates and not again.events
    counts = "SELECT (SELECT count(*) FROM samples), (SELECT count(*) FROM estimates), (SELECT count(*) FROM events)"
    assert conn.execute(counts).fetchone() == (10, 1, 1)


def test_batches_of_one_boot_in_one_call_may_overlap(ingest: Ingest, conn: db.Connection) -> None:
    whole = block("P", 100, of=SMALL)
    cuts = [whole.take(np.arange(a, b)) for a, b in [(0, 60), (40, 100), (0, 100), (10, 20)]]
    outcomes = ingest.write([batch("dev", cut) for cut in cuts])
    assert [outcome.written for outcome in outcomes] == [60, 40, 0, 0]
    assert [outcome.receipt.accepted for outcome in outcomes] == [((0, 59),), ((40, 99),), ((0, 99),), ((10, 19),)]
    assert seqs(conn) == list(range(100))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pieces_in_any_order_with_repeats_end_as_the_whole(conn: db.Connection, data: st.DataObject) -> None:
    conn.execute("TRUNCATE received, sample")
    ingest = Ingest(conn, Config(), lambda: NOW_NS)
    whole = block("P", 40, of=SMALL)
    taken: set[int] = set()
    for _ in range(data.draw(st.integers(1, 6))):
        group = data.draw(st.lists(st.sets(st.integers(0, 39), min_size=1), min_size=1, max_size=3))
        outcomes = ingest.write([batch("dev", whole.take(np.array(sorted(pick)))) for pick in group])
        for pick, outcome in zip(group, outcomes, strict=True):
            assert outcome.written == len(pick - taken)
            assert {n for a, b in outcome.receipt.accepted for n in range(a, b + 1)} == pick
            taken |= pick
    assert seqs(conn) == sorted(taken)


def test_two_writers_at_once_store_each_record_once(database: Database) -> None:
    whole = [block(f"P{i}", 200, of=SMALL, seed=i) for i in range(4)]
    written: list[int] = []
    failures: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            pick = random.Random(seed)
            with db.connect(database) as conn:
                ingest = Ingest(conn, Config(), lambda: NOW_NS)
                for _ in range(15):
                    group = []
                    for i in pick.sample(range(4), 3):
                        start = pick.randrange(180)
                        cut = whole[i].take(np.arange(start, min(start + 40, 200)))
                        group.append(batch(f"dev{i}", cut, boot=i))
                    written.append(sum(outcome.written for outcome in ingest.write_each(group)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with db.connect(database) as conn:
        found = conn.execute("SELECT count(*), count(DISTINCT (device, boot, seq)) FROM samples").fetchone()
        received = conn.execute("SELECT sum(upper(u) - lower(u)) FROM received, unnest(ranges) u").fetchone()
    assert found == (sum(written), sum(written))
    assert received == (sum(written),)


def test_a_connection_killed_inside_the_transaction_leaves_nothing(database: Database) -> None:
    one = batch("dev", block("P", 100, of=SMALL))
    with db.connect(database) as other, db.connect(database) as conn:
        ingest = Ingest(conn, Config(), lambda: NOW_NS)
        other.autocommit = False
        other.execute("LOCK TABLE latest IN EXCLUSIVE MODE")  # the writer stops between its COPY and its commit

        def kill() -> None:
            with db.connect(database) as killer:
                while not killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid = %s AND xact_start IS NOT NULL AND wait_event_type = 'Lock'",
                    (conn.info.backend_pid,),
                ).fetchall():
                    pass

        killing = threading.Thread(target=kill)
        killing.start()
        with pytest.raises(Exception, match="terminat"):
            ingest.write_each([one])
        killing.join()
        other.rollback()
    with db.connect(database) as conn:
        assert seqs(conn) == []
        assert Ingest(conn, Config(), lambda: NOW_NS).write([one])[0].written == 100
        assert seqs(conn) == list(range(100))


# --- what is refused ---


def test_rows_out_of_time_are_refused_and_a_resend_gets_the_same_answer(ingest: Ingest, conn: db.Connection) -> None:
    old = block("P", 3, of=SMALL, t_ns=NOW_NS - 401 * DAY_NS)
    good = block("P", 3, seq=3, of=SMALL)
    future = block("P", 3, seq=6, of=SMALL, t_ns=NOW_NS + HOUR_NS + 1)
    one = batch("dev", old, good, future)
    first = ingest.write([one])[0].receipt
    assert first.accepted == ((3, 5),)
    assert first.rejected == (Rejected(0, 2, "too_old"), Rejected(6, 8, "bad_time"))
    assert ingest.write([one])[0].receipt == first
    half = ingest.write([batch("dev", good.take(np.array([0])), future.take(np.array([0, 2])))])[0].receipt
    assert (half.accepted, half.rejected) == (((3, 3),), (Rejected(6, 6, "bad_time"), Rejected(8, 8, "bad_time")))
    rows = conn.execute("SELECT device, boot, first_seq, last_seq, reason FROM rejects ORDER BY first_seq").fetchall()
    boot = "0000000000000007"
    assert rows == [("dev", boot, 0, 2, "too_old"), ("dev", boot, 6, 8, "bad_time")]


def test_a_refused_batch_twice_in_one_call_gets_the_same_receipt_twice(ingest: Ingest, conn: db.Connection) -> None:
    """The second once said accepted: the refusals of its own transaction were not in the database yet."""
    late = batch("dev", block("P", 3, t_ns=NOW_NS + 2 * HOUR_NS, of=SMALL))
    first, second = ingest.write([late, late])
    assert first.receipt == second.receipt == ingest.write([late])[0].receipt
    assert first.receipt.rejected == (Rejected(0, 2, "bad_time"),)


def test_the_last_hour_before_and_the_oldest_day_are_still_taken(ingest: Ingest) -> None:
    edge = block("P", 1, of=SMALL, t_ns=NOW_NS + HOUR_NS)
    oldest = block("P", 1, seq=1, of=SMALL, t_ns=NOW_NS - 400 * DAY_NS)
    assert ingest.write([batch("dev", edge, oldest)])[0].receipt.accepted == ((0, 1),)


def test_an_unknown_pack_is_refused_when_packs_do_not_register_themselves(conn: db.Connection) -> None:
    ingest = Ingest(conn, replace(Config(), auto_register=False), lambda: NOW_NS)
    conn.execute("INSERT INTO pack (pack_id) VALUES ('KNOWN')")
    event = Event(seq=4, mono_ns=1, id="e", code="low_soc", severity="warning", pack_id="P")
    one = batch("dev", block("KNOWN", 2, of=SMALL), block("P", 2, seq=2, of=SMALL), events=(event,))
    receipt = ingest.write([one])[0].receipt
    assert (receipt.accepted, receipt.rejected) == (((0, 1),), (Rejected(2, 4, "unknown_pack"),))


def test_another_devices_pack_is_refused_until_it_is_moved(ingest: Ingest, conn: db.Connection) -> None:
    ingest.write([batch("one", block("P", 2, of=SMALL))])
    receipt = ingest.write([batch("two", block("P", 2, of=SMALL))])[0].receipt
    assert receipt.rejected == (Rejected(0, 1, "not_yours"),)
    conn.execute("UPDATE pack SET device_key = (SELECT device_key FROM device WHERE device = 'two')")
    assert ingest.write([batch("two", block("P", 2, seq=2, of=SMALL))])[0].written == 2


def test_a_batch_that_the_database_cannot_take_is_malformed_and_stops_no_other(
    ingest: Ingest, conn: db.Connection
) -> None:
    poison = Event(seq=0, mono_ns=1, id="a\0b", code="low_soc", severity="warning", pack_id="P9")
    long = Event(seq=0, mono_ns=1, id="x" * 2_000_000, code="low_soc", severity="warning", pack_id="P9")
    surrogate = Report(seq=0, mono_ns=1, model_id="\ud800", counter=2**64, step="seen")
    group = [batch(f"dev{i}", block(f"P{i}", 2, of=SMALL)) for i in range(5)]
    bad = [batch("bad1", events=(poison,)), batch("bad2", events=(long,)), batch("bad3", reports=(surrogate,))]
    outcomes = ingest.write_each([*group[:2], bad[0], group[2], *bad[1:], *group[3:]])
    assert [outcome.written for outcome in outcomes] == [2, 2, 0, 2, 0, 0, 2, 2]
    refused = (Rejected(0, 0, "malformed"),)
    assert [o.receipt.rejected for o in outcomes] == [(), (), refused, (), refused, refused, (), ()]
    again = ingest.write_each(bad)
    assert [outcome.receipt.rejected for outcome in again] == [refused] * 3
    assert conn.execute("SELECT count(*) FROM rejects").fetchone() == (3,)


def test_a_database_without_tables_is_not_the_batchs_fault(ingest: Ingest, conn: db.Connection) -> None:
    conn.execute("ALTER TABLE latest RENAME TO gone")
    with pytest.raises(Exception, match="latest"):
        ingest.write_each([batch("dev", block("P", 2, of=SMALL))])
    conn.execute("ALTER TABLE gone RENAME TO latest")
    assert ingest.write_each([batch("dev", block("P", 2, of=SMALL))])[0].written == 2


# --- undated, latest, gaps, records ---


def test_undated_rows_are_kept_with_bounds_and_apart(ingest: Ingest, conn: db.Connection) -> None:
    undated = with_nulls(block("P", 5, t_ns=None, of=SMALL), 0.2)
    dated = block("P", 5, seq=5, of=SMALL)
    ingest.write([batch("dev", undated, dated)])
    rows = stored(conn)
    assert_equal(rows, sent(undated, dated))
    assert [row["t"] is None for row in rows] == [True] * 5 + [False] * 5
    assert all(row["not_before"] < row["not_after"] for row in rows[:5])
    assert rows[0]["not_after"].timestamp() == NOW_NS / 1e9
    assert conn.execute("SELECT count(*) FROM sample").fetchone() == (5,)


def test_latest_is_the_newest_sample_whatever_order_they_come_in(ingest: Ingest, conn: db.Connection) -> None:
    newer, older = block("P", 3, seq=3, t_ns=T0_NS + 10 * SECOND_NS, of=SMALL), block("P", 3, of=SMALL)
    for part in (newer, older):
        ingest.write([batch("dev", part)])
    other_layout = block("P", 1, seq=6, t_ns=T0_NS + 5 * SECOND_NS, of=layout(2, 1))
    ingest.write([batch("dev", other_layout, block("Q", 1, seq=7, of=SMALL))])
    row = conn.execute(
        "SELECT seq, t_ns, pack_v, state FROM latest JOIN pack USING (pack_key) WHERE pack_id = 'P'"
    ).fetchone()
    last = list(newer.dicts())[-1]
    states = ("off", "park", "drive", "charge_ac", "charge_dc", "fault")
    assert row == (5, last["t_ns"], last["pack_v"], states.index(last["state"]))


def gap_rows(conn: db.Connection) -> list[tuple[Any, ...]]:
    return conn.execute("SELECT boot, first_seq, last_seq, cause FROM gaps ORDER BY boot, first_seq").fetchall()


def test_gaps_are_what_neither_side_has(ingest: Ingest, conn: db.Connection) -> None:
    old = 2**63 + 5
    ingest.write([batch("dev", block("P", 10, of=SMALL), boot=old)])
    gap = Gap(seq=0, mono_ns=1, of_boot=old, first_seq=0, last_seq=30, cause="evicted", stored=((12, 14), (20, 20)))
    ingest.write([batch("dev", gaps=(gap,), boot=9)])
    boot = f"{old:016x}"
    lost = [(10, 11), (15, 19), (21, 30)]
    assert gap_rows(conn) == [(boot, first, last, "evicted") for first, last in lost]
    ingest.write([batch("dev", block("P", 2, seq=10, of=SMALL), boot=old)])
    assert gap_rows(conn) == [(boot, first, last, "evicted") for first, last in lost[1:]]


@pytest.mark.parametrize(("received", "stored_ranges", "last_seq", "lost"), [
    (10, (), 9, [(10, 14)]),
    (20, (), 9, [(20, 24)]),
    (10, ((10, 12),), 12, [(13, 17)]),
    (0, (), -1, [(0, 4)]),
    (3, ((5, 6),), 6, [(3, 4), (7, 11)]),
])  # fmt: skip
def test_after_a_power_cut_the_gap_reaches_ahead_of_the_last_number_known(
    ingest: Ingest, conn: db.Connection, received: int, stored_ranges: tuple[tuple[int, int], ...], last_seq: int,
    lost: list[tuple[int, int]],
) -> None:  # fmt: skip
    if received:
        ingest.write([batch("dev", block("P", received, of=SMALL), boot=1)])
    gap = Gap(
        seq=0, mono_ns=1, of_boot=1, first_seq=0, last_seq=last_seq, cause="power_cut", stored=stored_ranges, ahead=5
    )
    ingest.write([batch("dev", gaps=(gap,), boot=2)])
    assert gap_rows(conn) == [("0000000000000001", first, last, "power_cut") for first, last in lost]


def test_estimates_events_and_reports_come_back_equal(ingest: Ingest, conn: db.Connection) -> None:
    estimate = Estimate(
        pack_id="P", seq=0, mono_ns=5, t_ns=T0_NS, soc=0.123456789, soc_lo=0.1, in_domain=True, model_id="m",
        rul_cycles=812.5, failure_probability=0.25, r0_mohm=(1.5, 0.1), cell_soc=(),
    )  # fmt: skip
    unsaid = Estimate(pack_id="P", seq=1, mono_ns=6, reason="chemistry")
    raised = Event(
        seq=2, mono_ns=7, t_ns=T0_NS, id="e1", code="cell_imbalance", severity="warning", pack_id="P", cell=95,
        value=0.1, threshold=0.05, reference=3.7, since_t_ns=T0_NS, confidence=0.9,
    )  # fmt: skip
    report = Report(seq=3, mono_ns=8, t_ns=T0_NS, model_id="m", counter=3, step="proven", numbers={"rmse": 0.1})
    ingest.write([batch("dev", estimates=(estimate, unsaid), events=(raised,), reports=(report,), boot=2**64 - 1)])

    def read(view: str) -> Iterator[dict[str, Any]]:
        with conn.cursor(row_factory=dict_row) as cursor:
            yield from cursor.execute(f"SELECT * FROM {view} ORDER BY seq")

    for view, records in (("estimates", (estimate, unsaid)), ("events", (raised,)), ("reports", (report,))):
        for row, record in zip(read(view), records, strict=True):
            assert row["boot"] == "f" * 16
            for name in type(record).__slots__:
                value = getattr(record, name)
                assert row[name] == (list(value) if isinstance(value, tuple) else value), name
    assert [row["id"] for row in read("open_events")] == ["e1"]
    ingest.write([batch("dev", events=(replace(raised, seq=4, t_ns=T0_NS + 1, cleared_t_ns=T0_NS + 1),))])
    assert list(read("open_events")) == []


def test_days_before_retention_are_dropped_and_later_ones_stay(ingest: Ingest, conn: db.Connection) -> None:
    from datetime import UTC, datetime

    from cloud.rollup import drop_expired

    for i, days in enumerate((0, 9, 10, 11, 30)):
        ingest.write([batch("dev", block("P", 1, seq=i, of=SMALL, t_ns=NOW_NS - days * DAY_NS))])
    now = datetime.fromtimestamp(NOW_NS // 10**9, UTC)
    assert drop_expired(conn, now, Retention(raw_days=10)) == 1
    assert seqs(conn) == [0, 1, 2, 3]
    assert drop_expired(conn, now, Retention(raw_days=8)) == 2
    assert seqs(conn) == [0, 1]


def test_a_batch_without_samples_and_one_of_many_packs_are_fine(ingest: Ingest) -> None:
    many = Batch(device="dev", boot=1, blocks=tuple(block(f"P{i}", 1, seq=i, of=SMALL) for i in range(300)))
    report = Report(seq=0, mono_ns=1, model_id="m", counter=1, step="seen")
    outcomes = ingest.write([many, batch("dev2", reports=(report,))])
    assert [outcome.written for outcome in outcomes] == [300, 1]
