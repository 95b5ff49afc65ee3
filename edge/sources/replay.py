"""A CSV as a source: its rows are Samples. Logs of frames: replay_log.py."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from edge.assemble import Assembler
from edge.decode import RANGED, Fields
from edge.mapping import Mapping
from edge.mapping_csv import LATEST_NS, CsvShape
from edge.outbox.records import Measured
from edge.tables import nearest
from shared.errors import ConfigError, PacktwinError

_MISSING: Final = {"", "nan", "na", "null", "none"}


@dataclass(slots=True)
class Notes:
    """What a person should hear of a file when it has been read."""

    unmapped: tuple[str, ...] = ()
    other_channels: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    errors: dict[str, int] | None = None


def content_boot(path: Path, mapping: Mapping, pack_id: str, told: str = "") -> int:
    """A boot id that follows from what is replayed: the same file sent twice is the same records.

    told: whatever else decides what the Samples are (of a log: sample_s and channel).
    """
    digest = hashlib.sha256(f"{pack_id}\n{mapping.csv}\n{mapping.digest_text}\n{told}".encode())
    if mapping.dbc is not None:
        with suppress(OSError):  # who decodes with it says what is wrong
            digest.update(mapping.dbc.read_bytes())
    with _open(path) as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return int.from_bytes(digest.digest()[:8], "big") >> 1 | 1


def count_lines(path: Path) -> int:
    """How many lines the file has: what a progress bar counts to."""
    with _open(path) as file:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))


def csv_samples(path: Path, mapping: Mapping, pack_id: str, notes: Notes) -> Iterator[Measured]:
    """Each row of a CSV (also .gz) as a Sample; blank = None and `absent`."""
    shape = mapping.csv
    assert shape is not None
    assembler = Assembler(pack_id, mapping, shape.step_s)
    with _open(path) as raw:
        rows = csv.reader((line.decode("utf-8-sig") for line in raw), strict=True)
        try:
            header = [name.strip() for name in next(rows, [])]
            columns = _columns(path, header, mapping, shape)
            used = {target.signal for target in mapping.targets} | {shape.time}
            notes.unmapped = tuple(name for name in header if name not in used)
            first_ns: int | None = None
            for n, row in enumerate(row for row in rows if row):
                if len(row) != len(header):
                    raise PacktwinError(
                        f"{path} line {rows.line_num}: {len(row)} cells, the header has {len(header)}: mend the file"
                    )
                after_ns = _row_time(path, rows.line_num, row, columns.get(shape.time), shape, n)
                first_ns = after_ns if first_ns is None else first_ns
                mono_ns = max(after_ns - first_ns, 0)
                assembler.feed(_row_fields(row, columns, mapping, mono_ns))
                yield assembler.sample(mono_ns, shape.start_ns + after_ns)
            if first_ns is None:
                raise PacktwinError(f"{path} has no row below its header: give a file with data")
        except (csv.Error, UnicodeDecodeError) as error:
            raise PacktwinError(f"{path} line {rows.line_num}: not a CSV in UTF-8 ({error}): mend the file") from None


def _columns(path: Path, header: list[str], mapping: Mapping, shape: CsvShape) -> dict[str | None, int]:
    """Column name -> its position. ConfigError for a name that is mapped and not there, or there twice."""
    columns: dict[str | None, int] = {name: i for i, name in enumerate(header)}
    if len(columns) != len(header):
        twice = next(name for i, name in enumerate(header) if columns[name] != i)
        raise ConfigError(f'{path}: column "{twice}" stands twice in the header: rename one')
    for name in [shape.time, *(target.signal for target in mapping.targets)]:
        if name is not None and name not in columns:
            raise ConfigError(f'{mapping.path}: column "{name}" is not in {path}{nearest(name, header)}')
    return columns


def _row_time(path: Path, line: int, row: list[str], at: int | None, shape: CsvShape, n: int) -> int:
    """Nanoseconds from the CSV's start, whole us."""
    if at is None:
        return round(n * shape.step_s * 1e6) * 1000
    try:
        after_ns = round(float(row[at]) * 1e6) * 1000
        if abs(after_ns) >= LATEST_NS:
            raise ValueError
        return after_ns
    except (ValueError, OverflowError):
        raise PacktwinError(f'{path} line {line}: "{row[at]}" in {shape.time} is no time in s: mend the file') from None


def _row_fields(row: list[str], columns: dict[str | None, int], mapping: Mapping, mono_ns: int) -> Fields:
    fields = Fields()
    for target in mapping.targets:
        cell = row[columns[target.signal]].strip()
        if cell.lower() in _MISSING:
            fields.newest[target.name] = (None, mono_ns, "absent")
            continue
        try:
            value = float(cell)
        except ValueError:
            fields.newest[target.name] = (None, mono_ns, "invalid")
            continue
        fields.put(target, mono_ns, value)
        if target.name in RANGED:
            fields.put_span(target, [value])
    return fields


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked when it is a .gz; every way in which that fails is one sentence."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give the path of a CSV or a log") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise PacktwinError(f"{path} is not a whole gzip file ({error}): fetch it again") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
