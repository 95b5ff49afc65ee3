"""`cloud ingest` and `cloud deadletter` as processes against a real Kafka: kills, a whole topic again, dead letters."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_server import PROTOBUF, running_api
from bus_roads import insist, over_kafka, stored, until_healthy
from fake_batches import SECOND_NS, batch, block, layout
from ingest_process import IngestProcess, command
from waiting import until

from cloud import db
from cloud.bus_kafka import KafkaBus
from cloud.config import Config, Database, Kafka
from cloud.kafka import BATCHES, Sender
from cloud.rollup import run_pass
from shared.batch import Batch
from shared.records import Event, Report
from shared.wire import encode_batch

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
SMALL = layout(cells=4, temps=2)
TABLES = ("samples", "estimates", "events", "reports", "rejects", "gaps", "samples_1m", "latest_battery_status")


def a_batch(device: int, seq: int, n: int = 5) -> Batch:
    now_ns = time.time_ns()
    return batch(f"dev{device}", block(f"P{device}", n, seq=seq, t_ns=now_ns - n * SECOND_NS, of=SMALL))


def publish(config: Config, *batches: Batch) -> None:
    """Puts Batches on the bus."""

    async def work() -> None:
        bus = KafkaBus(config)
        await bus.start()
        await until_healthy(bus)
        await asyncio.gather(*(insist(bus, one) for one in batches))
        await bus.stop()

    asyncio.run(work())


def publish_raw(config: Config, *messages: tuple[bytes, bytes]) -> None:
    """Puts any bytes there, as software that is not ours may."""

    async def work() -> None:
        sender = Sender(config.kafka)
        sender.start()
        while sender.away is not None:
            await asyncio.sleep(0.01)
        for key, value in messages:
            await sender.send(BATCHES, key, value)
        await sender.stop(5)

    asyncio.run(asyncio.wait_for(work(), 30))


def contents(database: Database) -> dict[str, list[Any]]:
    """All that anybody can ask for, rollups made."""
    with db.connect(database) as conn:
        run_pass(conn, datetime.now(UTC))
        return {table: sorted(map(repr, conn.execute(f"SELECT * FROM {table}").fetchall())) for table in TABLES}


def written(ingest: IngestProcess) -> float:
    return ingest.metrics()["packtwin_ingest_rows_total"]


@pytest.fixture
def config(database: Database, kafka: Kafka) -> Config:
    return over_kafka(database, kafka)


def test_a_whole_topic_from_its_start_changes_nothing(config: Config, tmp_path: Path) -> None:
    event = Event(seq=0, mono_ns=1, t_ns=time.time_ns(), id="e", code="low_soc", severity="warning", pack_id="P1")
    late = block("P2", 3, t_ns=1_000_000_000 * SECOND_NS, of=SMALL)  # too old: refused
    more = [batch("dev1", events=(event,), boot=8), batch("dev2", late, boot=8)]
    sent = [a_batch(i % 20, 5 * (i // 20)) for i in range(400)]
    with IngestProcess(config, tmp_path) as ingest:
        publish(config, *sent, *more)
        publish_raw(config, (b"dev3", b"no batch"))
        until("all is written", lambda: written(ingest) == 2001)
        until("the letter is written", lambda: ingest.metrics()["packtwin_dead_letters_total"] == 1)
        until("all is read", lambda: ingest.metrics()["packtwin_ingest_lag_messages"] == 0)
    before = contents(config.database)
    assert (len(before["samples"]), len(before["rejects"])) == (2000, 2)
    with IngestProcess(config, tmp_path, ("--from-start",)) as again:
        until("all is read again", lambda: again.metrics()["packtwin_ingest_duplicates_total"] == 2004)
        until("nothing waits", lambda: again.metrics()["packtwin_ingest_lag_messages"] == 0)
        assert written(again) == 0
    after = contents(config.database)
    for table in TABLES:
        assert after[table] == before[table], table


def test_kills_of_the_ingest_lose_and_repeat_nothing(config: Config, tmp_path: Path) -> None:
    """Ten SIGKILLs at seeded moments while Batches come in."""
    chance = random.Random(5)
    done = threading.Event()

    async def devices() -> None:
        bus = KafkaBus(config)
        await bus.start()
        await until_healthy(bus)
        seq = 0
        while not done.is_set():
            await asyncio.gather(*(insist(bus, a_batch(i, seq)) for i in range(50)))
            seq += 5
            await asyncio.sleep(0.05)
        sent.append(50 * seq)
        await bus.stop()

    sent: list[int] = []
    sender = threading.Thread(target=lambda: asyncio.run(devices()))
    with IngestProcess(config, tmp_path) as ingest:
        sender.start()
        for _ in range(10):
            until("it writes", lambda: written(ingest) > 0)
            done.wait(chance.uniform(0.0, 1.0))  # nobody sets it: a pause
            ingest.kill()
            ingest.start()
        done.set()
        sender.join()
        until("all is written", lambda: stored(config.database)[0] >= sent[0])
    assert stored(config.database) == (sent[0], sent[0])


def test_dead_letters_are_listed_and_replayed(config: Config, tmp_path: Path) -> None:
    with db.connect(config.database) as conn:  # what a wrong release may bring
        conn.execute("ALTER TABLE report ADD CONSTRAINT wrong CHECK (model_id <> 'm')")
    report = Report(seq=3, mono_ns=1, model_id="m", counter=1, step="seen")
    with IngestProcess(config, tmp_path) as ingest:
        publish(config, a_batch(1, 10))
        publish(config, batch("dev1", reports=(report,)))
        publish_raw(config, (b"dev1", b"no batch"))
        until("both are dead letters", lambda: ingest.metrics()["packtwin_dead_letters_total"] == 2)
        until("the rest is written", lambda: written(ingest) == 5)
        rows = letters(config, tmp_path)
        assert [(row["device"], row["reason"], row["state"]) for row in rows] == [("dev1", "malformed", "waiting")] * 2
        assert (len(contents(config.database)["reports"]), rejected(config)) == (0, [3, None])

        with db.connect(config.database) as conn:  # the cause is mended
            conn.execute("ALTER TABLE report DROP CONSTRAINT wrong")
        (mended,) = (row["id"] for row in rows if "wrong" in row["detail"])
        done = command(config, tmp_path, "deadletter", "replay", mended)
        assert (done.returncode, done.stdout) == (0, "1 messages sent once more\n"), done.stderr
        until("the report is there", lambda: contents(config.database)["reports"])
        assert rejected(config) == [None]
        for words in ([mended], ["77"]):
            refused = command(config, tmp_path, "deadletter", "replay", *words)
            assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1

        assert command(config, tmp_path, "deadletter", "replay").returncode == 0
        until("the other is a dead letter again", lambda: ingest.metrics()["packtwin_dead_letters_total"] == 3)
        assert [row["state"] for row in letters(config, tmp_path)] == ["replayed", "replayed", "waiting"]


def letters(config: Config, folder: Path) -> list[dict[str, str]]:
    told = command(config, folder, "deadletter", "list")
    assert told.returncode == 0, told.stderr
    return list(csv.DictReader(io.StringIO(told.stdout)))


def rejected(config: Config) -> list[int | None]:
    with db.connect(config.database) as conn:
        return [seq for (seq,) in conn.execute("SELECT first_seq FROM rejects ORDER BY first_seq NULLS LAST")]


def test_commands_that_need_kafka_say_so(database: Database, tmp_path: Path) -> None:
    direct = Config(database=database)
    for words in (["ingest"], ["deadletter", "list"]):
        done = command(direct, tmp_path, *words)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_a_page_sees_what_arrives_on_the_bus(config: Config, tmp_path: Path) -> None:
    with IngestProcess(config, tmp_path) as ingest, running_api(config) as api:
        api.until_healthy()
        assert api.client.get("/health").json()["bus"] == "ok"
        assert api.send(a_batch(1, 0)).accepted == ((0, 4),)
        until("it is written", lambda: written(ingest) == 5)
        stolen = batch("dev2", block("P1", 1, seq=0, t_ns=time.time_ns(), of=SMALL))
        with api.client.stream("GET", "/api/v1/live?pack_id=P1") as stream:
            lines = stream.iter_lines()
            next(lines)
            found: list[str] = []

            def read() -> None:
                for line in lines:
                    if line.startswith("data:"):
                        found.append(line)
                        return

            reading = threading.Thread(target=read, daemon=True)
            reading.start()
            for seq in range(5, 500, 5):  # the API begins to read along when somebody watches
                with httpx.Client(base_url=str(api.client.base_url)) as other:
                    other.post("/device/v1/batches", content=encode_batch(stolen), headers=PROTOBUF)
                api.send(a_batch(1, seq))
                reading.join(0.2)
                if found:
                    break
            assert '"pack_id":"P1"' in found[0] and '"device":"dev1"' in found[0]
