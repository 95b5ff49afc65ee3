"""The simulator as a program: its loop, logs, folders, answers to bad usage, and the whole of it as a process."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.pty_reader import Reader

from firmware_bridge.__main__ import main
from firmware_bridge.frames import FrameBatch
from firmware_bridge.sim.control import Control
from firmware_bridge.sim.fleet import Fleet, Live, log_lines
from firmware_bridge.sim.rundir import locked, made_private, run_dir
from firmware_bridge.slcan import SlcanParser
from shared.errors import ConfigError

# the loop


class Sink:
    """A bus that only counts."""

    def __init__(self) -> None:
        self.where, self.dropped, self.frames, self.wants_to_write = "sink", 0, 0, False

    def send(self, frames: FrameBatch) -> None:
        self.frames += len(frames)

    def fileno(self) -> None:
        """Nothing to watch."""

    def serve(self) -> None:
        """Nothing to do."""

    close = serve


def live(tmp_path: Path, speed: float) -> tuple[Live, Sink, io.StringIO]:
    sink, log, fleet = Sink(), io.StringIO(), Fleet.drawn(1, 1)
    return Live(fleet, [sink], Control(tmp_path, {}), speed, log), sink, log


def test_at_ten_times_the_speed_ten_times_the_frames_go_out(tmp_path: Path) -> None:
    loop, sink, _ = live(tmp_path, 10.0)
    began_s = time.monotonic()
    loop.run(lambda: False, ticks=101)
    assert 0.95 <= time.monotonic() - began_s < 5
    assert sink.frames == pytest.approx(10 * 2183, rel=0.02)


def test_a_loop_that_was_held_up_skips_instead_of_bursting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, sink, log = live(tmp_path, 1.0)
    clock = iter([0.0, *(n * 0.1 for n in range(5)), *(3600 + n * 0.1 for n in range(100_000))])
    monkeypatch.setattr("firmware_bridge.sim.fleet.time.monotonic", lambda: next(clock))
    loop.run(lambda: bool(log.getvalue()), ticks=None)
    assert sink.frames < 20 * 219
    assert log.getvalue().count("cannot keep up") == 1


# logs


def lines_of(cars: int, seed: int, ticks: int) -> list[str]:
    return [line for lines in log_lines(Fleet.drawn(cars, seed), ticks) for line in lines]


def test_a_log_is_candump_in_time_order_with_a_channel_a_car(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "drive.log"
    assert main(["sim", "--cars", "2", "--seconds", "1", "--log", str(log)]) == 0
    lines = log.read_text().splitlines()
    assert all(
        re.fullmatch(r"\(\d{10}\.\d{6}\) can[01] ([0-9A-F]{3}|[0-9A-F]{8})#([0-9A-F]{2}){8}", line) for line in lines
    )
    times = [line.split()[0] for line in lines]
    assert times == sorted(times)
    assert times[0] == "(1767225600.000000)"
    assert len(lines) == 2 * 2183
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["BATTERY_001", "BATTERY_002"]


def test_the_same_seed_gives_the_same_log_and_another_another() -> None:
    assert lines_of(2, 5, 20) == lines_of(2, 5, 20)
    assert lines_of(2, 5, 20) != lines_of(2, 6, 20)


def test_a_car_does_the_same_however_many_others_there_are() -> None:
    alone = lines_of(1, 5, 10)
    assert [line for line in lines_of(3, 5, 10) if " can0 " in line] == alone


def test_a_log_on_stdout_holds_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--cars", "1", "--seconds", "0.1", "--log", "-"]) == 0
    assert all(line.startswith("(17672256") for line in capsys.readouterr().out.splitlines())


# folders


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"PACKTWIN_RUN": "/a/b", "XDG_RUNTIME_DIR": "/run/user/5"}, "/a/b"),
        ({"XDG_RUNTIME_DIR": "/run/user/5"}, "/run/user/5/packtwin"),
        ({}, f"/tmp/packtwin-{os.getuid()}"),
    ],
)
def test_where_simulators_meet(environ: dict[str, str], folder: str) -> None:
    assert run_dir(environ) == Path(folder)


def test_the_folder_is_private_and_for_one_simulator(tmp_path: Path) -> None:
    folder = made_private(tmp_path / "a" / "b")
    assert folder.stat().st_mode & 0o777 == 0o700
    with locked(folder), pytest.raises(ConfigError, match="another simulator"):
        locked(folder)
    locked(folder).close()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot create"):
        made_private(tmp_path / "file" / "x")


# bad usage


@pytest.mark.parametrize(
    "command",
    [
        "",
        "bogus",
        "sim --cars 0",
        "sim --cars x",
        "sim --seed -1",
        "sim --speed 0",
        "sim --speed nan",
        "sim --seconds -5",
        "sim --seconds inf",
        "sim --log a.log --channel b",
        "sim --log {tmp}/no/such/folder/a.log",
        "sim --interface socketcan",
        "sim --interface socketcan --channel vcan0,vcan1",
        "sim --interface socketcan --channel no,such,interface",
        "sim --interface nonsense --channel a,b,c",
        "fault",
        "fault BATTERY_001 colour 1",
        "fault BATTERY_001 cell_v[17]",
        "fault BATTERY_001 cell_v[17] lots",
        "fault BATTERY_001 cell_v[17] 99",
        "fault BATTERY_001 cell_v[17] 0.05 --clear",
        "fault BATTERY_001 cell_v[17] +0.05",
    ],
)
def test_bad_usage_is_one_sentence_and_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACKTWIN_RUN", str(tmp_path))
    assert main(command.format(tmp=tmp_path).split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize("interval", ["0", "soon", "nan", "-1"])
def test_an_absurd_interval_is_one_sentence_and_2(
    interval: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACKTWIN_RUN", str(tmp_path))
    monkeypatch.setenv("TELEMETRY_INTERVAL", interval)
    assert main(["sim"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# the whole program


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "firmware_bridge", "sim", *arguments]
        environ = os.environ | {"PACKTWIN_RUN": str(tmp_path)}
        started.append(
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def cell_18(reader: Reader, parser: SlcanParser, wanted_v: float | None = None) -> float:
    """The voltage of the cell at position 17, the third of group 5 of message 0x101; once it is the wanted one."""
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s:
        if select.select([reader.fd], [], [], 0.05)[0]:
            for _, can_id, data in parser.feed(os.read(reader.fd, 65536), 0).rows():
                if can_id == 0x101 and data[0] == 5:
                    volts = int.from_bytes(data[5:7]) / 10_000
                    if wanted_v is None or volts == pytest.approx(wanted_v, abs=0.01):
                        return volts
    raise AssertionError(f"the cell is never at {wanted_v} V")


@pytest.mark.e2e
def test_cars_run_take_a_fault_and_end_on_a_signal(
    simulator: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PACKTWIN_RUN", str(tmp_path))
    process = simulator("--cars", "3")
    assert process.stdout
    hello = [process.stdout.readline().split()[:2] for _ in range(3)]
    assert hello == [[f"BATTERY_00{n}", str(tmp_path / "can" / f"BATTERY_00{n}")] for n in (1, 2, 3)]
    reader, parser = Reader(tmp_path / "can" / "BATTERY_003"), SlcanParser("can0")
    os.write(reader.fd, b"C\rS6\rO\r")
    before_v = cell_18(reader, parser)
    assert main(["fault", "BATTERY_003", "cell_v[17]", "+0.05"]) == 0
    cell_18(reader, parser, before_v + 0.05)
    assert main(["fault", "BATTERY_003", "--clear"]) == 0
    cell_18(reader, parser, before_v)
    assert capsys.readouterr().out == "BATTERY_003 cell_v[17] +0.05\nBATTERY_003 has no fault\n"
    assert main(["sim"]) == 2  # the folder is taken
    os.close(reader.fd)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stderr and process.stderr.read() == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["can", ".lock"]


@pytest.mark.e2e
def test_a_simulator_ends_by_itself_after_its_simulated_seconds(
    simulator: Callable[..., subprocess.Popen[str]],
) -> None:
    process = simulator("--cars", "1", "--speed", "10", "--seconds", "5")
    assert process.wait(20) == 0


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_log_ends_cleanly_on_a_signal(
    simulator: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "long.log"
    process = simulator("--cars", "1", "--seconds", "100000", "--log", str(log))
    assert process.stdout
    process.stdout.readline()
    until_s = time.monotonic() + 20
    while not (log.exists() and log.stat().st_size) and time.monotonic() < until_s:
        os.sched_yield()
    process.send_signal(number)
    assert process.wait(10) == 0
    assert log.read_text().endswith("\n")
