"""The reader of SocketCAN on datagrams of the loopback: what comes out is what went in, or it is counted."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.loopback_bus import LoopbackBus

from edge.clock import both_ns
from edge.config_sources import SourceConfig
from edge.sources import recvmmsg, socketcan
from edge.sources.can import source_of
from edge.sources.socketcan import FRAME_BYTES, FULL_LOAD, SocketCanSource
from edge.sources.source import READ_TICK_S, SourceError
from firmware_bridge.frames import EXTENDED, REMOTE
from shared.errors import ConfigError

ERROR = 0x2000_0000
BUS_OFF, RESTARTED, CONTROLLER = 0x40, 0x100, 0x04


def config(**changes: object) -> SourceConfig:
    values: dict[str, object] = {
        "pack_id": "A",
        "interface": "socketcan",
        "channel": "can9",
        "bitrate": 500_000,
        "tty_baudrate": 115_200,
        "listen_only": True,
        "mapping_path": Path("m"),
    }
    return SourceConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(params=["recvmmsg", "recvmsg"])
def bus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBus]:
    """Every test runs with libc's recvmmsg and without."""
    if request.param == "recvmsg":
        monkeypatch.setattr(recvmmsg, "_libc_recvmmsg", lambda: None)
    bus = LoopbackBus()
    monkeypatch.setattr(socketcan, "open_bus", bus)
    yield bus
    bus.close()


def opened(**arguments: object) -> SocketCanSource:
    source = SocketCanSource(config(), **arguments)  # type: ignore[arg-type]
    source.open()
    return source


def test_frames_come_in_their_order_with_ids_and_payloads(bus: LoopbackBus) -> None:
    source = opened()
    sent = [(i % 0x800 if i % 2 else EXTENDED | i, i.to_bytes(8, "big")[: 8 - i % 9]) for i in range(1300)]
    for can_id, payload in sent:
        bus.send(can_id, payload)
    batch = source.read(0)
    assert batch.data.shape == (1300, 8)
    assert [(can_id, payload) for _, can_id, payload in batch.rows()] == sent
    assert len(source.read(0)) == 0  # silence is no error
    assert source.drops == 0


def test_a_frame_of_can_fd_makes_the_batch_wide_and_leaves_no_junk(bus: LoopbackBus) -> None:
    """The rows of one call lie in the memory of the call before: a classic frame must not show an older one's bytes."""
    source = opened()
    for _ in range(3):
        bus.send(0x101, bytes(range(1, 65)))
    assert source.read(0).data.shape == (3, 64)
    bus.send(0x102, b"\x07")
    bus.send(0x103, bytes(12))
    bus.send_raw(struct.pack("=IB3x", 0x104, 2) + b"\xff" * 8)  # junk beyond its length
    bus.send_raw(struct.pack("=IB3x", REMOTE | 0x105, 8) + b"\xff" * 8)
    batch = source.read(0)
    assert batch.length.tolist() == [1, 12, 2, 8]
    assert batch.data.sum(axis=1).tolist() == [7, 0, 2 * 0xFF, 0]


def test_times_are_the_kernels_on_the_agents_clock(bus: LoopbackBus) -> None:
    source = opened()
    before_ns = both_ns()[0]
    bus.send(1)
    between_ns = both_ns()[0]
    bus.send(2)
    after_ns = both_ns()[0]
    first, second = source.read(0).t_ns.tolist()
    slack_ns = 1_000_000  # the two clocks are read one after the other
    assert before_ns - slack_ns <= first <= between_ns + slack_ns
    assert between_ns - slack_ns <= second <= after_ns + slack_ns


def test_what_was_polled_waits_also_for_a_bus_that_has_gone_since(bus: LoopbackBus) -> None:
    """Polls before and after a frame of CAN FD and a new start, with error frames between them."""
    source = opened()
    for can_id, payload in ((1, b"\x01"), (ERROR | BUS_OFF, bytes(8)), (2, b"\x02")):
        bus.send(can_id, payload)
    assert source.poll(0) == 2
    assert source.poll(0) == 0
    bus.send(3, bytes(range(64)))
    bus.send(ERROR | BUS_OFF, bytes(8))
    assert source.poll(0) == 1
    assert "bus-off" in source.notes[-1], "told at once"
    source.close()
    source.open()
    bus.send(4, b"\x04")
    assert source.poll(0) == 1
    frames = source.frames()
    assert [(can_id, payload) for _, can_id, payload in frames.rows()] == [
        (1, b"\x01"), (2, b"\x02"), (3, bytes(range(64))), (4, b"\x04"),
    ]  # fmt: skip
    assert (frames.t_ns[1:] >= frames.t_ns[:-1]).all()
    assert not len(source.frames())


def test_each_poll_has_its_own_bounds_of_time(bus: LoopbackBus) -> None:
    """A step of the host's clock between two polls moves neither the frames before it nor those after."""
    steps = [0]

    def clocks() -> tuple[int, int]:
        mono_ns, wall_ns = both_ns()
        return mono_ns, wall_ns + steps[0] * 1_000_000_000

    began_ns = [both_ns()[0]]  # the start, then each poll
    source = opened(clocks=clocks)
    ended_ns = []
    for step_s in (0, 3600, -3600, 0):
        bus.send(1)
        steps[0] = step_s
        began_ns.append(both_ns()[0])
        source.poll(0)
        ended_ns.append(both_ns()[0])
    times = source.frames().t_ns.tolist()
    assert all(map(int.__le__, began_ns, times))
    assert all(map(int.__le__, times, ended_ns))


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_step_of_the_hosts_clock_costs_no_more_than_the_time_between_two_reads(bus: LoopbackBus, step_s: int) -> None:
    steps = [0]

    def clocks() -> tuple[int, int]:
        mono_ns, wall_ns = both_ns()
        return mono_ns, wall_ns + steps[0] * 1_000_000_000

    source = opened(clocks=clocks)
    since_ns = both_ns()[0]
    source.read(0)
    bus.send(1)
    bus.send(2)
    steps[0] = step_s
    times = source.read(0).t_ns.tolist()
    assert since_ns <= times[0] <= times[1] <= both_ns()[0]


def test_what_does_not_fit_is_counted_exactly(bus: LoopbackBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the bus falls silent after it: no later frame tells the counter then."""
    monkeypatch.setattr(socketcan, "_WANTED_BYTES", 65536)
    source = opened()
    for i in range(3000):
        bus.send(i % 0x800)
    before = source.count_drops()
    got = len(source.read(0))
    assert 0 < got < 3000
    assert source.drops == before == 3000 - got
    bus.send(5)
    assert len(source.read(0)) == 1
    assert source.drops == 3000 - got
    source.open()  # the new socket's counter starts at 0, the source's goes on
    for i in range(3000):
        bus.send(i % 0x800)
    got += len(source.read(0))
    assert source.drops == 6000 - got


def test_drops_are_told_by_the_frames_where_the_socket_itself_cannot(
    bus: LoopbackBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socketcan, "_WANTED_BYTES", 65536)
    monkeypatch.setattr(socketcan, "_SO_MEMINFO", 9999)
    source = opened()
    for i in range(3000):
        bus.send(i % 0x800)
    got = len(source.read(0))
    bus.send(5)
    source.read(0)
    assert source.drops == 3000 - got


@pytest.mark.parametrize("meminfo", [55, 9999])
def test_drops_are_counted_once_when_what_was_polled_is_looked_at_after_the_bus_has_gone(
    bus: LoopbackBus, monkeypatch: pytest.MonkeyPatch, meminfo: int
) -> None:
    """Also by a kernel before 4.12 (9999), where only a later frame tells of drops."""
    monkeypatch.setattr(socketcan, "_WANTED_BYTES", 65536)
    monkeypatch.setattr(socketcan, "_SO_MEMINFO", meminfo)
    source = opened()
    sent = got = 0
    for _ in range(2):
        before = got
        for burst in (3000, 1, 3000, 1 if meminfo == 9999 else 0):
            for i in range(burst):
                bus.send(i % 0x800)
            sent += burst
            got += source.poll(0)
        source.close()
        assert got + source.drops == sent
        assert len(source.frames()) == got - before
        source.open()
        assert got + source.count_drops() == sent


def test_error_frames_are_counted_by_kind_and_never_given_on(bus: LoopbackBus) -> None:
    source = opened()
    bus.send(0x101, b"\x01")
    bus.send(ERROR | CONTROLLER, b"\0\x01" + bytes(6))
    bus.send(ERROR | CONTROLLER, b"\0\x20" + bytes(6))
    bus.send(ERROR | CONTROLLER, b"\0\x04" + bytes(6))
    bus.send(ERROR | 0x20 | 0x80, bytes(8))
    bus.send(0x102, b"\x02")
    assert [can_id for _, can_id, _ in source.read(0).rows()] == [0x101, 0x102]
    assert dict(source.error_frames) == {
        "rx_overflow": 1,
        "error_passive": 1,
        "controller": 1,
        "no_ack": 1,
        "bus_error": 1,
    }


def test_bus_off_is_a_note_until_the_controller_is_back(bus: LoopbackBus) -> None:
    source = opened()
    calm = source.notes
    bus.send(0x101)  # heard before
    bus.send(ERROR | BUS_OFF, bytes(8))
    assert len(source.read(0)) == 1
    assert "bus-off" in source.notes[-1]
    assert "can9" in source.notes[-1]
    bus.send(ERROR | RESTARTED, bytes(8))
    source.read(0)
    assert source.notes == calm
    bus.send(ERROR | BUS_OFF, bytes(8))
    bus.send(0x101)
    source.read(0)
    assert source.notes == calm
    assert dict(source.error_frames) == {"bus_off": 2, "restarted": 1}


def test_a_full_bus_fills_no_more_than_half_of_the_buffer_between_two_reads(
    bus: LoopbackBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened()
    assert source.buffer_bytes is not None
    room_s = source.buffer_bytes / FRAME_BYTES / FULL_LOAD
    assert source.tick_s == pytest.approx(min(READ_TICK_S, room_s / 2))
    monkeypatch.setattr(socketcan, "_SO_RCVBUFFORCE", 9999)  # as without CAP_NET_ADMIN
    monkeypatch.setattr(socketcan, "_enlarged", lambda bus, wanted: 212_992)
    source.open()
    assert source.tick_s == pytest.approx(212_992 / FRAME_BYTES / FULL_LOAD / 2)
    assert "net.core.rmem_max=4608000" in source.notes[0]
    assert "208 KiB" in source.notes[0]


def test_error_frames_take_room_in_the_buffer_too(bus: LoopbackBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socketcan, "_enlarged", lambda bus, wanted: 212_992)
    now_ns = [0]
    source = opened(clocks=lambda: (now_ns[0], now_ns[0]))
    for _ in range(200):
        bus.send(ERROR | 0x20, bytes(8))
    now_ns[0] = 5_000_000  # 40,000 a second
    assert source.poll(0) == 0
    assert source.tick_s < 212_992 / FRAME_BYTES / 40_000 / 2


def test_a_bus_that_goes_gives_what_came_before_and_then_says_so(
    bus: LoopbackBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened()
    bus.send(7)
    assert source._receiver is not None
    whole = source._receiver.drain(100)
    gone = recvmmsg.Drained(whole.pieces, is_empty=True, error=OSError(errno.ENODEV, "No such device"))
    monkeypatch.setattr(source._receiver, "drain", lambda limit: gone)
    assert len(source.read(0)) == 1
    with pytest.raises(SourceError, match="can9 has gone: no such device"):
        source.read(0)
    source.close()
    with pytest.raises(SourceError, match="is not open"):
        source.read(0)
    source.open()
    assert source.read(0) is not None


def test_an_interface_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(SourceError, match="cannot be opened: "):
        SocketCanSource(config(channel="nosuchcan0")).open()


def test_the_mappings_ids_are_asked_for(bus: LoopbackBus) -> None:
    source = source_of(config(), [(0x101, 0x7FF)])
    source.open()
    assert bus.opened == [("can9", ((0x101, 0x7FF),))]


def test_options_that_mean_nothing_here_are_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="receive_own"):
        SocketCanSource(config(options=(("receive_own", True),)))
    SocketCanSource(config(options=(("fd", True),)))
