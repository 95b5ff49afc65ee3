"""The ingest's transaction: rows and offsets together or not at all, whoever else tries; without a Kafka."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
from bus_records import Message, message
from fake_batches import SECOND_NS, batch, block, layout

from cloud import db
from cloud.config import Config, Database
from cloud.consume_write import DeadLetter, Superseded, Writer
from cloud.db.connect import DatabaseAway
from shared.batch import Batch
from shared.errors import PacktwinError
from shared.records import Report

SMALL = layout(cells=4, temps=2)
CLUSTER = "cluster-1"
BOUNDS = {0: (0, 1000), 1: (0, 1000)}


class Ingests:
    """Writers of one database, and the dead letters they made."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.letters: list[DeadLetter] = []
        self.refuse_letters = False
        self._writers: list[Writer] = []

    def writer(self, cluster: str = CLUSTER, bounds: dict[int, tuple[int, int]] | None = None) -> Writer:
        writer = Writer(Config(database=self.database), self._bury)
        self._writers.append(writer)
        writer.ping()
        assert writer.ready, writer.away
        writer.place(cluster, bounds or BOUNDS)
        return writer

    def _bury(self, letter: DeadLetter) -> None:
        if self.refuse_letters:
            raise PacktwinError("no dead letters now")
        self.letters.append(letter)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
def ingests(database: Database) -> Iterator[Ingests]:
    found = Ingests(database)
    yield found
    found.close()


def a_batch(device: int, seq: int, n: int = 5) -> Batch:
    now_ns = time.time_ns()
    return batch(f"dev{device}", block(f"P{device}", n, seq=seq, t_ns=now_ns - n * SECOND_NS, of=SMALL))


def poison(seq: int) -> Batch:
    """One that decodes, but that no database takes: JSON knows no NaN."""
    report = Report(seq=seq, mono_ns=1, model_id="m", counter=1, step="seen", numbers={"x": math.nan})
    return batch("dev1", reports=(report,))


def offsets(conn: db.Connection) -> dict[int, int]:
    return dict(conn.execute('SELECT "partition", next_offset FROM bus_offset ORDER BY 1').fetchall())


def stored(conn: db.Connection) -> tuple[int, int]:
    row = conn.execute("SELECT count(*), count(DISTINCT (device, boot, seq)) FROM samples").fetchone()
    assert row is not None
    return row[0], row[1]


def rejects(conn: db.Connection) -> list[tuple[object, ...]]:
    return conn.execute("SELECT device, first_seq, reason, origin FROM rejects ORDER BY origin").fetchall()


def test_rows_and_offsets_move_together(ingests: Ingests, conn: db.Connection) -> None:
    writer = ingests.writer()
    messages = [message(a_batch(1, 5 * i), i) for i in range(4)] + [message(a_batch(2, 0), 7, partition=1)]
    outcomes = writer.write(messages)
    assert [outcome.written for outcome in outcomes] == [5] * 5
    assert (stored(conn), offsets(conn)) == ((25, 25), {0: 4, 1: 8})
    assert writer.write(messages) == []  # it knows where it stands
    assert ingests.writer().next_offsets == {0: 4, 1: 8}
    assert (writer.counters.rows, writer.counters.batches, writer.counters.transactions) == (25, 5, 1)


def test_a_whole_topic_read_again_adds_nothing(ingests: Ingests, conn: db.Connection) -> None:
    messages = [message(a_batch(i % 3, 5 * (i // 3)), i) for i in range(30)] + [Message(1, 0, b"dev1", b"no batch")]
    ingests.writer().write(messages)
    again = ingests.writer()
    again.rewind(CLUSTER)
    again.place(CLUSTER, BOUNDS)
    again.write(messages)
    assert (again.counters.rows, again.counters.duplicates) == (0, 150)
    assert (stored(conn), offsets(conn), len(ingests.letters), len(rejects(conn))) == ((150, 150), {0: 30, 1: 1}, 1, 1)


def test_the_slower_of_two_that_read_the_same_partition_writes_nothing(ingests: Ingests, conn: db.Connection) -> None:
    slow, fast = ingests.writer(), ingests.writer()
    messages = [message(a_batch(1, 5 * i), i) for i in range(4)]
    fast.write(messages[:3])
    with pytest.raises(Superseded):
        slow.write(messages)
    assert (stored(conn), offsets(conn)[0]) == ((15, 15), 3)
    slow.place(CLUSTER, BOUNDS)
    slow.write(messages)
    assert (stored(conn), offsets(conn)[0]) == ((20, 20), 4)


def test_what_is_no_batch_becomes_a_dead_letter_and_stops_nobody(ingests: Ingests, conn: db.Connection) -> None:
    conn.execute("INSERT INTO device (device) VALUES ('dev1')")
    bad = [Message(0, 0, b"dev1", b"\xff" * 40), Message(0, 2, b"\x00?", b"x"), Message(0, 3, None, None)]
    writer = ingests.writer()
    writer.write([bad[0], message(a_batch(1, 0), 1), *bad[1:]])
    assert (stored(conn), offsets(conn)[0], writer.dead_letters) == ((5, 5), 4, 3)
    assert [letter.value for letter in ingests.letters] == [b"\xff" * 40, b"x", b""]
    found = rejects(conn)
    assert [row[0] for row in found] == ["dev1", None, None]
    assert [row[3] for row in found] == [f"{CLUSTER}/packtwin.batch.v1/0/{offset}" for offset in (0, 2, 3)]
    assert {row[2] for row in found} <= {"malformed", "unknown_schema"}


def test_only_bad_messages_move_the_offset_too(ingests: Ingests, conn: db.Connection) -> None:
    ingests.writer().write([Message(0, i, b"dev1", b"no batch") for i in range(3)])
    assert (offsets(conn)[0], len(ingests.letters)) == (3, 3)


def test_a_batch_that_no_database_takes_is_buried_and_its_neighbours_are_written(
    ingests: Ingests, conn: db.Connection
) -> None:
    junk = Message(0, 4, b"dev1", b"no batch")
    sent = [message(a_batch(1, 0), 0), message(a_batch(2, 0), 1), message(a_batch(1, 5), 3), junk]
    sent.insert(2, message(poison(100), 2))
    writer = ingests.writer()
    outcomes = writer.write(sent)
    assert (stored(conn), offsets(conn)[0]) == ((15, 15), 5)
    assert sum(outcome.written for outcome in outcomes) == 15
    assert sorted((letter.origin[-2:], letter.reason) for letter in ingests.letters) == [
        ("/2", "malformed"),
        ("/4", "malformed"),
    ]
    assert [(row[0], row[1]) for row in rejects(conn)] == [("dev1", 100), ("dev1", None)]


def test_without_its_dead_letter_a_bad_message_is_not_passed(ingests: Ingests, conn: db.Connection) -> None:
    writer = ingests.writer()
    ingests.refuse_letters = True
    sent = [message(a_batch(1, 0), 0), Message(0, 1, b"dev1", b"no batch")]
    with pytest.raises(PacktwinError, match="no dead letters"):
        writer.write(sent)
    assert (stored(conn), offsets(conn)[0]) == ((0, 0), 0)
    ingests.refuse_letters = False
    writer.place(CLUSTER, BOUNDS)
    writer.write(sent)
    assert (stored(conn), offsets(conn)[0]) == ((5, 5), 2)


def test_a_kafka_that_was_made_anew_counts_from_the_start(ingests: Ingests, conn: db.Connection) -> None:
    ingests.writer().write([message(a_batch(1, 5 * i), i) for i in range(4)])
    other = ingests.writer("cluster-2")
    other.write([message(a_batch(1, 20), 0)])
    assert stored(conn) == (25, 25)
    shrunk = ingests.writer(bounds={0: (0, 2), 1: (0, 0)})  # the same cluster, a topic made anew
    shrunk.write([message(a_batch(1, 25), 0)])
    assert stored(conn) == (30, 30)


def test_messages_that_kafka_gave_up_are_counted(ingests: Ingests) -> None:
    ingests.writer().write([message(a_batch(1, 0), 0)])
    late = ingests.writer(bounds={0: (6, 10), 1: (3, 3)})
    assert late.expired == 5  # of partition 1 nothing was read yet: it began without us
    late.write([message(a_batch(1, 5), 6)])
    assert late.next_offsets[0] == 7


def test_many_rows_are_several_transactions(
    ingests: Ingests, conn: db.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.consume_write.MAX_TRANSACTION_ROWS", 20)
    writer = ingests.writer()
    writer.write([message(a_batch(1, 5 * i), i) for i in range(10)])
    assert (stored(conn), writer.counters.transactions) == ((50, 50), 3)


def test_a_database_that_went_away_is_asked_again(ingests: Ingests, conn: db.Connection) -> None:
    writer = ingests.writer()
    conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'packtwin-ingest'")
    with pytest.raises(DatabaseAway):
        writer.write([message(a_batch(1, 0), 0)])
    assert not writer.ready and writer.away
    writer.ping()
    writer.place(CLUSTER, BOUNDS)
    writer.write([message(a_batch(1, 0), 0)])
    assert stored(conn) == (5, 5)
