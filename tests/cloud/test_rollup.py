"""Rollups always equal what the raw rows say, whatever came late, twice or in between."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from fake_batches import NOW_NS, SECOND_NS, T0_NS, batch, block, layout, with_nulls
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from cloud import db
from cloud.config import Config, Database, Retention
from cloud.db.rollups import LEVELS, METRICS
from cloud.ingest import DAY_NS, Ingest
from cloud.rollup import drop_expired, run_pass

SMALL = layout(cells=4, temps=2)
NOW = datetime.fromtimestamp(NOW_NS // SECOND_NS, UTC)
UNITS = ("minute", "hour", "day")
BOOTS = itertools.count(1)


@pytest.fixture
def database(database_of_any_flavour: Database) -> Database:
    return database_of_any_flavour


def rows_of(conn: db.Connection, query: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query).fetchall()


def assert_rollups_equal_raw(conn: db.Connection) -> None:
    """Compares all levels with a plain GROUP BY over the raw rows."""
    for table, unit in zip(LEVELS, UNITS, strict=True):
        parts = ["count(*) AS n"]
        for name, (value, *ends) in METRICS.items():
            low, high = ends or (value, value)
            parts += [f"count({value}) AS {name}_n", f"avg({value}) AS {name}_avg"]
            parts += [f"min({low}) AS {name}_min", f"max({high}) AS {name}_max"]
        raw = rows_of(
            conn,
            f"SELECT pack_key, date_trunc('{unit}', t, 'UTC') AS bucket, {', '.join(parts)}"
            " FROM sample GROUP BY 1, 2 ORDER BY 1, 2",
        )
        made = rows_of(conn, f"SELECT * FROM {table} ORDER BY pack_key, bucket")
        assert len(made) == len(raw), table
        for ours, theirs in zip(made, raw, strict=True):
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                wanted = (
                    pytest.approx(value, rel=1e-9, abs=1e-9) if name.endswith("_avg") and value is not None else value
                )
                assert ours[name] == wanted, (table, name)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rollups_equal_a_recomputation_after_late_and_duplicate_data(conn: db.Connection, data: st.DataObject) -> None:
    boot = next(BOOTS)  # of this example; rows of the ones before stay, so that there is ever more to get wrong
    ingest = Ingest(conn, Config(), lambda: NOW_NS)
    every = data.draw(st.sampled_from([1, 20, 900])) * SECOND_NS
    packs = [with_nulls(block(f"P{i}", 90, seq=100 * i, every_ns=every, of=SMALL, seed=i), 0.2) for i in range(2)]
    for _ in range(data.draw(st.integers(1, 5))):
        cuts = [
            one.take(np.array(sorted(data.draw(st.sets(st.integers(0, 89), min_size=1, max_size=30))))) for one in packs
        ]
        ingest.write([batch("dev", *cuts, boot=boot)])
        if data.draw(st.booleans()):
            run_pass(conn, NOW)
    run_pass(conn, NOW)
    assert_rollups_equal_raw(conn)
    assert conn.execute("SELECT count(*) FROM rollup_todo").fetchone() == (0,)
    assert run_pass(conn, NOW) == 0


def test_undated_and_repeated_rows_make_no_work(conn: db.Connection) -> None:
    ingest = Ingest(conn, Config(), lambda: NOW_NS)
    one = batch("dev", block("P", 10, of=SMALL))
    ingest.write([one])
    assert run_pass(conn, NOW) == 1
    ingest.write([one])
    ingest.write([batch("dev", block("P", 10, seq=10, t_ns=None, of=SMALL))])
    assert conn.execute("SELECT count(*) FROM rollup_todo").fetchone() == (0,)


def test_passes_beside_each_other_and_beside_the_ingest_end_right(database: Database) -> None:
    done = threading.Event()

    def passes() -> None:
        with db.connect(database) as conn:
            while not done.is_set():
                run_pass(conn, NOW)

    workers = [threading.Thread(target=passes) for _ in range(2)]
    for worker in workers:
        worker.start()
    with db.connect(database) as conn:
        ingest = Ingest(conn, Config(), lambda: NOW_NS)
        for start in range(0, 600, 20):
            ingest.write(
                [batch("dev", block("P", 20, seq=start, t_ns=T0_NS + start * SECOND_NS, of=SMALL, seed=start))]
            )
        done.set()
        for worker in workers:
            worker.join()
        run_pass(conn, NOW)
        assert_rollups_equal_raw(conn)


def test_each_level_is_kept_as_long_as_its_setting_says(conn: db.Connection) -> None:
    """The ages lie far apart: TimescaleDB drops many days of minutes or hours at once."""
    ingest = Ingest(conn, Config(retention=Retention(raw_days=2000, minute_days=2000)), lambda: NOW_NS)
    for seq, days in enumerate((0, 20, 300, 1500)):
        ingest.write([batch("dev", block("P", 1, seq=seq, t_ns=NOW_NS - days * DAY_NS, of=SMALL))])
    run_pass(conn, NOW)
    for _ in range(2):
        drop_expired(conn, NOW, Retention(raw_days=10, minute_days=30, hour_days=800, day_days=0))
        counts = [conn.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("sample", *LEVELS)]
        assert list(itertools.chain.from_iterable(row for row in counts if row)) == [1, 2, 3, 4]


def test_what_comes_after_old_days_went_leaves_their_rollups_alone(conn: db.Connection) -> None:
    ingest, retention = Ingest(conn, Config(), lambda: NOW_NS), Retention(raw_days=10, minute_days=30)
    kept = ("samples_1m", "samples_1h", "samples_1d")
    old_ns, late_ns = NOW_NS - 20 * DAY_NS, NOW_NS - 9 * DAY_NS
    ingest.write([batch("dev", block("P", 90, t_ns=old_ns, of=SMALL), block("P", 1, seq=90, t_ns=late_ns, of=SMALL))])
    run_pass(conn, NOW)
    before = [rows_of(conn, f"SELECT * FROM {table} ORDER BY bucket") for table in kept]
    drop_expired(conn, NOW, retention)
    assert conn.execute("SELECT count(*) FROM sample").fetchone() == (1,)
    ingest.write([batch("dev", block("Q", 90, seq=100, t_ns=late_ns, of=SMALL))])
    ingest.write([batch("dev", block("Q", 5, seq=200, t_ns=NOW_NS, of=SMALL))])
    run_pass(conn, NOW)
    of_p = "WHERE pack_key = (SELECT pack_key FROM pack WHERE pack_id = 'P') ORDER BY bucket"
    assert [rows_of(conn, f"SELECT * FROM {table} {of_p}") for table in kept] == before
    assert conn.execute("SELECT sum(n) FROM samples_1d").fetchone() == (91 + 95,)
