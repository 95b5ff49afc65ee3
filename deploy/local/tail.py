"""All logs in one stream, each line with the name of its service."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

POLL_S = 0.3
KEEP_BYTES = 256 * 1024
COLOURS = (36, 33, 35, 32, 34, 31)


def follow(folder: Path, lines: int, *, for_ever: bool) -> None:
    """Prints the last `lines` of every `*.log` of a folder, then, `for_ever`, what is added to them."""
    read_to: dict[Path, int] = {}
    rest: dict[Path, bytes] = {}
    for log in sorted(folder.glob("*.log")):
        size = log.stat().st_size
        with log.open("rb") as file:
            file.seek(max(0, size - KEEP_BYTES))
            last = file.read(size - file.tell()).splitlines()[-lines:] if lines else []
        _print(log, last, sorted(folder.glob("*.log")))
        read_to[log] = size
    while for_ever:
        time.sleep(POLL_S)
        logs = sorted(folder.glob("*.log"))
        for log in logs:
            start = read_to.get(log, 0)
            start = 0 if log.stat().st_size < start else start  # it was emptied
            with log.open("rb") as file:
                file.seek(start)
                new = rest.pop(log, b"") + file.read()
                read_to[log] = file.tell()
            *whole, rest[log] = new.split(b"\n")
            _print(log, whole, logs)


def _print(log: Path, lines: list[bytes], logs: list[Path]) -> None:
    name = f"{log.stem:<12}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        name = f"\x1b[{COLOURS[logs.index(log) % len(COLOURS)]}m{name}\x1b[0m"
    for line in lines:
        print(f"{name} {line.decode(errors='replace')}")
    sys.stdout.flush()
