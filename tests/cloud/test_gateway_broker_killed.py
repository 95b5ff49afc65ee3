"""Row 3 of issue 5: a broker's word is worth nothing. It dies with 3,000 messages that it acknowledged; all arrive."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from broker import missing_part, running_broker
from conftest import missing
from fakes.outbox import measured
from free_ports import free_port
from gateway_server import running_gateway
from waiting import until

from cloud import db
from cloud.config import Config, Database, Mqtt
from edge.clock import Clock, kernel_boot_id
from edge.mqtt import Broker, Link
from edge.outbox.box import Outbox
from edge.transport_mqtt import MqttTransport
from edge.uplink import Uplink, UplinkSettings
from shared.wire import encode_batch

DEVICES, EACH = 30, 100
UNSAVED = "autosave_interval 1800\n"
"""Half an hour: the test is over long before the broker saves anything."""


class Device:
    """An agent's outbox with Samples that wait for a Receipt."""

    def __init__(self, folder: Path, number: int) -> None:
        self.name = f"car-{number:02}"
        self.clock = Clock("system")
        self.outbox = Outbox(
            self.name,
            folder / self.name / "cold",
            folder / self.name / "hot",
            max_bytes=16 << 20,
            flush_s=3600.0,
            now=self.clock.mono_ns,
            kernel_boot_id=kernel_boot_id(),
        )
        now_ns, t_ns = self.clock.mono_ns(), time.time_ns()
        pack = f"{self.name}-pack"
        self.outbox.put([measured(now_ns - n * 10**9, pack_id=pack, t_ns=t_ns - n * 10**9) for n in range(EACH, 0, -1)])

    def publish(self, broker: Broker) -> int:
        """Each Sample as a message of its own, all acknowledged by the broker; no Receipt comes. Returns how many."""
        link = Link(broker, f"packtwin-{self.name}", will=None, on_message=lambda message: None)
        link.open()
        flights = [self.outbox.take(1, newest=False, fresh=True) for _ in range(EACH)]
        bodies = [encode_batch(flight.batch) for flight in flights if flight is not None]
        numbers = [link.publish(f"packtwin/v1/{self.name}/up", body) for body in bodies]
        link.wait(lambda: all(link.outcome(number) is not None for number in numbers), 60.0)
        for flight in flights:
            if flight is not None:
                self.outbox.release(flight)  # as the uplink does when no Receipt comes
        return sum(link.outcome(number) == 0 for number in numbers)

    def send_all(self, url: str) -> None:
        """The agent's uplink, until its outbox is empty."""
        transport = MqttTransport(url, self.name)
        uplink = Uplink(self.outbox, transport, self.clock, UplinkSettings(backlog_rows=1))
        deadline = time.monotonic() + 120
        while self.outbox.books().pending:
            assert time.monotonic() < deadline, uplink.state.problem
            time.sleep(uplink.drain(self.clock.mono_ns()).wait_s)
        transport.close()


@pytest.mark.e2e
@pytest.mark.slow
def test_three_thousand_messages_that_the_broker_acknowledged_and_lost_all_arrive(
    database: Database, tmp_path: Path
) -> None:
    what = missing_part()
    if what:
        missing(what)
    cars = [Device(tmp_path, number) for number in range(DEVICES)]
    with running_broker(UNSAVED) as broker, ThreadPoolExecutor(8) as pool:
        config = Config(database=database, mqtt=Mqtt(port=broker.port), gateway_metrics_port=free_port())
        with running_gateway(config) as gateway:
            gateway.until_connected()
        broker.stop()  # saves the gateway's session: from now on messages wait for it
        broker.start()
        saved_bytes = broker.saved_bytes()
        at = Broker(host="127.0.0.1", port=broker.port, tls=False)
        assert sum(pool.map(lambda car: car.publish(at), cars)) == DEVICES * EACH
        assert broker.saved_bytes() == saved_bytes

        broker.kill()
        broker.start()
        with running_gateway(config) as gateway:
            gateway.until_connected()
            canary = MqttTransport(broker.url, "canary")
            until("the gateway has answered", lambda: canary.desired("canary").t_ns)
            canary.close()
            assert gateway.metric("packtwin_gateway_messages_total") == 1, "the broker has not lost them"
            list(pool.map(lambda car: car.send_all(broker.url), cars))
            assert gateway.metric("packtwin_gateway_receipts_total") == DEVICES * EACH
    with db.connect(database) as conn:
        rows = conn.execute("SELECT device, count(*), count(DISTINCT seq) FROM samples GROUP BY device").fetchall()
    assert sorted(rows) == [(car.name, EACH, EACH) for car in cars]
    for car in cars:
        books = car.outbox.books()
        assert (books.acked, books.pending, books.refused, books.evicted) == (EACH, 0, 0, 0)
        car.outbox.close()
