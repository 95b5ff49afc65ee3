"""TimescaleDB's tables answer as ours do. On a server that has it (DB_HOST) it is the real one, else a stand-in."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import timescale_stand_in
from fake_batches import NOW_NS, SECOND_NS, T0_NS, batch, block, layout
from hypothesis import given
from hypothesis import strategies as st
from pg_process import drop_database, empty_database, superuser_of

from cloud import db
from cloud.config import Config, Database
from cloud.db import flavour, partitions, queries_packs, queries_trend
from cloud.db.rollups import LEVELS, spans, whole_buckets
from cloud.ingest import DAY_NS, Ingest
from cloud.rollup import run_pass

SMALL = layout(cells=4, temps=2)
NOW = datetime.fromtimestamp(NOW_NS // SECOND_NS, UTC)
COLUMNS = """
    SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"""


@pytest.fixture
def real(conn: db.Connection) -> db.Connection:
    """A connection to a database of a server that has TimescaleDB."""
    if conn.execute("SELECT FROM pg_extension WHERE extname = 'timescaledb'").fetchone() is None:
        pytest.skip("needs a server with TimescaleDB (DB_HOST, its user a superuser)")
    return conn


@pytest.fixture
def any_conn(database_of_any_flavour: Database) -> Iterator[db.Connection]:
    with db.connect(database_of_any_flavour) as connection:
        yield connection


def write(conn: db.Connection, *blocks: object, boot: int = 7) -> None:
    Ingest(conn, Config(), lambda: NOW_NS).write([batch("dev", *blocks, boot=boot)])  # type: ignore[arg-type]


# --- which it is ---


def test_a_server_that_has_it_not_gets_plain_tables_and_one_line_says_so(
    conn: db.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    if conn.execute("SELECT FROM pg_available_extensions WHERE name = 'timescaledb'").fetchone():
        pytest.skip("this server has TimescaleDB")
    with caplog.at_level(logging.INFO, "cloud.db"):
        assert db.migrate(conn) == []
    assert [re.sub(r"[\d.]+", "N", message) for message in caplog.messages] == [
        "PostgreSQL N, samples in day partitions"
    ]
    assert flavour.prepare(conn) is None
    conn.execute("SET timescaledb.max_background_workers = 16")  # what tuned it is still in the settings, it is not
    assert flavour.prepare(conn) is None


def test_what_it_refuses_stays_ours_and_serves(conn: db.Connection, caplog: pytest.LogCaptureFixture) -> None:
    if flavour.has_hypertable(conn):
        pytest.skip("this server's TimescaleDB refuses nothing")
    with conn.transaction():
        flavour.adopt(conn, "2.99.0")  # no create_hypertable here
    assert "TimescaleDB 2.99.0 refuses hypertable.sql, so plain tables serve there: function" in caplog.messages[0]
    assert not flavour.has_hypertable(conn) and not flavour.has_aggregates(conn)
    write(conn, block("P", 5, of=SMALL))
    assert conn.execute("SELECT count(*) FROM samples").fetchone() == (5,)


def test_a_database_with_samples_keeps_its_tables(conn: db.Connection) -> None:
    if flavour.has_hypertable(conn):
        pytest.skip("this server's databases begin with TimescaleDB")
    write(conn, block("P", 5, of=SMALL))
    timescale_stand_in.install(conn)
    assert not flavour.has_hypertable(conn) and not flavour.has_aggregates(conn)
    assert conn.execute("SELECT count(*) FROM samples").fetchone() == (5,)


def test_of_the_sql_only_the_extensions_own_words_are_not_plain() -> None:
    """The stand-in runs all but those as it is written: a typing error in the rest does not get past PostgreSQL."""
    for step in flavour.STEPS:
        told = re.sub(r"^--.*$", "", timescale_stand_in.translated(flavour.text(step)), flags=re.MULTILINE)
        assert "timescaledb" not in told and "MATERIALIZED" not in told, step


def test_columns_and_types_of_both_kinds_are_the_same(
    pg_server: Any, any_conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    superuser = superuser_of(pg_server)
    plain = empty_database(superuser)
    monkeypatch.setattr(flavour, "prepare", lambda conn: None)
    with db.connect(plain) as conn:
        db.migrate(conn)
        for table in ("sample", "samples", *LEVELS):
            ours, theirs = (one.execute(COLUMNS, (table,)).fetchall() for one in (conn, any_conn))
            assert ours == theirs, table
            assert len(ours) > 35
    drop_database(superuser, plain)


def test_views_of_samples_are_kept_with_what_they_were_granted(conn: db.Connection) -> None:
    if flavour.has_hypertable(conn):
        pytest.skip("this server's databases begin with TimescaleDB")
    conn.execute("CREATE VIEW mine AS SELECT s.t, s.pack_v FROM sample s WHERE s.pack_v > 0")
    conn.execute("GRANT SELECT ON samples, mine TO PUBLIC")
    timescale_stand_in.install(conn)
    assert flavour.has_hypertable(conn) and flavour.has_aggregates(conn)
    write(conn, block("P", 5, of=SMALL))
    assert conn.execute("SELECT count(*) FROM mine").fetchone() == (5,)
    granted = "SELECT has_table_privilege('public', 'samples', 'SELECT')"
    assert conn.execute(granted).fetchone() == (True,)


# --- what it answers ---


def test_a_day_is_there_when_it_is_needed_and_goes_as_a_whole(any_conn: db.Connection) -> None:
    days = [date(2026, 5, day) for day in (1, 2, 3)]
    assert partitions.ensure_days(any_conn, days) >= set(days)
    for seq, day in enumerate(days):
        t_ns = int(datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC).timestamp()) * SECOND_NS
        write(any_conn, block("P", 1, seq=seq, t_ns=t_ns, of=SMALL))
    assert partitions.drop_before(any_conn, days[2]) >= 2
    left = any_conn.execute("SELECT (t AT TIME ZONE 'UTC')::date FROM sample").fetchall()
    assert left == [(days[2],)]
    assert partitions.drop_before(any_conn, days[2]) == 0


@pytest.mark.parametrize("passed", [False, True], ids=["before a pass", "after a pass"])
def test_a_fold_over_rollups_is_that_over_samples_while_late_rows_wait(any_conn: db.Connection, passed: bool) -> None:
    """A rollup that is not up to date must not be read, whichever kind it is; also where rows came into its past."""
    since, until = NOW - timedelta(days=20), NOW
    old = block("P", 900, t_ns=NOW_NS - 19 * DAY_NS, every_ns=1800 * SECOND_NS, of=SMALL)
    write(any_conn, old)
    run_pass(any_conn, NOW)
    write(any_conn, block("P", 40, seq=1000, t_ns=NOW_NS - 10 * DAY_NS, every_ns=7 * SECOND_NS, of=SMALL, seed=2))
    write(any_conn, block("P", 40, seq=2000, t_ns=NOW_NS - 300 * SECOND_NS, every_ns=7 * SECOND_NS, of=SMALL, seed=3))
    if passed:
        assert run_pass(any_conn, NOW) > 0
    key = queries_packs.pack_key(any_conn, "P")
    assert key is not None
    for width_s in (60, 3600, 6 * 3600):
        width_ns = width_s * SECOND_NS
        fine, quick = (
            queries_trend.fold(any_conn, key, since, until, width_ns, rollups=rollups) for rollups in (False, True)
        )
        assert sum(row["n"] for row in fine) == 980
        assert [(row["t_ns"], row["n"]) for row in quick] == [(row["t_ns"], row["n"]) for row in fine]
        for ours, theirs in zip(quick, fine, strict=True):
            for name, value in theirs.items():
                if name != "state":
                    assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-9), (width_s, name)


# --- what is refreshed ---


@given(st.lists(st.integers(0, 600_000), max_size=60, unique=True))
def test_spans_hold_every_minute_and_are_few(minutes: list[int]) -> None:
    found = spans(sorted(minutes))
    assert len(found) <= 20
    assert all(any(first <= minute < end for first, end in found) for minute in minutes)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))
    for unit in (1, 60, 1440):
        wide = whole_buckets(found, unit)
        assert all(first % unit == 0 and end % unit == 0 and first < end for first, end in wide)
        assert all(any(a <= first and end <= b for a, b in wide) for first, end in found)
        assert all(a[1] < b[0] for a, b in itertools.pairwise(wide))


def test_a_late_minute_does_not_refresh_all_the_time_since() -> None:
    assert spans([5, 6, 50, 40_000, 40_001]) == [(5, 51), (40_000, 40_002)]
    assert whole_buckets([(5, 51), (40_000, 40_002)], 60) == [(0, 60), (39_960, 40_020)]


# --- the real one ---


def test_the_real_one_has_hypertable_columnstore_and_hierarchical_aggregates(real: db.Connection) -> None:
    assert flavour.has_hypertable(real) and flavour.has_aggregates(real), flavour.told(real)
    write(real, block("P", 3, every_ns=DAY_NS // 4, of=SMALL), block("P", 1, seq=9, t_ns=T0_NS - 5 * DAY_NS, of=SMALL))
    chunks = "SELECT count(*) FROM timescaledb_information.chunks WHERE hypertable_name = 'sample'"
    assert real.execute(chunks).fetchone() == (3,)
    views = "SELECT view_name::text, materialized_only FROM timescaledb_information.continuous_aggregates ORDER BY 1"
    assert real.execute(views).fetchall() == [("samples_1d", False), ("samples_1h", False), ("samples_1m", False)]
    jobs = "SELECT proc_name::text FROM timescaledb_information.jobs WHERE hypertable_name = 'sample'"
    assert len(real.execute(jobs).fetchall()) == 1


def test_late_and_repeated_rows_come_into_columns_too(real: db.Connection) -> None:
    write(real, block("P", 600, of=SMALL), block("Q", 600, seq=600, of=layout()))
    run_pass(real, NOW)
    before = real.execute("SELECT * FROM samples ORDER BY boot, seq").fetchall()
    for (chunk,) in real.execute("SELECT show_chunks('sample')::text").fetchall():
        real.execute(f"CALL convert_to_columnstore('{chunk}')")
    assert real.execute("SELECT * FROM samples ORDER BY boot, seq").fetchall() == before
    write(real, block("P", 600, of=SMALL), block("Q", 600, seq=600, of=layout()))
    assert real.execute("SELECT count(*) FROM samples").fetchone() == (1200,)
    write(real, block("P", 600, t_ns=T0_NS + SECOND_NS // 2, of=SMALL, seed=5), boot=8)
    assert run_pass(real, NOW) == 11
    raw = "SELECT date_trunc('minute', t, 'UTC'), pack_key, count(*), min(cell_min_v) FROM sample GROUP BY 1, 2"
    made = "SELECT bucket, pack_key, n, cell_min_v_min FROM samples_1m"
    assert sorted(real.execute(made).fetchall()) == sorted(real.execute(raw).fetchall())
