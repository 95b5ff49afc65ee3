"""The ring of the flight recorder: stretches of raw input, packed, in memory; the oldest go when it is full.

A packed segment is one zstd frame: the length of a JSON head (4 bytes, little-endian), the head, then the columns of
all its frames one after the other (what they have in common stands side by side) and the bytes of serial lines.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard

from firmware_bridge.frames import FrameBatch

FOLDER: Final = "recorder"
_LEVEL: Final = 1
_SMALL_BYTES: Final = 64
"""What an entry of an open segment takes beside its columns, about."""

Step = FrameBatch | tuple[int, int | None] | tuple[int, bytes, bool]
"""What happened: frames that were taken in together; a Sample (mono_ns, t_ns); a serial chunk (mono_ns, data, sent)."""


class Open:
    """A segment that is being filled: number counts a pack's segments, state is what the assembler knew before it."""

    def __init__(self, pack_id: str, number: int, begin_ns: int, state: Mapping[str, Any]) -> None:
        self.pack_id, self.number, self.begin_ns, self.state = pack_id, number, begin_ns, state
        self.end_ns = begin_ns
        self.size_bytes = 0
        self._entries: list[tuple[Any, ...]] = []
        self._columns: list[tuple[bytes, bytes, bytes, bytes]] = []
        self._chunks: list[bytes] = []

    def frames(self, mono_ns: int, batch: FrameBatch) -> None:
        """Copies the columns: the source may use its buffers again."""
        columns = (batch.t_ns.tobytes(), batch.can_id.tobytes(), batch.length.tobytes(), batch.data.tobytes())
        self._columns.append(columns)
        self._add(mono_ns, ("f", len(batch), batch.data.shape[1]), sum(map(len, columns)))

    def chunk(self, mono_ns: int, data: bytes, sent: bool) -> None:
        """Bytes of a serial line."""
        self._chunks.append(bytes(data))
        self._add(mono_ns, ("c", mono_ns, len(data), sent), len(data))

    def sample(self, mono_ns: int, t_ns: int | None) -> None:
        """A Sample was taken."""
        self._add(mono_ns, ("s", mono_ns, t_ns), 0)

    def _add(self, mono_ns: int, entry: tuple[Any, ...], size_bytes: int) -> None:
        self._entries.append(entry)
        self.end_ns = mono_ns
        self.size_bytes += size_bytes + _SMALL_BYTES

    def packed(self) -> bytes:
        """The segment as one zstd frame."""
        head = json.dumps({"state": self.state, "entries": self._entries}).encode()
        t_ns, can_id, length, data = (
            (b"".join(parts) for parts in zip(*self._columns, strict=True)) if self._columns else (b"",) * 4
        )
        steps = np.diff(np.frombuffer(t_ns, np.int64), prepend=0).tobytes()
        body = [len(head).to_bytes(4, "little"), head, steps, can_id, length, data, *self._chunks]
        return zstandard.ZstdCompressor(level=_LEVEL).compress(b"".join(body))


def unpacked(data: bytes, channel: str) -> tuple[dict[str, Any], list[Step]]:
    """(the assembler's state before it, what happened in order) of a packed segment."""
    body = zstandard.ZstdDecompressor().decompress(data)
    at = 4 + int.from_bytes(body[:4], "little")
    head = json.loads(body[4:at])
    reads = [entry for entry in head["entries"] if entry[0] == "f"]
    total = sum(entry[1] for entry in reads)
    t_ns = np.cumsum(np.frombuffer(body, np.int64, total, at))
    can_id = np.frombuffer(body, np.uint32, total, at + 8 * total)
    length = np.frombuffer(body, np.uint8, total, at + 12 * total)
    at += 13 * total
    frame, steps = 0, list[Step]()
    chunk = at + sum(count * width for _, count, width in reads)
    for kind, *entry in head["entries"]:
        if kind == "f":
            count, width = entry
            rows = slice(frame, frame + count)
            values = np.frombuffer(body, np.uint8, count * width, at).reshape(count, width)
            steps.append(FrameBatch(channel, t_ns[rows], can_id[rows], length[rows], values))
            frame, at = frame + count, at + count * width
        elif kind == "s":
            steps.append((entry[0], entry[1]))
        else:
            steps.append((entry[0], body[chunk : chunk + entry[1]], entry[2]))
            chunk += entry[1]
    return head["state"], steps


@dataclass(frozen=True, slots=True)
class Segment:
    """A packed segment. where: its file on tmpfs, or the bytes themselves."""

    pack_id: str
    number: int
    begin_ns: int
    end_ns: int
    size_bytes: int
    where: Path | bytes

    def read(self) -> bytes:
        """The packed bytes. OSError if the file is gone."""
        return self.where if isinstance(self.where, bytes) else self.where.read_bytes()


class Ring:
    """The packed segments of all packs, oldest first, at most `max_bytes`. One thread."""

    def __init__(self, max_bytes: int, hot_dir: Path | None) -> None:
        """hot_dir: on tmpfs, None = keep the bytes in this process. What an earlier start left there is deleted."""
        self._max_bytes = max_bytes
        self._folder = hot_dir / FOLDER if hot_dir else None
        self._segments: deque[Segment] = deque()
        self.size_bytes = 0
        self.oldest_ns: int | None = None
        """When the oldest segment begins. As `size_bytes`, any thread may read it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, closed: Open, beside_bytes: int) -> None:
        """Packs and takes a closed segment; the oldest go until all fit. beside_bytes: what is not packed yet.

        OSError: the folder cannot hold it.
        """
        data = closed.packed()
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.make_room(len(data) + beside_bytes)
        if len(data) + beside_bytes > self._room():
            raise OSError(0, f"a segment of {len(data)} bytes is more than there is room for")
        where = self._written(closed, data)
        self._segments.append(Segment(closed.pack_id, closed.number, closed.begin_ns, closed.end_ns, len(data), where))
        self.size_bytes += len(data)
        self.oldest_ns = self._segments[0].begin_ns

    def _written(self, closed: Open, data: bytes) -> Path | bytes:
        if self._folder is None:
            return data
        path = self._folder / f"{closed.pack_id}-{closed.number}.zst"
        try:
            path.write_bytes(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path

    def _room(self) -> int:
        """What the ring may take now: on tmpfs at most half of what there is, the outbox needs it more."""
        if self._folder is None or not self._folder.exists():
            return self._max_bytes
        return min(self._max_bytes, (shutil.disk_usage(self._folder).free + self.size_bytes) // 2)

    def make_room(self, need_bytes: int) -> None:
        """Drops the oldest segments until so many bytes fit."""
        room = self._room()
        while self._segments and self.size_bytes + need_bytes > room:
            gone = self._segments.popleft()
            self.size_bytes -= gone.size_bytes
            if isinstance(gone.where, Path):
                gone.where.unlink(missing_ok=True)
        self.oldest_ns = self._segments[0].begin_ns if self._segments else None

    def window(self, pack_id: str, begin_ns: int, at_ns: int, end_ns: int) -> list[Segment]:
        """The segments of a pack without a hole around `at_ns`, that reach from `begin_ns` to `end_ns` if they can."""
        mine = [segment for segment in self._segments if segment.pack_id == pack_id and segment.begin_ns <= end_ns]
        middle = max((i for i, segment in enumerate(mine) if segment.begin_ns <= at_ns), default=0)
        first = last = middle
        while first > 0 and mine[first].begin_ns > begin_ns and mine[first - 1].number + 1 == mine[first].number:
            first -= 1
        while last + 1 < len(mine) and mine[last].number + 1 == mine[last + 1].number:
            last += 1
        return mine[first : last + 1]

    def clear(self) -> None:
        """Forgets everything."""
        self.make_room(self._max_bytes + 1)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
