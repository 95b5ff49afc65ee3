"""The API process: page, API, ingest and rollups in one, until SIGTERM."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import psycopg
from starlette.types import ASGIApp

from cloud import db, rollup
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
from cloud.db import queries_earlier, queries_packs
from cloud.db.connect import DatabaseAway
from cloud.ingest import Outcome
from cloud.live import Hub
from cloud.release import Renewal
from cloud.watching import Watching

log = logging.getLogger(__name__)

_RETENTION_EVERY_S: Final = 3600.0


class Housekeeping:
    """The thread behind the ingest: rollups every few seconds, retention every hour."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Starts the thread; it waits for the database as long as it must."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Lets the running pass end."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with db.connect(self._config.database, "packtwin-housekeeping") as conn:
                    self._serve(conn)
            except (DatabaseAway, psycopg.Error) as error:
                log.warning("rollups wait for the database: %s", " ".join(str(error).split()))
            except Exception:
                log.exception("the rollups failed; they start again")
            self._stop.wait(5.0)

    def _serve(self, conn: db.Connection) -> None:
        retention_due_s = 0.0
        while not self._stop.is_set():
            rollup.run_pass(conn, datetime.now(UTC))
            if time.monotonic() >= retention_due_s:
                rollup.drop_expired(conn, datetime.now(UTC), self._config.retention)
                retention_due_s = time.monotonic() + _RETENTION_EVERY_S
            self._stop.wait(rollup.PASS_INTERVAL_S)


def assemble(config: Config, page: Page | None = None) -> tuple[ASGIApp, Hub]:
    """The whole API as one ASGI app, and the hub whose streams must end before it can stop."""
    hub = Hub()
    reader = Reader(lambda: queries_packs.prepare_reader(db.connect(config.database, "packtwin-api")))

    def statuses() -> list[queries_packs.Row]:
        try:
            return reader.ask(queries_earlier.statuses)
        except ApiProblem:
            return []

    metrics = Metrics(statuses, lambda: hub.readers)

    def committed(outcomes: Sequence[Outcome]) -> None:
        metrics.count_predictions(outcomes)
        hub.publish(outcomes)

    bus = open_bus(config, committed)
    housekeeping = Housekeeping(config)
    renewal = Renewal(config)
    watching = Watching(config, hub.watched_devices)

    @asynccontextmanager
    async def beside() -> AsyncIterator[None]:
        await bus.start()
        housekeeping.start()
        renewal.start()
        watching.start()
        yield
        watching.stop(0.0)
        renewal.stop(0.0)
        housekeeping.stop(0.0)
        await bus.stop(2.5)

    return build_app(State(config, reader, bus, hub, metrics, Fleet(reader)), beside, page), hub


def run(config: Config) -> None:
    """Serves until SIGTERM or SIGINT. ConfigError when it cannot listen."""
    listener = bind(config.api_host, config.api_port)
    config, served = prepared(config)
    app, hub = assemble(config)
    host, port = listener.getsockname()[:2]
    scheme = "https" if served else "http"
    log.info("packtwin API and page on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
    Server(app, hub.close, served).run(sockets=[listener])
