"""Pieces of TOML as text."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Final

_WIDTH: Final = 116
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


def comment(sentence: str) -> list[str]:
    """The sentence as lines of comment."""
    return textwrap.wrap(
        " ".join(sentence.split()), _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False
    )


def key(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if _BARE.fullmatch(name) else quoted(name)


def quoted(value: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
