"""`python -m cloud deadletter list|replay`: messages that could not be written, and how they get another chance.

A dead letter waits for as long as its reject stands in the database; `replay` takes that away and sends it once more.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cloud import db
from cloud.config import Config
from cloud.consume_write import DeadLetter
from cloud.db import queries_bus
from cloud.kafka import BATCHES, DEAD, Headers, KafkaAway, Record, Sender, TopicReader, prepare
from shared.errors import ConfigError

_COLUMNS: Final = ("id", "when", "state", "device", "reason", "bytes", "origin", "detail")
_CONNECT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as the topic has it; name: by which `replay` takes it."""

    name: str
    when: datetime
    letter: DeadLetter


def headers_of(letter: DeadLetter) -> Headers:
    """What is noted beside the message."""
    return [(name, getattr(letter, name).encode()) for name in ("reason", "detail", "origin")]


def letters(records: list[Record]) -> list[Letter]:
    """The letters, each origin once: what was buried again is the same letter."""
    found: dict[str, Letter] = {}
    for record in records:
        noted = {name: value.decode("utf-8", "replace") for name, value in record.headers}
        letter = DeadLetter(
            record.key or b"", record.value or b"", noted.get("reason", ""), noted.get("detail", ""),
            noted.get("origin", f"{DEAD}/{record.offset}"),
        )  # fmt: skip
        moment = datetime.fromtimestamp(record.timestamp / 1000, UTC)
        found.setdefault(letter.origin, Letter(str(record.offset), moment, letter))
    return list(found.values())


def run_deadletter(options: argparse.Namespace, config: Config) -> int:
    """Exit code of `deadletter list|replay`; ConfigError for an id that is none, PacktwinError when it failed."""
    if config.bus != "kafka":
        raise ConfigError("dead letters are kept by Kafka; set BUS=kafka")
    found = asyncio.run(_read(config))
    with db.connect(config.database, "packtwin-deadletter") as conn:
        waiting = queries_bus.buried(conn, [each.letter.origin for each in found])
        if options.deadletter_command == "list":
            _print(found, waiting)
            return 0
        chosen = _chosen(found, waiting, options.ids)
        asyncio.run(_replay(config, conn, chosen))
    print(f"{len(chosen)} messages sent once more")
    return 0


def _chosen(found: list[Letter], waiting: set[str], ids: list[str]) -> list[Letter]:
    names = {each.name: each for each in found}
    for wanted in ids:
        if wanted not in names:
            raise ConfigError(f"no dead letter has the id {wanted[:80]}; see: python -m cloud deadletter list")
        if names[wanted].letter.origin not in waiting:
            raise ConfigError(f"dead letter {wanted} was replayed before; see: python -m cloud deadletter list")
    return [each for each in found if each.letter.origin in waiting and (not ids or each.name in ids)]


async def _read(config: Config) -> list[Letter]:
    await prepare(config.kafka)
    reader = TopicReader(config.kafka, DEAD)
    try:
        await reader.start(at_end=False)
        return letters(await reader.read_all())
    finally:
        await reader.stop()


async def _replay(config: Config, conn: db.Connection, chosen: list[Letter]) -> None:
    """Frees each letter's records and sends it in one transaction: until its end the ingest waits for their lock."""
    sender = Sender(config.kafka)
    sender.start()
    try:
        async with asyncio.timeout(_CONNECT_S):
            while sender.away is not None:
                await asyncio.sleep(0.05)
        for each in chosen:
            with conn.transaction():
                queries_bus.unbury(conn, each.letter.origin)
                await sender.send(BATCHES, each.letter.key, each.letter.value)
    except TimeoutError as error:
        raise KafkaAway(f"no Kafka at {config.kafka.bootstrap}: {sender.away}") from error
    finally:
        await sender.stop(2.0)


def _print(found: list[Letter], waiting: set[str]) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(_COLUMNS)
    for each in found:
        letter = each.letter
        state = "waiting" if letter.origin in waiting else "replayed"
        key = letter.key.decode("utf-8", "replace")
        t = each.when.isoformat(timespec="seconds")
        table.writerow((each.name, t, state, key, letter.reason, len(letter.value), letter.origin, letter.detail))
