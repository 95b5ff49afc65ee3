"""The simulator as a program: ptys, logs, faults from outside, and its answers to bad usage."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware_bridge.__main__ import main
from firmware_bridge.frames import FrameBatch
from firmware_bridge.pack.faults import Faults, Target
from firmware_bridge.sim.buses import CanBus, SlcanPty
from firmware_bridge.sim.control import Control, ask
from firmware_bridge.sim.fleet import Fleet, Live, log_lines
from firmware_bridge.sim.rundir import locked, made_private, run_dir
from firmware_bridge.slcan import SlcanParser
from shared.errors import ConfigError, PacktwinError

FRAMES = FrameBatch.of("can0", [(0, 0x100 + n, bytes([n])) for n in range(100)])


@pytest.fixture
def pty(tmp_path: Path) -> Iterator[SlcanPty]:
    bus = SlcanPty(tmp_path / "BATTERY_001")
    yield bus
    bus.close()


class Reader:
    """What an agent does at the other end of the link."""

    def __init__(self, link: Path) -> None:
        self.fd = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.fd)

    def say(self, bus: SlcanPty, commands: bytes) -> bytes:
        os.write(self.fd, commands)
        select.select([bus.fileno()], [], [], 2)
        bus.serve()
        return self.read()

    def read(self) -> bytes:
        text = b""
        while select.select([self.fd], [], [], 0.1)[0]:
            text += os.read(self.fd, 65536)
        return text


@pytest.fixture
def reader(pty: SlcanPty) -> Iterator[Reader]:
    reader = Reader(Path(pty.where))
    yield reader
    os.close(reader.fd)


# the pty as an adapter


def test_an_adapter_answers_its_commands(pty: SlcanPty, reader: Reader) -> None:
    commands = b"C\r\rS6\rV\rN\rF\rt1000\rT000001000\r?\rZ0\r"
    assert reader.say(pty, commands) == b"\r\r\rV1013\rNPTWN\rF00\rz\rZ\r\a\r"


def test_frames_flow_only_while_the_channel_is_open(pty: SlcanPty, reader: Reader) -> None:
    pty.send(FRAMES)
    assert reader.read() == b""
    assert reader.say(pty, b"S6\rO\r") == b"\r\r"
    pty.send(FRAMES)
    assert len(SlcanParser("can0").feed(reader.read(), 0)) == 100
    assert reader.say(pty, b"C\r") == b"\r"
    pty.send(FRAMES)
    assert reader.read() == b""
    assert pty.dropped == 0


def test_a_reader_that_sleeps_costs_frames_but_no_time_and_no_half_frame(pty: SlcanPty, reader: Reader) -> None:
    reader.say(pty, b"L\r")
    began_s = time.monotonic()
    for _ in range(1000):
        pty.send(FRAMES)
    assert time.monotonic() - began_s < 5
    assert pty.dropped > 0
    parser, got = SlcanParser("can0"), 0
    while text := reader.read():
        got += len(parser.feed(text, 0))
        pty.serve()
    assert parser.bad_lines == 0
    assert got + pty.dropped == 100_000


def test_a_reader_that_died_and_comes_back_gets_no_old_frames(pty: SlcanPty, reader: Reader) -> None:
    reader.say(pty, b"O\r")
    for _ in range(100):
        pty.send(FRAMES)
    again = Reader(Path(pty.where))
    os.write(again.fd, b"C\r")
    select.select([pty.fileno()], [], [], 2)
    pty.serve()
    assert again.read() == b"\r"
    assert again.say(pty, b"O\r") == b"\r"
    pty.send(FRAMES.take(slice(0, 1)))
    assert again.read() == b"t100100\r"
    os.close(again.fd)


def test_python_can_reads_it_as_an_adapter(pty: SlcanPty) -> None:
    import can

    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if select.select([pty.fileno()], [], [], 0.01)[0]:
                pty.serve()
            pty.send(FRAMES)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with can.Bus(interface="slcan", channel=pty.where, bitrate=500000, sleep_after_open=0) as bus:
            messages = [message for _ in range(200) if (message := bus.recv(1.0))]
    finally:
        stop.set()
        thread.join()
    assert {message.arbitration_id for message in messages} <= set(range(0x100, 0x164))
    assert len(messages) > 100


def test_the_link_goes_with_the_bus_but_a_newer_one_stays(tmp_path: Path) -> None:
    first = SlcanPty(tmp_path / "BATTERY_001")
    second = SlcanPty(tmp_path / "BATTERY_001")
    first.close()
    assert (tmp_path / "BATTERY_001").is_symlink()
    second.close()
    assert not (tmp_path / "BATTERY_001").is_symlink()


# any other interface


def test_frames_go_out_on_an_interface_of_python_can() -> None:
    import can

    channel = f"test-{os.getpid()}"
    with can.Bus(interface="virtual", channel=channel) as listener:
        bus = CanBus("virtual", channel)
        bus.send(FrameBatch.of("x", [(0, 0x123, b"\x01\x02"), (0, 0x98FF10F4, bytes(8))]))
        got = [listener.recv(1.0) for _ in range(2)]
        bus.close()
    assert [(m.arbitration_id, m.is_extended_id, bytes(m.data)) for m in got if m] == [
        (0x123, False, b"\x01\x02"),
        (0x18FF10F4, True, bytes(8)),
    ]


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


# faults from outside


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, dict[str, Faults]]]:
    """A control socket that is served by a thread."""
    faults = {"BATTERY_001": Faults(), "BATTERY_002": Faults()}
    folder = tmp_path / ("deep" * 30)  # longer than a socket's address may be
    folder.mkdir()
    control, stop = Control(folder, faults), threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if select.select([control], [], [], 0.01)[0]:
                control.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    yield folder, faults
    stop.set()
    thread.join()
    control.close()
    assert list(folder.iterdir()) == []


def test_a_fault_reaches_the_pack_that_was_named(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, faults = served
    target = Target.parse("cell_v[17]")
    assert ask(folder, "BATTERY_002", "put", target, 0.05) == {"cell_v[17]": 0.05}
    assert faults["BATTERY_002"].cell_v[17] == 0.05
    assert faults["BATTERY_001"].standing() == {}
    assert ask(folder, "BATTERY_002", "show", None) == {"cell_v[17]": 0.05}
    assert ask(folder, "BATTERY_002", "clear", target) == {}


def test_the_simulator_refuses_what_it_does_not_understand(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, faults = served
    with pytest.raises(PacktwinError, match="out of reason"):
        ask(folder, "BATTERY_001", "put", Target.parse("cell_v[17]"), 99.0)
    path = next(folder.glob("sim-*.sock"))
    for line in (b"\n", b"[]\n", b"{}\n", b'{"do":"put","pack":"x","target":null}\n', b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            handle = os.open(folder, os.O_PATH)
            connection.connect(f"/proc/self/fd/{handle}/{path.name}")
            os.close(handle)
            connection.sendall(line)
            assert "refused" in json.loads(connection.recv(4096))
    assert faults["BATTERY_001"].standing() == {}


def test_unknown_packs_dead_sockets_and_no_simulator_are_told_apart(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, _ = served
    with pytest.raises(ConfigError, match="BATTERY_009: there are BATTERY_001, BATTERY_002"):
        ask(folder, "BATTERY_009", "show", None)
    with pytest.raises(ConfigError, match="no simulator runs"):
        ask(folder.parent, "BATTERY_001", "show", None)
    (folder.parent / "sim-1-dead.sock").touch()
    with pytest.raises(ConfigError, match="no simulator runs"):
        ask(folder.parent, "BATTERY_001", "show", None)


def test_two_simulators_with_the_same_pack_are_not_guessed_between(served: tuple[Path, dict[str, Faults]]) -> None:
    folder, _ = served
    other = Control(folder, {"BATTERY_001": Faults()})
    thread = threading.Thread(target=lambda: select.select([other], [], [], 5) and other.serve())
    thread.start()
    with pytest.raises(ConfigError, match="2 running simulators have a pack BATTERY_001"):
        ask(folder, "BATTERY_001", "show", None)
    thread.join()
    other.close()


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


def cell_18(reader: Reader, parser: SlcanParser) -> float:
    """The newest voltage of the cell at position 17 within half a second: third cell of group 5 of message 0x101."""
    found, until_s = [], time.monotonic() + 0.5
    while time.monotonic() < until_s:
        if select.select([reader.fd], [], [], 0.05)[0]:
            rows = parser.feed(os.read(reader.fd, 65536), 0).rows()
            found += [
                int.from_bytes(data[5:7]) / 10_000 for _, can_id, data in rows if can_id == 0x101 and data[0] == 5
            ]
    return found[-1]


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
    assert cell_18(reader, parser) == pytest.approx(before_v + 0.05, abs=0.01)
    assert main(["fault", "BATTERY_003", "--clear"]) == 0
    assert cell_18(reader, parser) == pytest.approx(before_v, abs=0.01)
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
