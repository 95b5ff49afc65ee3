"""The whole agent on vcan0: a simulated car's samples, and what becomes of them when the bus goes and comes back.

Run by tests/edge/test_vcan_kernel.py inside the vcan kernel.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vcan.bus import Sender

SIM = ("firmware_bridge", "sim", "--cars", "1")
ROOT = Path(__file__).parents[2]
BACK_S = 5.0
"""Data must be back so soon after the bus is."""
START_S = 120.0
"""Alone the agent's start takes half a minute in there now and then; it is not measured."""
ERROR, BUS_OFF, RESTARTED = 0x2000_0000, 0x40, 0x100


def ip(*arguments: str) -> None:
    subprocess.run(["ip", "link", *arguments], check=True)


class Box:
    """An agent on one interface and, when asked for, a simulated car on it."""

    def __init__(self, folder: Path, channel: str) -> None:
        self.folder, self.channel = folder, channel
        self.children: list[subprocess.Popen[bytes]] = []
        (folder / "edge.toml").write_text(
            'device = "bench"\nclock = "system"\nhot_dir = "hot"\nsample_s = 0.5\n'
            "[page]\nport = 0\n[metrics]\nport = 0\n"
            f'[[source]]\npack_id = "A"\ninterface = "socketcan"\nchannel = "{channel}"\nmapping = "mapping.toml"\n'
        )

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def agent(self) -> subprocess.Popen[bytes]:
        """One that has started, whatever its bus does."""
        agent = self.start("edge", "-m", "edge", "run", "--config", str(self.folder / "edge.toml"))
        self.until("the agent's page", lambda pack: True, START_S)
        return agent

    def car(self) -> subprocess.Popen[bytes]:
        """The simulator, as anybody would start it."""
        return self.start("sim", "-m", *SIM, "--interface", "socketcan", "--channel", self.channel)

    def stubborn_car(self, log: Path) -> subprocess.Popen[bytes]:
        """A recorded car that goes on and on, and speaks whenever the interface is there."""
        code = "import sys; sys.path.insert(0, sys.argv[1]); from vcan.bus import repeat; repeat()"
        car = self.start("car", "-c", code, str(ROOT / "tests"), self.channel, str(log))
        # What is measured is how soon the agent is back, not how long a car takes to read its log.
        while "go" not in (self.folder / "car.log").read_text():
            assert car.poll() is None, (self.folder / "car.log").read_text()
            time.sleep(0.05)
        return car

    def status(self) -> dict[str, Any] | None:
        try:
            where = json.loads((self.folder / "hot" / "running.json").read_text())["page"]
            with urllib.request.urlopen(f"{where}/status.json", timeout=5) as answer:
                return json.load(answer)  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    def until(self, what: str, check: Callable[[dict[str, Any]], Any], seconds: float = 30.0) -> Any:
        """What the check says of the pack's status once it is true; how long that took is in `took_s`."""
        began_s, self.took_s = time.monotonic(), 0.0
        while self.took_s < seconds:
            status = self.status()
            answer = check(status["packs"][0]) if status else None
            self.took_s = time.monotonic() - began_s
            if answer:
                return answer
            time.sleep(0.1)
        raise AssertionError(f"{what} not within {seconds} s: {(self.folder / 'edge.log').read_text()[-2000:]}")

    def log(self) -> str:
        return (self.folder / "edge.log").read_text()

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()


@pytest.fixture
def box(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    box = Box(tmp_path, getattr(request, "param", "vcan0"))
    yield box
    box.close()


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a car's 20 s."""
    log = tmp_path_factory.mktemp("drive") / "drive.log"
    subprocess.run([sys.executable, "-m", *SIM, "--seconds", "20", "--log", str(log)], cwd=ROOT, check=True)
    return log


def is_whole(pack: dict[str, Any]) -> bool:
    sample = pack["sample"]
    return bool(sample and not sample["quality"] and sample["cell_v"] and pack["source"]["state"] == "live")


def is_stale(pack: dict[str, Any]) -> bool:
    sample = pack["sample"]
    return bool(sample and sample["quality"].get("pack_v") == "stale" and sample["pack_v"] is None)


def is_down(pack: dict[str, Any]) -> Any:
    return pack["source"]["state"] == "down" and pack["source"]["problem"]


def assert_back(box: Box, how: str) -> None:
    box.until(f"data back after {how}", is_whole, BACK_S)
    print(f"{how}: data back after {box.took_s:.1f} s")


def test_a_simulated_car_is_read_whole(box: Box) -> None:
    box.agent()
    box.car()
    box.until("a whole sample", is_whole, START_S)
    pack = box.until("some thousand frames", lambda pack: pack["source"]["frames"] > 4000 and pack)
    assert pack["source"]["drops"] == 0 and pack["source"]["error_frames"] == {}
    assert pack["source"]["buffer_bytes"] >= 9_000 * 768 and pack["source"]["notes"] == []
    assert len(pack["sample"]["cell_v"]) == 96 and None not in pack["sample"]["cell_v"]
    print(f"{pack['source']['frames_per_s']} frames/s of the simulated car are mapped and read")


def test_a_bus_that_goes_down_or_is_made_anew_costs_nothing_but_the_time(box: Box, drive: Path) -> None:
    agent = box.agent()
    box.stubborn_car(drive)
    box.until("a whole sample", is_whole)
    ip("set", "vcan0", "down")
    assert "ip link set vcan0 up" in box.until("the word", is_down)
    box.until("stale samples", is_stale)
    ip("set", "vcan0", "up")
    assert_back(box, "down and up")

    ip("set", "vcan0", "down")
    ip("set", "vcan0", "up")
    assert_back(box, "down and up at once")

    ip("del", "vcan0")
    box.until("the word", is_down)
    box.until("stale samples", is_stale)
    ip("add", "dev", "vcan0", "type", "vcan")
    ip("set", "vcan0", "up")
    assert_back(box, "made anew")
    assert agent.poll() is None
    assert "Traceback" not in box.log()


@pytest.mark.parametrize("box", ["vcan7"], indirect=True)
def test_an_interface_that_comes_after_the_agent(box: Box, drive: Path) -> None:
    agent = box.agent()
    box.stubborn_car(drive)
    box.until("the word", lambda pack: "no such device" in (pack["source"]["problem"] or ""))
    ip("add", "dev", "vcan7", "type", "vcan")
    box.until("the word", lambda pack: "`ip link set vcan7 up`" in (pack["source"]["problem"] or ""))
    ip("set", "vcan7", "up")
    assert_back(box, "absent at start")
    assert agent.poll() is None
    ip("del", "vcan7")


def test_bus_off_is_told_samples_turn_stale_and_data_come_back(box: Box, drive: Path) -> None:
    agent = box.agent()
    car = box.stubborn_car(drive)
    box.until("a whole sample", is_whole)
    car.send_signal(signal.SIGSTOP)  # a controller that is off hears nothing
    with Sender() as controller:
        controller.send(ERROR | BUS_OFF)
        notes = box.until("the word", lambda pack: pack["source"]["notes"])
        assert "vcan0 is bus-off" in notes[0] and "restart" in notes[0]
        box.until("stale samples", is_stale)
        assert "vcan0 is bus-off" in box.log()
        controller.send(ERROR | RESTARTED)
    car.send_signal(signal.SIGCONT)
    assert_back(box, "bus-off")
    pack = box.until("the counts", lambda pack: pack)
    assert pack["source"]["error_frames"] == {"bus_off": 1, "restarted": 1}
    assert pack["source"]["notes"] == []
    assert agent.poll() is None
