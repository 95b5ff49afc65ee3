"""Devices by the thousand in a process of their own, one 96-cell Sample a message, by MQTT: each message goes out when
it is due, whatever became of the one before, and every Receipt is noted."""

from __future__ import annotations

import multiprocessing
import struct
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from fake_batches import SECOND_NS, batch, block, layout
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from shared import wire
from shared.records import new_boot
from shared.wire_pb2 import Batch as PbBatch

CONNECTIONS = 4
TICK_S = 0.005
FIRST_S = 2.0
VARIANTS = 200
CELLS, TEMPS = 96, 8
NAMES = ("pack_v", "current_a", "soc_bms", "state", "speed_kmh", "odometer_km")


class Publisher:
    """Starts the process; `begin` tells when the first message is due, `finish` what became of the Receipts."""

    def __init__(self, port: int, name: str, devices: int, messages: int, per_s: float) -> None:
        """messages: of each device, seq 0, 1, ...; per_s: of all devices together, evenly spread over them."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_run, args=(other, port, name, devices, messages, per_s), daemon=True)

    def __enter__(self) -> Publisher:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def begin(self) -> float:
        """The wall time [s] when the first message is due; message k of device d is (k * devices + d) / per_s later."""
        return float(self._pipe.recv())

    def finish(self) -> tuple[float, npt.NDArray[np.float64]]:
        """(how late a message was sent at most [s], seconds from due to Receipt of those that got one)."""
        self._pipe.send("finish")
        late_s, receipt_s = self._pipe.recv()
        return late_s, receipt_s


class Bodies:
    """Encoded Batches of one Sample; only what differs from one to the next is put in anew."""

    def __init__(self, name: str, devices: int) -> None:
        self.names = [f"{name}-{d:04d}" for d in range(devices)]
        self._boots = [new_boot() for _ in range(devices)]
        of = layout(cells=CELLS, temps=TEMPS, names=NAMES)
        self._template = PbBatch()
        self._planes = []
        for seed in range(VARIANTS):
            one = batch("d", block("p", 1, seq=1, t_ns=2 * SECOND_NS, of=of, seed=seed))
            self._template.ParseFromString(wire.encode_batch(one))
            self._planes.append(self._template.blocks[0].planes)

    def body(self, device: int, seq: int, t_ns: int) -> bytes:
        """The Batch of a device with its Sample `seq`."""
        message = self._template
        message.device, message.boot = self.names[device], self._boots[device]
        sample = message.blocks[0]
        sample.pack_id, sample.planes = f"P-{self.names[device]}", self._planes[(device + 7 * seq) % VARIANTS]
        sample.first_seq, sample.mono_unit_ns, sample.first_mono = seq, SECOND_NS, seq
        sample.t_offset_ns = t_ns - seq * SECOND_NS
        return bytes(message.SerializeToString())


def _run(pipe: Connection, port: int, name: str, devices: int, messages: int, per_s: float) -> None:
    bodies = Bodies(name, devices)
    receipt_s = np.full(devices * messages, np.nan)
    clients = [_connect(port, bodies.names[i::CONNECTIONS], receipt_s) for i in range(CONNECTIONS)]
    topics = [f"packtwin/v1/{name}/up" for name in bodies.names]
    begin_s = time.time() + FIRST_S
    pipe.send(begin_s)
    late_s, sent = 0.0, 0
    while sent < devices * messages:
        now_s = time.time()
        due = min(devices * messages, int((now_s - begin_s) * per_s) + 1) if now_s >= begin_s else 0
        if due > sent:
            late_s = max(late_s, now_s - begin_s - sent / per_s)
        for number in range(sent, due):
            device = number % devices
            told = Properties(PacketTypes.PUBLISH)
            told.CorrelationData = struct.pack(">q", number)
            body = bodies.body(device, number // devices, int((begin_s + number / per_s) * 1e9))
            clients[device % CONNECTIONS].publish(topics[device], body, qos=1, properties=told)
        sent = max(sent, due)
        time.sleep(TICK_S)
    pipe.recv()
    waited_s = receipt_s - (begin_s + np.arange(devices * messages) / per_s)
    pipe.send((late_s, waited_s[~np.isnan(waited_s)]))
    for client in clients:
        client.disconnect()
        client.loop_stop()


def _connect(port: int, names: list[str], receipt_s: npt.NDArray[np.float64]) -> Client:
    """A connection of these devices; returns when it listens to their Receipts."""
    listens: list[Any] = []

    def message(client: Client, userdata: Any, answer: MQTTMessage) -> None:
        told: Any = answer.properties
        if not hasattr(told, "ContentType"):  # else it is a refusal, in JSON
            receipt_s[struct.unpack(">q", told.CorrelationData)] = time.time()

    client = Client(CallbackAPIVersion.VERSION2, f"bench-{names[0]}", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(0)
    client.on_message = message
    client.on_subscribe = lambda *arguments: listens.append(arguments)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for i in range(0, len(names), 100):
        client.subscribe([(f"packtwin/v1/{name}/receipt", 1) for name in names[i : i + 100]])
    deadline_s = time.monotonic() + 30
    while len(listens) < -(-len(names) // 100):
        if time.monotonic() > deadline_s:
            raise TimeoutError("the broker does not let the devices listen")
        time.sleep(0.01)
    return client
