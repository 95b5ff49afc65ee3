"""A newcomer with a BMS on a USB adapter: three commands, no hand edits, and the pack is on both pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from checkout import new_checkout
from e2e.stack import ROOT, fetch
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DOCTOR_S, SEE_S = 120, 60
DOCTOR = ["-m", "edge", "doctor", "--write-config", "--port"]
RUN = ["-m", "edge", "run"]
"""Of the three commands the two beside `make run`."""


@contextmanager
def plugged_in(link: Path, environment: dict[str, str]) -> Iterator[None]:
    """A BMS behind the port `link`."""
    command = ["-m", "firmware_bridge", "virtual", "--protocol", "jbd", "--cells", "4", "--pty", str(link)]
    with (link.parent / "virtual.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until("the adapter is plugged in", link.exists, 60)
        yield
    finally:
        child.kill()
        child.wait()


def hot_folder(device: str) -> Path:
    """Where the agent keeps what is newest, as nothing else is told it."""
    return Path("/dev/shm") / f"packtwin-{os.getuid()}" / device


def test_from_the_plug_to_both_pages_in_three_commands_without_an_edit(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    with new_checkout() as make_run:
        make_run.start()  # command 1
        environment = {**make_run.environment, "PYTHONPATH": str(ROOT)}
        for ours in ("EDGE_PORT", "METRICS_PORT"):  # the simulated cars' agent has these
            environment.pop(ours)
        link = tmp_path / "ttyUSB0"
        with plugged_in(link, {**environment, "PACKTWIN_RUN": str(tmp_path / "r")}):
            began_s = time.monotonic()
            done = subprocess.run(  # command 2
                [sys.executable, *DOCTOR, str(link)],
                cwd=box, env=environment, capture_output=True, text=True, timeout=DOCTOR_S, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            assert "start it: python -m edge run\n" in done.stderr
            told = tomllib.loads((box / "edge.toml").read_text())
            assert told["uplink"]["url"] == make_run.api
            (pack_id,) = [source["pack_id"] for source in told["source"]]
            known = hot_folder(told["device"]).exists()
            with (tmp_path / "agent.log").open("wb") as log:
                agent = subprocess.Popen([sys.executable, *RUN], cwd=box, env=environment, stdout=log, stderr=log)  # 3
            try:
                page = f"http://127.0.0.1:{told['page']['port']}"
                local = until("the pack is on the local page", lambda: _shown(page, pack_id), SEE_S)
                assert local["quality"] == {} and len(local["cell_v"]) == 4 and 8 < local["pack_v"] < 20
                with urllib.request.urlopen(f"{page}/", timeout=5) as answer:
                    assert b"<html" in answer.read().lower()
                latest = f"{make_run.api}/api/battery/latest?battery_id={pack_id}"
                cloud = until("the pack is on the page of make run", lambda: fetch(latest), SEE_S)
                assert pack_id in until("the list is told", make_run.packs) and 8 < cloud["voltage"] < 20
                print(f"{time.monotonic() - began_s:.0f} s from the second command to both pages")
            finally:
                agent.terminate()
                agent.wait(20)
                if not known:
                    shutil.rmtree(hot_folder(told["device"]), ignore_errors=True)


def _shown(page: str, pack_id: str) -> dict[str, object] | None:
    """The Sample of the pack, once it is whole."""
    status = fetch(f"{page}/status.json") or {"packs": []}
    sample = next((pack["sample"] for pack in status["packs"] if pack["pack_id"] == pack_id), None)
    return sample if sample and sample["quality"] == {} else None
