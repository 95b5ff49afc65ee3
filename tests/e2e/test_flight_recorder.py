"""What a car said around an alarm and around a person's wish: kept, exported, replayed, sent up and fetched again."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from e2e.stack import ROOT, Stack
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PACK = "BATTERY_001"
NOT_MEASURED = {"boot", "seq", "mono_ns"}
RECORDER = "[recorder]\nbefore_s = 5\nafter_s = 3\n"


def listed(stack: Stack) -> list[dict[str, Any]]:
    """`edge capture list`."""
    told = stack.run("edge", "capture", "list", "--json", "--config", str(stack.edge_config()))
    captures: list[dict[str, Any]] = json.loads(told)["captures"]
    return captures


def fetched(stack: Stack, id_: str, file: str = "log") -> bytes:
    with urllib.request.urlopen(f"{stack.api}/api/v1/captures/{id_}?file={file}", timeout=30) as answer:
        body: bytes = answer.read()
        return body


def stored(stack: Stack, first_ns: int, last_ns: int) -> list[dict[str, Any]]:
    """What the agent gave, as the cloud has it, by Sample's names."""
    rows = stack.query(
        "SELECT row_to_json(s) FROM samples s WHERE pack_id = %s AND t_ns BETWEEN %s AND %s ORDER BY t_ns",
        PACK, first_ns, last_ns,
    )  # fmt: skip
    found = []
    for (row,) in rows:
        row["balancing"] = None if row["balancing"] is None else int(row["balancing"][::-1], 2)
        found.append(row)
    return found


def replayed(stack: Stack, log: Path) -> list[dict[str, Any]]:
    out = log.with_suffix(".jsonl")
    stack.run("edge", "replay", str(log), "--config", str(stack.edge_config()), "-o", str(out))
    return [json.loads(line) for line in out.read_text().splitlines()]


def assert_same(replay: list[dict[str, Any]], given: list[dict[str, Any]]) -> None:
    assert len(replay) == len(given) > 4
    for mine, theirs in zip(replay, given, strict=True):
        for name in mine.keys() - NOT_MEASURED:
            assert mine[name] == theirs[name], f"{name} of {mine['t_ns']}: {mine[name]} is not {theirs[name]}"


def test_two_windows_give_the_agents_samples_again_here_and_from_the_cloud(tmp_path: Path) -> None:
    with Stack(tmp_path, cars=1) as stack:
        config = stack.edge_config()
        config.write_text(config.read_text() + RECORDER)
        stack.start("database", "api", "sim", "agent")
        until("some samples", lambda: stack.books()["stored"] >= 3)
        told = stack.run("edge", "capture", "trigger", "--note", "at the start", "--config", str(config))
        assert PACK in told
        until("the first is kept", lambda: len(listed(stack)) == 1)
        fault = [sys.executable, "-m", "firmware_bridge", "fault", PACK, "cell_v[17]", "+0.9"]
        subprocess.run(fault, env=stack.environment(), cwd=ROOT, check=True, capture_output=True)
        until("the second is kept", lambda: len(listed(stack)) >= 2)
        first, second = listed(stack)[:2]
        assert (first["cause"], first["note"]) == ("trigger", "at the start")
        assert second["cause"] != "trigger" and "voltage" in second["cause"]
        until(
            "both are in the cloud",
            lambda: sum(one["whole"] for one in stack.get(f"/api/v1/captures?pack_id={PACK}")["captures"]) >= 2,
            60,
        )
        for capture in (first, second):
            log = tmp_path / f"{capture['id']}.log"
            stack.run("edge", "capture", "export", capture["id"], "-o", str(log), "--config", str(config))
            assert fetched(stack, capture["id"]) == log.read_bytes()
            assert fetched(stack, capture["id"], "state") == log.with_name(f"{capture['id']}.state.json").read_bytes()
            replay = replayed(stack, log)
            until("its samples are stored", lambda last=replay[-1]: stored(stack, last["t_ns"], last["t_ns"]))
            assert_same(replay, stored(stack, replay[0]["t_ns"], replay[-1]["t_ns"]))
        assert any("cell_over_voltage" in one["alarms"] for one in replay)
        assert second["samples"] == len(replay)
        times_ns = [one["t_ns"] for one in replay]  # a whole window, but for those that an agent held up did not take
        assert len(times_ns) >= 8 or max(b - a for a, b in itertools.pairwise(times_ns)) > 1.5e9

        stack.children["agent"].send_signal(signal.SIGKILL)
        stack.children.pop("agent").wait()
        assert {one["id"] for one in listed(stack)} >= {first["id"], second["id"]}
        stack.start("agent")
        until("all is acknowledged", lambda: stack.books()["pending"] == 0, 60)
        assert stack.query("SELECT count(*) FROM rejects") == [(0,)]
