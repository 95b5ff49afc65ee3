"""The reader on a real CAN_RAW socket: nothing is lost unseen, and nothing comes that was not asked for.

Run by tests/edge/test_vcan_kernel.py inside the vcan kernel.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vcan.bus import Sender, config, sent, start_sender

from edge.clock import both_ns
from edge.sources import socketcan
from edge.sources.filters import exactly
from edge.sources.socketcan import SocketCanSource
from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch

ERROR = 0x2000_0000
NOBODY = 65534
SETTLE_S = 0.1
RATE_HZ, STALL_S = 8000, 0.5


@pytest.fixture
def sender() -> Iterator[Sender]:
    with Sender() as sender:
        yield sender


def opened(filters: tuple[tuple[int, int], ...] = ()) -> SocketCanSource:
    source = SocketCanSource(config(), filters)
    source.open()
    return source


def arrived(source: SocketCanSource) -> FrameBatch:
    """What was sent: the kernel may hand frames of vcan0 over a moment after `send` has returned."""
    time.sleep(SETTLE_S)
    return source.read(0)


def test_the_buffer_holds_a_second_of_a_full_bus_and_nobody_needs_to_hurry() -> None:
    source = opened()
    assert source.buffer_bytes is not None and source.buffer_bytes >= 9_000 * 768
    assert source.tick_s == 0.1 and source.notes == ()


def test_a_burst_comes_whole_in_order_and_with_times_between_its_ends(sender: Sender) -> None:
    source = opened()
    sent = [(i % 0x800 if i % 3 else EXTENDED | 0x18FF_0000 | i, i.to_bytes(8, "big")) for i in range(5000)]
    before_ns = both_ns()[0]
    for can_id, payload in sent:
        sender.send(can_id, payload)
    batch = arrived(source)
    assert [(can_id, payload) for _, can_id, payload in batch.rows()] == sent
    times = batch.t_ns.tolist()
    assert before_ns - 10**7 <= times[0] <= times[-1] <= both_ns()[0] and times == sorted(times)
    assert times[-1] - times[0] > 10**7  # the kernel's, not that of the read
    assert source.drops == 0


def test_can_fd_frames_come(sender: Sender) -> None:
    subprocess.run(["ip", "link", "set", "vcan0", "down"], check=True)
    subprocess.run(["ip", "link", "set", "vcan0", "mtu", "72"], check=True)
    subprocess.run(["ip", "link", "set", "vcan0", "up"], check=True)
    source = opened()
    with Sender() as fd:
        fd.send(0x101, bytes(range(64)))
        fd.send(0x102, b"\x09")
    assert [(can_id, payload) for _, can_id, payload in arrived(source).rows()] == [
        (0x101, bytes(range(64))),
        (0x102, b"\x09"),
    ]


def test_only_what_the_mapping_wants_comes_and_what_it_does_not_takes_no_room(sender: Sender) -> None:
    wide = EXTENDED | 0x101
    source = opened(((0x101, exactly(0x101)), (wide | 0x1000, exactly(wide | 0x1000))))
    for can_id in (0x100, 0x101, wide, wide | 0x1000, 0x101 | REMOTE, 0x501):
        sender.send(can_id)
    assert arrived(source).can_id.tolist() == [0x101, wide | 0x1000]
    assert source.drops == 0


@pytest.mark.parametrize("count", [1, 512, 513])
def test_up_to_512_filters_are_the_kernels_beyond_that_everything_comes(sender: Sender, count: int) -> None:
    source = opened(tuple((can_id, exactly(can_id)) for can_id in range(count)))
    for can_id in range(0x700):
        sender.send(can_id)
    assert len(arrived(source)) == (count if count <= 512 else 0x700)


def test_errors_and_bus_off_are_told(sender: Sender) -> None:
    source = opened(((0x101, exactly(0x101)),))
    sender.send(ERROR | 0x04, b"\0\x01" + bytes(6))
    sender.send(ERROR | 0x40)
    assert len(arrived(source)) == 0
    assert dict(source.error_frames) == {"rx_overflow": 1, "bus_off": 1}
    assert "vcan0 is bus-off" in source.notes[-1]
    sender.send(ERROR | 0x100)
    sender.send(0x101)
    assert len(arrived(source)) == 1
    assert source.notes == ()


@pytest.mark.parametrize("is_silent", [True, False])
def test_sent_minus_received_is_what_is_reported_as_dropped(
    sender: Sender, monkeypatch: pytest.MonkeyPatch, is_silent: bool
) -> None:
    monkeypatch.setattr(socketcan, "_WANTED_BYTES", 1 << 20)
    source = opened()
    assert source.buffer_bytes == 1 << 20
    count, got = 0, 0
    for burst in (4000, 100, 2000):
        for i in range(burst):
            sender.send(i % 0x800)
        count += burst
        if not is_silent:
            got += len(arrived(source))
    got += len(arrived(source))
    assert got < count
    assert source.drops == count - got
    source.close()
    assert source.drops == count - got


def follow(source: SocketCanSource, until_s: float) -> int:
    """Reads at the source's own pace as the agent does; how many frames came."""
    got = 0
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(source.tick_s, left_s))
        got += len(source.read(0))
    return got


def on_the_bus() -> int:
    """How many frames vcan0 has carried."""
    return int(Path("/sys/class/net/vcan0/statistics/tx_packets").read_text())


def stalled_half_a_second(source: SocketCanSource) -> tuple[int, int]:
    """(frames sent, frames read) in 3 s at 8,000/s with a stall of 500 ms in it.

    Where the host holds up the sender the stall goes on until the bus has carried all the frames of 500 ms: it is they
    that must find room.
    """
    sender = start_sender(RATE_HZ, 3.0)
    got = follow(source, time.monotonic() + 1.0)
    before, until_s = on_the_bus(), time.monotonic() + STALL_S
    while time.monotonic() < until_s or on_the_bus() < before + STALL_S * RATE_HZ:
        assert sender.poll() is None, "the sender ended within the stall"
        time.sleep(SETTLE_S / 10)
    while sender.poll() is None:
        got += follow(source, time.monotonic() + 0.5)
    count, took_s = sent(sender)
    print(f"the sender took {took_s:.1f} s")
    return count, got + len(source.read(0)) + len(arrived(source))


def test_a_stall_of_half_a_second_at_8000_frames_a_second_loses_nothing() -> None:
    source = opened()
    count, got = stalled_half_a_second(source)
    print(f"root: {count} sent, {got} read, {source.drops} reported as dropped")
    assert (got, source.drops) == (count, 0)


def test_without_privileges_the_same_stall_is_warned_of_and_counted_exactly() -> None:
    os.seteuid(NOBODY)
    try:
        source = opened()
    finally:
        os.seteuid(0)
    assert "net.core.rmem_max" in source.notes[0]
    assert source.tick_s < 0.03
    count, got = stalled_half_a_second(source)
    print(f"unprivileged: {count} sent, {got} read, {source.drops} reported as dropped; {source.notes[0]}")
    assert source.drops == count - got > 0
