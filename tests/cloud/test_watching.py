"""Someone opens a page, and the device goes live: API -> database -> gateway -> broker -> device, and back again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from api_server import running_api
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from fake_batches import batch, block
from free_ports import free_port
from gateway_server import running_gateway
from pg_process import PgServer, fresh_database
from waiting import until

from cloud import db
from cloud.config import Config, Database, Mqtt
from cloud.db.queries_wishes import wishes
from cloud.watching import Watching
from edge.transport_mqtt import MqttTransport
from shared.wire import encode_batch


@pytest.fixture
def broker() -> Iterator[TestBroker]:
    what = missing_part()
    if what:
        missing(what)
    with running_broker() as running:
        yield running


def test_a_page_that_is_opened_makes_the_device_live_until_it_is_closed(database: Database, broker: TestBroker) -> None:
    config = Config(database=database, mqtt=Mqtt(port=broker.port), gateway_metrics_port=free_port())
    with running_api(config) as api, running_gateway(config) as gateway:
        gateway.until_connected()
        device, other = MqttTransport(broker.url, "car-1"), MqttTransport(broker.url, "car-2")
        for transport, name in ((device, "car-1"), (other, "car-2")):
            transport.send(encode_batch(batch(name, block(f"{name}-pack", 3, t_ns=time.time_ns() - 10**10))))
        until("both are told what is usual", lambda: all(mode_of(each) == "normal" for each in (device, other)))
        with httpx.Client(base_url=f"http://127.0.0.1:{api.port}", timeout=20) as page:
            with page.stream("GET", "/api/v1/live?pack_id=car-1-pack") as answer:
                assert answer.status_code == 200
                until("the device goes live", lambda: mode_of(device) == "live", 5.0)
                assert mode_of(other) == "normal"
            until("it calms down", lambda: mode_of(device) == "normal", 10.0)
        for transport in (device, other):
            transport.close()


def mode_of(transport: MqttTransport) -> str | None:
    told = transport.told()
    return told.mode if told else None


def watched(database: Database) -> set[str]:
    with db.connect(database) as conn:
        return {device for device, wish in wishes(conn)[1].items() if wish.watched}


@contextmanager
def looking(config: Config, devices: Callable[[], set[str]]) -> Iterator[None]:
    watching = Watching(config, devices)
    watching.start()
    try:
        yield
    finally:
        watching.stop()


def test_who_is_watched_is_said_again_after_the_database_was_away(own_pg_server: PgServer) -> None:
    database = fresh_database(own_pg_server.login)
    with db.connect(database) as conn:
        conn.execute("INSERT INTO device (device) VALUES ('car-1'), ('car-2')")
    seen: set[str] = set()
    with looking(Config(database=database), lambda: set(seen)):
        assert watched(database) == set()
        seen |= {"car-1", "nobody"}
        until("car-1 is watched", lambda: watched(database) == {"car-1"})
        own_pg_server.stop(kill=True)  # an unlogged table is empty afterwards
        own_pg_server.start()
        until("it is said again", lambda: watched(database) == {"car-1"})
        seen.clear()
        until("nobody is watched", lambda: watched(database) == set())
