"""A signed repository in a folder, written with python-tuf's Metadata API, that can be made hostile in every way."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

LIFETIME: Final = {"root": 365.0, "targets": 90.0, "snapshot": 7.0, "timestamp": 1.0}
"""Role -> days."""


class TufRepo:
    """metadata/ and targets/ in `folder`, consistent snapshots, one ed25519 key a role. Say `publish` after changes.

    now_t_ns: UTC at which things are signed; change it to sign earlier or later. lifetime: days, by role.
    """

    def __init__(self, folder: Path, now_t_ns: int) -> None:
        self.folder, self.now_t_ns = folder, now_t_ns
        self.lifetime = dict(LIFETIME)
        self.signers = {role: CryptoSigner.generate_ed25519() for role in LIFETIME}
        for name in ("metadata", "targets"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._version = 0
        self._targets: dict[str, TargetFile] = {}
        self.root: bytes = self._write_root(1, [self.signers["root"]])

    def add(
        self,
        name: str,
        body: bytes,
        custom: Mapping[str, Any],
        *,
        length: int | None = None,
        stored: bytes | None = None,
    ) -> None:
        """Signs a target. length: another one than the body's; stored: what the server has instead of the body."""
        target = TargetFile.from_data(name, body, ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom)
        if length is not None:
            target.length = length
        self._targets[name] = target
        (self.folder / "targets" / f"{target.hashes['sha256']}.{name}").write_bytes(body if stored is None else stored)

    def stored(self, name: str) -> Path:
        """The file that the server gives for a target."""
        return self.folder / "targets" / f"{self._targets[name].hashes['sha256']}.{name}"

    def publish(self) -> None:
        """A new version of targets, snapshot and timestamp."""
        self._version += 1
        version = self._version
        targets = Targets(version=version, expires=self._expires("targets"), targets=dict(self._targets))
        self._write(f"{version}.targets.json", targets, "targets")
        snapshot = Snapshot(version=version, expires=self._expires("snapshot"))
        snapshot.meta["targets.json"] = MetaFile(version=version)
        self._write(f"{version}.snapshot.json", snapshot, "snapshot")
        timestamp = Timestamp(version=version, expires=self._expires("timestamp"))
        timestamp.snapshot_meta = MetaFile(version=version)
        self._write("timestamp.json", timestamp, "timestamp")

    def rotate_root(self, *, signed_by_old: bool = True, signed_by_new: bool = True) -> None:
        """A new root key and a new timestamp key; the new root is signed by whoever is said."""
        old = self.signers["root"]
        self.signers["root"] = CryptoSigner.generate_ed25519()
        self.signers["timestamp"] = CryptoSigner.generate_ed25519()
        signers = [old] * signed_by_old + [self.signers["root"]] * signed_by_new
        self._write_root(self._root_version + 1, signers)
        self.publish()

    def save(self) -> dict[Path, bytes]:
        """All files as they are now."""
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def restore(self, files: Mapping[Path, bytes]) -> None:
        """The files as they were: what a replayed or restored repository is."""
        for path, body in files.items():
            path.write_bytes(body)

    def _write_root(self, version: int, signers: list[CryptoSigner]) -> bytes:
        self._root_version = version
        root = Root(version=version, expires=self._expires("root"), consistent_snapshot=True)
        for role, signer in self.signers.items():
            root.add_key(signer.public_key, role)
        metadata = Metadata(root)
        for signer in signers:
            metadata.sign(signer, append=True)
        body = metadata.to_bytes()
        (self.folder / "metadata" / f"{version}.root.json").write_bytes(body)
        return body

    def _write(self, file: str, signed: Any, role: str) -> None:
        metadata = Metadata(signed)
        metadata.sign(self.signers[role])
        (self.folder / "metadata" / file).write_bytes(metadata.to_bytes())

    def _expires(self, role: str) -> datetime:
        now = datetime.fromtimestamp(self.now_t_ns // 1_000_000_000, UTC)
        return now + timedelta(days=self.lifetime[role])
