"""The power fails after any write: what was not flushed is gone, and still the old model or the new one is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes.updates import World, world

pytestmark = pytest.mark.slow


@dataclass
class Flash:
    """What a power cut would leave of a folder: names from the last fsync of their folder, bytes from their file's.

    Each inode that is seen is held open, so that its number means one file only.
    """

    root: Path
    images: Path
    names: dict[Path, dict[str, int]] = field(default_factory=dict)
    bodies: dict[int, bytes | str] = field(default_factory=dict)
    held: list[int] = field(default_factory=list)
    taken: list[tuple[str, Path]] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on every flush counts, and after each an image is taken."""
        for path in (self.root, *self.root.rglob("*")):
            if path.is_dir():
                self._flush_folder(path)
            elif not path.is_symlink():
                self._hold(path)
                self.bodies[path.stat().st_ino] = path.read_bytes()
        real = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

        def fsync(handle: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{handle}"))
            if path.is_dir():
                self._flush_folder(path)
            else:
                self._hold(path)
                self.bodies[path.stat().st_ino] = path.read_bytes()
            self._take(f"fsync {path.name}")

        def replace(old: Any, new: Any) -> None:
            self._hold(Path(old))
            real["replace"](old, new)
            self._take(f"rename {Path(new).name}")

        def unlink(path: Any, **more: Any) -> None:
            real["unlink"](path, **more)
            self._take(f"unlink {Path(path).name}")

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "unlink", unlink)

    def _hold(self, path: Path) -> None:
        self.held.append(os.open(path, os.O_RDONLY))

    def _flush_folder(self, folder: Path) -> None:
        self._hold(folder)
        self.names[folder] = {}
        for entry in folder.iterdir():
            number = entry.lstat().st_ino
            self.names[folder][entry.name] = number
            if entry.is_symlink():
                self.bodies[number] = os.readlink(entry)

    def _take(self, after: str) -> None:
        image = self.images / f"{len(self.taken)}" / "models"
        self._write(self.root, image)
        self.taken.append((after, image.parent))

    def _write(self, folder: Path, copy: Path) -> None:
        copy.mkdir(parents=True)
        for name, number in self.names.get(folder, {}).items():
            body = self.bodies.get(number)
            if folder / name in self.names:
                self._write(folder / name, copy / name)
            elif isinstance(body, str):
                (copy / name).symlink_to(body)
            else:
                (copy / name).write_bytes(b"" if body is None else body)


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def flash(w: World, tmp_path: Path) -> Iterator[Flash]:
    flash = Flash(w.folder / "models", tmp_path / "images")
    yield flash
    for handle in flash.held:
        os.close(handle)


def restarted_on(w: World, image: Path) -> None:
    w.updates.close()
    w.folder = image
    w.told.clear()
    w.updates = w.start()


def test_a_power_cut_after_any_flush_of_an_update(w: World, flash: Flash) -> None:
    w.install(1)
    desired = w.publish(2, size=20_000)
    with pytest.MonkeyPatch.context() as patch:
        flash.watch(patch)
        w.run(desired, 0)
        for _ in range(3):
            w.updates.good_answer()
    assert w.active == desired and len(flash.taken) >= 60, len(flash.taken)
    print(f"{len(flash.taken)} images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        proven = False
        for after, image in flash.taken:
            restarted_on(w, image)
            assert w.active in ("rul-1", "rul-2"), after
            assert w.active == "rul-2" or not proven, f"{after}: what was once flushed stays"
            proven = proven or w.active == "rul-2"
            w.run(desired, 30)
            for _ in range(3):
                w.updates.good_answer()
            assert w.active == "rul-2" and w.updates.status()["floor"] == 2, after
            assert not any("refused" in step for step in w.steps), f"{after}: {w.steps}"
            shutil.rmtree(image)


def test_a_power_cut_after_any_flush_of_the_way_back(w: World, flash: Flash) -> None:
    w.install(1)
    w.install(2)
    with pytest.MonkeyPatch.context() as patch:
        flash.watch(patch)
        assert w.updates.rollback()
        w.run("rul-2", 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        for after, image in flash.taken:
            restarted_on(w, image)
            assert w.active in ("rul-1", "rul-2"), after
            assert w.updates.status()["floor"] == 2
            if w.active == "rul-1":
                w.run("rul-2", 3600)
                assert w.active == "rul-1", "a rollback that was flushed holds"
            shutil.rmtree(image)
