"""`cloud pack import`: what people know of their packs, from a CSV table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from shared.errors import ConfigError
from shared.fields import ID

CHEMISTRIES: Final = ("nmc", "lfp", "nca", "lmo", "lto")


@dataclass(frozen=True, slots=True)
class PackRow:
    """One line: the pack, its device ("" = the one that sends it), and the columns that the table has."""

    pack_id: str
    device: str
    values: Mapping[str, Any]  # column of table `pack` -> value; None = not known


def read_packs(text: str, name: str) -> list[PackRow]:
    """The packs of a CSV table with a header line; ConfigError naming the line and column that is wrong.

    Columns: pack_id, and any of device, vehicle, fleet, chemistry, series, parallel, nominal_ah, nominal_v,
    layout_file, commissioned (YYYY-MM-DD), tags (a;b;c), limits.NAME (numbers). An empty cell = not known.
    """
    table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = list(table.fieldnames or ())
        lines = [(table.line_num, line) for line in table]
    except csv.Error as error:
        raise ConfigError(f"{name} line {table.line_num} is not CSV: {error}") from error
    unknown = [column for column in header if column not in _READERS and not column.startswith("limits.")]
    if "pack_id" not in header or unknown or len(set(header)) < len(header):
        wrong = f"does not know the column {unknown[0]!r}" if unknown else "needs one column pack_id, and none twice"
        raise ConfigError(f"{name} line 1: the table {wrong}; columns are {', '.join(_READERS)}, limits.NAME")
    packs = [_pack(line, f"{name} line {number}") for number, line in lines]
    seen: set[str] = set()
    for (number, _), pack in zip(lines, packs, strict=True):
        if pack.pack_id in seen:
            raise ConfigError(f"{name} line {number}: pack {pack.pack_id} stands twice in the table")
        seen.add(pack.pack_id)
    return packs


def write_packs(rows: Iterable[Mapping[str, Any]]) -> str:
    """The CSV table of rows with these columns, as `read_packs` reads it."""
    table = [dict(row) for row in rows]
    limits = sorted({f"limits.{name}" for row in table for name in row["limits"]})
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_READERS, *limits], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in table:
        own = {f"limits.{name}": value for name, value in row["limits"].items()}
        writer.writerow(row | own | {"tags": ";".join(row["tags"])})
    return text.getvalue()


def _pack(line: dict[str | Any, str | Any], where: str) -> PackRow:
    if None in line or None in line.values():
        raise ConfigError(f"{where} has not as many cells as the header")
    values: dict[str, Any] = {}
    limits: dict[str, float] = {}
    for column, cell in line.items():
        text = cell.strip()
        try:
            if column.startswith("limits."):
                if text:
                    limits[column.removeprefix("limits.")] = _number(text)
            else:
                values[column] = _READERS[column](text) if text else None
        except ValueError as error:
            raise ConfigError(f"{where}: {column} {text[:80]!r} is not {error}") from error
    pack_id, device = values.pop("pack_id"), values.pop("device", None)
    if pack_id is None:
        raise ConfigError(f"{where}: pack_id is empty")
    if limits:
        values["limits"] = limits
    return PackRow(pack_id, device or "", values)


def _id(text: str) -> str:
    if not ID.fullmatch(text):
        raise ValueError("an id (letters, digits, . _ -, at most 64)")
    return text


def _chemistry(text: str) -> str:
    if text.lower() not in CHEMISTRIES:
        raise ValueError("one of " + ", ".join(CHEMISTRIES))
    return text.lower()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 4096:
        raise ValueError("a whole number from 1 to 4096")
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("a number") from None
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError("a number > 0")
    return value


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("a date YYYY-MM-DD") from None


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(";") if tag.strip()]


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "pack_id": _id,
    "device": _id,
    "vehicle": _id,
    "fleet": _id,
    "chemistry": _chemistry,
    "series": _count,
    "parallel": _count,
    "nominal_ah": _positive,
    "nominal_v": _positive,
    "layout_file": str,
    "commissioned": _day,
    "tags": _tags,
}
