"""A DBC that cantools refuses -> one that it takes: each statement as it should be, or left out with a Note. Pure.

Only what the edge needs is kept: messages, signals, comments, value tables, floats, multiplexors, a few attributes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.dbc.model import Note
from edge.dbc.repair_text import NUMBER, WHOLE, Bad, check_size, legal_name, number_text, quoted, whole
from edge.dbc.statements import KEYWORDS, MESSAGE, SIGNAL, Statement, statements
from firmware_bridge.frames import EXTENDED, LARGEST_11_BIT, LARGEST_29_BIT

_MESSAGE: Final = re.compile(rf"BO_\s+({WHOLE})\s+(.+?)\s*:\s*({WHOLE})\s*(\S*).*", re.S)
_SIGNAL: Final = re.compile(
    rf"SG_\s+(?P<name>.+?)(?:\s+(?P<mux>M|m\d+M?))?\s*:\s*(?P<start>{WHOLE})\s*\|\s*(?P<bits>{WHOLE})\s*@\s*"
    rf"(?P<order>[01])\s*(?P<sign>[+-])\s*\(\s*(?P<scale>{NUMBER})\s*,\s*(?P<offset>{NUMBER})\s*\)(?P<rest>.*)",
    re.S,
)
_LIMITS: Final = re.compile(rf"\s*\[\s*({NUMBER})\s*\|\s*({NUMBER})\s*\]")
_UNIT: Final = re.compile(r'"(.*)"', re.S)
_UNASSIGNED: Final = "VECTOR__INDEPENDENT_SIG_MSG"
_NOBODY: Final = "Vector__XXX"
MOST_BYTES: Final = 4095  # of a message in pieces
_ORDER: Final = ("BA_DEF_", "BA_DEF_DEF_", "VAL_TABLE_")
"""What others refer to, wherever it stands."""
_MOST_NOTED: Final = 60  # letters of a statement


class Unassigned(Exception):
    """A statement about signals that belong to no message: nothing to be said of it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A statement as it should be: its line in the file, what it began with, its text. signals: those of a message."""

    line: int
    what: str
    text: str
    signals: tuple[Unit, ...] = ()


@dataclass(slots=True)
class SignalText:
    """What is known of a signal while reading: its name as written, its legal name, its bits, and its marks."""

    name: str
    bits: int
    mux: str


@dataclass(slots=True)
class MessageText:
    """A message while reading: its id as it should be, and its signals by the names as written."""

    new_id: int
    line: int
    what: str
    text: str
    size_bytes: int
    signals: dict[str, SignalText] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)


@dataclass(slots=True)
class Reading:
    """What has been read so far, by id and name as written. by_id: None = a place for signals of no message."""

    path: Path
    by_id: dict[int, MessageText | None] = field(default_factory=dict)
    messages: list[MessageText] = field(default_factory=list)
    others: list[Unit] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    tables: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, tuple[str, int]] = field(default_factory=dict)  # type, how many names an ENUM has
    known: int = 0

    def note(self, statement: Statement, reason: str) -> None:
        """Notes what is wrong with a statement."""
        self.notes.append(Note(self.path, statement.line, _begin(statement.text), reason))

    def write(self, statement: Statement, text: str) -> None:
        """Adds a statement that is no message."""
        self.others.append(Unit(statement.line, _begin(statement.text), text))

    def message(self, written: str) -> MessageText:
        """The message of an id in another statement; Bad when there is none."""
        number = whole(written)
        for can_id in (number, number ^ EXTENDED):
            if can_id in self.by_id:
                found = self.by_id[can_id]
                if found is None:
                    raise Unassigned
                return found
        raise Bad(f"no message has the id {number}")

    def signal(self, written_id: str, written: str) -> tuple[int, SignalText]:
        """(id, signal) of a message; Bad when there is none."""
        message = self.message(written_id)
        signal = message.signals.get(written)
        if signal is None:
            raise Bad(f"message {written_id} has no signal {written}")
        return message.new_id, signal


def repaired(path: Path, text: str, readers: Mapping[str, Callable[[Reading, Statement], None]]) -> Reading:
    """All that can be used of a DBC. readers: by keyword, what reads statements other than messages and signals."""
    reading = Reading(path)
    current: MessageText | None = None
    is_left_out = False  # signals of a message that is left out are not told of one by one
    later: list[Statement] = []  # what names messages that may stand below
    for statement in statements(text):
        try:
            check_size(statement.text)
            if statement.kind == MESSAGE:
                current, is_left_out = None, True
                current = _message(reading, statement)
            elif statement.kind == SIGNAL:
                if current is not None:
                    _signal(reading, current, statement)
                elif not is_left_out:
                    raise Bad("is in no message")
            else:
                current, is_left_out = None, False
                later.append(statement)
        except Bad as bad:
            reading.note(statement, f"left out: {bad}")
    for statement in sorted(later, key=lambda s: _ORDER.index(s.kind) if s.kind in _ORDER else len(_ORDER)):
        try:
            reader = readers.get(statement.kind)
            if reader is not None:
                with suppress(Unassigned):
                    reader(reading, statement)
            elif statement.kind not in KEYWORDS:
                raise Bad("is no statement of a DBC")
            reading.known += 1
        except Bad as bad:
            reading.note(statement, f"left out: {bad}")
    reading.notes.sort(key=lambda note: note.line)
    return reading


def units(reading: Reading) -> list[Unit]:
    """The messages of a reading with their signals, then all else."""
    messages = [Unit(m.line, m.what, m.text, tuple(m.units)) for m in reading.messages]
    return messages + reading.others


def written(todo: Sequence[Unit]) -> str:
    """Units as the text of a DBC."""
    lines = ['VERSION ""', "BS_:", "BU_:"]
    for unit in todo:
        lines += [unit.text, *(signal.text for signal in unit.signals)]
    return "\n".join(lines) + "\n"


def _message(reading: Reading, statement: Statement) -> MessageText | None:
    found = _MESSAGE.fullmatch(statement.text)
    if found is None:
        raise Bad("is not written as BO_ id name: length sender")
    old_id, length = whole(found[1]), whole(found[3])
    if found[2] == _UNASSIGNED:  # a place for signals that belong to no frame
        reading.by_id[old_id] = None
        return None
    if length > MOST_BYTES:
        raise Bad(f"{length} bytes are more than any message has")
    if old_id & ~EXTENDED > LARGEST_29_BIT:
        raise Bad(f"{old_id} has more than 29 bits")
    new_id = old_id
    if not old_id & EXTENDED and old_id > LARGEST_11_BIT:
        new_id = old_id | EXTENDED
        reading.note(statement, f"{old_id} has more than 11 bits and not the mark of 29: taken as a 29-bit id")
    name = legal_name(found[2])
    if name != found[2]:
        reading.note(statement, f'"{found[2]}" is no name: called {name}')
    sender = legal_name(found[4]) if found[4] else _NOBODY
    text = f"BO_ {new_id} {name}: {length} {sender}"
    message = MessageText(new_id, statement.line, _begin(statement.text), text, length)
    reading.by_id[old_id] = message
    reading.messages.append(message)
    return message


def _signal(reading: Reading, message: MessageText, statement: Statement) -> None:
    found = _SIGNAL.fullmatch(statement.text)
    if found is None:
        raise Bad("is not written as SG_ name : start|bits@order and sign (scale,offset) [min|max] unit receivers")
    start, bits = whole(found["start"]), whole(found["bits"])
    if not 0 < bits <= 8 * MOST_BYTES or start >= 8 * MOST_BYTES:
        raise Bad(f"{bits} bits from bit {start} on lie in no message")
    taken = {signal.name for signal in message.signals.values()}
    name = legal_name(found["name"])
    if name != found["name"]:
        while name in taken:
            name += "_"
        reading.note(statement, f'"{found["name"]}" is no name: called {name}')
    limits = _LIMITS.match(found["rest"])
    rest = found["rest"][limits.end() :] if limits else found["rest"]
    lo, hi = (number_text(limits[1]), number_text(limits[2])) if limits else ("0", "0")
    if limits is None:
        reading.note(statement, "has no limits that can be read: taken as [0|0]")
    for told in (found["scale"], found["offset"], *(limits.groups() if limits else ())):
        if number_text(told) != told:
            reading.note(statement, f"{told} read as {number_text(told)}")
    unit = _UNIT.search(rest)
    mux = f" {found['mux']}" if found["mux"] else ""
    message.signals[found["name"]] = SignalText(name, bits, mux.strip())
    text = (
        f" SG_ {name}{mux} : {start}|{bits}@{found['order']}{found['sign']} "
        f"({number_text(found['scale'])},{number_text(found['offset'])}) [{lo}|{hi}] "
        f"{quoted(unit[1] if unit else '')} {_NOBODY}"
    )
    message.units.append(Unit(statement.line, _begin(statement.text), text))


def _begin(text: str) -> str:
    first = " ".join(text.split())
    return first if len(first) <= _MOST_NOTED else first[:_MOST_NOTED] + " ..."
