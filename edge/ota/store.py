"""The folder of the models: what is written there survives a power cut whole or not at all.

lock  rollback  state.json  floor.json  tuf/  staging/SHA256.part  bundles/SHA256.bundle
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from edge.ota.state import Floor, Model, State, floor_from_json, from_json, to_json
from shared.errors import PacktwinError

log = logging.getLogger(__name__)

_SHA256_CHARS: Final = 64


class StoreError(PacktwinError):
    """The folder of the models cannot be read or written."""


class Folder:
    """`<data_dir>/models`. Reading needs nothing; whoever writes holds its `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tuf = path / "tuf"
        self._staging = path / "staging"
        self._bundles = path / "bundles"
        self._state = path / "state.json"
        self._floor = path / "floor.json"
        self._request = path / "rollback"

    def prepare(self) -> None:
        """Makes the folders. Raises StoreError."""
        with _translated(self.path):
            for folder in (self.path, self.tuf, self._staging, self._bundles):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sync_folder(self.path)

    def lock(self) -> int | None:
        """A descriptor that holds the folder until it is closed; None = another process has it."""
        with _translated(self.path):
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def load(self) -> State:
        """The state as it was last saved; a file that cannot be read costs what it held, never the floor."""
        floor = self._read_floor()
        try:
            state = from_json(json.loads(self._state.read_bytes()))
        except FileNotFoundError:
            state = State()
        except (OSError, ValueError) as error:
            log.error("%s cannot be read (%s): starting from the bundles that are here", self._state, error)
            state = State()
        floor = floor.joined(state.floor)
        if state.active is None and state.previous is None and state.last is None:
            state = replace(state, active=self._proven(floor))
        return replace(state, floor=floor)

    def save(self, state: State) -> None:
        """On flash when it returns: all of the state, or the one before. Raises StoreError."""
        with _translated(self.path):
            write_durably(self._state, _encoded(to_json(state)))
            if self._read_floor() != state.floor:
                write_durably(self._floor, _encoded(asdict(state.floor)))

    def _read_floor(self) -> Floor:
        try:
            return floor_from_json(json.loads(self._floor.read_bytes()))
        except FileNotFoundError:
            return Floor()
        except (OSError, ValueError) as error:
            log.error("%s cannot be read (%s)", self._floor, error)
            return Floor()

    def _proven(self, floor: Floor) -> Model | None:
        """The bundle that was proven last, where its file is here and whole."""
        if floor.sha256 is None or floor.model_id is None or not self.sound(floor.sha256):
            return None
        return Model(model_id=floor.model_id, counter=floor.counter, sha256=floor.sha256, proven=True)

    def part(self, sha256: str) -> Path:
        """Where the bytes of a bundle are put together."""
        return self._staging / f"{_checked(sha256)}.part"

    def complete(self, sha256: str) -> None:
        """All bytes of the part are here: puts them on flash before anybody says so. Raises StoreError."""
        with _translated(self.path):
            sync(self.part(sha256))
            _sync_folder(self._staging)

    def bundle(self, sha256: str) -> Path:
        """Where a verified bundle lies."""
        return self._bundles / f"{_checked(sha256)}.bundle"

    def sound(self, sha256: str) -> bool:
        """Whether the bundle's file is whole, by its hash."""
        try:
            return file_sha256(self.bundle(sha256)) == sha256
        except OSError:
            return False

    def settle(self, sha256: str) -> None:
        """Moves a complete part among the bundles; on flash when it returns. Raises StoreError."""
        with _translated(self.path):
            rename_durably(self.part(sha256), self.bundle(sha256))

    def discard(self, sha256: str) -> None:
        """Forgets the part and the bundle. Raises StoreError."""
        with _translated(self.path):
            self.part(sha256).unlink(missing_ok=True)
            self.bundle(sha256).unlink(missing_ok=True)

    def sweep(self, keep: Collection[str]) -> None:
        """Deletes every part and bundle of other hashes."""
        with _translated(self.path):
            for folder in (self._staging, self._bundles):
                for file in folder.iterdir():
                    if file.stem not in keep:
                        file.unlink(missing_ok=True)

    def request(self, sha256: str) -> None:
        """Asks the agent that holds the folder to go back from the model `sha256`. Raises StoreError."""
        with _translated(self.path):
            write_durably(self._request, sha256.encode())

    def requested(self) -> str | None:
        """The sha256 of the model that someone wants rolled back; None = nobody does."""
        try:
            return self._request.read_text("ascii")
        except (OSError, ValueError):
            return None

    def answered(self) -> None:
        """The request is dealt with, or given up."""
        with _translated(self.path):
            self._request.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """The file's sha256 as hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_durably(path: Path, body: bytes) -> None:
    """The file has this content after a power cut, or the one before: write beside it, fsync, rename, fsync."""
    beside = path.with_name(path.name + ".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(body)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    os.replace(beside, path)
    _sync_folder(path.parent)


def rename_durably(old: Path, new: Path) -> None:
    """Moves a file; its content is on flash before its name is."""
    sync(old)
    os.replace(old, new)
    _sync_folder(new.parent)
    _sync_folder(old.parent)


def sync_tree(folder: Path) -> None:
    """Puts every file and folder below on flash."""
    for inner, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                sync(Path(inner) / name)
        _sync_folder(Path(inner))


def sync(path: Path) -> None:
    """Puts a file's content on flash."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encoded(told: Any) -> bytes:
    return json.dumps(told, indent=1).encode() + b"\n"


def _checked(sha256: str) -> str:
    """The hash as part of a path: nothing else ever becomes one."""
    if len(sha256) != _SHA256_CHARS or set(sha256) - set("0123456789abcdef"):
        raise ValueError(f"no sha256: {sha256[:80]!r}")
    return sha256


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from None
