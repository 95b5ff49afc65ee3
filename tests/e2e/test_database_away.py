"""The database is away for a minute while a thousand messages a second come: they wait in Kafka, not in the ingest."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from e2e.publisher import Publisher
from e2e.stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

DEVICES, MESSAGES_PER_S = 1000, 1000.0  # one 96-cell Sample each
BEFORE_S, AWAY_S, AFTER_S = 10.0, 60.0, 30.0
TOLD_S = 5.0
RSS_MB = 300.0
DRAINED_PER_S = 5000.0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, brokers=1) as stack:
        stack.start("database", "mosquitto", "kafka", "ingest", "gateway", timeout_s=60)
        yield stack


def health(port: int) -> int:
    """The status code of /health."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def written(stack: Stack) -> int:
    """How many messages of the bus are in the database."""
    return int(stack.query("SELECT coalesce(sum(next_offset), 0) FROM bus_offset")[0][0])


def peak_mb(pid: int) -> float:
    """The most memory that a process ever held."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def test_a_minute_without_database_costs_no_row_and_no_memory(stack: Stack) -> None:
    messages = int((BEFORE_S + AWAY_S + AFTER_S) * MESSAGES_PER_S / DEVICES)
    ingest = stack.children["ingest"].pid
    with Publisher(stack.mqtt_port, "away", DEVICES, messages, MESSAGES_PER_S) as devices:
        begin_s = devices.begin()
        until("the load has run for a while", lambda: time.time() > begin_s + BEFORE_S, 60)
        stack.kill("database")
        killed_s = time.time()
        until("the ingest says so", lambda: health(stack.ingest_port) == 503, 10)
        told_s = time.time() - killed_s
        until("a minute is over", lambda: time.time() > killed_s + AWAY_S, AWAY_S + 5)
        rss_mb = psutil.Process(ingest).memory_info().rss / 1e6
        stack.start("database")
        before, began_s = written(stack), time.time()
        until("the ingest has caught up", lambda: written(stack) >= (time.time() - begin_s - 1) * MESSAGES_PER_S, 60)
        drained, took_s = written(stack) - before, time.time() - began_s
        until("all is written", lambda: written(stack) >= messages * DEVICES, AFTER_S + 60)
        late_s, receipt_s = devices.finish()
    print(
        f"/health told after {told_s:.1f} s; ingest {rss_mb:.0f} MB after {AWAY_S:.0f} s, at most "
        f"{peak_mb(ingest):.0f} MB; then {drained:,} rows in {took_s:.1f} s = {drained / took_s:,.0f} rows/s; "
        f"receipts p99 {np.percentile(receipt_s, 99) * 1e3:.0f} ms; sent at most {late_s * 1e3:.0f} ms late"
    )
    ((rows, distinct),) = stack.query("SELECT count(*), count(DISTINCT (device, seq)) FROM samples")
    assert rows == distinct == messages * DEVICES
    assert told_s <= TOLD_S
    assert peak_mb(ingest) <= RSS_MB
    assert drained / took_s >= DRAINED_PER_S
    until("all is well again", lambda: health(stack.ingest_port) == 200, 10)
