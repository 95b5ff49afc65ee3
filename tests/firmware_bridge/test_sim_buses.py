"""What frames go out on: a pty that answers as an slcan adapter does, or any interface of python-can."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.pty_reader import Reader

from firmware_bridge.frames import FrameBatch
from firmware_bridge.sim.buses import CanBus, SlcanPty
from firmware_bridge.slcan import SlcanParser

FRAMES = FrameBatch.of("can0", [(0, 0x100 + n, bytes([n])) for n in range(100)])


@pytest.fixture
def pty(tmp_path: Path) -> Iterator[SlcanPty]:
    bus = SlcanPty(tmp_path / "BATTERY_001")
    yield bus
    bus.close()


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
