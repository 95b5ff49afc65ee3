"""The signed repository of bundles: python-tuf metadata with all four roles, and the bundles as its targets.

    RELEASE_DIR/metadata/   1.root.json ..  N.targets.json  N.snapshot.json  timestamp.json
    RELEASE_DIR/targets/    SHA256.NAME-COUNTER.bundle

Consistent snapshots. Every file is written whole or not at all, and timestamp.json last: whoever reads while a release
is written, or after it was killed, finds the release before. The next write begins from what timestamp.json names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tuf.api._payload import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata

from cloud.release_keys import ROLES, Keys, make_folder, write_atomically
from shared.errors import ConfigError, PacktwinError

LIFETIME: Final = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(hours=24),
}
"""How long a role's metadata holds once it is signed."""
_KEEP: Final = 16
"""Versions of targets and snapshot kept for readers that began before the newest."""
_LOCK_S: Final = 15.0
_T = TypeVar("_T", Root, Targets, Snapshot, Timestamp)


class ReleaseError(PacktwinError):
    """A release cannot be made; nothing that devices see was changed."""


class Repository:
    """See the module. `now` is aware UTC. ConfigError and ReleaseError, one sentence each."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder = folder
        self.keys = Keys(keys)
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"

    def exists(self) -> bool:
        """Whether anything was ever published here."""
        with self._told("read"):
            return (self._metadata / "timestamp.json").exists()

    def targets(self) -> dict[str, TargetFile]:
        """Name -> what is signed of it; {} when there is no repository."""
        if not self.exists():
            return {}
        with self._told("read"):
            return dict(self._current()[1].signed.targets)

    def read(self, name: str) -> bytes:
        """The bytes of a target, the ones that were signed; ReleaseError when they are not here."""
        target = self.targets().get(name)
        if target is None:
            raise ReleaseError(f"{name} is not published in {self.folder}")
        path = self._targets / f"{target.hashes['sha256']}.{name}"
        try:
            body = path.read_bytes()
            target.verify_length_and_hashes(body)
        except (OSError, RepositoryError) as error:
            raise ReleaseError(f"{path} is damaged or missing; publish the bundle under a new counter") from error
        return body

    def publish(self, name: str, body: bytes, custom: Mapping[str, Any], now: datetime) -> bool:
        """Signs a target, after making keys and repository where there are none; False = it was there already.

        ReleaseError when the name, or the counter of `custom`, stands for other bytes already.
        """
        with self._locked():
            self._complete(now)
            root, targets = self._current()
            wanted = TargetFile.from_data(name, body, ["sha256"])
            wanted.unrecognized_fields["custom"] = dict(custom)
            known = targets.signed.targets
            _require_free(known, wanted)
            path = self._targets / f"{wanted.hashes['sha256']}.{name}"
            if name in known and path.exists():
                return False
            with self._told("written"):
                write_atomically(path, body)
            if name in known:  # signed, but its file was lost
                return False
            known[name] = wanted
            self._seal(root, self._sign_next(targets.signed, "targets", now), now)
            return True

    def renew(self, now: datetime) -> None:
        """Signs timestamp and snapshot anew, and targets and root once half of their time has gone."""
        with self._locked():
            if not self.exists():
                return
            self._complete(now)
            root, targets = self._current()
            if root.signed.expires - now < LIFETIME["root"] / 2 and self.keys.has("root"):
                self._write_root(root.signed, [self._signer("root")], now)
            if targets.signed.expires - now < LIFETIME["targets"] / 2 and self.keys.has("targets"):
                targets = self._sign_next(targets.signed, "targets", now)
            self._seal(root, targets, now)

    def expires(self) -> datetime | None:
        """When timestamp.json does; None = there is no repository."""
        if not self.exists():
            return None
        with self._told("read"):
            return self._read("timestamp.json", Timestamp).signed.expires

    def rotate_root(self, now: datetime, also: Sequence[str] = ()) -> None:
        """A new root key, and one of each role in `also`; the new root is signed by the old key and by the new one.

        Devices that know any earlier root follow by themselves. A kill in between is finished by the next write.
        """
        with self._locked():
            self._complete(now)
            root, targets = self._current()
            old = self._signer("root")
            fresh = {role: self.keys.make_next(role) for role in dict.fromkeys(("root", *also))}
            for role, signer in fresh.items():
                for keyid in list(root.signed.roles[role].keyids):
                    root.signed.revoke_key(keyid, role)
                root.signed.add_key(signer.public_key, role)
            self._write_root(root.signed, [old, fresh["root"]], now)
            self._settle_keys()
            self._seal(root, targets, now)

    # Everything below is called under the lock, but for what only reads.

    def _complete(self, now: datetime) -> None:
        """Makes what is missing: all of it at first, the rest of it after a kill. ConfigError when keys are gone."""
        with self._told("written"):
            make_folder(self._metadata)
            make_folder(self._targets)
        if not self._versions("root"):
            if self.exists():
                raise ConfigError(f"{self._metadata} has lost its root.json files; restore them from a backup")
            signers = {role: self.keys.make(role) for role in ROLES}
            root = _unborn(Root(consistent_snapshot=True))
            for role, signer in signers.items():
                root.add_key(signer.public_key, role)
            self._write_root(root, [signers["root"]], now)
        self._settle_keys()
        for role in ("timestamp", "snapshot") if self.exists() else ROLES[1:]:
            self._signer(role)
        if not self.exists():
            targets = self._sign_next(_unborn(Targets()), "targets", now)
            self._seal(self._newest_root(), targets, now, _unborn(Snapshot()), _unborn(Timestamp()))

    def _settle_keys(self) -> None:
        roles = self._newest_root().signed.roles
        for role in ROLES:
            self.keys.settle(role, frozenset(roles[role].keyids))

    def _current(self) -> tuple[Metadata[Root], Metadata[Targets]]:
        """The newest root, and the targets that devices see."""
        version = self._snapshot().signed.meta["targets.json"].version
        return self._newest_root(), self._read(f"{version}.targets.json", Targets)

    def _snapshot(self) -> Metadata[Snapshot]:
        timestamp = self._read("timestamp.json", Timestamp)
        return self._read(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)

    def _newest_root(self) -> Metadata[Root]:
        versions = self._versions("root")
        if not versions:
            raise ConfigError(f"{self._metadata} has lost its root.json files; restore them from a backup")
        return self._read(f"{max(versions)}.root.json", Root)

    def _versions(self, role: str) -> list[int]:
        with self._told("read"):
            heads = (path.name.split(".", 1)[0] for path in self._metadata.glob(f"*.{role}.json"))
            return [int(head) for head in heads if head.isdecimal()]

    def _seal(
        self,
        root: Metadata[Root],
        targets: Metadata[Targets],
        now: datetime,
        snapshot: Snapshot | None = None,
        timestamp: Timestamp | None = None,
    ) -> None:
        """A new snapshot of these targets, a new timestamp of that: from here on devices see them."""
        try:
            root.signed.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        except UnsignedMetadataError:  # the role has a new key
            targets = self._sign_next(targets.signed, "targets", now)
        sealed = snapshot or self._snapshot().signed
        sealed.meta["targets.json"] = MetaFile(version=targets.signed.version)
        self._sign_next(sealed, "snapshot", now)
        stamp = timestamp or self._read("timestamp.json", Timestamp).signed
        stamp.snapshot_meta = MetaFile(version=sealed.version)
        self._sign_next(stamp, "timestamp", now)
        for role in ("targets", "snapshot"):
            for version in sorted(self._versions(role))[:-_KEEP]:
                with contextlib.suppress(OSError):
                    (self._metadata / f"{version}.{role}.json").unlink()

    def _signer(self, role: str) -> CryptoSigner:
        """The role's key, which the newest root must name."""
        signer = self.keys.signer(role)
        if signer.public_key.keyid not in self._newest_root().signed.roles[role].keyids:
            raise ConfigError(f"{self.keys.path(role)} is not the key that devices trust; restore it from a backup")
        return signer

    def _sign_next(self, signed: _T, role: str, now: datetime) -> Metadata[_T]:
        return self._write(signed, role, [self._signer(role)], now)

    def _write_root(self, root: Root, signers: Sequence[CryptoSigner], now: datetime) -> None:
        self._write(root, "root", signers, now)

    def _write(self, signed: _T, role: str, signers: Sequence[CryptoSigner], now: datetime) -> Metadata[_T]:
        """The next version of a role's metadata."""
        signed.version += 1
        signed.expires = (now + LIFETIME[role]).replace(microsecond=0)
        metadata = Metadata(signed)
        for signer in signers:
            metadata.sign(signer, append=True)
        name = "timestamp.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        with self._told("written"):
            write_atomically(self._metadata / name, metadata.to_bytes())
        return metadata

    def _read(self, name: str, kind: type[_T]) -> Metadata[_T]:
        path = self._metadata / name
        with self._told("read"):
            try:
                found: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
            except (RepositoryError, FileNotFoundError) as error:
                raise ConfigError(f"{path} is damaged or missing; restore RELEASE_DIR from a backup") from error
        if not isinstance(found.signed, kind):
            raise ConfigError(f"{path} is not what its name says; restore RELEASE_DIR from a backup")
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._told("written"):
            make_folder(self.folder)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline = time.monotonic() + _LOCK_S
            while not _lock(descriptor):
                if time.monotonic() > deadline:
                    raise ReleaseError(f"another process writes {self.folder}; try again in a moment")
                time.sleep(0.05)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"{self.folder} cannot be {done}: {error.strerror}; check RELEASE_DIR") from error


def _require_free(known: Mapping[str, TargetFile], wanted: TargetFile) -> None:
    """ReleaseError when the name or the counter is taken by another bundle."""
    for name, target in known.items():
        if name == wanted.path and target.hashes != wanted.hashes:
            raise ReleaseError(f"{name} is published already, with other bytes; give the model a new counter")
        if name != wanted.path and (target.custom or {}).get("counter") == (wanted.custom or {}).get("counter"):
            raise ReleaseError(f"{wanted.path}: its counter is that of {name} already; give the model a new counter")


def _unborn(signed: _T) -> _T:
    """Metadata whose first written version will be 1."""
    signed.version = 0
    return signed


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
