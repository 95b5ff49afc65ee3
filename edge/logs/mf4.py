"""ASAM MDF 4 (MF4) with bus logging, through asammdf: the one file that imports it, and only when an MF4 is read."""

from __future__ import annotations

import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.logs.digits import seconds_column
from edge.logs.frames import Block, Notes
from firmware_bridge.frames import (
    CLASSIC_BYTES,
    EXTENDED,
    FD_LENGTHS,
    LARGEST_11_BIT,
    LARGEST_29_BIT,
    REMOTE,
    FrameBatch,
)
from shared.errors import ConfigError

NAME: Final = "MF4"
_MAGICS: Final = (b"MDF     4", b"UnFinMF 4")
_DATA, _REMOTE, _ERROR = "CAN_DataFrame", "CAN_RemoteFrame", "CAN_ErrorFrame"
_CHUNK_RECORDS: Final = 20_000
_SECOND_NS: Final = 1_000_000_000


def is_one(head: bytes) -> bool:
    """Whether a file that begins like this is one."""
    return head.startswith(_MAGICS)


def blocks(path: Path, notes: Notes) -> Iterator[Block]:
    """The frames of a file in the order of time: those of all its groups, read a piece at a time."""
    try:
        from asammdf import MDF
    except ImportError:
        raise ConfigError("MF4 needs asammdf: install packtwin[edge,logs]") from None
    logging.getLogger("asammdf").setLevel(logging.CRITICAL)  # what goes wrong is said once, here
    notes.unit = "record"
    problem, groups, mdf = "", [], None
    # What a damaged file makes asammdf raise is not foreseen by asammdf itself: any of it means that it is damaged.
    with _quiet():
        try:
            mdf = MDF(path)
            start = mdf.header.start_time
            start = start.replace(tzinfo=UTC) if start.tzinfo is None else start
            groups = _groups(mdf, round(start.timestamp() * 1e6) * 1000, notes)
        except Exception as error:
            problem = _first_line(error)
    if mdf is None or problem:
        raise ConfigError(f"it is a damaged MF4: {problem}")
    try:
        if not groups:
            raise ConfigError("it is an MF4 without a bus logging of CAN")
        yield from _merged(groups, notes)
    finally:
        mdf.close()


@dataclass(slots=True)
class _Group:
    """A channel group, read from its beginning to its end. The held frames are those not given out yet."""

    mdf: Any
    index: int
    name: str
    records: int
    start_ns: int
    notes: Notes
    at: int = 0
    held: Block | None = None

    @property
    def is_done(self) -> bool:
        return self.at >= self.records

    def fill(self) -> None:
        """Reads the next piece once nothing is held."""
        while self.held is None and not self.is_done:
            count = min(_CHUNK_RECORDS, self.records - self.at)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    got = self.mdf.get(self.name, self.index, record_offset=self.at, record_count=count)
                t_ns = self.start_ns + np.rint(got.timestamps * 1e9).astype(np.int64)
                block = _block(self.name, got.samples, t_ns, self.notes)
            except Exception as error:  # see above
                self.notes.spoiled(f"the file is damaged ({_first_line(error)})", self.at + 1, self.records - self.at)
                self.at = self.records
                return
            self.at += count
            self.held = block if len(block.frames) else None

    def take(self, until_ns: int) -> list[Block]:
        """The held frames up to a time."""
        if self.held is None:
            return []
        until = int(np.searchsorted(self.held.frames.t_ns, until_ns, side="right"))
        taken, self.held = _cut(self.held, slice(0, until)), _cut(self.held, slice(until, None))
        if not len(self.held.frames):
            self.held = None
        return [taken] if len(taken.frames) else []


def _groups(mdf: Any, start_ns: int, notes: Notes) -> list[_Group]:
    """The groups that hold frames; error frames are only counted."""
    found = []
    for index, group in enumerate(mdf.groups):
        names = {channel.name for channel in group.channels}
        records = int(group.channel_group.cycles_nr)
        if _ERROR in names:
            notes.error_frames += records
        name = _DATA if _DATA in names else _REMOTE if _REMOTE in names else None
        if name is not None:
            found.append(_Group(mdf, index, name, records, start_ns, notes))
    return found


def _merged(groups: list[_Group], notes: Notes) -> Iterator[Block]:
    """The frames of all groups by time: up to where each group is known, a piece at a time."""
    while True:
        for group in groups:
            group.fill()
        held = [group for group in groups if group.held is not None]
        if not held:
            return
        waiting = [int(g.held.frames.t_ns[-1]) for g in held if g.held is not None and not g.is_done]
        until_ns = min(waiting) if waiting else np.iinfo(np.int64).max
        parts = [block for group in held for block in group.take(until_ns)]
        block = parts[0] if len(parts) == 1 else _joined(parts)
        notes.frames += len(block.frames)
        yield block


def _joined(parts: list[Block]) -> Block:
    frames = FrameBatch.concat("", [part.frames for part in parts])
    order = np.argsort(frames.t_ns, kind="stable")
    channel = np.concatenate([part.channel for part in parts])
    text = np.concatenate([part.t_text for part in parts])
    return Block(frames.take(order), channel[order], text[order])


def _cut(block: Block, rows: slice) -> Block:
    return Block(block.frames.take(rows), block.channel[rows], block.t_text[rows])


def _block(name: str, samples: Any, t_ns: npt.NDArray[np.int64], notes: Notes) -> Block:
    """The frames of some records."""
    fields = {field.removeprefix(f"{name}."): samples[field] for field in samples.dtype.names}
    number = fields["ID"].astype(np.uint32)
    is_extended = fields["IDE"].astype(bool) if "IDE" in fields else number > LARGEST_29_BIT
    number = number & np.uint32(LARGEST_29_BIT)
    count = len(number)
    length = fields["DataLength" if "DataLength" in fields else "DLC"].astype(np.intp)
    data = np.zeros((count, CLASSIC_BYTES), np.uint8)
    if name == _DATA:
        stored = fields["DataBytes"].view(np.uint8).reshape(count, -1)
        length = np.minimum(length, min(stored.shape[1], FD_LENGTHS[-1]))
        width = CLASSIC_BYTES if length.max(initial=0) <= CLASSIC_BYTES else FD_LENGTHS[-1]
        data = np.zeros((count, width), np.uint8)
        data[:, : min(width, stored.shape[1])] = stored[:, :width]
        data[np.arange(width) >= length[:, None]] = 0
    else:
        length = np.minimum(fields["DLC"].astype(np.intp) if "DLC" in fields else length, CLASSIC_BYTES)
    can_id = number | np.where(is_extended, np.uint32(EXTENDED), np.uint32(0))
    can_id |= np.uint32(REMOTE if name == _REMOTE else 0)
    buses = fields["BusChannel"].astype(np.intp) if "BusChannel" in fields else np.zeros(count, np.intp)
    numbers, channel = np.unique(buses, return_inverse=True)
    index = np.array([notes.channel(str(bus)) for bus in numbers.tolist()], np.intp)
    block = Block(FrameBatch("", t_ns, can_id, length.astype(np.uint8), data), index[channel], seconds_column(t_ns))
    is_bad = ~is_extended & (number > LARGEST_11_BIT)
    if is_bad.any():
        notes.spoiled("an id with too many bits", int(np.flatnonzero(is_bad)[0]) + 1, int(is_bad.sum()))
        keep = np.flatnonzero(~is_bad)
        return Block(block.frames.take(keep), block.channel[keep], block.t_text[keep])
    return block


@contextmanager
def _quiet() -> Iterator[None]:
    """Without asammdf's warnings, and without what its half made objects say when they go."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        gc.collect()
        sys.unraisablehook = hook


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:120] or type(error).__name__
