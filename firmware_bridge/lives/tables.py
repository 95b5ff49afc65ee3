"""Lives as files: a table to train on, and Sessions as JSON lines; each file is whole or not there."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from firmware_bridge.lives.life import Life
from shared.errors import ConfigError, PacktwinError
from shared.features import NAMES
from shared.record_lines import to_line

TABLE: Final = "lives.csv"
HEAD: Final = ("pack_id", "cycle", *NAMES, "rul_cycles", "eol_100")
_ROW: Final = ",".join(["%.1f", *["%.7g"] * len(NAMES), "%.1f", "%.0f"]) + "\n"


def write_table(lives: Iterable[Life], folder: Path, told: Callable[[Life], None]) -> int:
    """Writes TABLE, a row a Session, empty = not known; calls `told` after each life. Returns how many rows."""
    rows = 0
    with _whole(folder / TABLE) as file:
        file.write((",".join(HEAD) + "\n").encode())
        for life in lives:
            columns = (life.cycles, *life.features.T, life.rul_cycles, life.eol_100)
            start = f"{life.pack_id},"
            text = "".join([start + _ROW % tuple(row) for row in np.column_stack(columns).tolist()])
            file.write(text.replace("nan", "").encode())
            rows += len(life)
            told(life)
    return rows


def write_sessions(life: Life, folder: Path, packed: bool) -> Path:
    """Writes the life's Sessions, and the Event of its end if that came, to PACK.jsonl or PACK.jsonl.gz."""
    text = "".join(f"{to_line(record)}\n" for record in life.records()).encode()
    path = folder / (f"{life.pack_id}.jsonl" + (".gz" if packed else ""))
    with _whole(path) as file:
        file.write(gzip.compress(text, compresslevel=6, mtime=0) if packed else text)
    return path


def made(folder: Path) -> Path:
    """Creates the folder if need be; ConfigError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder} ({error.strerror}): name another with -o") from error
    return folder


@contextmanager
def _whole(path: Path) -> Iterator[io.BufferedWriter]:
    """A file that takes its name when it is complete."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            yield file
        fresh.replace(path)
    except OSError as error:
        raise PacktwinError(f"cannot write {path} ({error.strerror}): free space or name another with -o") from error
    finally:
        fresh.unlink(missing_ok=True)
