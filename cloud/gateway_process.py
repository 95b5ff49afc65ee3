"""The gateway process: what devices publish goes to the bus, Receipts and wishes go back, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import signal
import time
from typing import Final

from cloud import mqtt
from cloud.buses import open_bus
from cloud.config import Config
from cloud.db.queries_wishes import Wish
from cloud.gateway import STATUS, UP, Gateway
from cloud.gateway_wishes import Watcher, Wishes
from cloud.health import HealthServer

log = logging.getLogger(__name__)

_STOP_S: Final = 5.0


def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT. ConfigError when it may not speak to the broker, or cannot listen."""
    mqtt.check(config.mqtt, config.access.plaintext_hosts)
    asyncio.run(_until_signal(config))


async def _until_signal(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, stop)


async def serve(config: Config, stop: asyncio.Event) -> None:
    """The gateway until `stop` is set."""
    loop = asyncio.get_running_loop()
    bus = open_bus(config)
    wishes = Wishes(config.uplink_mode, lambda topic, body: _retain(session, topic, body))
    gateway = Gateway(bus, wishes, time.time_ns)
    session = mqtt.Session(config.mqtt, (UP, STATUS), gateway.take, wishes.tell_all)

    def learned(fleet: Wish, own: dict[str, Wish]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(functools.partial(wishes.learn, fleet, own))

    watcher = Watcher(config, learned)
    gateway.numbers.connected.set_function(lambda: float(session.link is not None))
    health = HealthServer(
        config.metrics_host,
        config.gateway_metrics_port,
        gateway.numbers.registry,
        lambda: {"database": watcher.database_up, "bus": bus.healthy, "broker": session.link is not None},
        "GATEWAY_METRICS_PORT",
    )
    await bus.start()
    health.start()
    watcher.start()
    log.info("gateway of %s:%d; metrics on port %d", config.mqtt.host, config.mqtt.port, health.port)
    running = asyncio.create_task(session.run(), name="broker")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait((stopping, running), return_when=asyncio.FIRST_COMPLETED)
        if running.done():  # only a bug ends it
            running.result()
    finally:
        await gateway.drain(_STOP_S)
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        watcher.stop(0.0)
        await bus.stop(_STOP_S)
        health.stop()


def _retain(session: mqtt.Session, topic: str, body: bytes) -> bool:
    if session.link is None:
        return False
    session.link.publish(topic, body, retain=True)
    return True
