"""Reads a DBC, also one that is not quite right. The one file of `edge` that imports cantools.

What cantools takes is left as it is. What it refuses is repaired or left out statement by statement, each with a Note.
"""

from __future__ import annotations

import codecs
import logging
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.dbc.model import Database, Message, Note, Signal
from edge.dbc.plan import odd_signal
from edge.dbc.repair import MOST_BYTES, Reading, Unit, repaired, units, written
from edge.dbc.repair_rest import READERS, most_groups
from edge.dbc.repair_text import HUGE
from firmware_bridge import python_can
from firmware_bridge.frames import EXTENDED
from shared.errors import ConfigError

python_can.load_cantools()  # first in the way that leaves out python-can, and with it asammdf and pandas

import cantools  # noqa: E402
import cantools.errors  # noqa: E402

Lines = dict[tuple[int, str], int]
_LONGEST_MS: Final = 1e9
_MOST_DIGITS: Final = 20
_J1939: Final = "J1939"
_IMPORT: Final = re.compile(r'CM_\s+"IMPORT\s+([^"]+)"')
_GROUPS: Final = re.compile(r"SG_MUL_VAL_\s([^;]*)")
_RANGE: Final = re.compile(r"(\d+)\s*-\s*(\d+)")
_SIZE: Final = re.compile(r"SG_[^:\n]*:\s*(\d+)\s*\|\s*(\d+)\s*@|BO_\s+\d+\s[^:\n]*:\s*(\d+)")
_MESSAGE_LINE: Final = re.compile(r"^\s*BO_\s+(\d+)\s+(\w+)", re.M)


def load(path: Path, *, strict: bool = False) -> Database:
    """The DBC at `path`. ConfigError in one sentence for a file that is none; strict: also for any Note there is."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give the path of a DBC file") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    text = _text(path, raw)
    logging.getLogger("cantools").setLevel(logging.ERROR)  # what it warns of are Notes here
    found, notes = _parse(path, text)
    lines = _lines(text)
    messages = []
    for message in found.messages:
        told, more = _message(path, message, found, lines)
        messages.append(told)
        notes += more
    notes += _same_ids(path, messages, lines)
    for imported in _IMPORT.finditer(text):
        line = text.count("\n", 0, imported.start()) + 1
        notes.append(Note(path, line, "IMPORT", f"{imported[1].strip()} is another file: it is not read"))
    database = Database(path, tuple(messages), tuple(sorted(notes, key=lambda note: note.line)))
    if strict and database.notes:
        raise ConfigError(str(database.notes[0]))
    return database


def _text(path: Path, raw: bytes) -> str:
    """The file as text: UTF-8, UTF-16 with its mark, or else what Windows calls cp1252."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    if b"\0" in raw:
        raise ConfigError(f"{path} is not a DBC: it is not text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _parse(path: Path, text: str) -> tuple[Any, list[Note]]:
    """cantools' database, and what had to be done for it."""
    if _is_moderate(text):
        with suppress(*_REFUSED):
            return _read(text), []
    reading = repaired(path, text, READERS)
    if not reading.messages:
        why = f" ({reading.notes[0].what}: {reading.notes[0].reason})" if reading.notes and reading.known else ""
        raise ConfigError(f"{path} is not a DBC: no line of it is a message such as BO_ 256 Name: 8 Sender{why}")
    kept = _accepted([], units(reading), reading)
    return _read(written(kept)), reading.notes


def _is_small(number: str) -> bool:
    """Whether a message may have so many bits."""
    return len(number) <= _MOST_DIGITS and int(number) <= 8 * MOST_BYTES


def _is_moderate(text: str) -> bool:
    """Whether cantools can be let at it: it writes out each bit, each number of a range, each digit of 1e999999."""
    if HUGE.search(text):
        return False
    sizes = _SIZE.findall(text)
    if not all(_is_small(number) for numbers in sizes for number in numbers if number):
        return False
    most = most_groups(max((int(size) for *_, size in sizes if size), default=0))
    for groups in _GROUPS.findall(text):
        ranges = _RANGE.findall(groups)
        if any(len(hi) > _MOST_DIGITS for _, hi in ranges) or sum(int(hi) - int(lo) for lo, hi in ranges) > most:
            return False
    return True


_REFUSED: Final = (cantools.errors.Error, ValueError, KeyError, IndexError, TypeError, AssertionError, ArithmeticError)
"""What cantools raises on a DBC that it does not like (bitstruct's errors are TypeErrors and ValueErrors)."""


def _read(text: str) -> Any:
    return cantools.database.load_string(text, "dbc", strict=False)


def _accepted(before: list[Unit], todo: list[Unit], reading: Reading) -> list[Unit]:
    """Those of `todo` that cantools takes after `before`, found by halves; the others get a Note."""
    if not todo:
        return []
    try:
        _read(written([*before, *todo]))
        return todo
    except _REFUSED as error:
        first_line = str(error).partition("\n")[0] or type(error).__name__
    if len(todo) > 1:
        middle = len(todo) // 2
        first = _accepted(before, todo[:middle], reading)
        return first + _accepted([*before, *first], todo[middle:], reading)
    unit = todo[0]
    if len(unit.signals) > 1:
        kept: list[Unit] = []
        for signal in unit.signals:
            one = replace(unit, signals=(*kept, signal))
            if _accepted([], [replace(one, signals=(signal,))], reading):
                kept.append(signal)
        return _accepted(before, [replace(unit, signals=())], reading) and [replace(unit, signals=tuple(kept))]
    bad = unit.signals[0] if unit.signals else unit
    reading.notes.append(Note(reading.path, bad.line, bad.what, f"left out: {first_line}"))
    return []


def _lines(text: str) -> Lines:
    """The line of each message by its id as written and its name, and by the id alone."""
    lines: Lines = {}
    for found in _MESSAGE_LINE.finditer(text):
        line = text.count("\n", 0, found.start(1)) + 1
        lines[int(found[1]), found[2]] = lines[int(found[1]), ""] = line
    return lines


def _message(path: Path, message: Any, database: Any, lines: Lines) -> tuple[Message, list[Note]]:
    """A message, and what is wrong with where its signals lie."""
    can_id = message.frame_id | (EXTENDED if message.is_extended_frame else 0)
    signals, twins = _told_once([_signal(message.name, signal) for signal in message.signals])
    told = Message(
        name=message.name,
        can_id=can_id,
        length=message.length,
        signals=signals,
        is_j1939=message.is_extended_frame and (message.protocol == "j1939" or _says_j1939(database)),
        comment=message.comment or "",
        cycle_s=_cycle_s(message.cycle_time),
    )
    line = _line(can_id, message.name, lines)
    notes = [Note(path, line, message.name, f"signal {name} stands there twice: taken once") for name in twins]
    overlap = odd_signal(told)
    if overlap is not None:
        notes.append(Note(path, line, message.name, f"signal {overlap} overlaps another or goes beyond the message"))
    return told, notes


def _cycle_s(cycle_ms: object) -> float | None:
    """None for 0, which means that there is none, and for what is no time."""
    is_time = isinstance(cycle_ms, int | float) and 0 < cycle_ms < _LONGEST_MS
    return float(cycle_ms) / 1000 if is_time else None  # type: ignore[arg-type]


def _line(can_id: int, name: str, lines: Lines) -> int:
    known = [(one, called) for called in (name, "") for one in (can_id, can_id & ~EXTENDED)]
    return next((lines[key] for key in known if key in lines), 1)


def _same_ids(path: Path, messages: Sequence[Message], lines: Lines) -> list[Note]:
    """A Note for each message whose id another has after it."""
    last = {message.can_id: message for message in messages}
    return [
        Note(
            path,
            _line(m.can_id, m.name, lines),
            m.name,
            f"has the id of {last[m.can_id].name}, which is the one that counts",
        )
        for m in messages
        if last[m.can_id] is not m
    ]


def _told_once(signals: list[Signal]) -> tuple[tuple[Signal, ...], list[str]]:
    """Of signals with one name that come in the same frames only the one whose value cantools gives; their names."""
    kept: list[Signal] = []
    twins = []
    for signal in signals:
        other = next((s for s in kept if s.name == signal.name and _together(s, signal)), None)
        if other is None:
            kept.append(signal)
            continue
        twins.append(signal.name)
        # cantools unpacks little endian after big, little endian from behind; the later one says how to scale.
        source = signal if signal.big_endian or (other.big_endian and not signal.big_endian) else other
        place = {name: getattr(source, name) for name in ("start", "bits", "big_endian", "signed", "is_float")}
        kept[kept.index(other)] = replace(signal, **place)
    return tuple(kept), twins


def _together(one: Signal, other: Signal) -> bool:
    """Whether both can be in one frame by the same switch."""
    if one.switch != other.switch:
        return False
    return one.groups is None or other.groups is None or not one.groups.isdisjoint(other.groups)


def _says_j1939(database: Any) -> bool:
    """Whether the file's own attributes say that ids are parameter groups, where those of the message do not."""
    dbc = database.dbc
    definitions = dbc.attribute_definitions if dbc is not None else {}
    for name in ("ProtocolType", "BusType"):
        definition = definitions.get(name)
        attribute = (dbc.attributes or {}).get(name) if dbc is not None else None
        told = (attribute.value if attribute is not None else "") or (definition.default_value if definition else "")
        if _J1939 in str(told or "").upper():
            return True
    return False


def _signal(message: str, signal: Any) -> Signal:
    lo = -math.inf if signal.minimum is None else float(signal.minimum)
    hi = math.inf if signal.maximum is None else float(signal.maximum)
    if not lo < hi:  # [0|0] is how a DBC says that it does not know
        lo, hi = -math.inf, math.inf
    conversion = signal.conversion
    return Signal(
        message=message,
        name=signal.name,
        start=signal.start,
        bits=signal.length,
        big_endian=signal.byte_order == "big_endian",
        signed=signal.is_signed,
        is_float=conversion.is_float,
        scale=conversion.scale,
        offset=conversion.offset,
        unit=signal.unit or "",
        comment=signal.comment or "",
        lo=lo,
        hi=hi,
        values={int(n): str(text) for n, text in conversion.choices.items()} if conversion.choices else None,
        is_switch=signal.is_multiplexer,
        switch=signal.multiplexer_signal,
        groups=None if signal.multiplexer_ids is None else frozenset(signal.multiplexer_ids),
    )
