"""How long a Sample takes from a device to a row: MQTT -> Mosquitto -> gateway -> Kafka -> ingest -> another's SELECT.

`python tests/benchmarks/bench_mqtt_latency.py [MESSAGES_PER_S] [SECONDS]`: 2,000 devices, one 96-cell Sample a message,
all on this machine, by default 2,000 msg/s for 300 s; goals p50 <= 250 ms, p99 <= 1 s. Devices send by a timetable and
wait for nothing, and a latency counts from when the message was due. Where the goals are missed, lower rates are tried
for a minute each until they hold; printed with it: the processor time of each process, which is what limits.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import psycopg

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT))

from e2e.publisher import Publisher  # noqa: E402
from e2e.stack import Stack  # noqa: E402

DEVICES = 2000
MESSAGES_PER_S = 2000.0
SECONDS = 300.0
STEP_SECONDS = 60.0
STEPS = (0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1)
WARM_UP_S = 10.0
POLL_S = 0.04
P50_S, P99_S = 0.25, 1.0
GIVEN_UP_S = 120.0


@dataclass(frozen=True)
class Run:
    """What one rate gave. latency_s: of every message of the measured time; cores: of each process, while measured."""

    per_s: float
    sent: int
    latency_s: npt.NDArray[np.float64]
    receipt_s: npt.NDArray[np.float64]
    late_s: float
    lost: int
    twice: int
    cores: dict[str, float]

    @property
    def holds(self) -> bool:
        return bool(self._percentile(50) <= P50_S and self._percentile(99) <= P99_S)

    def _percentile(self, percent: float) -> float:
        return float(np.percentile(self.latency_s, percent))

    def report(self) -> str:
        """A few lines."""
        p50_ms, p99_ms, most_ms = (self._percentile(percent) * 1e3 for percent in (50, 99, 100))
        receipts = "no receipts"
        if self.receipt_s.size:
            receipt_ms = np.percentile(self.receipt_s, (50, 99)) * 1e3
            receipts = f"{self.receipt_s.size:,} receipts p50 {receipt_ms[0]:.0f} ms, p99 {receipt_ms[1]:.0f} ms"
        used = ", ".join(f"{name} {cores:.2f}" for name, cores in sorted(self.cores.items(), key=lambda one: -one[1]))
        return (
            f"{self.per_s:,.0f} msg/s: visible p50 {p50_ms:.0f} ms, p99 {p99_ms:.0f} ms, longest {most_ms:.0f} ms\n"
            f"  {self.sent:,} messages, {self.lost} lost, {self.twice} twice; {receipts}; "
            f"sent at most {self.late_s * 1e3:.0f} ms late\n"
            f"  cores of {os.cpu_count()}: {used}; together {sum(self.cores.values()):.2f}"
        )


class Processors:
    """Processor time of the stack's processes with their children, of the devices' process, and of ours."""

    def __init__(self, stack: Stack, devices: int) -> None:
        """devices: the pid of their process."""
        self._parts = {name: psutil.Process(child.pid) for name, child in stack.children.items()}
        self._parts["devices"] = psutil.Process(devices)
        self._before, self._since_s = self._now(), time.monotonic()

    def _now(self) -> dict[str, float]:
        spent_s = {"watcher": _cpu_s(psutil.Process())}
        for name, part in self._parts.items():
            spent_s[name] = sum(_cpu_s(each) for each in (part, *part.children(recursive=True)))
        return spent_s

    def cores(self) -> dict[str, float]:
        """How many cores each used since."""
        spent_s = time.monotonic() - self._since_s
        return {name: (now - self._before[name]) / spent_s for name, now in self._now().items()}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Watcher:
    """Another connection, which looks every POLL_S which Sample of each pack is the newest that it can see.

    seen_s[device, k] = the wall time when message k of the device was visible, NaN = not yet.
    """

    def __init__(self, stack: Stack, name: str, devices: int, messages: int) -> None:
        login = stack.login
        told = {"host": login.host, "port": login.port, "user": login.user, "password": login.password}
        self._conn = psycopg.connect(**told, dbname=login.name, autocommit=True)
        self._name = name
        self._device_of = np.full(1, -1)  # by pack_key
        self._next = np.zeros(devices, np.int64)
        self._spot_s = 0.0
        self.seen_s = np.full((devices, messages), np.nan)

    def until(self, moment_s: float) -> None:
        """Looks again and again until this wall time, or until all is seen."""
        while time.time() < moment_s and np.isnan(self.seen_s[:, -1]).any():
            self._look()
            time.sleep(POLL_S)

    def _look(self) -> None:
        with self._conn.cursor(binary=True) as cursor:
            cursor.execute("SELECT pack_key::int8, seq FROM latest")
            found = np.array(cursor.fetchall(), np.int64).reshape(-1, 2)
        now_s = time.time()
        if not found.size:
            return
        if found[:, 0].max() >= self._device_of.size:
            self._learn(int(found[:, 0].max()) + 1)
        device = self._device_of[found[:, 0]]
        known = device >= 0
        device, end = device[known], found[known, 1] + 1
        news = end > self._next[device]
        for at, after in zip(device[news].tolist(), end[news].tolist(), strict=True):
            self.seen_s[at, self._next[at] : after] = now_s
            self._next[at] = after
        if news.any() and now_s > self._spot_s + 1.0:
            self._spot_s = now_s
            self._require(int(device[news][0]), int(end[news][0]) - 1)

    def _require(self, device: int, seq: int) -> None:
        """What `latest` shows, `samples` has."""
        pack_id = f"P-{self._name}-{device:04d}"
        sql = "SELECT count(*) FROM samples WHERE pack_id = %s AND seq = %s AND t > now() - interval '10 min'"
        assert self._conn.execute(sql, (pack_id, seq)).fetchone() == (1,), f"no sample {seq} of {pack_id}"

    def _learn(self, size: int) -> None:
        self._device_of = np.full(size, -1)
        sql = "SELECT pack_key, pack_id FROM pack WHERE pack_id LIKE %s AND pack_key < %s"
        for key, pack_id in self._conn.execute(sql, (f"P-{self._name}-%", size)):
            self._device_of[key] = int(pack_id.rpartition("-")[2])

    def counts(self) -> tuple[int, int]:
        """(rows, distinct records) of our devices in `samples`."""
        sql = "SELECT count(*), count(DISTINCT (device, seq)) FROM samples WHERE device LIKE %s"
        row = self._conn.execute(sql, (f"{self._name}-%",)).fetchone()
        assert row is not None
        return int(row[0]), int(row[1])

    def close(self) -> None:
        self._conn.close()


def measure(stack: Stack, name: str, per_s: float, seconds: float) -> Run:
    """One rate for so long, after a warm-up at the same rate."""
    messages = int((WARM_UP_S + seconds) * per_s / DEVICES)  # of each device
    sent = messages * DEVICES
    with Publisher(stack.mqtt_port, name, DEVICES, messages, per_s) as devices:
        watcher = Watcher(stack, name, DEVICES, messages)
        begin_s = devices.begin()
        watcher.until(begin_s + WARM_UP_S)
        processors = Processors(stack, devices.pid)
        watcher.until(begin_s + sent / per_s)
        cores = processors.cores()
        watcher.until(time.time() + GIVEN_UP_S)
        rows, distinct = watcher.counts()
        watcher.close()
        late_s, receipt_s = devices.finish()
    due_s = begin_s + (np.arange(messages)[None, :] * DEVICES + np.arange(DEVICES)[:, None]) / per_s
    latency_s = np.where(np.isnan(watcher.seen_s), GIVEN_UP_S, watcher.seen_s - due_s)
    measured = latency_s[due_s >= begin_s + WARM_UP_S]
    return Run(per_s, sent, measured, receipt_s, late_s, sent - distinct, rows - distinct, cores)


def main(arguments: list[str]) -> int:
    """Prints one run, or as many as it takes to find a rate that holds; 1 = a message was lost, or no rate holds."""
    per_s = float(arguments[0]) if arguments else MESSAGES_PER_S
    seconds = float(arguments[1]) if len(arguments) > 1 else SECONDS
    goals = f"p50 <= {P50_S * 1e3:.0f} ms, p99 <= {P99_S * 1e3:.0f} ms"
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), brokers=1) as stack:
        stack.start("database", "mosquitto", "kafka", "ingest", "gateway")
        for number, share in enumerate((1.0, *STEPS)):
            run = measure(stack, f"r{number}", per_s * share, seconds if share == 1.0 else STEP_SECONDS)
            print(run.report(), flush=True)
            if run.lost or run.twice:
                print("LOST OR TWICE")
                return 1
            if run.holds:
                print(f"row 6: {goals} at {run.per_s:,.0f} msg/s: " + ("ok" if share == 1.0 else "the ceiling here"))
                return 0
    print(f"row 6: {goals} hold at no rate")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
