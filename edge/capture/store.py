"""Captures that are kept: one folder each below `captures`, whole or not there, on flash.

    captures/ID/meta.json   what it is, and the bytes of each zstd frame of its files
    captures/ID/log.zst     the frames as a candump log
    captures/ID/state.zst   what a replay needs beside it (`edge/capture/replay.py`)
    captures/ID/serial.zst  chunks of serial lines, where there were any
    captures/ID/sent        how many of its parts the cloud has

A folder is written under another name, synced and renamed, so that a kill or a power cut leaves all of it or nothing.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import zstandard

from shared.errors import PacktwinError
from shared.records import CAPTURE_FILES, MAX_PART_BYTES

log = logging.getLogger(__name__)

FOLDER: Final = "captures"
GIVEN_UP: Final = "given-up.jsonl"
_NEW: Final = ".new-"
_PIECE_BYTES: Final = 256 << 10
_LEVEL: Final = 3
_MOST_GIVEN_UP: Final = 100


class CaptureError(PacktwinError):
    """A capture cannot be written or read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """What a capture is. Times are UTC in ns; None = the device did not know the time."""

    id: str
    number: int = 0  # ascends with age: older captures have lower ones
    device: str
    pack_id: str
    cause: str
    note: str | None
    begin_t_ns: int | None
    end_t_ns: int | None
    kept_t_ns: int | None
    kept_mono_ns: int
    frames: int
    chunks: int  # of serial lines
    samples: int
    files: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # name -> bytes of each of its parts

    @property
    def parts(self) -> list[tuple[str, int, int]]:
        """(file, where it begins, bytes) of each part, in order."""
        found = []
        for name in CAPTURE_FILES:
            at = 0
            for size in self.files.get(name, ()):
                found.append((name, at, size))
                at += size
        return found

    @property
    def size_bytes(self) -> int:
        """What its files take."""
        return sum(map(sum, self.files.values()))


def packed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The text as zstd frames of at most MAX_PART_BYTES; it may be cut anywhere between two pieces."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield from _frames(waiting)
            waiting, size = [], 0
    if waiting:
        yield from _frames(waiting)


def _frames(pieces: list[bytes]) -> Iterator[bytes]:
    frame = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(b"".join(pieces))
    if len(frame) <= MAX_PART_BYTES:
        yield frame
        return
    if len(pieces) == 1:
        pieces = [pieces[0][: len(pieces[0]) // 2], pieces[0][len(pieces[0]) // 2 :]]
    middle = len(pieces) // 2
    yield from _frames(pieces[:middle])
    yield from _frames(pieces[middle:])


class CaptureStore:
    """The kept captures of a device, at most `keep`, of `keep_bytes` together; the oldest go first."""

    def __init__(self, cold_dir: Path, keep: int, keep_bytes: int) -> None:
        self.folder = cold_dir / FOLDER
        self._keep, self._keep_bytes = keep, keep_bytes
        self.given_up = 0
        """Captures that had to go since the start."""

    def clear_up(self) -> None:
        """Removes what a kill left half written, and what cannot be read. For the one that writes, when it starts."""
        known = {meta.id for meta in self.all()}
        for path in [path for path in self.folder.glob("*") if path.is_dir() and path.name not in known]:
            if not path.name.startswith(_NEW):
                log.warning("a capture that cannot be read is given up: %s", path)
                self.given_up += 1
            shutil.rmtree(path, ignore_errors=True)

    def add(self, id_: str, files: Mapping[str, Iterable[bytes]], meta: Callable[[], Meta]) -> Meta:
        """Keeps a capture: `files` are its texts in pieces, `meta` is asked when they are written. It is on flash then.

        CaptureError: it could not be written, nothing of it is there.
        """
        new = self.folder / f"{_NEW}{id_}"
        try:
            new.mkdir(parents=True, mode=0o700)
            sizes = {name: _write(new / f"{name}.zst", packed(pieces)) for name, pieces in files.items()}
            kept = self.all()
            number = max((each.number for each in kept), default=0) + 1
            told = replace(meta(), number=number, files={name: size for name, size in sizes.items() if size})
            if told.size_bytes > self._keep_bytes:
                raise CaptureError(f"a capture of {told.size_bytes} bytes is more than all that may be kept")
            _write(new / "meta.json", [json.dumps(asdict(told)).encode()])
            _sync(new)
            self._make_room(kept, told.size_bytes)
            new.rename(self.folder / id_)
            _sync(self.folder)
        except OSError as error:
            raise CaptureError(f"{self.folder} cannot hold a capture: {error.strerror or error}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return told

    def _make_room(self, kept: list[Meta], size_bytes: int) -> None:
        while kept and (len(kept) >= self._keep or sum(m.size_bytes for m in kept) + size_bytes > self._keep_bytes):
            self._give_up(kept.pop(0))

    def _give_up(self, meta: Meta) -> None:
        """Deletes the oldest, and says so: in the log, and in a file that `edge capture list` shows."""
        parts, sent = len(meta.parts), self.sent(meta.id)
        log.warning(
            "a capture is given up, newer ones need its place: id=%s pack=%s cause=%s parts=%d sent=%d",
            meta.id, meta.pack_id, meta.cause, parts, sent,
        )  # fmt: skip
        told = {"id": meta.id, "pack_id": meta.pack_id, "cause": meta.cause, "begin_t_ns": meta.begin_t_ns,
                "parts": parts, "sent": sent}  # fmt: skip
        lines = [*self.lost()[1 - _MOST_GIVEN_UP :], told]
        _replace(self.folder / GIVEN_UP, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
        # Renamed first: half deleted, it must not look like a capture.
        gone = self.folder / f"{_NEW}{meta.id}-gone"
        (self.folder / meta.id).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        self.given_up += 1

    def lost(self) -> list[dict[str, Any]]:
        """The captures that were given up, oldest first; the last ones only."""
        try:
            return [json.loads(line) for line in (self.folder / GIVEN_UP).read_text("utf-8").splitlines()]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read: %s", self.folder / GIVEN_UP, error)
            return []

    def all(self) -> list[Meta]:
        """The captures that are kept, oldest first. What cannot be read is left out with a word in the log."""
        found = []
        for path in self.folder.glob("*/meta.json"):
            if path.parent.name.startswith(_NEW):
                continue
            try:
                found.append(self._meta(path))
            except FileNotFoundError:  # given up meanwhile
                continue
            except (OSError, ValueError, TypeError, KeyError) as error:
                log.warning("%s cannot be read: %s", path, error)
        return sorted(found, key=lambda meta: meta.number)

    def find(self, id_: str) -> Meta | None:
        """The capture of this id, or of the only id that begins so."""
        found = [meta for meta in self.all() if meta.id.startswith(id_)]
        return found[0] if len(found) == 1 else next((meta for meta in found if meta.id == id_), None)

    def part(self, meta: Meta, number: int) -> bytes:
        """One part: a zstd frame. CaptureError if it cannot be read."""
        name, at, size = meta.parts[number]
        path = self.folder / meta.id / f"{name}.zst"
        try:
            with path.open("rb") as file:
                file.seek(at)
                data = file.read(size)
        except OSError as error:
            raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from None
        if len(data) != size:
            raise CaptureError(f"{path} is cut short: {len(data)} of {size} bytes at {at}")
        return data

    def text(self, meta: Meta, name: str) -> Iterator[bytes]:
        """A file of the capture, unpacked, in pieces. CaptureError if it is damaged."""
        for number, (of, _, _) in enumerate(meta.parts):
            if of == name:
                data = self.part(meta, number)
                try:
                    yield zstandard.ZstdDecompressor().decompress(data)
                except zstandard.ZstdError as error:
                    raise CaptureError(f"{name} of capture {meta.id} is damaged ({error})") from None

    def sent(self, id_: str) -> int:
        """How many parts of a capture the cloud has, from the first on."""
        try:
            return int((self.folder / id_ / "sent").read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def mark_sent(self, id_: str, parts: int) -> None:
        """Notes how many parts the cloud has."""
        try:
            _replace(self.folder / id_ / "sent", str(parts).encode())
        except OSError as error:
            raise CaptureError(f"{self.folder / id_} cannot be written: {error.strerror or error}") from error

    @staticmethod
    def _meta(path: Path) -> Meta:
        told = json.loads(path.read_text("utf-8"))
        told["files"] = {name: tuple(sizes) for name, sizes in told["files"].items()}
        return Meta(**told)


def _write(path: Path, pieces: Iterable[bytes]) -> tuple[int, ...]:
    """Writes the pieces and syncs them; the bytes of each."""
    sizes = []
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            sizes.append(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return tuple(sizes)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    _write(new, [data])
    new.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
