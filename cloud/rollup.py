"""Rollups behind the ingest, and what is kept for how long. Each pass may run twice, and beside others."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from cloud.config import Retention
from cloud.db import Connection, partitions, rollups

PASS_INTERVAL_S: Final = 20.0
"""How often `run_pass` is to be called; a new minute then shows well within 90 s."""


def run_pass(conn: Connection, now: datetime) -> int:
    """Brings samples_1m, _1h, _1d up to date with all that is committed; how many minutes were made again.

    `conn` is autocommit. While another process is at it, returns 0 and leaves it to that one.
    """
    raise NotImplementedError


def drop_expired(conn: Connection, now: datetime, retention: Retention) -> int:
    """Drops what is older than the retention says; how many partitions went. To be called every hour or so."""
    raise NotImplementedError
