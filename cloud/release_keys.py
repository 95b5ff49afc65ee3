"""The keys that sign releases: one ed25519 key a role, PEM files that only their owner may read."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from shared.errors import ConfigError

ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_OTHERS: Final = 0o077


class Keys:
    """The folder KEYS_DIR: `ROLE.pem`, and `ROLE.next.pem` while a root that names the new key is being written.

    Every error is a ConfigError of one sentence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exist(self) -> bool:
        """Whether there is any key."""
        with _told("read", self.folder):
            return any(self.path(role).exists() for role in ROLES)

    def path(self, role: str) -> Path:
        """The file of a role's key."""
        return self.folder / f"{role}.pem"

    def has(self, role: str) -> bool:
        """Whether the role's key is here."""
        with _told("read", self.folder):
            return self.path(role).exists()

    def signer(self, role: str) -> CryptoSigner:
        """The role's key; ConfigError when it is missing, open to others, or no key."""
        return self._read(self.path(role))

    def make(self, role: str) -> CryptoSigner:
        """A role's key, made now unless it is here."""
        if not self.has(role):
            self._write(self.path(role), CryptoSigner.generate_ed25519())
        return self.signer(role)

    def make_next(self, role: str) -> CryptoSigner:
        """A new key beside the role's own, in use after `promote`."""
        signer = CryptoSigner.generate_ed25519()
        self._write(self._next(role), signer)
        return signer

    def settle(self, role: str, keyids: frozenset[str]) -> None:
        """After a rotation, even a killed one: the next key is in use if `keyids`, the root's, has it; else it goes."""
        waiting = self._next(role)
        with _told("written", self.folder):
            if not waiting.exists():
                return
            if self._read(waiting).public_key.keyid in keyids:
                os.replace(waiting, self.path(role))
            else:
                waiting.unlink()
            sync_folder(self.folder)

    def _next(self, role: str) -> Path:
        return self.folder / f"{role}.next.pem"

    def _write(self, path: Path, signer: CryptoSigner) -> None:
        with _told("written", self.folder):
            if not self.folder.exists():
                make_folder(self.folder, 0o700)
            write_atomically(path, signer.private_bytes, 0o600)

    def _read(self, path: Path) -> CryptoSigner:
        with _told("read", path):
            for place, mode in ((self.folder, "700"), (path, "600")):
                if stat.S_IMODE(place.stat().st_mode) & _OTHERS:
                    raise ConfigError(f"{place} can be read by others; run: chmod {mode} {place}")
            body = path.read_bytes()
        return signer_of(body, path)


def signer_of(body: bytes, path: Path) -> CryptoSigner:
    """The ed25519 key of a PEM file; ConfigError when it is none. path: for the sentence only."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(body, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no private key; restore it from a backup") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no ed25519 key; restore it from a backup")
    return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))


def make_folder(folder: Path, mode: int = 0o755) -> None:
    """Creates it and what is above it; OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from error


def write_atomically(path: Path, body: bytes, mode: int = 0o644) -> None:
    """The whole file or none of it, on disk when this returns: temporary file, fsync, rename, fsync. OSError."""
    waiting = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        waiting.unlink()
    descriptor = os.open(waiting, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    os.replace(waiting, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Puts renames within it on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(done: str, place: Path) -> Iterator[None]:
    """OSError -> one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(
            f"the signing key {place} is missing; restore it from a backup, or correct KEYS_DIR"
        ) from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be {done}: {error.strerror}; check KEYS_DIR") from error
