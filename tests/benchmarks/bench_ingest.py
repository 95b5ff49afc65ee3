"""How near the ingest comes to the server's own limit: server-side COPY BINARY of the very same rows from a file.

`python tests/benchmarks/bench_ingest.py [ROUNDS]` prints rows per second and ratios, medians of interleaved rounds, for
commits of 10,000 rows in two shapes, and fails when 100 packs x 100 s falls below 0.9 (row writer) or 0.5 (everything).
"""

from __future__ import annotations

import gc
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fake_batches import NOW_NS, SECOND_NS, T0_NS, batch, block, layout
from pg_process import fresh_database, served

from cloud import db
from cloud.config import Config
from cloud.db import telemetry
from cloud.ingest import Ingest
from cloud.ingest_rows import HEADER, TRAILER, Origin, columns, encode, gather
from cloud.rollup import run_pass
from shared.batch import Batch
from shared.block import SampleBlock

COMMITS = 4
ROWS = 10_000
TABLES = "received, sample, latest, rollup_todo, samples_1m, samples_1h, samples_1d, reject"


@dataclass(frozen=True)
class Shape:
    """Rows of one commit: so many packs, each on a device of its own, so many seconds of each."""

    packs: int
    seconds: int

    def commits(self) -> list[list[Batch]]:
        """The Batches of each commit, one after the other in time."""
        of = layout(cells=96, temps=16)
        return [
            [
                batch(
                    f"dev{i}",
                    block(
                        f"P{i}", self.seconds, seq=k * self.seconds,
                        t_ns=T0_NS + k * self.seconds * SECOND_NS, of=of, seed=k * self.packs + i,
                    ),
                )
                for i in range(self.packs)
            ]
            for k in range(COMMITS)
        ]  # fmt: skip


class Bench:
    """One database, one shape, and the ways to write it, each from empty tables and with COMMITS commits."""

    def __init__(self, conn: db.Connection, shape: Shape, folder: Path) -> None:
        self.conn = conn
        self.commits = shape.commits()
        self.ingest = Ingest(conn, Config(), lambda: NOW_NS)
        for group in self.commits:  # registers devices, packs and the day
            self.ingest.write(group)
        self.files = [folder / f"{k}.copy" for k in range(COMMITS)]
        for path, group in zip(self.files, self.commits, strict=True):
            self._clear()
            path.write_bytes(b"".join([HEADER, *map(bytes, self._pieces(group)), TRAILER]))
            path.chmod(0o644)

    def _pieces(self, group: Sequence[Batch]) -> list[bytes | memoryview]:
        claimed = self._claimed(group)
        return [piece for rows in gather(claimed, {}) for piece in encode(rows)]

    def _claimed(self, group: Sequence[Batch]) -> list[tuple[Origin, SampleBlock]]:
        return self.ingest.claim(group, NOW_NS)

    def _clear(self) -> None:
        self.conn.execute(f"TRUNCATE {TABLES}")
        self.conn.execute("CHECKPOINT")

    def server(self, k: int) -> None:
        names = ", ".join(columns(True))
        self.conn.execute(f"COPY sample ({names}) FROM '{self.files[k]}' (FORMAT BINARY)")

    def writer(self, k: int) -> None:
        with self.conn.transaction():
            parts = self._claimed(self.commits[k])
            telemetry.copy_samples(self.conn, gather(parts, {}))

    def transaction(self, k: int) -> None:
        self.ingest.write(self.commits[k])

    def everything(self, k: int) -> None:
        self.ingest.write(self.commits[k])
        if k == COMMITS - 1:
            run_pass(self.conn, datetime.now(UTC))

    def rows_per_s(self, way: Callable[[int], None]) -> float:
        self._clear()
        began = time.perf_counter()
        for k in range(COMMITS):
            way(k)
        spent_s = time.perf_counter() - began
        stored = self.conn.execute("SELECT count(*) FROM sample").fetchone()
        assert stored == (COMMITS * ROWS,), stored
        return COMMITS * ROWS / spent_s


LIMIT = "server-side COPY BINARY"


def measure(bench: Bench, rounds: int) -> dict[str, tuple[float, float]]:
    """(rows per second, part of the limit in the same round) of each way, medians of interleaved rounds."""
    ways = {
        LIMIT: bench.server,
        "row writer": bench.writer,
        "whole transaction": bench.transaction,
        "with rollups made": bench.everything,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(bench.rows_per_s(way))
    median = statistics.median
    return {
        name: (median(rates), median(rate / limit for rate, limit in zip(rates, found[LIMIT], strict=True)))
        for name, rates in found.items()
    }


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    passed = True
    gc.disable()  # what is measured makes no cycles; the collector would walk the bench's own Batches again and again
    with served(port, tuning={}) as server:
        for shape in (Shape(100, 100), Shape(10_000, 1)):
            with db.connect(fresh_database(server.login)) as conn:
                folder = server.cluster.data.parent / f"{shape.packs}"
                folder.mkdir(mode=0o755)
                rates = measure(Bench(conn, shape, folder), rounds)
            print(f"{shape.packs} packs x {shape.seconds} s per commit of {ROWS} rows, 96 cells, {rounds} rounds")
            for name, (rate, part) in rates.items():
                print(f"  {name:26}{rate:10,.0f} rows/s {part:6.2f}")
            if shape.packs == 100:
                passed = rates["row writer"][1] >= 0.9 and rates["with rollups made"][1] >= 0.5
    print("goals held" if passed else "GOALS MISSED: row writer >= 0.9, with rollups >= 0.5 at 100 packs")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
