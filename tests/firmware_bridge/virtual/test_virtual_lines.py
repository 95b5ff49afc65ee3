"""Virtual BMSs on real lines: a pty, python-can's own bus, a broker; and the whole command as a process."""

from __future__ import annotations

import io
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import can
import paho.mqtt.client as paho
import pytest
from bms_cases import Case, told
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from paho.mqtt.enums import CallbackAPIVersion
from waiting import arrived

from firmware_bridge.__main__ import main
from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import Part, Said
from firmware_bridge.sim.control import Control
from firmware_bridge.virtual.broker import BrokerLine, Gateway
from firmware_bridge.virtual.bus_voice import BusVoice
from firmware_bridge.virtual.can_line import CanLine
from firmware_bridge.virtual.commands import drawn
from firmware_bridge.virtual.gateways import GATEWAYS
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.loop import Line, Loop
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.pty_line import PtyLine
from firmware_bridge.virtual.responder import Responder
from firmware_bridge.virtual.stammer import Stammer
from shared.errors import ConfigError

HONEST, CLEAR = Lies(), Stammer()
FLOW: Final = bytes([0x30, 0, 0, 0, 0, 0, 0, 0])
READY_S: Final = 60.0


def packs_of(case: Case, addresses: list[int] | None = None) -> list[VirtualPack]:
    packs = drawn(case.spoken, case.vehicle, addresses, None, 5)
    for pack in packs:
        pack.step(case.spoken, HONEST)
    return packs


# a serial port


class Asker:
    """Who has the port open."""

    def __init__(self, port: str) -> None:
        self.fd = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.fd)

    def ask(self, case: Case, request: bytes, line: PtyLine | None = None, wait_s: float = 5.0) -> list[Said]:
        """What comes back within `wait_s`, until it makes a Part; line: served meanwhile, when nobody else does."""
        assert case.spoken.bytes_decoder is not None
        decoder, said = case.spoken.bytes_decoder(), []
        os.write(self.fd, request)
        until_s = time.monotonic() + wait_s
        while not any(isinstance(it, Part) for it in said) and time.monotonic() < until_s:
            if line is not None and select.select([line], [], [], 0)[0]:
                line.serve()
            if select.select([self.fd], [], [], 0.02)[0]:
                said += decoder.feed(os.read(self.fd, 65536))
        return said

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PtyLine]:
    case = Case("jbd")
    made = PtyLine(Responder(case.spoken, packs_of(case), HONEST, CLEAR, random.Random(1)), tmp_path / "ttyUSB0")
    yield made
    made.close()


def test_a_request_on_the_port_is_answered_there_and_by_its_link(line: PtyLine, tmp_path: Path) -> None:
    case = Case("jbd")
    for port in (line.where, str(tmp_path / "ttyUSB0")):
        asker = Asker(port)
        assert set(told(asker.ask(case, case.polls[0].request, line))) >= {"pack_v", "soc_bms"}
        asker.close()


def test_who_does_not_read_costs_replies_and_not_the_line(line: PtyLine) -> None:
    case = Case("jbd")
    asker = Asker(line.where)
    for _ in range(3000):
        os.write(asker.fd, case.polls[0].request)
        arrived(line.fileno())  # it holds few
        line.serve()
    assert line.dropped and line.wants_to_write
    while select.select([asker.fd], [], [], 0.05)[0]:
        os.read(asker.fd, 65536)
        line.serve()
    assert set(told(asker.ask(case, case.polls[0].request, line))) >= {"pack_v"}
    asker.close()


def test_what_is_no_request_is_forgotten_after_a_while(line: PtyLine) -> None:
    case = Case("jbd")
    asker = Asker(line.where)
    os.write(asker.fd, b"\xdd\xa5\x03")
    select.select([line], [], [], 2)
    line.serve()
    line.tick(time.monotonic() + 1)
    assert set(told(asker.ask(case, case.polls[0].request, line))) >= {"pack_v"}
    asker.close()


def test_its_link_goes_with_it_and_nobody_elses(tmp_path: Path) -> None:
    case, link = Case("jbd"), tmp_path / "ttyUSB0"
    first, second = (
        PtyLine(Responder(case.spoken, packs_of(case), HONEST, CLEAR, random.Random(1)), link) for _ in range(2)
    )
    first.close()
    assert os.readlink(link) == second.where
    second.close()
    assert not link.is_symlink()
    with pytest.raises(ConfigError, match="cannot make the link"):
        PtyLine(Responder(case.spoken, packs_of(case), HONEST, CLEAR, random.Random(1)), tmp_path / "no" / "such")


# the loop


class Quiet:
    """A line that only counts how often it is looked at."""

    where, dropped, wants_to_write = "quiet", 0, False

    def __init__(self) -> None:
        self.ticks = 0

    def fileno(self) -> None:
        """Nothing to watch."""

    def serve(self) -> None:
        """Nothing to do."""

    def tick(self, now_s: float) -> None:
        self.ticks += 1

    close = serve


def loop(tmp_path: Path, line: Line, packs: list[VirtualPack], speed: float) -> tuple[Loop, io.StringIO]:
    log = io.StringIO()
    control = Control(tmp_path, {pack.pack_id: pack.car.faults for pack in packs})
    return Loop(Case("jbd").spoken, packs, HONEST, line, control, speed, log), log


def test_its_packs_live_as_much_faster_as_they_are_told_to(tmp_path: Path) -> None:
    packs, line = packs_of(Case("jbd")), Quiet()
    began_s = time.monotonic()
    loop(tmp_path, line, packs, 20.0)[0].run(lambda: False, ticks=101)
    assert 0.45 <= time.monotonic() - began_s < 20
    assert packs[0].car.t_s == pytest.approx(10.2)
    assert line.ticks > 10


def test_a_loop_that_was_held_up_skips_instead_of_bursting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = packs_of(Case("jbd"))
    made, log = loop(tmp_path, Quiet(), packs, 1.0)
    clock = iter([0.0, *(n * 0.1 for n in range(5)), *(3600 + n * 0.1 for n in range(1000))])
    monkeypatch.setattr("firmware_bridge.virtual.loop.time.monotonic", lambda: next(clock))
    made.run(lambda: bool(log.getvalue()), ticks=None)
    assert packs[0].car.t_s < 2.0
    assert log.getvalue().count("cannot keep up") == 1


# CAN, on python-can's bus within the process


def on_can(case: Case, channel: str) -> tuple[CanLine, can.BusABC, list[VirtualPack]]:
    packs = packs_of(case)
    voice = BusVoice(case.spoken, packs, case.vehicle, HONEST, CLEAR, random.Random(1))
    return CanLine("virtual", channel, voice, 1.0), can.Bus(channel=channel, interface="virtual"), packs


def received(bus: can.BusABC) -> list[tuple[int, bytes]]:
    found = []
    while (message := bus.recv(timeout=0)) is not None:
        found.append((message.arbitration_id | (EXTENDED if message.is_extended_id else 0), bytes(message.data)))
    return found


@pytest.mark.parametrize("name", ["pylontech_can", "jk_can", "foxbms_can"])
def test_a_pack_that_talks_by_itself_does_so_once_a_period(name: str, request: pytest.FixtureRequest) -> None:
    case = Case(name)
    line, bus, _ = on_can(case, request.node.name)
    assert case.spoken.frames_decoder is not None
    line.tick(100.0)
    frames = received(bus)
    decoder = case.spoken.frames_decoder(None)
    assert "pack_v" in told([it for frame in frames for it in decoder.frame(0, *frame)])
    line.tick(100.5)
    assert received(bus) == []
    line.tick(101.0)
    assert len(received(bus)) == len(frames)
    line.close()
    bus.shutdown()


@pytest.mark.parametrize("case", [Case("daly_can"), Case("uds_ev", "kona"), Case("uds_ev", "leaf")], ids=str)
def test_a_pack_that_is_asked_answers(case: Case, request: pytest.FixtureRequest) -> None:
    line, bus, packs = on_can(case, request.node.name)
    assert case.spoken.frames_decoder is not None
    decoder, said = case.spoken.frames_decoder(case.vehicle), []
    line.tick(100.0)
    line.serve()
    assert received(bus) == []
    for poll in case.polls:
        assert poll.can_id is not None
        decoder.sent(poll.can_id, poll.request)
        ask = can.Message(
            arbitration_id=poll.can_id & 0x1FFF_FFFF, is_extended_id=bool(poll.can_id & EXTENDED), data=poll.request
        )
        flow = can.Message(arbitration_id=ask.arbitration_id, is_extended_id=ask.is_extended_id, data=FLOW)
        for message in (ask, flow) if case.vehicle else (ask,):
            bus.send(message)
            line.serve()
            said += [it for frame in received(bus) for it in decoder.frame(0, *frame)]
    assert told(said)["pack_v"] == pytest.approx(packs[0].values["pack_v"], abs=0.6)
    line.close()
    bus.shutdown()


def test_frames_of_an_answer_come_as_far_apart_as_they_are_wanted(request: pytest.FixtureRequest) -> None:
    case = Case("uds_ev", "kona")
    line, bus, _ = on_can(case, request.node.name)
    poll = case.polls[0]
    assert poll.can_id is not None
    for data in (poll.request, bytes([0x30, 0, 127, 0, 0, 0, 0, 0])):
        bus.send(can.Message(arbitration_id=poll.can_id, is_extended_id=False, data=data))
    line.serve()
    first = received(bus)
    assert len(first) == 2  # the first frame, and the first that follows it
    line.tick(time.monotonic() + 10)
    assert len(received(bus)) == 7
    line.close()
    bus.shutdown()


# a broker


@pytest.fixture
def broker() -> Iterator[TestBroker]:
    what = missing_part()
    if what is not None:
        missing(what)
    with running_broker() as running:
        yield running


def test_a_gateway_publishes_each_period_to_a_real_broker(broker: TestBroker) -> None:
    case, heard = Case("jk02"), {}
    packs = packs_of(case)
    listener = paho.Client(CallbackAPIVersion.VERSION2)
    listener.on_message = lambda client, data, message: heard.__setitem__(message.topic, message.payload)
    listener.connect("127.0.0.1", broker.port)
    listener.subscribe("#", qos=1)
    listener.loop_start()
    gateway = Gateway(case.spoken, packs, None, GATEWAYS["battery_emulator"], HONEST, CLEAR, random.Random(1))
    line = BrokerLine(broker.url, gateway, 1.0)
    until_s, now_s = time.monotonic() + 20, 0.0
    while len(heard) < 2 and time.monotonic() < until_s:
        now_s += 1.0
        line.tick(now_s)
        select.select([], [], [], 0.05)
    line.close()
    listener.loop_stop()
    info: dict[str, Any] = json.loads(heard["jk02_001/info"])
    assert info["battery_voltage"] == pytest.approx(packs[0].values["pack_v"], abs=0.06)
    assert len(json.loads(heard["jk02_001/spec_data"])["cell_voltages"]) == packs[0].cells


@pytest.mark.parametrize("url", ["mqtt://127.0.0.1:1", "http://127.0.0.1", "mqtt://", "mqtt://a:b", "nonsense"])
def test_a_broker_that_is_not_there_is_one_sentence_and_2(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACKTWIN_RUN", str(tmp_path))
    assert main(["virtual", "--protocol", "jbd", "--mqtt", url]) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1


# the command


@pytest.mark.parametrize(
    "command",
    [
        "",
        "--protocol nonsense --pty",
        "--protocol jbd",
        "--protocol jbd --pty --mqtt mqtt://127.0.0.1",
        "--protocol jbd --interface virtual --channel x",
        "--protocol jbd --interface virtual",
        "--protocol pylontech_can --pty",
        "--protocol pylontech_can --interface nonsense --channel x",
        "--protocol uds_ev --interface virtual --channel x",
        "--protocol uds_ev --vehicle trabant --interface virtual --channel x",
        "--protocol jbd --vehicle kona --pty",
        "--protocol jbd --pty --cells 0",
        "--protocol seplos_v3 --pty --cells 90",
        "--protocol jbd --pty --speed 0",
        "--protocol jbd --pty --seconds -1",
        "--protocol jbd --pty --seed -1",
        "--protocol jbd --pty --junk 2",
        "--protocol jbd --pty --junk x",
        "--protocol daly_uart --pty --address 1 1",
        "--protocol daly_uart --pty --address 900",
        "--protocol jbd --pty --silent-field colour",
        "--protocol jbd --pty --cell-sum-off 2",
        "--protocol jbd --pty {tmp}/no/such/link",
        "--protocol jbd --pty --fault-after nan",
    ],
)
def test_bad_usage_is_one_sentence_and_2(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACKTWIN_RUN", str(tmp_path))
    assert main(["virtual", *command.format(tmp=tmp_path).split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


@pytest.fixture
def virtual(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "firmware_bridge", "virtual", *arguments]
        environ = os.environ | {"PACKTWIN_RUN": str(tmp_path)}
        started.append(
            subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.e2e
def test_two_packs_print_their_port_answer_take_a_fault_and_end_on_a_signal(
    virtual: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PACKTWIN_RUN", str(tmp_path))
    case = Case("daly_uart")
    process = virtual("--protocol", "daly_uart", "--pty", "--address", "1", "2")
    assert process.stdout
    hello = [process.stdout.readline().split() for _ in range(2)]
    assert [words[0] for words in hello] == ["DALY_UART_001", "DALY_UART_002"]
    assert hello[0][1] == hello[1][1]
    asker = Asker(hello[0][1])
    request = next(poll.request for poll in case.spoken.polls(2, None) if poll.kind == "soc")

    def pack_v() -> float:
        parts = [it for it in asker.ask(case, request, wait_s=20) if isinstance(it, Part)]
        assert parts[0].address == 2
        value = parts[0].values["pack_v"]
        assert isinstance(value, float)
        return value

    before_v = pack_v()
    assert main(["fault", "DALY_UART_002", "pack_v", "+20"]) == 0
    until_s = time.monotonic() + 10
    while pack_v() < before_v + 15 and time.monotonic() < until_s:
        pass
    assert pack_v() == pytest.approx(before_v + 20, abs=8)  # the car drives
    assert capsys.readouterr().out == "DALY_UART_002 pack_v +20\n"
    asker.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert process.stderr and process.stderr.read() == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.e2e
def test_a_bms_falls_silent_when_it_is_told_to(virtual: Callable[..., subprocess.Popen[str]]) -> None:
    case = Case("jbd")
    process = virtual("--protocol", "jbd", "--pty", "--silence", "--fault-after", "0")
    assert process.stdout
    asker = Asker(process.stdout.readline().split()[1])
    assert asker.ask(case, case.polls[0].request, wait_s=1.0) == []
    asker.close()
