"""The page of the features says what the table says. Run as a program it writes that part of the page."""

from __future__ import annotations

import re
from pathlib import Path

from shared.feature_table import TABLE, schema_id

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "features.md"
MARKED = re.compile(r"(<!-- table: [^\n]* -->\n).*?(<!-- end -->)", re.DOTALL)
SCHEMA = re.compile(r"with another one: `[^`]*` here")


def as_it_should_be(page: str) -> str:
    """The page with the table as it is now."""
    rows = [f"| `{s.name}` | {s.unit} | {s.lo:g} .. {s.hi:g} | {s.gate.replace('|', chr(92) + '|')} |" for s in TABLE]
    lines = ["| feature | unit | range | how, and when there is none |", "|---|---|---|---|", *rows]
    table = "\n".join(lines)
    page = MARKED.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page)
    return SCHEMA.sub(f"with another one: `{schema_id()}` here", page)


def test_the_page_of_the_features_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(MARKED.findall(page)) == len(SCHEMA.findall(page)) == 1
    assert page == as_it_should_be(page), "write it anew: python tests/shared/test_features_page.py"


if __name__ == "__main__":
    PAGE.write_text(as_it_should_be(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
