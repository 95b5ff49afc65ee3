"""What else a DBC says of messages and signals: comments, value tables, floats, groups, attributes. Pure."""

from __future__ import annotations

import re
from typing import Final

from edge.dbc.plan import FLOAT_BITS
from edge.dbc.repair import Reading
from edge.dbc.repair_text import NUMBER, WHOLE, Bad, number_text, quoted
from edge.dbc.statements import Statement
from firmware_bridge.frames import CLASSIC_BYTES

_END: Final = r"\s*;?"
_COMMENT: Final = re.compile(r'CM_\s+([^"]*?)\s*"(.*)"' + _END, re.S)
_TABLE: Final = re.compile(r"VAL_TABLE_\s+(\S+)\s*(.*?)" + _END, re.S)
_VALUES: Final = re.compile(rf"VAL_\s+({WHOLE})\s+(\S+)\s*(.*?)" + _END, re.S)
_OTHERS_VALUES: Final = re.compile(r"VAL_\s+[A-Za-z_]\S*\s.*", re.S)
_PAIR: Final = re.compile(rf'\s*(0[xX][0-9A-Fa-f]+|{NUMBER})\s*"((?:\\"|[^"])*)"')
_KIND: Final = re.compile(rf"SIG_VALTYPE_\s+({WHOLE})\s+(\S+?)\s*:?\s*(\d+)" + _END, re.S)
_GROUPS: Final = re.compile(rf"SG_MUL_VAL_\s+({WHOLE})\s+(\S+)\s+(\S+)\s+(.*?)" + _END, re.S)
_RANGE: Final = re.compile(r"(\d+)\s*-\s*(\d+)")
_DEFINITION: Final = re.compile(
    r'BA_DEF_\s+(?:(?:SG_|BO_|EV_|BU_)\s*)?"(.*?)"\s*(INT|HEX|FLOAT|STRING|ENUM)\s*(.*?)' + _END, re.S
)
_DEFAULT: Final = re.compile(r'BA_DEF_DEF_\s+"(.*?)"\s*(.*?)' + _END, re.S)
_ATTRIBUTE: Final = re.compile(r'BA_\s+"(.*?)"\s*(?:(SG_|BO_|EV_|BU_)\s*)?(.*?)\s*(' + NUMBER + r'|".*")' + _END, re.S)
_ATTRIBUTES: Final = frozenset(
    {"VFrameFormat", "GenMsgCycleTime", "SystemSignalLongSymbol", "SystemMessageLongSymbol", "ProtocolType", "BusType"}
)
"""Those that say something to the edge."""
MOST_GROUPS: Final = 1 << 16
"""So many numbers of a multiplexor may mean one signal of a message of 8 bytes; cantools looks at each bit for each."""


def comment(reading: Reading, statement: Statement) -> None:
    """CM_"""
    found = _COMMENT.fullmatch(statement.text)
    if found is None:
        raise Bad('is not written as CM_ [BU_ name | BO_ id | SG_ id name] "text";')
    about, text = found[1].split(), quoted(found[2])
    if not about:
        reading.write(statement, f"CM_ {text};")
    elif about[0] == "BO_" and len(about) == 2:
        reading.write(statement, f"CM_ BO_ {reading.message(_id(about[1])).new_id} {text};")
    elif about[0] == "SG_" and len(about) >= 3:
        new_id, signal = reading.signal(_id(about[1]), " ".join(about[2:]))
        reading.write(statement, f"CM_ SG_ {new_id} {signal.name} {text};")
    elif about[0] not in ("BU_", "EV_"):
        raise Bad('is not written as CM_ [BU_ name | BO_ id | SG_ id name] "text";')


def table(reading: Reading, statement: Statement) -> None:
    """VAL_TABLE_: used where a signal names it instead of values of its own."""
    found = _TABLE.fullmatch(statement.text)
    if found is None:
        raise Bad('is not written as VAL_TABLE_ name number "text" ...;')
    reading.tables[found[1]] = _pairs(found[2])


def values(reading: Reading, statement: Statement) -> None:
    """VAL_"""
    found = _VALUES.fullmatch(statement.text)
    if found is None:
        if _OTHERS_VALUES.fullmatch(statement.text):  # of an environment variable
            return
        raise Bad('is not written as VAL_ id signal number "text" ...;')
    new_id, signal = reading.signal(found[1], found[2])
    pairs = reading.tables.get(found[3]) or _pairs(found[3])
    if pairs:
        reading.write(statement, f"VAL_ {new_id} {signal.name} {pairs} ;")


def _pairs(text: str) -> str:
    pairs, at = [], 0
    while found := _PAIR.match(text, at):
        at = found.end()
        number = int(found[1], 16) if found[1][:2].lower() == "0x" else float(number_text(found[1]))
        if number != int(number):
            raise Bad(f"{found[1]} is no whole number")
        exact = int(found[1]) if re.fullmatch(r"[-+]?\d+", found[1]) else int(number)
        pairs.append(f"{exact} {quoted(found[2])}")
    if text[at:].strip():
        raise Bad(f"{text[at:].strip()[:20]!r} is no number with a text")
    return " ".join(pairs)


def most_groups(size_bytes: int) -> int:
    """How many numbers of a multiplexor may mean one signal in a message of that size."""
    return MOST_GROUPS * CLASSIC_BYTES // max(size_bytes, CLASSIC_BYTES)


def kind(reading: Reading, statement: Statement) -> None:
    """SIG_VALTYPE_: 1 and 2 are floats, 0 is none."""
    found = _KIND.fullmatch(statement.text)
    if found is None:
        raise Bad("is not written as SIG_VALTYPE_ id signal : number;")
    new_id, signal = reading.signal(found[1], found[2])
    if found[3] in ("1", "2"):
        if signal.bits not in FLOAT_BITS:
            raise Bad(f"{signal.bits} bits are no float")
        reading.write(statement, f"SIG_VALTYPE_ {new_id} {signal.name} : {found[3]};")
    elif found[3] != "0":
        raise Bad(f"there is no type {found[3]}")


def groups(reading: Reading, statement: Statement) -> None:
    """SG_MUL_VAL_"""
    found = _GROUPS.fullmatch(statement.text)
    ranges = [(int(lo), int(hi)) for lo, hi in _RANGE.findall(found[4])] if found else []
    if found is None or not ranges:
        raise Bad("is not written as SG_MUL_VAL_ id signal multiplexor from-to, ...;")
    new_id, signal = reading.signal(found[1], found[2])
    _, switch = reading.signal(found[1], found[3])
    most = (1 << min(switch.bits, 64)) - 1
    inside = [(lo, min(hi, most)) for lo, hi in ranges if lo <= most]
    most_here = most_groups(reading.message(found[1]).size_bytes)
    if sum(hi - lo + 1 for lo, hi in inside) > most_here:
        raise Bad(f"more than {most_here} numbers of one multiplexor")
    text = ", ".join(f"{lo}-{hi}" for lo, hi in inside or ranges[:1])
    reading.write(statement, f"SG_MUL_VAL_ {new_id} {signal.name} {switch.name} {text};")


def definition(reading: Reading, statement: Statement) -> None:
    """BA_DEF_"""
    found = _DEFINITION.fullmatch(statement.text)
    if found is None:
        raise Bad('is not written as BA_DEF_ [BO_ | SG_ | ...] "name" type ...;')
    names = re.findall(r'"(.*?)"', found[3])
    reading.attributes[found[1]] = (found[2], len(names))
    if found[1] in _ATTRIBUTES:
        wanted = " ".join(statement.text.split()).rstrip("; ")
        reading.write(statement, f"{wanted};")


def default(reading: Reading, statement: Statement) -> None:
    """BA_DEF_DEF_"""
    found = _DEFAULT.fullmatch(statement.text)
    if found is None:
        raise Bad('is not written as BA_DEF_DEF_ "name" value;')
    if found[1] not in reading.attributes:
        raise Bad(f"no attribute is called {found[1]}")
    if found[1] in _ATTRIBUTES:
        _check(reading.attributes[found[1]], found[2], is_default=True)
        reading.write(statement, f'BA_DEF_DEF_ "{found[1]}" {_value(found[2])};')


def attribute(reading: Reading, statement: Statement) -> None:
    """BA_"""
    found = _ATTRIBUTE.fullmatch(statement.text)
    if found is None:
        raise Bad('is not written as BA_ "name" [BO_ id | SG_ id name | ...] value;')
    name, about, rest, value = found.groups()
    if name not in reading.attributes:
        raise Bad(f"no attribute is called {name}")
    if name not in _ATTRIBUTES:
        return
    _check(reading.attributes[name], value, is_default=False)
    if about == "BO_":
        where = f" BO_ {reading.message(_id(rest)).new_id}"
    elif about == "SG_" and len(rest.split()) >= 2:
        written_id, signal_name = rest.split(maxsplit=1)
        new_id, signal = reading.signal(_id(written_id), signal_name)
        where = f" SG_ {new_id} {signal.name}"
    elif about is None and not rest:
        where = ""
    elif about in ("BU_", "EV_"):
        return
    else:
        raise Bad('is not written as BA_ "name" [BO_ id | SG_ id name | ...] value;')
    reading.write(statement, f'BA_ "{name}"{where} {_value(value)};')


def _id(text: str) -> str:
    if not re.fullmatch(WHOLE, text):
        raise Bad(f"{text} is no id")
    return text


def _value(text: str) -> str:
    return quoted(text[1:-1]) if text.startswith('"') else number_text(text)


def _check(known: tuple[str, int], text: str, *, is_default: bool) -> None:
    """Bad for a value that is not of the attribute's type."""
    type_name, count = known
    inner = text.strip('"')
    is_number = re.fullmatch(NUMBER, inner) is not None
    if type_name == "STRING" or (type_name == "ENUM" and is_default):
        return
    if not is_number or (type_name == "ENUM" and not 0 <= float(inner) < max(count, 1)):
        raise Bad(f"{text} is no value of it")


READERS: Final = {
    "CM_": comment,
    "VAL_TABLE_": table,
    "VAL_": values,
    "SIG_VALTYPE_": kind,
    "SG_MUL_VAL_": groups,
    "BA_DEF_": definition,
    "BA_DEF_DEF_": default,
    "BA_": attribute,
}
