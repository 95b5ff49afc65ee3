"""A source that hangs while it is opened: the others are stored all the same, and the agent ends when asked to."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge import agent as agent_module
from edge.agent import Agent
from edge.config import load_config
from edge.sources import ble
from edge.sources.ble import BleSpeaker
from edge.sources.source import SourceError

MANY = 40
"""More than the event loop's own pool has threads, whatever the machine."""
HEAD = 'device = "b"\nsample_s = 0.1\n[page]\nport = 0\n[metrics]\nport = 0\n'


def agent_of(folder: Path, sources: str) -> Agent:
    (folder / "edge.toml").write_text(HEAD + sources)
    return Agent(load_config(folder / "edge.toml", {}))


async def run_until(agent: Agent, is_enough: Callable[[], bool]) -> None:
    stop = asyncio.Event()

    async def watch() -> None:
        while not is_enough():
            await asyncio.sleep(0.01)
        stop.set()

    watcher = asyncio.create_task(watch())
    await asyncio.wait_for(agent.run(stop), 20)
    await watcher


def test_sources_that_hang_in_open_do_not_keep_the_samples_from_being_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight brokers that never answered had all threads of the pool, so a healthy pack's Samples waited for minutes."""
    (tmp_path / "m.toml").write_text('protocol = "jbd"\n[fields]\npack_v = { from = "pack_v" }\n')
    sources = "".join(
        f'[[source]]\npack_id = "P{n}"\ntype = "serial"\nchannel = "p{n}"\nmapping = "m.toml"\n' for n in range(MANY)
    )
    agent = agent_of(tmp_path, sources)
    release = threading.Event()
    hung: list[str] = []
    stored: list[int] = []

    def hang(name: str) -> None:
        hung.append(name)
        release.wait(30)

    for lane in agent.lanes:
        monkeypatch.setattr(lane.intake, "open", lambda name=lane.config.pack_id: hang(name))

    def keep(samples: object, lossy: object) -> None:
        if len(hung) == MANY:
            stored.append(1)

    monkeypatch.setattr(agent.packs, "keep", keep)
    try:
        begun_s = time.monotonic()
        asyncio.run(run_until(agent, lambda: len(stored) >= 3))
        assert time.monotonic() - begun_s < 15 and not release.is_set()
    finally:
        release.set()
        agent.close()


def test_an_open_that_never_returns_is_told_and_no_reason_to_start_the_agent_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socketcand that takes the connection and does not greet: systemd ended all packs with it, every minute."""
    (tmp_path / "m.toml").write_text('protocol = "jbd"\n[fields]\npack_v = { from = "pack_v" }\n')
    agent = agent_of(tmp_path, '[[source]]\npack_id = "P"\ntype = "serial"\nchannel = "p"\nmapping = "m.toml"\n')
    (lane,) = agent.lanes
    release, opens, beats = threading.Event(), [], []

    def hang() -> None:
        opens.append(1)
        release.wait(30)

    def beat(part: str, now_ns: int) -> None:
        beats.append(part)
        if beats.count("source P") == 5:
            release.set()

    monkeypatch.setattr(agent_module, "_OPEN_S", 0.01)
    monkeypatch.setattr(lane.intake, "open", hang)
    monkeypatch.setattr(lane.intake, "tick", lambda mono_ns: False)
    monkeypatch.setattr(agent.pulse, "beat", beat)
    told: list[str | None] = []

    def is_read() -> bool:
        told.append(lane.problem)
        return lane.problem is None

    try:
        asyncio.run(run_until(agent, is_read))
        assert any("p does not open and says nothing" in problem for problem in told if problem)
        assert opens == [1] and beats.count("source P") > 5
    finally:
        release.set()
        agent.close()


class Adapter:
    """Stands for bleak and aiobmsble. is_heard: whether the BMS is; it answers so many `answers`, then never again.

    leave: awaited by a disconnect; cuts: disconnects that were cancelled.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_heard, self.answers, self.disconnects, self.cuts = True, 0, 0, 0
        self.leave: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
        self.is_leaving = threading.Event()
        self.is_asked = threading.Event()
        adapter = self

        class Device:
            address, name, local_name = "A4:C1:38:00:00:01", "x", "x"

        class Bms:
            def __init__(self, **_: Any) -> None: ...

            async def async_update(self, raw: bool) -> dict[str, Any]:
                adapter.is_asked.set()
                if not adapter.answers:
                    await asyncio.Event().wait()
                adapter.answers -= 1
                return {"voltage": 51.0}

            async def disconnect(self) -> None:
                adapter.is_leaving.set()
                try:
                    await adapter.leave()
                except asyncio.CancelledError:
                    adapter.cuts += 1
                    raise
                adapter.disconnects += 1

        class Scanner:
            @staticmethod
            async def find_device_by_filter(is_it: Callable[[Any, Any], bool], timeout: float) -> Any:
                return Device if adapter.is_heard and is_it(Device, Device) else None

        async def identify(*_: Any) -> Any:
            return Bms

        library, tools, radio = ModuleType("aiobmsble"), ModuleType("aiobmsble.utils"), ModuleType("bleak")
        library.BMSConfig = dict  # type: ignore[attr-defined]
        tools.bms_identify = tools.bms_cls = identify  # type: ignore[attr-defined]
        radio.BleakScanner = Scanner  # type: ignore[attr-defined]
        for module in (library, tools, radio):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(ble, "_NEEDS", (3, 11))


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Adapter:
    return Adapter(monkeypatch)


@pytest.fixture
def boat(tmp_path: Path, adapter: Adapter) -> Iterator[Agent]:
    agent = agent_of(
        tmp_path, '[[source]]\npack_id = "B"\ntype = "ble"\naddress = "a4:c1:38:00:00:01"\nmapping = "ble.toml"\n'
    )
    yield agent
    agent.close()


def test_open_gives_way_before_the_agent_counts_as_stuck() -> None:
    """It could take 110 s, and after 60 s systemd started the whole agent anew, for ever."""
    assert ble._SCAN_S + ble._CONNECT_S + ble._STOP_S < agent_module._SOURCE_SILENT_S
    assert ble._SCAN_S + ble._CONNECT_S + ble._STOP_S < agent_module._OPEN_S < agent_module._SOURCE_SILENT_S


def test_a_bms_that_is_heard_but_never_answers_is_told_and_let_go(
    boat: Agent, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "_CONNECT_S", 0.05)
    speaker = BleSpeaker(boat.lanes[0].config)
    with pytest.raises(SourceError, match=r"is there but does not answer over Bluetooth within 0\.05 s"):
        speaker.open()
    assert adapter.disconnects == 1
    with pytest.raises(SourceError, match="not connected"):
        speaker.tick(0)


def test_one_that_is_not_heard_is_told(boat: Agent, adapter: Adapter) -> None:
    adapter.is_heard = False
    with pytest.raises(SourceError, match="is not heard over Bluetooth"):
        BleSpeaker(boat.lanes[0].config).open()


def test_the_agent_ends_while_bluetooth_is_being_opened(boat: Agent, adapter: Adapter) -> None:
    """Its end waited for the 110 s."""
    begun_s = time.monotonic()
    asyncio.run(run_until(boat, adapter.is_asked.is_set))
    boat.close()
    assert time.monotonic() - begun_s < 15 and adapter.disconnects == 1


def gone_silent(boat: Agent, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> tuple[BleSpeaker, threading.Event]:
    """A speaker whose BMS has answered once, and is being disconnected from until the event is set."""
    monkeypatch.setattr(ble, "_READ_S", 0.02)
    release = threading.Event()

    async def leave() -> None:
        while not release.is_set():
            await asyncio.sleep(0.005)

    adapter.answers, adapter.leave = 1, leave
    speaker = BleSpeaker(boat.lanes[0].config)
    monkeypatch.setattr(speaker, "_poll_s", 0.0)
    speaker.open()
    assert adapter.is_leaving.wait(10)
    return speaker, release


def problem_of(speaker: BleSpeaker) -> str:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            speaker.tick(0)
        except SourceError as error:
            return str(error)
        time.sleep(0.001)
    raise AssertionError("it goes on for ever")


def test_a_bms_that_falls_silent_is_disconnected_from_before_it_is_told(
    boat: Agent, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told at once had the disconnect cancelled: the link stayed, and who is connected does not advertise."""
    speaker, release = gone_silent(boat, adapter, monkeypatch)
    for _ in range(20):
        speaker.tick(0)
    assert len(speaker.take()) == 1
    release.set()
    assert "does not answer over Bluetooth within 0.02 s" in problem_of(speaker)
    begun_s = time.monotonic()
    speaker.close()  # on the event loop
    assert time.monotonic() - begun_s < 1
    assert (adapter.disconnects, adapter.cuts) == (1, 0)


def test_a_disconnect_under_way_is_not_cut_when_the_source_is_closed_and_nothing_is_opened_meanwhile(
    boat: Agent, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "_STOP_S", 0.05)
    speaker, release = gone_silent(boat, adapter, monkeypatch)
    speaker.close()
    with pytest.raises(SourceError, match="still being disconnected"):
        speaker.open()
    monkeypatch.setattr(ble, "_STOP_S", 10)
    release.set()
    assert speaker._left is not None and speaker._left.has_ended(10)
    monkeypatch.setattr(ble, "_READ_S", 30)
    adapter.answers = 1
    speaker.open()
    assert (adapter.disconnects, adapter.cuts) == (1, 0)
    speaker.close()
    assert (adapter.disconnects, adapter.cuts) == (2, 0)


def test_what_a_disconnect_raises_is_not_told_instead_of_what_was_wrong(
    boat: Agent, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ble, "_CONNECT_S", 0.02)

    async def leave() -> None:
        raise OSError("no adapter")

    adapter.leave = leave
    with pytest.raises(SourceError, match="does not answer over Bluetooth within"):
        BleSpeaker(boat.lanes[0].config).open()
