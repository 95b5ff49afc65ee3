"""Files of records: JSON lines of Sessions and Events (`shared.record_lines`), plain or .gz: a pack's life or past."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.errors import ConfigError, WireError
from shared.record_lines import from_line
from shared.records import Event, Session

SUFFIXES = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, slots=True)
class Checked:
    """A file of which every line can be sent. boot follows from its content: sent twice, it is the same records."""

    records: int
    boot: int


def is_record_file(path: Path) -> bool:
    """By its name."""
    return path.name.endswith(SUFFIXES)


def records(path: Path) -> Iterator[Session | Event]:
    """The records of the file, in order. ConfigError: it cannot be read, or names the line that is none."""
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                yield from_line(line, f"{path} line {number}")
            except WireError as error:
                raise ConfigError(str(error)) from None


def checked(path: Path) -> Checked:
    """Reads all of it before anything is sent. ConfigError: as `records`, or it holds none, or one without a time."""
    count, digest = 0, hashlib.sha256(b"records\n")
    for record in records(path):
        count += 1
        if record.t_ns is None:
            raise ConfigError(f"{path} record {count} has no t_ns: what is sent from a file must say when it was")
    if not count:
        raise ConfigError(f"{path} holds no record: give a file with a JSON object a line")
    for line in _lines(path):
        digest.update(line)
    return Checked(count, int.from_bytes(digest.digest()[:8], "big") >> 1 | 1)


def file_sha256(path: Path) -> str:
    """Of the file as it lies there. ConfigError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _lines(path: Path) -> Iterable[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} is no whole gzip file: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
