"""Text logs line by line: what the readers of all text formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from edge.logs.frames import BadLine, Block, Notes, Row, blocks_of

Parse = Callable[[bytes], Row | None]
"""A line without its end -> its frame; None = it is none and need not be (a header, an event). BadLine otherwise."""


def line_blocks(lines: Iterable[bytes], parse: Parse, notes: Notes) -> Iterator[Block]:
    """The frames in the lines, in blocks; bad lines are counted in `notes`, blank ones passed over."""
    return blocks_of(_rows(lines, parse, notes))


def _rows(lines: Iterable[bytes], parse: Parse, notes: Notes) -> Iterator[Row]:
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line:
            continue
        try:
            row = parse(line)
        except BadLine as error:
            notes.spoiled(error.reason, number)
            continue
        except (ValueError, IndexError):
            notes.spoiled("not a frame", number)
            continue
        if row is not None:
            notes.frames += 1
            yield row
