"""A restored database is the one that was backed up: every row of every table, and the ingest goes on in it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zstandard
from fake_batches import NOW_NS, SECOND_NS, T0_NS, batch, block, layout, with_nulls
from pg_process import drop_database, empty_database, fresh_database
from psycopg import sql

from cloud import backup, db
from cloud.__main__ import main
from cloud.config import Config, Database
from cloud.ingest import DAY_NS, Ingest
from cloud.rollup import run_pass
from shared.errors import ConfigError, PacktwinError
from shared.records import Capture, Estimate, Event, Report

SMALL = layout(cells=4, temps=2)
FIRST = batch(
    "box-1",
    with_nulls(block("P", 200, every_ns=30 * SECOND_NS, of=SMALL), 0.2),
    block("Q", 50, seq=200, t_ns=T0_NS - 40 * DAY_NS, of=layout()),
    block("Q", 5, seq=250, t_ns=None, of=SMALL),
    estimates=(Estimate(pack_id="P", seq=260, mono_ns=1, t_ns=T0_NS, soc=0.5, cell_soc=(0.1, None)),),  # type: ignore[arg-type]
    events=(Event(seq=261, mono_ns=1, t_ns=T0_NS, id="e", code="low_soc", severity="warning", pack_id="P"),),
    reports=(Report(seq=262, mono_ns=1, t_ns=T0_NS, model_id="m-1", counter=1, step="refused", reason="crash"),),
    captures=(
        Capture(
            pack_id="P",
            seq=263,
            mono_ns=1,
            t_ns=T0_NS,
            id="c",
            part=0,
            parts=1,
            file="log",
            cause="trigger",
            data=zstandard.ZstdCompressor().compress(b"(1.000000) can0 100#00\n"),
        ),
    ),
)


def rows(database: Database) -> dict[str, list[str]]:
    """Every row of every relation that can be read, as text."""
    found = {}
    with db.connect(database) as conn:
        names = conn.execute(
            "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')"
            " AND NOT relispartition AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')"
        ).fetchall()
        for (name,) in names:
            query = sql.SQL("SELECT row::text FROM {} AS row ORDER BY 1").format(sql.Identifier(name))
            found[name] = [text for (text,) in conn.execute(query)]
    return found


@pytest.fixture
def seeded(any_superuser: Database) -> Iterator[Database]:
    database = fresh_database(any_superuser)
    with db.connect(database) as conn:
        Ingest(conn, Config(), lambda: NOW_NS).write([FIRST])
        run_pass(conn, datetime.fromtimestamp(NOW_NS / 1e9, UTC))
        Ingest(conn, Config(), lambda: NOW_NS).write([batch("box-1", block("P", 3, seq=300, of=SMALL))])
        conn.execute("UPDATE pack SET tags = '[\"a;b\"]', chemistry = 'nmc', limits = '{\"x\": 1.5}'")
    yield database
    drop_database(any_superuser, database)


@pytest.fixture
def target(any_superuser: Database) -> Iterator[Database]:
    database = empty_database(any_superuser)
    yield database
    drop_database(any_superuser, database)


def test_every_row_of_every_table_comes_back_and_the_ingest_goes_on(
    seeded: Database, target: Database, tmp_path: Path
) -> None:
    file = tmp_path / "twin.backup"
    assert backup.backup(seeded, file) == file.stat().st_size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["twin.backup"]
    assert backup.restore(target, file) == []
    was, became = rows(seeded), rows(target)
    assert {
        "sample",
        "samples",
        "samples_1m",
        "received",
        "estimate",
        "event_now",
        "capture_chunk",
        "migration",
    } <= was.keys()
    assert sum(map(len, was.values())) > 600
    assert was.keys() == became.keys()
    for name in was:
        assert was[name] == became[name], name
    with db.connect(target) as conn:
        ingest = Ingest(conn, Config(), lambda: NOW_NS)
        later = batch("box-2", block("R", 10, t_ns=T0_NS + 5 * SECOND_NS, of=layout(cells=3)))
        outcomes = ingest.write([FIRST, later])
        assert [outcome.written for outcome in outcomes] == [0, 10]
        assert run_pass(conn, datetime.fromtimestamp(NOW_NS / 1e9, UTC)) > 0
        assert conn.execute("SELECT sum(n) FROM samples_1d").fetchone() == (200 + 50 + 3 + 10,)
        assert db.migrations_pending(conn) == []


def test_a_database_with_rows_is_left_alone_one_with_tables_only_is_filled(
    seeded: Database, any_superuser: Database, tmp_path: Path
) -> None:
    file = tmp_path / "twin.backup"
    backup.backup(seeded, file)
    before = rows(seeded)
    with pytest.raises(ConfigError, match="is not empty; restore into a new database"):
        backup.restore(seeded, file)
    assert rows(seeded) == before
    migrated = fresh_database(any_superuser)
    try:
        backup.restore(migrated, file)
        assert rows(migrated) == before
    finally:
        drop_database(any_superuser, migrated)


def test_a_restore_that_fails_leaves_the_database_empty(
    seeded: Database, target: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "twin.backup"
    backup.backup(seeded, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(PacktwinError):
        backup.restore(target, file)
    assert not {"sample", "pack", "migration"} & rows(target).keys()
    file.write_bytes(whole)
    backup.restore(target, file)
    assert rows(target) == rows(seeded)


def test_the_commands_say_what_is_wrong_in_one_sentence(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: str, file: Path | str, **changed: Any) -> tuple[int, str]:
        at = replace(database, **changed)
        told = {"HOST": at.host, "PORT": at.port, "NAME": at.name, "USER": at.user, "PASSWORD": at.password}
        for name, value in told.items():
            monkeypatch.setenv(f"DB_{name}", str(value))
        code = main(["--env-file", str(tmp_path / "none"), command, str(file)])
        said = capsys.readouterr()
        assert len(said.err.splitlines()) <= 1, said.err
        return code, said.out + said.err

    good, junk = tmp_path / "good", tmp_path / "junk"
    junk.write_bytes(b"PGDMP no more")
    assert run("backup", good)[0] == 0
    assert run("backup", good)[0] == 0  # over the older one
    for file, why in ((tmp_path / "no", "there is no file"), (junk, "is no backup"), (tmp_path, "there is no file")):
        code, said = run("restore", file)
        assert (code, why in said) == (2, True), said
    code, said = run("backup", tmp_path / "no" / "folder" / "f")
    assert (code, "cannot be written" in said) == (2, True), said
    code, said = run("backup", good, name="packtwin_test_none")
    assert (code, "no database packtwin_test_none" in said) == (1, True), said
    code, said = run("restore", good)
    assert (code, "is as it was when" in said) == (0, True), said
