"""Which message a frame is of: by its id or by the J1939 parameter group in it, all frames at once. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.dbc.model import Message
from edge.dbc.plan import NONE, Index

_MOST_BITS: Final = 17  # of the table's size
_TRIES: Final = 200
_NOTHING: Final = np.intp(NONE)
_NO_ID: Final = 0xFFFF_FFFF
_BYTE: Final = np.uint32(8)
_GROUP: Final = np.uint32(0x3FFFF)
_GROUP_TO_ONE: Final = np.uint32(0x3FF00)
_FIRST_TO_ALL: Final = np.uint32(240)


class Lookup:
    """ids -> small numbers, all at once: a table without collisions where one is found quickly, else a search."""

    def __init__(self, known: Mapping[int, int]) -> None:
        ids = np.array(sorted(known) or [_NO_ID], np.uint32)
        found = np.array([known.get(one, NONE) for one in ids.tolist()], np.intp)
        self._shift, self._factor = np.uint32(0), np.uint32(0)
        chance = random.Random(0)
        size = max(len(ids) * 4, 16).bit_length()
        for bits in range(size, min(size + 6, _MOST_BITS)):
            for _ in range(_TRIES):
                factor, shift = np.uint32(chance.getrandbits(32) | 1), np.uint32(32 - bits)
                slot = ids * factor >> shift
                if len(np.unique(slot)) == len(ids):
                    self._factor, self._shift = factor, shift
                    self._ids = np.full(1 << bits, ~ids[0], np.uint32)
                    self._found = np.full(1 << bits, NONE, np.intp)
                    self._ids[slot], self._found[slot] = ids, found
                    return
        self._ids, self._found = ids, found

    def find(self, ids: npt.NDArray[np.uint32]) -> Index:
        """The number of each id, NONE where it is not known."""
        if self._factor:
            at = (ids * self._factor >> self._shift).astype(np.intp)
        else:
            at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids.take(at, mode="clip") == ids, self._found.take(at, mode="clip"), _NOTHING)


def first_by_pgn(messages: Sequence[Message], takes: Callable[[Message], bool]) -> dict[int, int]:
    """PGN -> the first message of 29 bits that has it."""
    found: dict[int, int] = {}
    for i, message in enumerate(messages):
        if message.pgn is not None and takes(message):
            found.setdefault(message.pgn, i)
    return found


def groups_of(can_id: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """`pgn_of` each 29-bit id."""
    group = can_id >> _BYTE & _GROUP
    return np.where(group >> _BYTE & np.uint32(0xFF) >= _FIRST_TO_ALL, group, group & _GROUP_TO_ONE)
