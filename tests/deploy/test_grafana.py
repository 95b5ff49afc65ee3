"""Every dashboard is what its source says, fits Grafana's own types, and each of its questions is answered in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grafana_panels
import jsonschema
import psycopg
import pytest
import yaml
from fakes import seeded_fleet
from grafana_panels import GRAFANA, LIMIT_S, Question, expanded, median_s, span
from pg_process import fresh_database

from cloud import db
from cloud.config import Database

BOARDS = grafana_panels.boards()
QUESTIONS = grafana_panels.sql_questions()
SCHEMA = json.loads((GRAFANA / "schema" / "grafana.schema.json").read_text())
UNITS = {
    *("percent", "percentunit", "volt", "mvolt", "amp", "watt", "celsius", "short", "lengthkm", "s", "h", "bytes"),
    *("Bps", "cps", "reqps", "dateTimeFromNow"),
}
"""Units that Grafana knows by these ids; `suffix: x` is any other."""
RANGES = ("now-15m", "now-6h", "now-7d", "now-1y")
READER = f"packtwin_test_reader_{os.getpid()}"


def panels_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_committed_dashboards_are_what_their_source_makes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(GRAFANA / "build.py"), "-o", str(tmp_path)], check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (GRAFANA / "dashboards").iterdir()}, (
        "run deploy/grafana/build.py"
    )


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_a_dashboard_has_no_key_and_lacks_no_option_that_grafana_13_does_not_know(board: dict[str, Any]) -> None:
    def problems(part: str, value: Any) -> list[str]:
        validator = jsonschema.Draft7Validator({"$defs": SCHEMA["$defs"], **SCHEMA["panels"][part]})
        return [f"{value['title']}: {list(error.path)} {error.message}" for error in validator.iter_errors(value)]

    assert problems("", board) == []
    assert [problem for panel in panels_of(board) for problem in problems(panel["type"], panel)] == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board["uid"])
def test_panels_are_named_explained_and_stand_beside_each_other(board: dict[str, Any]) -> None:
    assert (board["schemaVersion"], board["tags"]) == (42, ["packtwin"])
    ids = [panel["id"] for panel in board["panels"]]
    titles = [panel["title"] for panel in panels_of(board)]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    taken: dict[tuple[int, int], str] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24 and min(at["w"], at["h"]) > 0, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"], f"{panel['title']} covers another"
    for panel in panels_of(board):
        assert len(panel["title"]) > 2 and panel["description"].endswith("."), panel["title"]
        letters = [target["refId"] for target in panel["targets"]]
        assert letters and len(set(letters)) == len(letters), panel["title"]
        used = [panel["fieldConfig"]["defaults"].get("unit")]
        used += [p["value"] for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "unit"]
        wrong = {u for u in used if u is not None and u not in UNITS and not u.startswith("suffix: ")}
        assert not wrong, panel["title"]
        if panel["type"] in ("timeseries", "barchart", "xychart", "gauge", "heatmap"):
            assert panel["fieldConfig"]["defaults"].get("unit"), f"{panel['title']} has no unit"


def test_every_uid_that_a_dashboard_names_is_provisioned() -> None:
    told = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "packtwin.yaml").read_text())
    sources = {source["uid"]: source["type"] for source in told["datasources"]}
    assert {source["name"]: source["uid"] for source in told["datasources"]}["TimescaleDB"] == "timescaledb"
    uids = {board["uid"] for board in BOARDS}
    for board in BOARDS:
        named = [panel["datasource"] for panel in panels_of(board)]
        named += [target["datasource"] for panel in panels_of(board) for target in panel["targets"]]
        named += [variable["datasource"] for variable in board["templating"]["list"]]
        assert all(sources[source["uid"]] == source["type"] for source in named)
        assert {link["url"].removeprefix("/d/") for link in board["links"]} <= uids
    folders = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "packtwin.yaml").read_text())
    assert folders["providers"][0]["options"]["path"] == "$GRAFANA_DASHBOARDS"


# --- every question to the database ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet(pg_server: Any) -> Iterator[tuple[Database, datetime]]:
    """A database seeded through the ingest, as its reader sees it; and now."""
    owner = fresh_database(Database(pg_server.host, pg_server.port, pg_server.name, pg_server.user, pg_server.password))
    now_ns = time.time_ns() // 10**9 * 10**9
    with db.connect(owner) as conn:
        seeded_fleet.seed(conn, now_ns)
        conn.execute("VACUUM ANALYZE")
        make_reader(conn)
        yield replace(owner, user=READER, password="reads"), datetime.fromtimestamp(now_ns / 1e9, UTC)
        conn.execute(f"DROP OWNED BY {READER}")
        conn.execute(f"DROP ROLE {READER}")


def make_reader(conn: db.Connection) -> None:
    conn.execute(
        "SELECT set_config('packtwin.reader_name', %s, false), set_config('packtwin.reader_password', 'reads', false)",
        (READER,),
    )
    conn.execute((GRAFANA / "reader.sql").read_text().encode())


def answer(conn: db.Connection, question: Question, now: datetime, since: str, pack: str) -> list[tuple[Any, ...]]:
    rows = conn.execute(expanded(question.target["rawSql"], now, span(since), pack).encode()).fetchall()
    return [row for row in rows if any(value is not None for value in row)]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_a_panel_shows_data_within_half_a_second(
    fleet: tuple[Database, datetime], question: Question, record_property: Any
) -> None:
    """Data in its dashboard's own range; the time in that and in four more, the median of three looks each."""
    login, now = fleet
    with db.connect(login) as conn:
        rows = answer(conn, question, now, question.since, seeded_fleet.FULL)
        assert rows, "no data"
        if question.target["format"] == "time_series":
            description = conn.execute(
                expanded(question.target["rawSql"], now, span(question.since), seeded_fleet.FULL).encode()
            ).description
            assert description and description[0].name == "time"
        took = {
            since: median_s(partial(answer, conn, question, now, since, seeded_fleet.FULL))
            for since in dict.fromkeys((question.since, *RANGES))
        }
    record_property("took_s", took)
    assert max(took.values()) <= LIMIT_S, took


@pytest.mark.slow
def test_every_override_names_a_column_of_its_panel(fleet: tuple[Database, datetime]) -> None:
    """An override that fits no column does nothing, and nobody notices."""
    login, now = fleet
    columns: dict[tuple[str, str], set[str]] = {}
    with db.connect(login) as conn:
        for question in QUESTIONS:
            text = expanded(question.target["rawSql"], now, span(question.since), seeded_fleet.FULL)
            found = conn.execute(text.encode()).description or ()
            columns.setdefault((question.board, question.panel["title"]), set()).update(c.name for c in found)
    for question in QUESTIONS:
        named = {override["matcher"]["options"] for override in question.panel["fieldConfig"]["overrides"]}
        assert named <= columns[question.board, question.panel["title"]], question.name
        x = question.panel["options"].get("xField")
        assert x is None or x in columns[question.board, question.panel["title"]], question.name


@pytest.mark.slow
def test_a_pack_without_a_model_says_so(fleet: tuple[Database, datetime]) -> None:
    login, now = fleet
    shown = {}
    with db.connect(login) as conn:
        for question in QUESTIONS:
            if question.board == "packtwin-pack":
                rows = answer(conn, question, now, question.since, seeded_fleet.PLAIN)
                shown.setdefault(question.panel["title"], []).extend(rows)
        said = [row for question in QUESTIONS if question.name.startswith("fleet: All packs A")
                for row in answer(conn, question, now, question.since, seeded_fleet.PLAIN)]  # fmt: skip
    assert shown["Prediction"] == [("no model yet", "no model yet")]
    asked = {question.panel["title"]: question.panel for question in QUESTIONS if question.board == "packtwin-pack"}
    for title in ("Cycles left", "Failure probability", "Cycles left over time"):
        assert shown[title] == []
        assert "no model yet" in asked[title]["fieldConfig"]["defaults"]["noValue"]
    assert shown["SoC"] and shown["State of charge"] and shown["Cells"], "the rest of the page is there"
    assert {row[1] for row in shown["Alerts"]} >= {
        "state of charge band",
        "temperature band",
        "BMS: low soc",
        "BMS: insulation",
    }
    assert ("BATTERY_002", "critical") in {row[:2] for row in said if "no model yet" in row}


@pytest.mark.slow
def test_an_empty_database_is_no_error(pg_server: Any) -> None:
    login = fresh_database(Database(pg_server.host, pg_server.port, pg_server.name, pg_server.user, pg_server.password))
    with db.connect(login) as conn:
        for question in QUESTIONS:
            answer(conn, question, datetime.now(UTC), question.since, "NOBODY'S")


@pytest.mark.slow
def test_the_reader_reads_and_changes_nothing(fleet: tuple[Database, datetime]) -> None:
    login, _ = fleet
    with db.connect(login) as conn:
        conn.execute("SET default_transaction_read_only = off")
        for statement in (
            "DELETE FROM sample", "INSERT INTO pack (pack_id) VALUES ('x')", "UPDATE device SET mode = 'live'",
            "CREATE TABLE mine (a int)", "DROP TABLE pack", "TRUNCATE reject",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
        secrets = conn.execute("SELECT to_regclass('device_token')").fetchone()
        if secrets and secrets[0]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute("SELECT * FROM device_token")
