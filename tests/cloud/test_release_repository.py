"""The signed repository: what a device's python-tuf makes of it, at any time, after any kill, through any rotation."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api import exceptions
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from cloud import release_keys, tuf_repository
from cloud.release_keys import ROLES
from cloud.tuf_repository import LIFETIME, ReleaseError, Repository
from shared.errors import ConfigError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Files(FetcherInterface):
    """python-tuf's way to the repository's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = self._folder / url.removeprefix("repo://")
        if not path.is_file():
            raise exceptions.DownloadHTTPError(url, 404)
        return iter([path.read_bytes()])


class Device:
    """A device that was given the first root and keeps what it learns."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self._folder, self._repository = folder, repository
        self._root = (repository.folder / "metadata" / "1.root.json").read_bytes()
        folder.mkdir()

    def sees(self, name: str, now: datetime) -> bytes | None:
        """The verified bytes of a target, None when no valid metadata names it."""
        updater = Updater(
            str(self._folder), "repo://metadata/", str(self._folder), "repo://targets/",
            fetcher=Files(self._repository.folder), config=UpdaterConfig(), bootstrap=self._root,
        )  # fmt: skip
        updater._trusted_set.reference_time = now
        target = updater.get_targetinfo(name)
        return None if target is None else Path(updater.download_target(target)).read_bytes()


@pytest.fixture(autouse=True)
def forgetful(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test but one pulls the plug, so nothing need be on disk."""
    if "on_disk" not in request.node.name:
        monkeypatch.setattr(release_keys.os, "fsync", lambda descriptor: None)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "release", tmp_path / "keys")


@pytest.fixture
def device(tmp_path: Path, repository: Repository) -> Device:
    """A device of a repository that holds a-1."""
    repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
    return Device(tmp_path / "device", repository)


def test_a_device_finds_what_was_published_with_its_facts(device: Device, repository: Repository) -> None:
    assert device.sees("a-1.bundle", NOW) == b"one"
    assert device.sees("b-2.bundle", NOW) is None
    repository.publish("b-2.bundle", b"two", {"counter": 2, "hardware": "cpu-onnx"}, NOW)
    assert (device.sees("a-1.bundle", NOW), device.sees("b-2.bundle", NOW)) == (b"one", b"two")
    assert repository.targets()["b-2.bundle"].custom == {"counter": 2, "hardware": "cpu-onnx"}


def test_the_files_are_those_of_consistent_snapshots(device: Device, repository: Repository) -> None:
    names = {path.name for path in (repository.folder / "metadata").iterdir()}
    assert {"1.root.json", "timestamp.json"} <= names
    assert all(name == "timestamp.json" or name[0].isdigit() for name in names)
    (target,) = (repository.folder / "targets").iterdir()
    assert target.name == f"{repository.targets()['a-1.bundle'].hashes['sha256']}.a-1.bundle"


def test_only_the_owner_can_read_the_keys(device: Device, repository: Repository) -> None:
    assert stat.S_IMODE(repository.keys.folder.stat().st_mode) == 0o700
    for role in ROLES:
        path = repository.keys.path(role)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")  # PKCS8
    assert len({repository.keys.signer(role).public_key.keyid for role in ROLES}) == 4


def test_publishing_twice_changes_nothing(device: Device, repository: Repository) -> None:
    before = files(repository)
    assert not repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW + DAY)
    assert files(repository) == before


@pytest.mark.parametrize(("name", "counter"), [("a-1.bundle", 1), ("b-1.bundle", 1)])
def test_a_counter_that_is_taken_is_refused_and_nothing_changes(
    device: Device, repository: Repository, name: str, counter: int
) -> None:
    before = files(repository)
    with pytest.raises(ReleaseError, match="give the model a new counter"):
        repository.publish(name, b"other", {"counter": counter}, NOW)
    assert files(repository) == before


def test_a_lost_file_comes_back_by_publishing_it_again(device: Device, repository: Repository) -> None:
    (path,) = (repository.folder / "targets").iterdir()
    path.write_bytes(b"bad")
    with pytest.raises(ReleaseError, match="damaged or missing"):
        repository.read("a-1.bundle")
    path.unlink()
    repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
    assert repository.read("a-1.bundle") == b"one"
    assert device.sees("a-1.bundle", NOW) == b"one"


@pytest.mark.parametrize(("days", "holds"), [(0.99, True), (1.01, False)])
def test_without_renewal_all_ends_after_a_day(device: Device, days: float, holds: bool) -> None:
    if holds:
        assert device.sees("a-1.bundle", NOW + days * DAY) == b"one"
        return
    with pytest.raises(exceptions.ExpiredMetadataError):
        device.sees("a-1.bundle", NOW + days * DAY)


def test_renewed_daily_it_holds_for_years_and_stays_small(device: Device, repository: Repository) -> None:
    for day in range(0, 800, 10):  # an API that is started every tenth day
        repository.renew(NOW + day * DAY)
        if day % 100 == 0:
            assert device.sees("a-1.bundle", NOW + (day + 0.9) * DAY) == b"one"
    assert len(list((repository.folder / "metadata").iterdir())) < 50


def test_after_years_away_one_renewal_is_enough(device: Device, repository: Repository) -> None:
    assert device.sees("a-1.bundle", NOW) == b"one"
    later = NOW + 1000 * DAY
    repository.renew(later)
    assert device.sees("a-1.bundle", later) == b"one"


def test_no_signature_holds_longer_than_its_role_may(device: Device, repository: Repository) -> None:
    for when in (NOW, NOW + timedelta(seconds=0.9)):
        repository.renew(when)
        root, targets = repository._current()
        stamp = repository._read("timestamp.json", tuf_repository.Timestamp)
        for role, metadata in {"root": root, "targets": targets, "timestamp": stamp}.items():
            assert metadata.signed.expires <= when + LIFETIME[role]


def test_a_device_follows_rotations_of_every_key(tmp_path: Path, device: Device, repository: Repository) -> None:
    assert device.sees("a-1.bundle", NOW) == b"one"
    old = {role: repository.keys.signer(role).public_key.keyid for role in ROLES}
    repository.rotate_root(NOW)
    assert device.sees("a-1.bundle", NOW) == b"one"
    repository.rotate_root(NOW, also=("targets", "snapshot", "timestamp"))
    repository.publish("b-2.bundle", b"two", {"counter": 2}, NOW)
    assert device.sees("b-2.bundle", NOW) == b"two"
    assert Device(tmp_path / "new", repository).sees("b-2.bundle", NOW) == b"two", "from the very first root"
    assert not set(old.values()) & {repository.keys.signer(role).public_key.keyid for role in ROLES}
    assert not list(repository.keys.folder.glob("*.next.pem"))


def test_every_file_is_on_disk_before_its_name_and_its_name_before_the_next_file(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("name")
        rename(source, target)

    monkeypatch.setattr(release_keys.os, "fsync", synced)
    monkeypatch.setattr(release_keys.os, "replace", renamed)
    repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
    repository.renew(NOW)
    assert done == ["file", "name", "folder"] * (len(done) // 3) and len(done) >= 14 * 3


class Killed(BaseException):
    """What a test calls a SIGKILL."""


def killed_after(steps: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[], Any], *, torn: bool) -> bool:
    """Runs `work`, killed at its write number `steps`, before its rename (torn) or after it; whether it was killed."""
    count = 0
    write = release_keys.write_atomically

    def dying(path: Path, body: bytes, mode: int = 0o644) -> None:
        nonlocal count
        count += 1
        if count > steps:
            if torn:
                path.with_name(f".{path.name}.new").write_bytes(body[: len(body) // 2])
            else:
                write(path, body, mode)
            raise Killed
        write(path, body, mode)

    with monkeypatch.context() as patch:
        patch.setattr(release_keys, "write_atomically", dying)
        patch.setattr(tuf_repository, "write_atomically", dying)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("torn", [False, True])
def test_a_repository_whose_making_was_killed_is_made_by_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: bool
) -> None:
    for steps in range(100):
        repository = Repository(tmp_path / f"release{steps}", tmp_path / f"keys{steps}")

        def publish(repository: Repository = repository) -> None:
            repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)

        was_killed = killed_after(steps, monkeypatch, publish, torn=torn)
        publish()
        assert Device(tmp_path / f"device{steps}", repository).sees("a-1.bundle", NOW) == b"one"
        if not was_killed:
            break
    assert steps == 12  # keys, root, targets, snapshot, timestamp; target, targets, snapshot, timestamp


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("what", ["publish", "renew", "rotate"])
def test_after_a_kill_devices_see_the_release_before_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, torn: bool
) -> None:
    for steps in range(100):
        repository = Repository(tmp_path / f"release{steps}", tmp_path / f"keys{steps}")
        repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
        work: dict[str, Callable[[], Any]] = {
            "publish": lambda r=repository: r.publish("b-2.bundle", b"two", {"counter": 2}, NOW),
            "renew": lambda r=repository: r.renew(NOW + 100 * DAY),
            "rotate": lambda r=repository: r.rotate_root(NOW),
        }
        device = Device(tmp_path / f"device{steps}", repository)
        was_killed = killed_after(steps, monkeypatch, work[what], torn=torn)
        if what != "renew":  # whose beginning had expired
            assert device.sees("a-1.bundle", NOW) == b"one"
            assert device.sees("b-2.bundle", NOW) in (None, b"two")
        repository.renew(NOW + DAY / 2)
        assert device.sees("a-1.bundle", NOW + DAY) == b"one"
        repository.publish("b-2.bundle", b"two", {"counter": 2}, NOW + DAY)
        assert device.sees("b-2.bundle", NOW + DAY) == b"two"
        if not was_killed:
            break
    assert 3 <= steps <= 10


@pytest.mark.parametrize("also", [("timestamp",), ("targets",), ("snapshot", "targets")])
@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_rotation_of_more_keys_is_finished_by_the_next_renewal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, also: tuple[str, ...], torn: bool
) -> None:
    for steps in range(100):
        repository = Repository(tmp_path / f"release{steps}", tmp_path / f"keys{steps}")
        repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
        device = Device(tmp_path / f"device{steps}", repository)

        def rotate(repository: Repository = repository) -> None:
            repository.rotate_root(NOW, also)

        was_killed = killed_after(steps, monkeypatch, rotate, torn=torn)
        repository.renew(NOW)
        assert device.sees("a-1.bundle", NOW) == b"one"
        if not was_killed:
            break


# What a person can do wrong


def sentence(work: Callable[[], Any]) -> str:
    with pytest.raises((ConfigError, ReleaseError)) as error:
        work()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_missing_key_is_named_and_nothing_changes(device: Device, repository: Repository, role: str) -> None:
    repository.keys.path(role).unlink()
    before = files(repository)
    told = sentence(lambda: repository.publish("b-2.bundle", b"two", {"counter": 2}, NOW))
    assert str(repository.keys.path(role)) in told and "restore it from a backup" in told
    assert device.sees("a-1.bundle", NOW) == b"one"
    assert files(repository, "metadata") == {k: v for k, v in before.items() if k.parent.name == "metadata"}


def test_without_targets_and_root_key_the_rest_is_renewed(device: Device, repository: Repository) -> None:
    for role in ("root", "targets"):
        repository.keys.path(role).unlink()
    repository.renew(NOW + 60 * DAY)
    assert device.sees("a-1.bundle", NOW + 60.5 * DAY) == b"one"


def test_keys_that_others_can_read_are_refused_with_what_to_run(device: Device, repository: Repository) -> None:
    path = repository.keys.path("snapshot")
    path.chmod(0o640)
    assert sentence(lambda: repository.renew(NOW)).endswith(f"run: chmod 600 {path}")
    path.chmod(0o600)
    repository.keys.folder.chmod(0o755)
    assert sentence(lambda: repository.renew(NOW)).endswith(f"run: chmod 700 {repository.keys.folder}")


@pytest.mark.parametrize("body", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_named(device: Device, repository: Repository, body: bytes) -> None:
    repository.keys.path("timestamp").write_bytes(body)
    assert "is no private key" in sentence(lambda: repository.renew(NOW))


def test_a_key_of_another_repository_is_refused(tmp_path: Path, device: Device, repository: Repository) -> None:
    other = Repository(tmp_path / "other", tmp_path / "other-keys")
    other.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
    repository.keys.path("timestamp").write_bytes(other.keys.path("timestamp").read_bytes())
    assert "is not the key that devices trust" in sentence(lambda: repository.renew(NOW))


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 10_000, b'{"signed": {"_type": "root"}}'])
def test_damaged_metadata_is_one_sentence(device: Device, repository: Repository, body: bytes) -> None:
    (repository.folder / "metadata" / "timestamp.json").write_bytes(body)
    assert "restore RELEASE_DIR from a backup" in sentence(lambda: repository.renew(NOW))


def test_lost_roots_are_one_sentence(device: Device, repository: Repository) -> None:
    (repository.folder / "metadata" / "1.root.json").unlink()
    assert "has lost its root.json" in sentence(lambda: repository.renew(NOW))


def test_folders_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    for folder, keys, setting in (("file", "keys", "RELEASE_DIR"), ("release", "file/keys", "KEYS_DIR")):
        there = Repository(tmp_path / folder, tmp_path / keys)
        told = sentence(lambda r=there: r.publish("a-1.bundle", b"one", {"counter": 1}, NOW))
        assert "cannot be written" in told and told.endswith(f"check {setting}")


def test_two_writers_take_turns(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuf_repository, "_LOCK_S", 0.0)
    repository.publish("a-1.bundle", b"one", {"counter": 1}, NOW)
    with repository._locked():
        assert "another process writes" in sentence(lambda: repository.renew(NOW))
    repository.renew(NOW)


def files(repository: Repository, below: str = "") -> dict[Path, bytes]:
    """Every file of the repository."""
    return {path: path.read_bytes() for path in (repository.folder / below).rglob("*") if path.is_file()}
