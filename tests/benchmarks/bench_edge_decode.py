"""`edge decode` of a long candump log against python-can + cantools + csv, in the same run: times faster, and memory.

usage: bench_edge_decode.py [FRAMES]   (default 5,000,000: some minutes and 3 GB of disk)
Load: evpack.dbc of the recorded data (PACKTWIN_SHARED), else packtwin.dbc; random payloads, each multiplexer value.
Both write every value of every frame. What they write is compared, row by row, over the first part of the log.
"""

from __future__ import annotations

import csv
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from firmware_bridge import python_can

ROOT = Path(__file__).parents[2]
GOAL_TIMES = 5.0
GOAL_MIB = 300
FRAMES = 5_000_000
COMPARED_ROWS = 1_000_000
_PERIOD_US = 250
_DISTINCT = 100_000


def main() -> None:
    """Prints a line per way; ends with 1 when a goal is missed."""
    if sys.argv[1:2] == ["--textbook"]:
        textbook(*map(Path, sys.argv[2:]))
        return
    frames = int(sys.argv[1].replace("_", "").replace(",", "")) if len(sys.argv) > 1 else FRAMES
    shared = Path(os.environ.get("PACKTWIN_SHARED") or ROOT.parent / "shared")
    dbc = shared / "can" / "evpack.dbc"
    dbc = dbc if dbc.exists() else ROOT / "firmware_bridge" / "packtwin.dbc"
    with tempfile.TemporaryDirectory(prefix="packtwin-bench-") as name:
        folder = Path(name)
        log = folder / "drive.log"
        write_log(log, dbc, frames)
        print(f"{frames:,} frames of {dbc.name}, {log.stat().st_size >> 20} MiB")
        ours, theirs = folder / "ours.csv", folder / "theirs.csv"
        fast = run([sys.executable, "-m", "edge", "decode", "--dbc", str(dbc), str(log), "-o", str(ours)])
        slow = run([sys.executable, str(Path(__file__)), "--textbook", str(dbc), str(log), str(theirs)])
        rows = compare(ours, theirs)
    for what, (wall_s, cpu_s, mib) in (("edge decode", fast), ("python-can + cantools + csv", slow)):
        print(f"{what:28} {wall_s:7.1f} s  {cpu_s:7.1f} s CPU  {cpu_s / frames * 1e6:6.2f} us/frame  {mib:4.0f} MiB")
    times = slow[1] / fast[1]
    good = times >= GOAL_TIMES and fast[2] <= GOAL_MIB
    print(
        f"{times:.1f} times by CPU, {slow[0] / fast[0]:.1f} by the clock (goal {GOAL_TIMES:.0f}); {rows:,} rows equal"
    )
    raise SystemExit(0 if good else 1)


def write_log(path: Path, dbc: Path, frames: int) -> None:
    """A candump log of random payloads: 100,000 different ones over and over, times going on."""
    python_can.load()
    import cantools

    database = cantools.database.load_file(dbc, strict=False)
    chance = random.Random(1)
    tails = [_tail(message, chance) for message in _schedule(database.messages, chance)]
    start_us = 1_767_225_600_000_000
    with path.open("w", encoding="ascii") as file:
        for i in range(0, frames, _DISTINCT):
            part = tails[: min(_DISTINCT, frames - i)]
            at = start_us + i * _PERIOD_US
            times = range(at, at + len(part) * _PERIOD_US, _PERIOD_US)
            file.writelines(f"({t // 10**6}.{t % 10**6:06d}) {tail}" for t, tail in zip(times, part, strict=True))


def _schedule(messages, chance):  # type: ignore[no-untyped-def]
    yield from itertools.islice(itertools.cycle(messages), min(len(messages) * 200, _DISTINCT // 2))
    yield from chance.choices(messages, k=_DISTINCT - min(len(messages) * 200, _DISTINCT // 2))


def _tail(message, chance: random.Random) -> str:  # type: ignore[no-untyped-def]
    """`can0 ID#DATA` of a frame that cantools can decode."""
    while True:
        payload = chance.randbytes(message.length)
        switch = next((s for s in message.signals if s.is_multiplexer), None)
        if switch is not None:
            groups = sorted({g for s in message.signals for g in s.multiplexer_ids or ()})
            payload = _with(message, payload, switch, chance.choice(groups))
        try:
            message.decode(payload)
        except Exception:  # another multiplexor, within a group
            continue
        name = f"{message.frame_id:0{8 if message.is_extended_frame else 3}X}"
        return f"can0 {name}#{payload.hex().upper()}\n"


def _with(message, payload: bytes, signal, raw: int) -> bytes:  # type: ignore[no-untyped-def]
    """The payload with other bits where `signal` stands."""
    order = "big" if signal.byte_order == "big_endian" else "little"
    first = 8 * (signal.start // 8) + 7 - signal.start % 8 if order == "big" else signal.start
    shift = 8 * len(payload) - first - signal.length if order == "big" else first
    number = int.from_bytes(payload, order)  # type: ignore[arg-type]
    number = number & ~(((1 << signal.length) - 1) << shift) | raw << shift
    return number.to_bytes(len(payload), order)  # type: ignore[arg-type]


def textbook(dbc: Path, log: Path, out: Path) -> None:
    """What one writes in an afternoon with the usual libraries."""
    can = python_can.load()
    import cantools

    database = cantools.database.load_file(dbc, strict=False)
    units = {m.name: {s.name: s.unit or "" for s in m.signals} for m in database.messages}
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("t_s", "channel", "id", "message", "signal", "value", "unit", "quality"))
        for frame in can.CanutilsLogReader(log):
            try:
                message = database.get_message_by_frame_id(frame.arbitration_id)
            except KeyError:
                continue
            name, unit = message.name, units[message.name]
            ident = f"{frame.arbitration_id:0{8 if frame.is_extended_id else 3}X}"
            for signal, value in message.decode(frame.data, decode_choices=False).items():
                writer.writerow((frame.timestamp, frame.channel, ident, name, signal, value, unit[signal], ""))


def run(command: list[str]) -> tuple[float, float, float]:
    """(wall s, CPU s, greatest RSS MiB) of a process; ends when it fails."""
    begun_s = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"packtwin: failed: {' '.join(command)}")
    return time.perf_counter() - begun_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def compare(ours: Path, theirs: Path) -> int:
    """How many rows are equal, from the first on; ends at one that is not."""
    with ours.open(newline="") as one, theirs.open(newline="") as other:
        pairs = zip(csv.reader(one), csv.reader(other), strict=False)
        next(pairs)
        for n, (a, b) in enumerate(itertools.islice(pairs, COMPARED_ROWS), 1):
            if float(a[0]) != float(b[0]) or a[1:5] != b[1:5] or a[6] != b[6] or float(a[5]) != float(b[5]):
                raise SystemExit(f"packtwin: row {n} differs: {a} {b}")
    return n


if __name__ == "__main__":
    main()
