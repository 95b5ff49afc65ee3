"""The text of a DBC -> its statements with their lines, however it is laid out. Pure.

A statement begins with a keyword at the start of a line. Within one line another may follow, and a text in quotes
may go over many lines; where a quote is never closed, only the statement that opened it is lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MESSAGE: Final = "BO_"
SIGNAL: Final = "SG_"
KEYWORDS: Final = (
    "BA_DEF_DEF_REL_", "BA_DEF_DEF_", "BA_DEF_REL_", "BA_DEF_SGTYPE_", "BA_DEF_", "BA_REL_", "BA_SGTYPE_", "BA_",
    "BO_TX_BU_", "BO_", "BS_", "BU_BO_REL_", "BU_EV_REL_", "BU_SG_REL_", "BU_", "CAT_DEF_", "CAT_", "CM_",
    "ENVVAR_DATA_", "EV_DATA_", "EV_", "FILTER", "NS_DESC_", "NS_", "SG_MUL_VAL_", "SG_", "SGTYPE_VAL_", "SGTYPE_",
    "SIG_GROUP_", "SIG_TYPE_REF_", "SIG_VALTYPE_", "SIGTYPE_VALTYPE_", "VAL_TABLE_", "VAL_", "VERSION",
)  # fmt: skip
_OPEN: Final = frozenset({MESSAGE, SIGNAL, "BS_", "BU_", "NS_", "VERSION"})
"""These end where the next begins; all others end in a semicolon."""
_START: Final = re.compile(rf"\s*({'|'.join(KEYWORDS)})(?![A-Za-z0-9_])")
_BARE: Final = re.compile(r"\s*[A-Za-z_]*\s*")
_QUOTE: Final = re.compile(r'\\"|"')
_PIECE: Final = re.compile(rf'"(?:\\"|[^"])*"|//[^\n]*|;|(?<![A-Za-z0-9_])(?:{"|".join(KEYWORDS)})(?![A-Za-z0-9_])')
_MOST_LINES: Final = 500  # of one text in quotes


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement: the line it begins in (from 1), its keyword ("" = none: text that belongs to nothing), its text."""

    line: int
    kind: str
    text: str


def statements(text: str) -> Iterator[Statement]:
    """The statements of a DBC in their order."""
    for chunk in _closed(list(_chunks(text))):
        yield from _singled(chunk)


def _chunks(text: str) -> Iterator[Statement]:
    """Lines from one that begins with a keyword up to the next such line."""
    kind, begun, held = "", 0, list[str]()
    in_names = False  # the list of keywords that follows NS_
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if in_names and _BARE.fullmatch(line):
            continue
        start = _START.match(line)
        if start is None:
            if held or (line.strip() and not line.lstrip().startswith("//")):
                begun = begun if held else number
                held.append(line)
            continue
        if held:
            yield Statement(begun, kind, "\n".join(held))
        kind, begun, held = start[1], number, [line]
        in_names = kind == "NS_"
    if held:
        yield Statement(begun, kind, "\n".join(held))


def _closed(chunks: list[Statement]) -> Iterator[Statement]:
    """Puts a text in quotes together again that has a keyword at the start of one of its lines."""
    at = 0
    while at < len(chunks):
        chunk = chunks[at]
        at += 1
        if chunk.kind not in _OPEN and _is_open(chunk.text):
            whole, ahead = chunk.text, at
            while ahead < len(chunks) and chunks[ahead].line - chunk.line < _MOST_LINES and _is_open(whole):
                whole += "\n" + chunks[ahead].text
                ahead += 1
            if _quotes(whole) == 2 and whole.rstrip().endswith(";"):
                chunk, at = Statement(chunk.line, chunk.kind, whole), ahead
        yield chunk


def _is_open(text: str) -> bool:
    return _quotes(text) % 2 == 1


def _quotes(text: str) -> int:
    return sum(found == '"' for found in _QUOTE.findall(text))


def _singled(chunk: Statement) -> Iterator[Statement]:
    """The statements in one chunk; comments after // are left out."""
    text = _PIECE.sub(lambda found: "" if found[0].startswith("//") else found[0], chunk.text)
    begun, kind = 0, chunk.kind
    for found in _PIECE.finditer(text):
        piece, at = found[0], found.start()
        if piece == ";" and kind not in _OPEN:
            yield from _cut(chunk.line, kind, text, begun, found.end())
            begun = found.end()
            following = _START.match(text, begun)
            kind = following[1] if following else ""
        elif piece in KEYWORDS and kind in _OPEN and text[begun:at].strip():
            yield from _cut(chunk.line, kind, text, begun, at)
            begun, kind = at, piece
    yield from _cut(chunk.line, kind, text, begun, len(text))


def _cut(line: int, kind: str, text: str, begun: int, end: int) -> Iterator[Statement]:
    """text[begun:end] as a statement, unless it is blank; `line` is that of the text."""
    piece = text[begun:end]
    if piece.strip():
        begun += len(piece) - len(piece.lstrip())
        yield Statement(line + text.count("\n", 0, begun), kind, piece.strip())
