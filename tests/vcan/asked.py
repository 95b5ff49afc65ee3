"""Virtual cars on vcan0 that answer UDS, and the whole agent that asks them; all that is on the bus is looked at.

Run by tests/edge/test_vcan_kernel.py inside the vcan kernel.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes.asked_car import car_values, virtual
from vcan.bus import Sender
from vcan.recovery import Box

from edge.sources.can_voice import READS
from firmware_bridge.protocols.uds_ev import VEHICLES
from firmware_bridge.uds import is_flow_control, is_reading_frame

CARS = ("kona", "ioniq5", "leaf", "bolt")
POLL_S = 1.0
LOOK_S = 10.0
LOOKS, LATE_S = 3, 0.4
"""Where the host holds up all of the kernel, so that the test itself is late by so much, there is another look. It is
less than a request waits for its answer.
"""
OLD_S = {"bolt": 8.0}
"""What a Sample shows was said so long ago at most: a slow round, a slow sample, a slow kernel. A Bolt has a request a
cell, so that now and then a round takes longer than its time.
"""
EDGE = """
device = "bench"
clock = "system"
hot_dir = "hot"
sample_s = 0.5
[page]
port = 0
[metrics]
port = 0
[[source]]
pack_id = "A"
interface = "socketcan"
channel = "vcan0"
mapping = "{vehicle}.toml"
poll = {poll}
poll_s = {poll_s}
"""


class Listener:
    """A raw socket of vcan0 that hears all; `heard` holds (mono_s, can_id, payload)."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, int, bytes]] = []
        self._socket = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("vcan0",))
        self._socket.settimeout(0.1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                raw = self._socket.recv(16)
            except TimeoutError:
                continue
            can_id, length = struct.unpack_from("=IB", raw)
            self.hear(can_id, raw[8 : 8 + length])

    def hear(self, can_id: int, payload: bytes) -> None:
        self.heard.append((time.monotonic(), can_id, payload))

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)
        self._socket.close()


class Car(Listener):
    """A virtual car on the bus. Its pack's voltage is another each time that it is asked; `told` are these."""

    def __init__(self, vehicle: str) -> None:
        self.car = virtual(vehicle)
        self.base_v = round(2 * self.car.values["pack_v"]) / 2  # what every wire holds exactly
        self.told: list[tuple[float, float]] = []
        self._sender = Sender()
        super().__init__()

    def hear(self, can_id: int, payload: bytes) -> None:
        pack_v = self.base_v + 0.5 * (len(self.told) % 4)
        self.car.values = car_values(self.car.name) | {"pack_v": pack_v}
        answers = self.car.take(can_id, payload)
        if answers and is_reading_frame(payload) and self._tells_volts(can_id, payload):
            self.told.append((time.monotonic(), pack_v))
        for answer in answers:
            self._sender.send(*answer)
            time.sleep(self.car.separation_s)

    def _tells_volts(self, can_id: int, payload: bytes) -> bool:
        for reading in VEHICLES[self.car.name].readings:
            if reading.ecu.ask == can_id and reading.request == payload[1 : 1 + payload[0]]:
                return any("pack_v" in row.names for table in reading.layouts.values() for row in table)
        return False

    def close(self) -> None:
        super().close()
        self._sender.close()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path, "vcan0")
    yield box
    box.close()


@pytest.fixture
def sniffer() -> Iterator[Listener]:
    sniffer = Listener()
    yield sniffer
    sniffer.close()


def configured(box: Box, vehicle: str, *, poll: bool) -> None:
    text = EDGE.format(vehicle=vehicle, poll=str(poll).lower(), poll_s=POLL_S)
    (box.folder / "edge.toml").write_text(text)


def is_read(vehicle: str, pack: dict[str, Any]) -> bool:
    """Whether the Sample has all that the car says, as it says it."""
    sample = pack["sample"]
    if not sample or None in sample["cell_v"] or not sample["cell_v"] or sample["pack_v"] is None:
        return False
    values = car_values(vehicle)
    cells = [values[f"cell_v[{i}]"] for i in range(len(sample["cell_v"]))]
    assert sample["cell_v"] == pytest.approx(cells, abs=0.00051)
    assert sample["soc_bms"] == pytest.approx(values["soc_bms"], abs=0.0026)
    assert sample["current_a"] == pytest.approx(values["current_a"], abs=0.051)
    temps = [values[f"temp_c[{i}]"] for i in range(4)]
    return bool(sample["temp_c"][:4] == pytest.approx(temps))


@dataclass
class Look:
    """What the Samples showed for `LOOK_S`, what of it was said too long ago, how often the car was asked, which errors
    there were meanwhile, and by how much the test itself was late.
    """

    seen_v: set[float] = field(default_factory=set)
    old_v: list[float] = field(default_factory=list)
    rate_hz: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    late_s: float = 0.0


def counted(box: Box) -> dict[str, int]:
    return dict(box.until("the counts", lambda pack: pack)["source"]["errors"])


def looked_at(box: Box, car: Car) -> Look:
    look, errors = Look(), counted(box)
    before, began_s = len(car.told), time.monotonic()
    while time.monotonic() < began_s + LOOK_S:
        asked_s = time.monotonic()
        status = box.status()
        look.late_s = max(look.late_s, time.monotonic() - asked_s)
        if status is None:
            continue
        pack_v, now_s = status["packs"][0]["sample"]["pack_v"], time.monotonic()
        look.seen_v.add(pack_v)
        if pack_v not in {told_v for at_s, told_v in car.told if at_s > now_s - OLD_S.get(car.car.name, 4.0)}:
            look.old_v.append(pack_v)
        asleep_s = time.monotonic()
        time.sleep(0.25)
        look.late_s = max(look.late_s, time.monotonic() - asleep_s - 0.25)
    look.errors = {kind: n for kind, n in counted(box).items() if n != errors.get(kind)}
    look.rate_hz = (len(car.told) - before) / (time.monotonic() - began_s)
    return look


@pytest.mark.parametrize("vehicle", CARS)
def test_a_car_that_answers_uds_is_read_at_the_polled_rate_and_asked_nothing_else(
    box: Box, sniffer: Listener, vehicle: str
) -> None:
    car = Car(vehicle)
    try:
        configured(box, vehicle, poll=True)
        box.agent()
        box.until("a whole sample", lambda pack: is_read(vehicle, pack), 60)
        for _ in range(LOOKS):
            look = looked_at(box, car)
            if look.late_s < LATE_S:
                break
        errors = counted(box)
    finally:
        car.close()
    asked = [(can_id, payload) for _, can_id, payload in sniffer.heard if can_id not in car.car.answers]
    print(f"{vehicle}: {look.rate_hz:.2f} rounds/s of {1 / POLL_S:.0f} wanted, {len(asked)} frames asked, {errors}")
    assert not look.errors and not errors.keys() - {"timeout"}
    assert not look.old_v and len(look.seen_v) == 4
    assert (0.3 if vehicle == "bolt" else 0.8) / POLL_S < look.rate_hz < 1.1 / POLL_S
    assert all(READS["uds_ev"](can_id, payload) for can_id, payload in asked)
    assert all(is_reading_frame(payload) or is_flow_control(payload) for _, payload in asked)
    assert asked
    assert not car.car.refused
    assert "Traceback" not in box.log()


def test_an_agent_that_only_listens_reads_what_others_ask_and_sends_nothing(box: Box, sniffer: Listener) -> None:
    """Every frame on the bus is the car's or the other tester's, of whose answers the agent makes its Samples."""
    car, others = Car("kona"), 0
    try:
        configured(box, "kona", poll=False)
        box.agent()
        box.until("the bus is open", lambda pack: pack["source"]["state"] != "down")
        with Sender() as tester:
            began_s = time.monotonic()
            while time.monotonic() < began_s + 30:
                for reading in VEHICLES["kona"].readings:
                    tester.send(reading.ecu.ask, bytes([len(reading.request)]) + reading.request.ljust(7, b"\0"))
                    time.sleep(0.05)
                    tester.send(reading.ecu.ask, bytes([0x30, 0, 0, 0, 0, 0, 0, 0]))
                    time.sleep(0.1)
                    others += 2
                status = box.status()
                if status and is_read("kona", status["packs"][0]):
                    break
            else:
                pytest.fail("no whole sample by listening")
            time.sleep(2)
    finally:
        car.close()
    asked = [frame for frame in sniffer.heard if frame[1] not in car.car.answers]
    assert len(asked) == others
