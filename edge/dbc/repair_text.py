"""Numbers, names and texts of a DBC as they should be written. Pure."""

from __future__ import annotations

import re
from typing import Final

from edge.dbc.statements import KEYWORDS

NUMBER: Final = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
WHOLE: Final = r"(?:0[xX][0-9A-Fa-f]+|\d+(?:\.0*)?)"
HUGE: Final = re.compile(r"\d\.?[eE][-+]?\d{4}|\d{300}")
"""A number beyond what a float can hold."""
_QUOTED: Final = re.compile(r'"(?:\\"|[^"])*"')
_LEGAL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BARE_POINT: Final = re.compile(r"([-+]?)\.")


class Bad(Exception):
    """A statement that is left out; str = why."""


def check_size(text: str) -> None:
    """Bad for a statement with a number that nothing can hold."""
    if HUGE.search(_QUOTED.sub("", text)):
        raise Bad("a number in it is beyond all measure")


def whole(text: str) -> int:
    """A whole number, also in hexadecimal or with a point that says nothing."""
    return int(text, 16) if text[:2].lower() == "0x" else int(text.partition(".")[0])


def number_text(text: str) -> str:
    """A number as cantools reads it: with a digit before the point."""
    return _BARE_POINT.sub(r"\g<1>0.", text, count=1) if text.lstrip("+-").startswith(".") else text


def legal_name(text: str) -> str:
    """The name itself, or the nearest that is legal."""
    if _LEGAL.fullmatch(text) and text not in KEYWORDS:
        return text
    name = re.sub(r"[^A-Za-z0-9_]", "_", text)
    return name + "_" if name in KEYWORDS else name if _LEGAL.fullmatch(name) else "_" + name


def quoted(text: str) -> str:
    """A text in quotes."""
    inner = text.replace('\\"', '"').replace('"', '\\"')
    return f'"{inner} "' if inner.endswith("\\") else f'"{inner}"'
