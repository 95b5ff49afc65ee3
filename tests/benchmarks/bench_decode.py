"""Decode + aggregate in numpy against cantools' decode_message alone, on evpack.dbc in the same run, by CPU time.

Row 6: batches of 2,000 frames >= 12x, of 400 >= 8x. Also with values beyond their limits in every batch, and decode
without aggregate. `python tests/benchmarks/bench_decode.py [SHARED]`
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cantools

from edge.dbc.aggregate import aggregate
from edge.dbc.flat import FlatDecoder
from edge.dbc.load import load
from firmware_bridge.frames import EXTENDED, FrameBatch

ROOT = Path(__file__).parents[2]
GOALS = {2000: 12.0, 400: 8.0}
FRAMES = 40_000
ROUNDS = 7
# Frames a second: 1,941 in all with 4.8 signals each, as a car of this size sends them.
RATES = {"CellVoltages": 320, "CellTemps": 40, "PackStatus": 100}
FAST, SLOW = 50, 25


def schedule(database: Any, seed: int, *, in_range: bool) -> list[tuple[int, int, bytes]]:
    """FRAMES frames in the order in which a car sends them: each message in its period, multiplexed ones in turn."""
    chance = random.Random(seed)
    due = []
    for n, message in enumerate(database.messages):
        rate = RATES.get(message.name) or (FAST if n % 2 else SLOW) * 4 / 3
        due += [(k / rate + chance.random() / rate / 10, n) for k in range(int(rate * FRAMES / 1941) + 2)]
    due.sort()
    turn = [0] * len(database.messages)
    frames = []
    for at_s, n in due[:FRAMES]:
        message = database.messages[n]
        can_id = message.frame_id | (EXTENDED if message.is_extended_frame else 0)
        frames.append((int(at_s * 1e9), can_id, payload(message, turn[n], chance, in_range)))
        turn[n] += 1
    return frames


def payload(message: Any, turn: int, chance: random.Random, in_range: bool) -> bytes:
    """Bytes of a message: random, but with the multiplexor in turn, and every signal within its limits if so wished."""
    values: dict[str, Any] = {}
    groups = sorted({i for s in message.signals for i in s.multiplexer_ids or ()})
    group = groups[turn % len(groups)] if groups else None
    for signal in message.signals:
        if signal.multiplexer_ids and group not in signal.multiplexer_ids:
            continue
        if signal.is_multiplexer:
            values[signal.name] = group
            continue
        low = -(1 << signal.length - 1) if signal.is_signed else 0
        raw = range(low, low + (1 << signal.length))
        if in_range and signal.minimum is not None:
            scale, offset = signal.conversion.scale, signal.conversion.offset
            ends = sorted(((signal.minimum - offset) / scale, (signal.maximum - offset) / scale))
            raw = range(max(raw.start, int(ends[0]) + 1), min(raw.stop, int(ends[1])))
        values[signal.name] = chance.choice(raw) if raw else low
    encoded: bytes = message.encode(values, scaling=False, strict=False)
    return encoded


def cpu_us(work: Callable[[], object], frames: int) -> float:
    """CPU time of one call in us per frame."""
    begun = time.process_time_ns()
    work()
    return (time.process_time_ns() - begun) / 1000 / frames


def measure(database: Any, decoder: FlatDecoder, rows: list[tuple[int, int, bytes]], size: int) -> dict[str, float]:
    """us of CPU per frame by what does the work, at batches of `size`: the least of ROUNDS that take turns."""
    whole = FrameBatch.of("can0", rows)
    ids = [(can_id & 0x1FFF_FFFF, data) for _, can_id, data in rows[:8000]]
    batches = [whole.take(slice(i, i + size)) for i in range(0, len(whole), size)]
    works: dict[str, tuple[Callable[[], object], int]] = {
        "cantools": (lambda: [database.decode_message(*one) for one in ids], len(ids)),
        "decode": (lambda: [decoder.decode(one) for one in batches], len(whole)),
        "decode + aggregate": (lambda: [aggregate(decoder, one) for one in batches], len(whole)),
    }
    told: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):  # in turns, so that what else the machine does hits all alike
        for name, (work, frames) in works.items():
            told[name].append(cpu_us(work, frames))
    return {name: min(values) for name, values in told.items()}


def main(arguments: list[str]) -> int:
    """Prints the ratios; 1 when one is below its goal."""
    shared = Path(arguments[0] if arguments else os.environ.get("PACKTWIN_SHARED") or ROOT.parent / "shared")
    path = shared / "can" / "evpack.dbc"
    database: Any = cantools.database.load_file(path, cache_dir=None)
    decoder = FlatDecoder(load(path).messages)
    failed = False
    for in_range in (True, False):
        rows = schedule(database, 1, in_range=in_range)
        signals = len(decoder.decode(FrameBatch.of("can0", rows))) / len(rows)
        print(
            f"{len(rows):,} frames, {signals:.3f} signals each, {'within' if in_range else 'also beyond'} their limits"
        )
        for size, goal in GOALS.items():
            us = measure(database, decoder, rows, size)
            ratio, alone = us["cantools"] / us["decode + aggregate"], us["cantools"] / us["decode"]
            verdict = f"{ratio:.1f}x"
            if in_range:
                failed |= ratio < goal
                verdict += f", goal {goal:.0f}x: {'ok' if ratio >= goal else 'TOO SLOW'}"
            print(
                f"  batches of {size:5}: cantools {us['cantools']:.3f}, decode {us['decode']:.3f} "
                f"({alone:.1f}x), decode + aggregate {us['decode + aggregate']:.3f} us = {verdict}"
            )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
