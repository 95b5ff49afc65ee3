"""Frames say what cantools says of them, bit for bit: recorded DBCs, and made-up ones with what those do not have."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cantools
import pytest
from fakes.dbc_frames import Verdict, can_id_of, compare, payloads, unvisited
from fakes.made_up_dbc import made_up

from edge.dbc.load import load
from edge.dbc.model import Database
from edge.dbc.plan import odd_signal

MILLION = 1_000_000
FILES = 45  # in the recorded data, that cantools takes as they are
BATCH = 4_000
SMALL_BYTES = 30_000


def judged(folder: Path, most_bytes: int = 1 << 30) -> Iterator[tuple[Path, Any]]:
    """The recorded DBCs that cantools loads, each with what cantools made of it."""
    for path in sorted((folder / "can").rglob("*.dbc")):
        if path.stat().st_size > most_bytes:
            continue
        try:
            yield path, cantools.database.load_file(path, strict=False, cache_dir=None)
        except cantools.database.UnsupportedDatabaseFormatError:
            continue


def visit(database: Database, judge: Any, seed: int, each: int, verdict: Verdict) -> None:
    """Compares `each` frames or more of every message."""
    chance = random.Random(seed)
    verdict.groups.clear()
    last = {message.can_id: message for message in database.messages}
    frames = [(can_id, payload[:64]) for can_id, message in last.items() for payload in payloads(message, chance, each)]
    chance.shuffle(frames)
    for at in range(0, len(frames), BATCH):
        compare(database.messages, judge, frames[at : at + BATCH], verdict)
    known = {can_id_of(m) for m in judge.messages}
    assert known == set(last)


def assert_all_visited(database: Database, verdict: Verdict) -> None:
    """Every number of every multiplexor was in a frame; left out are messages of which cantools refuses some."""
    for message in database.messages:
        if odd_signal(message) is None:
            assert not unvisited(message, verdict)


def test_every_message_and_group_of_the_smaller_recorded_dbcs(shared_dir: Path) -> None:
    verdict = Verdict()
    for n, (path, judge) in enumerate(judged(shared_dir, SMALL_BYTES)):
        database = load(path)
        visit(database, judge, n, 20, verdict)
        assert_all_visited(database, verdict)
    assert verdict.frames > 3000 and verdict.refused and verdict.visited > 100
    assert verdict.beyond_float and verdict.nans


@pytest.mark.slow
def test_a_million_frames(shared_dir: Path) -> None:
    verdict = Verdict()
    files = list(judged(shared_dir))
    assert len(files) == FILES
    for n, (path, judge) in enumerate(files):
        if judge.messages:
            database = load(path)
            visit(database, judge, 1000 + n, MILLION // FILES // len(database.messages) + 20, verdict)
            assert_all_visited(database, verdict)
    print(verdict.frames, verdict.refused, verdict.values, verdict.visited, verdict.beyond_float, verdict.nans)
    assert verdict.frames >= MILLION
    assert verdict.beyond_float and verdict.nans and verdict.refused


@pytest.mark.parametrize("seed", range(12))
def test_made_up_dbcs_of_every_kind(tmp_path: Path, seed: int) -> None:
    verdict = Verdict()
    for n in range(5):
        path = tmp_path / f"{n}.dbc"
        path.write_text(made_up(seed * 100 + n))
        visit(load(path), cantools.database.load_file(path, strict=False, cache_dir=None), seed, 40, verdict)
    assert verdict.frames >= 1000 and verdict.values > 1000


@pytest.mark.slow
def test_many_made_up_dbcs(tmp_path: Path) -> None:
    verdict = Verdict()
    path = tmp_path / "any.dbc"
    for n in range(600):
        path.write_text(made_up(10_000 + n))
        visit(load(path), cantools.database.load_file(path, strict=False, cache_dir=None), n, 60, verdict)
    assert verdict.beyond_float and verdict.nans and verdict.visited > 1000
