"""From a real Kafka to committed rows (dedup, offsets in the transaction, rollups made) against psql's \\copy of them.

`python tests/benchmarks/bench_kafka.py [ROUNDS]` prints rows per second, ratios and the ingest's CPU per row, medians
of interleaved rounds, for two shapes, and fails when 100 packs x 60 s per Batch falls below 0.75 or costs over 5 us.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import drive
import kafka_server
import numpy as np
import pg_process
from fake_batches import SECOND_NS, batch
from kafka_server import KafkaServer
from pg_process import PgServer, fresh_database

from cloud import db
from cloud.config import Config, Database
from cloud.consume import Consume
from cloud.ingest_rows import columns
from cloud.kafka import BATCHES, Sender
from cloud.rollup import run_pass
from shared.block import SampleBlock, pack_row
from shared.wire import encode_batch

ROWS = 120_000
RATIO_GOAL, CPU_GOAL_US = 0.75, 5.0
TABLES = "received, sample, latest, rollup_todo, samples_1m, samples_1h, samples_1d, reject"


@dataclass(frozen=True)
class Shape:
    """So many packs, each on a device of its own; so many seconds of one pack per Batch."""

    packs: int
    seconds: int

    def messages(self) -> list[tuple[bytes, bytes]]:
        """All of them, in the order of time, up to now."""
        road, rounds = _drive(), ROWS // (self.packs * self.seconds)
        begin_ns = time.time_ns() // SECOND_NS * SECOND_NS - rounds * self.seconds * SECOND_NS
        found = []
        for k in range(rounds):
            t_ns = begin_ns + k * self.seconds * SECOND_NS
            for i in range(self.packs):
                part = _part(road, f"P{i}", self.seconds, k * self.seconds, t_ns, (37 * i + k * self.seconds))
                found.append((f"dev{i}".encode(), encode_batch(batch(f"dev{i}", part))))
        return found


def _drive() -> SampleBlock:
    """An hour of a real pack's drive, one Sample a second."""
    of, made, _ = drive.samples()
    rows = np.stack([pack_row(sample, of)[0] for sample in made], axis=1)
    zeros = np.zeros(len(made), np.int64)
    return SampleBlock("", of, zeros, zeros, zeros, rows, zeros, zeros)


def _part(road: SampleBlock, pack_id: str, n: int, seq: int, t_ns: int, at: int) -> SampleBlock:
    """`n` seconds of the drive from second `at` on, as if they were driven now."""
    seqs, at = seq + np.arange(n), at % (len(road) - n)
    zeros = np.zeros(n, np.int64)
    times = np.arange(n) * SECOND_NS
    return SampleBlock(
        pack_id, road.layout, seqs, (1 + seqs) * SECOND_NS, t_ns + times, road.rows[:, at : at + n], zeros, zeros
    )


@dataclass(frozen=True)
class Run:
    """What one way took: rows per second, CPU of the client per row [us]."""

    rows_per_s: float
    cpu_us: float


class Bench:
    """One database and a topic that holds all messages of one shape."""

    def __init__(self, server: PgServer, kafka: KafkaServer, shape: Shape, folder: Path) -> None:
        self.server, self.kafka = server, kafka
        self.database: Database = fresh_database(server.login)
        self.config = Config(database=self.database, bus="kafka", kafka=kafka.settings)
        kafka.clear()
        found = shape.messages()
        asyncio.run(self._publish(found))
        self.bytes_per_row = sum(len(value) for _, value in found) / ROWS
        self.csv = folder / "rows.csv"
        self.ingest()  # registers devices, packs and the day
        statement = f"COPY (SELECT {', '.join(columns(True))} FROM sample) TO STDOUT (FORMAT CSV)"
        with db.connect(self.database) as conn, self.csv.open("wb") as file, conn.cursor().copy(statement) as copy:
            for piece in copy:
                file.write(piece)

    async def _publish(self, messages: list[tuple[bytes, bytes]]) -> None:
        sender = Sender(self.kafka.settings)
        sender.start()
        while sender.away is not None:
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        for at in range(0, len(messages), 1000):
            for future in [await sender.post(BATCHES, *message) for message in messages[at : at + 1000]]:
                await future
        self.published_per_s = len(messages) / (time.perf_counter() - began)
        await sender.stop(5)

    def _clear(self) -> None:
        with db.connect(self.database) as conn:
            conn.execute(f"TRUNCATE {TABLES}")
            conn.execute("UPDATE bus_offset SET next_offset = 0")
            conn.execute("CHECKPOINT")

    def psql(self) -> Run:
        self._clear()
        at = self.database
        program = self.server.cluster.binaries / "psql"
        command = f"\\copy sample ({', '.join(columns(True))}) from '{self.csv}' csv"
        where = f"host={at.host} port={at.port} dbname={at.name} user={at.user} password={at.password}"
        began = time.perf_counter()
        subprocess.run([str(program), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", command, where], check=True)
        return Run(ROWS / (time.perf_counter() - began), 0.0)

    def ingest(self) -> Run:
        self._clear()
        return asyncio.run(self._ingest())

    async def _ingest(self) -> Run:
        consume, stop = Consume(self.config), asyncio.Event()
        write, began = consume.writer.write, [0.0, 0.0]

        def first(records: object) -> object:
            if not began[0]:
                began[:] = time.perf_counter(), time.process_time()
            return write(records)  # type: ignore[arg-type]

        consume.writer.write = first  # type: ignore[assignment,method-assign]
        life = asyncio.create_task(consume.run(stop))
        while consume.writer.counters.rows < ROWS:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(self._roll_up)
        spent_s, cpu_s = time.perf_counter() - began[0], time.process_time() - began[1]
        stop.set()
        await life
        assert consume.writer.counters.duplicates == 0
        return Run(ROWS / spent_s, cpu_s / ROWS * 1e6)

    def _roll_up(self) -> None:
        with db.connect(self.database) as conn:
            run_pass(conn, datetime.now(UTC))


def _rate(runs: Sequence[Run]) -> float:
    return statistics.median(run.rows_per_s for run in runs)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    problem = kafka_server.problem()
    if problem:
        print(f"left out: {problem}")
        return 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    passed = True
    gc.disable()  # as in bench_ingest
    with pg_process.served(port, tuning={}) as server, kafka_server.served() as kafka:
        for shape in (Shape(100, 60), Shape(10_000, 1)):
            bench = Bench(server, kafka, shape, kafka.cluster.folder)
            psql, ours = zip(*((bench.psql(), bench.ingest()) for _ in range(rounds)), strict=True)
            ratio = statistics.median(one.rows_per_s / other.rows_per_s for one, other in zip(ours, psql, strict=True))
            cpu_us = statistics.median(run.cpu_us for run in ours)
            print(
                f"{shape.packs} packs x {shape.seconds} s per Batch, {ROWS} rows of 96 cells, {rounds} rounds, "
                f"{bench.bytes_per_row:.0f} B/row on the bus, published at {bench.published_per_s:,.0f} Batches/s"
            )
            print(f"  {'psql copy of a csv':26}{_rate(psql):10,.0f} rows/s")
            print(f"  {'Kafka to committed rows':26}{_rate(ours):10,.0f} rows/s {ratio:6.2f}")
            print(f"  {'CPU of the ingest':26}{cpu_us:10.1f} us/row")
            if shape.packs == 100:
                passed = ratio >= RATIO_GOAL and cpu_us <= CPU_GOAL_US
    goals = f">= {RATIO_GOAL} of psql and <= {CPU_GOAL_US:g} us/row at 100 packs"
    print(f"goals held: {goals}" if passed else f"GOALS MISSED: {goals}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
