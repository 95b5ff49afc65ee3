"""A minute without the cloud: everything waits, comes in order, and what is live stays live meanwhile."""

from __future__ import annotations

import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.stack import Stack
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CARS = 2
OFFLINE_S = 61.0


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, cars=CARS, speed=10, agent={"sample_s": "0.1"}) as stack:
        stack.start("database", "api", "sim", "agent")
        yield stack


class Watcher:
    """Listens to the live stream of one pack: (t_ns of what came, its delay until it was here [s])."""

    def __init__(self, api: str, pack_id: str) -> None:
        self.seen: list[tuple[int, float]] = []
        self._stream = urllib.request.urlopen(f"{api}/api/v1/live?pack_id={pack_id}", timeout=30)
        self._thread = threading.Thread(target=self._listen, name="watcher", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        for line in self._stream:
            if line.startswith(b"data:"):
                record = json.loads(line[5:])
                if record.get("t_ns"):
                    self.seen.append((int(record["t_ns"]), time.time() - int(record["t_ns"]) / 1e9))

    def live_s(self) -> list[float]:
        """Delays of what was measured after the road was open again; what was measured before had to wait for that."""
        if not self.seen:
            return []
        first_ns, delay_s = self.seen[0]
        return [d_s for t_ns, d_s in self.seen[1:] if t_ns > first_ns + delay_s * 1e9]


def test_a_minute_offline_comes_back_in_order_while_live_stays_live(stack: Stack) -> None:
    until("rows arrive", lambda: stack.query("SELECT count(*) FROM samples")[0][0] > 50)
    stack.kill("api")
    gone_ns = time.time_ns()
    time.sleep(OFFLINE_S)  # the wall time offline is what is tested
    until("640 Samples per car wait", lambda: stack.books()["pending"] >= 640 * CARS, 60)
    waiting = stack.books()
    back_ns = time.time_ns()  # before the road can be open
    stack.start("api")
    watcher = Watcher(stack.api, "BATTERY_001")
    until("the backlog is gone", lambda: stack.books()["pending"] < 10 * CARS, 90)
    drained_s = (time.time_ns() - back_ns) / 1e9
    until("200 live samples were seen", lambda: len(watcher.live_s()) >= 200, 60)
    live = sorted(watcher.live_s())
    p95_s = live[int(0.95 * len(live))]
    print(f"backlog of {waiting['pending']} drained in {drained_s:.1f} s; "
          f"live delay median {statistics.median(live):.2f} s, p95 {p95_s:.2f} s")  # fmt: skip
    assert p95_s <= 2.0
    assert sum(delay_s > 2.0 for _, delay_s in watcher.seen) <= 120, "the backlog was shown as if it were news"
    for n in range(1, CARS + 1):
        rows = stack.query(
            """SELECT s.seq FROM sample s JOIN pack p USING (pack_key)
               WHERE p.pack_id = %s AND s.t_ns BETWEEN %s AND %s ORDER BY s.tableoid, s.ctid""",
            f"BATTERY_{n:03d}",
            gone_ns + 10**9,
            back_ns - 2 * 10**9,  # what is that young when the road opens goes first
        )
        seqs = [seq for (seq,) in rows]
        assert len(seqs) >= 590
        assert seqs == sorted(set(seqs)), "the backlog did not arrive in order, or twice"
    assert stack.query("SELECT * FROM gaps") == []
