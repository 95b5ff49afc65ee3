"""Tells the database which devices someone looks at, so that whoever speaks with them can ask for live data."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from typing import Final

import psycopg

from cloud import db
from cloud.config import Config
from cloud.db.connect import DatabaseAway
from cloud.db.queries_wishes import WATCHED_S, note_watched

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.5
_REPEAT_LOOKS: Final = int(WATCHED_S / 3 / _LOOK_S)


class Watching:
    """The thread of the API that does so. `watched`: the devices that are looked at now, from any thread."""

    def __init__(self, config: Config, watched: Callable[[], Collection[str]]) -> None:
        self._config, self._watched = config, watched
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Starts the thread; it connects when there is something to tell."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Lets the running look end."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with ExitStack() as opened:
                    self._serve(opened)
            except (DatabaseAway, psycopg.Error) as error:
                log.info("who is watched cannot be told now: %s", " ".join(str(error).split()))
            except Exception:
                log.exception("watching failed; it starts again")
            self._stop.wait(2.0)

    def _serve(self, opened: ExitStack) -> None:
        conn: db.Connection | None = None
        before: frozenset[str] = frozenset()
        looks = 0
        while not self._stop.wait(_LOOK_S):
            devices = frozenset(self._watched())
            looks = 0 if devices != before else looks + 1
            if devices or before:
                conn = conn or opened.enter_context(db.connect(self._config.database, "packtwin-watching"))
                if devices != before:
                    note_watched(conn, before - devices, 0.0)
                if looks % _REPEAT_LOOKS == 0:
                    note_watched(conn, devices)
            before = devices
