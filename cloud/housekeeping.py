"""The thread behind the ingest: rollups every few seconds, retention every hour; any number of them may run at once."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

import psycopg

from cloud import db, rollup
from cloud.config import Config
from cloud.db.connect import DatabaseAway

log = logging.getLogger(__name__)


class Housekeeping:
    """One per process that writes."""

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
                retention_due_s = time.monotonic() + rollup.DROP_INTERVAL_S
            self._stop.wait(rollup.PASS_INTERVAL_S)
