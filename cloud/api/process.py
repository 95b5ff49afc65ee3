"""The API process: page, API, ingest and rollups in one, until SIGTERM."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from starlette.types import ASGIApp

from cloud import db
from cloud.api.answers import ApiProblem
from cloud.api.app import build_app
from cloud.api.entrance import prepared
from cloud.api.fleet import Fleet
from cloud.api.metrics import Metrics
from cloud.api.page import Page
from cloud.api.reader import Reader
from cloud.api.serve import Server, bind
from cloud.api.state import State
from cloud.buses import open_bus
from cloud.config import Config
from cloud.consume_metrics import IngestMetrics, database_up
from cloud.db import queries_bus, queries_earlier, queries_packs
from cloud.db.connect import DatabaseAway
from cloud.housekeeping import Housekeeping
from cloud.ingest import Outcome
from cloud.live import Hub
from cloud.release import Renewal
from cloud.watching import Watching

log = logging.getLogger(__name__)


def assemble(config: Config, page: Page | None = None) -> tuple[ASGIApp, Hub]:
    """The whole API as one ASGI app, and the hub whose streams must end before it can stop."""
    hub = Hub()
    reader = Reader(lambda: queries_packs.prepare_reader(db.connect(config.database, "packtwin-api")))

    def statuses() -> list[queries_packs.Row]:
        try:
            return reader.ask(queries_earlier.statuses)
        except ApiProblem:
            return []

    writes = config.bus == "direct"
    metrics = Metrics(statuses, lambda: hub.readers, writes=writes)

    def committed(outcomes: Sequence[Outcome]) -> None:
        metrics.count_predictions(outcomes)
        hub.publish(outcomes)

    bus = open_bus(config, committed)
    if writes:  # it counts Batches by their Receipts already
        metrics.registry.register(IngestMetrics(bus.counters, lambda: database_up(bus.healthy), leave_out=("batches",)))
    aside = _Writing(config) if writes else _Reading(config, hub, reader)
    renewal = Renewal(config)
    watching = Watching(config, hub.watched_devices)

    @asynccontextmanager
    async def beside() -> AsyncIterator[None]:
        await bus.start()
        aside.start()
        renewal.start()
        watching.start()
        yield
        watching.stop(0.0)
        renewal.stop(0.0)
        await aside.stop()
        await bus.stop(2.5)

    return build_app(State(config, reader, bus, hub, metrics, Fleet(reader)), beside, page), hub


class _Writing:
    """What goes with a bus that writes here."""

    def __init__(self, config: Config) -> None:
        self._housekeeping = Housekeeping(config)

    def start(self) -> None:
        self._housekeeping.start()

    async def stop(self) -> None:
        self._housekeeping.stop(0.0)


class _Reading:
    """What goes with a bus whose Batches `cloud ingest` writes."""

    def __init__(self, config: Config, hub: Hub, reader: Reader) -> None:
        from cloud.live_tail import Tail

        self._tail = Tail(config.kafka, hub, lambda: _owners(reader))

    def start(self) -> None:
        self._tail.start()

    async def stop(self) -> None:
        await self._tail.stop()


def _owners(reader: Reader) -> Mapping[str, str]:
    try:
        return reader.ask(queries_bus.owners)
    except ApiProblem as problem:
        raise DatabaseAway(str(problem)) from problem


def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT. ConfigError when it cannot listen."""
    listener = bind(config.api_host, config.api_port)
    config, served = prepared(config)
    app, hub = assemble(config)
    host, port = listener.getsockname()[:2]
    scheme = "https" if served else "http"
    log.info("packtwin API and page on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
    Server(app, hub.close, served).run(sockets=[listener])
