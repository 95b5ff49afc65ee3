"""What systemd hears of the agent: alive only while every part of the pipeline moves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.running import Bench

from edge.watchdog import Pulse, Systemd, keep_told

S = 1_000_000_000


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """Where systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(60)
        yield ear


def words(ear: socket.socket) -> list[str]:
    return ear.recv(4096).decode().split("\n")


def test_a_part_that_is_silent_for_too_long_is_named_and_another_ones_beats_do_not_hide_it() -> None:
    pulse = Pulse({"measure": 10.0, "uplink": 120.0}, now_ns=0)
    pulse.beat("uplink", 11 * S)
    assert pulse.stuck(10 * S) == []
    assert pulse.stuck(11 * S) == ["measure has not moved for 11 s"]
    pulse.beat("measure", 12 * S)
    assert pulse.stuck(13 * S) == []


def test_the_word_stops_when_a_part_hangs_and_comes_back_when_it_moves(heard: socket.socket, tmp_path: Path) -> None:
    now_ns = 0
    pulse = Pulse({"measure": 10.0}, now_ns)
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000"})

    async def live() -> None:
        nonlocal now_ns
        telling = asyncio.create_task(keep_told(pulse, systemd, lambda: now_ns))
        assert await asyncio.to_thread(words, heard) == ["READY=1", "STATUS=works"]
        assert await asyncio.to_thread(words, heard) == ["WATCHDOG=1"]
        now_ns = 60 * S
        while await asyncio.to_thread(words, heard) != ["STATUS=measure has not moved for 60 s"]:
            pass
        for _ in range(3):  # only the sentence from now on
            assert await asyncio.to_thread(words, heard) == ["STATUS=measure has not moved for 60 s"]
        pulse.beat("measure", now_ns)
        while await asyncio.to_thread(words, heard) != ["WATCHDOG=1", "STATUS=works"]:
            pass
        telling.cancel()
        while await asyncio.to_thread(words, heard) != ["STOPPING=1"]:
            pass

    asyncio.run(live())


def test_without_systemd_nothing_is_said_and_a_watchdog_of_another_process_is_not_ours(tmp_path: Path) -> None:
    Systemd({}).tell("READY=1")
    Systemd({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")
    assert Systemd({}).interval_s is None
    assert Systemd({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}).interval_s is None
    assert Systemd({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}).interval_s == 2.0


def test_who_does_not_listen_holds_up_nothing(heard: socket.socket, tmp_path: Path) -> None:
    systemd = Systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.connect(str(tmp_path / "notify"))
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.send(b"WATCHDOG=1")
    systemd.tell("STATUS=nobody reads this")
    assert words(heard) == ["WATCHDOG=1"]
    systemd.tell("STATUS=works")


def test_a_real_agent_says_ready_then_that_it_lives_also_without_cloud_and_bus(
    heard: socket.socket, tmp_path: Path
) -> None:
    """Neither is its fault, and a restart would bring neither back."""
    bench = Bench(tmp_path)
    bench.environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    try:
        agent = bench.agent("http://127.0.0.1:9")
        assert words(heard)[0] == "READY=1"
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert words(heard)[0] == "WATCHDOG=1"
        agent.send_signal(signal.SIGTERM)
        while (said := words(heard)) != ["STOPPING=1"]:
            assert said[0] == "WATCHDOG=1"
        assert agent.wait(60) == 0
    finally:
        bench.close()
