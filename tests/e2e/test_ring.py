"""The ring: a model is trained, signed, sent to the cars, runs there, and its answers come back up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.stack import ROOT, Stack
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PACKS = ("BATTERY_001", "BATTERY_002", "BATTERY_003")
RETRAIN_S, CHANGED_S = 600, 30
LIVES = 50


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, cars=3, model=True) as stack:
        stack.start("database", "api", "sim", "agent")
        yield stack


def predicted_by(stack: Stack, model_id: str) -> bool:
    """Whether every car's newest prediction is one of this model, whole."""
    told = [stack.get(f"/api/battery/predictions?battery_id={pack}", quiet=True) or {} for pack in PACKS]
    return all(
        one.get("model") == model_id
        and one["rul_lo"] <= one["rul_prediction"] <= one["rul_hi"]
        and 0 <= one["failure_probability"] <= 1
        for one in told
    )


def boots(stack: Stack) -> set[str]:
    return {row[0] for row in stack.query("SELECT DISTINCT boot FROM samples")}


def test_the_cars_change_their_model_while_they_drive_and_lose_nothing(stack: Stack) -> None:
    until("every car is predicted", lambda: predicted_by(stack, "rul-1"), 60)
    before = boots(stack)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "local" / "retrain.py"), "--force"],
        env={**stack.environment(), "PACKTWIN_URL": stack.api, "MLFLOW_TRACKING_URI": "off"},
        cwd=stack.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    took_s = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    until("every car has the new model", lambda: predicted_by(stack, "rul-2"), CHANGED_S)
    print(f"retrained in {took_s:.0f} s; the cars changed {time.monotonic() - began - took_s:.1f} s after publishing")
    assert took_s <= RETRAIN_S
    assert boots(stack) == before and len(before) == 1
    steps = {("rul-2", step) for step in ("seen", "fetched", "verified", "probed", "activated")}
    until("every step is told", lambda: steps <= set(stack.query("SELECT model_id, step FROM reports")))

    stack.stop("sim")
    stack.stop("agent")
    stack.start("agent")  # a new boot sends what was left
    until("all is acknowledged", lambda: stack.books()["pending"] == 0, 60)
    stack.stop("agent")
    books = stack.books()
    (rows,) = stack.query("SELECT count(*), count(DISTINCT (boot, seq)) FROM samples")
    assert books["acquired"] == books["stored"] == books["acked"] == rows[0] == rows[1]
    assert stack.query("SELECT count(*) FROM gaps") == [(0,)] and stack.query("SELECT count(*) FROM rejects") == [(0,)]


def test_lives_sent_up_the_road_are_what_the_database_trains_on(tmp_path: Path) -> None:
    with Stack(tmp_path, cars=1) as stack:
        stack.start("database", "api")
        stack.run("firmware_bridge", "lives", "--packs", str(LIVES), "--seed", "9", "--sessions", "-o", "lives")
        files = sorted((tmp_path / "lives").glob("*.jsonl.gz"))
        assert len(files) == LIVES
        for file in files:
            stack.run("edge", "replay", str(file), "--config", str(stack.edge_config()))
        stack.run("edge", "replay", str(files[0]), "--config", str(stack.edge_config()))  # twice is once
        ((ended,),) = stack.query("SELECT count(DISTINCT pack_id) FROM events WHERE code = 'end_of_life'")
        stack.run("cloud", "train", "--source", "db")
        card = json.loads((tmp_path / "models" / "rul-1.card.json").read_text())["data"]
        assert (card["packs"], card["packs_labelled"], card["packs_unlabelled"]) == (LIVES, ended, LIVES - ended)
        assert card["packs_learned"] + card["packs_frozen"] == ended >= LIVES * 0.8
        ((sessions,),) = stack.query("SELECT count(*) FROM sessions")
        told = sum(
            len(subprocess.run(["zcat", str(f)], capture_output=True, check=True).stdout.splitlines()) for f in files
        )
        assert sessions == told - ended
