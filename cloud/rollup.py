"""Rollups behind the ingest, and what is kept for how long. Each pass may run twice, and beside others."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cloud.config import Retention
from cloud.db import Connection, partitions, rollups, telemetry

PASS_INTERVAL_S: Final = 20.0
"""How often `run_pass` is to be called; a new minute then shows well within 90 s."""
DROP_INTERVAL_S: Final = 3600.0
"""How often `drop_expired` is to be called."""
_COMMITS_AT_ONCE: Final = 1000


def run_pass(conn: Connection, now: datetime) -> int:
    """Brings samples_1m, _1h, _1d up to date with all that is committed; how many minutes were made again.

    `conn` is autocommit. While another process is at it, returns 0 and leaves it to that one.
    """
    made = 0
    while minutes := rollups.work_off(conn, _COMMITS_AT_ONCE):
        made += minutes
    partitions.ensure_days(conn, [now.date(), (now + timedelta(days=1)).date()])
    return made


def drop_expired(conn: Connection, now: datetime, retention: Retention) -> int:
    """Drops what is older than the retention says; how many day partitions went."""
    # A day more: what is just about to be too old may still be on its way through the ingest.
    raw_until = now - timedelta(days=retention.raw_days + 1)
    dropped = partitions.drop_before(conn, raw_until.date())
    telemetry.forget_before(conn, raw_until)
    kept_days = (retention.minute_days, retention.hour_days, retention.day_days)
    for table, days in zip(rollups.LEVELS, kept_days, strict=True):
        if days:
            # Whole days, and two more than raw rows live: whatever can still be mended has all its finer buckets.
            before = (now - timedelta(days=days + 2)).replace(hour=0, minute=0, second=0, microsecond=0)
            rollups.forget_before(conn, table, before)
    return dropped
