"""python-tuf behind one door: what signed metadata says of a bundle, judged by a clock that is given.

The only file that imports tuf; import it when there is something to check (it costs memory). From python-tuf come the
order of the roles, their signatures and their version chains. Not from it: its fetcher (redirects, no deadline), its
downloads (torn files), its clock (the host's), its flushing (none): metadata lies in a folder of its own, is put on
flash here, and whatever of it a power cut tore is fetched again. Its rollback protection then is the floor's.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tuf.api import exceptions
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edge.ota.decide import Signed
from edge.ota.fetch import NotThere, WrongLength
from edge.ota.store import StoreError, sync_tree
from shared.errors import PacktwinError

_BASE: Final = "tuf:/"
"""Stands where python-tuf wants a URL; what follows is a path below `metadata/`."""
_NS: Final = 1_000_000_000
_NOT_FOUND: Final = 404
_SHA256_CHARS: Final = 64
_CONFIG: Final = UpdaterConfig(max_delegations=8, root_max_length=1 << 18, targets_max_length=2 << 20)


class Untrusted(PacktwinError):
    """Metadata that is not to be believed. reason: of the closed list."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """A bundle in valid metadata. path: below the repository's folder. expires_ns: role -> UTC."""

    signed: Signed
    path: str
    expires_ns: dict[str, int]


def look_up(folder: Path, root: bytes, name: str, get: Callable[[str, int], bytes], now_t_ns: int) -> LookedUp:
    """Brings the metadata in `folder` up to date and finds the target `name` in it.

    root: the root metadata that this device was given. get(path, max_bytes): a file of the repository, by its path
    there. Raises Untrusted, StoreError, and what `get` raises.
    """
    try:
        _tidy(folder)
        updater = Updater(str(folder), _BASE, fetcher=_Fetcher(get), config=_CONFIG, bootstrap=root)
        trusted: Any = updater._trusted_set
        if not isinstance(trusted.reference_time, datetime):  # a test holds this too
            raise RuntimeError("python-tuf keeps its time elsewhere")
        trusted.reference_time = datetime.fromtimestamp(now_t_ns // _NS, UTC)
        try:
            updater.refresh()
            target = updater.get_targetinfo(name)
        finally:
            sync_tree(folder)
    except exceptions.DownloadHTTPError as error:
        raise NotThere(f"the cloud has no {error}") from None
    except exceptions.DownloadLengthMismatchError as error:
        raise Untrusted("signature", f"metadata is longer than it may be: {error}") from None
    except exceptions.RepositoryError as error:
        raise Untrusted(_reason(error), str(error) or type(error).__name__) from None
    except OSError as error:
        # Whatever stands in the way of the cache is no loss: the floor does not lie here.
        shutil.rmtree(folder, ignore_errors=True)
        raise StoreError(f"{folder} cannot be used: {error.strerror or error}") from None
    if target is None:
        raise Untrusted("signature", f"no signed metadata names {name}")
    expires_ns = {
        role: int(trusted[role].expires.timestamp()) * _NS for role in ("root", "timestamp", "snapshot", "targets")
    }
    return LookedUp(signed=_signed(target), path=_path(target, trusted.root.consistent_snapshot), expires_ns=expires_ns)


class _Fetcher(FetcherInterface):
    """Hands python-tuf what `get` brings; in memory, metadata is small."""

    def __init__(self, get: Callable[[str, int], bytes]) -> None:
        self._get = get

    def _fetch(self, url: str) -> Any:
        raise NotImplementedError("metadata comes through download_bytes, bundles do not come this way")

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """The file; DownloadHTTPError where there is none, by which python-tuf finds the newest root."""
        path = url.removeprefix(_BASE).lstrip("/")
        try:
            return self._get(f"metadata/{path}", max_length)
        except NotThere:
            raise exceptions.DownloadHTTPError(path, _NOT_FOUND) from None
        except WrongLength:
            raise exceptions.DownloadLengthMismatchError(f"{path} is longer than {max_length} bytes") from None


def _tidy(folder: Path) -> None:
    """Removes what python-tuf's writes leave when they are killed."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.glob("tmp*"):
        with contextlib.suppress(OSError):
            left.unlink()


def _reason(error: exceptions.RepositoryError) -> str:
    if isinstance(error, exceptions.ExpiredMetadataError):
        return "expired"
    # Properly signed, but older than what was seen before: the same offence as a lower counter.
    return "counter" if isinstance(error, exceptions.BadVersionNumberError) else "signature"


def _signed(target: TargetFile) -> Signed:
    """The target's facts. What is missing or no such thing in `custom` stays None: the manifest has it, too."""
    sha256 = target.hashes.get("sha256", "")
    if len(sha256) != _SHA256_CHARS or any(set(value) - set("0123456789abcdef") for value in target.hashes.values()):
        raise Untrusted("signature", f"{target.path} is signed without a sha256")
    custom = target.custom if isinstance(target.custom, dict) else {}
    counter, chemistry = custom.get("counter"), custom.get("chemistry")
    return Signed(
        sha256=sha256,
        length=target.length,
        model_id=_text(custom.get("model_id")),
        counter=counter if isinstance(counter, int) and not isinstance(counter, bool) else None,
        feature_schema=_text(custom.get("feature_schema")),
        hardware=_text(custom.get("hardware")),
        chemistry=tuple(map(str, chemistry)) if isinstance(chemistry, list) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _path(target: TargetFile, consistent: bool) -> str:
    """Where a consistent repository keeps the file: its first hash stands before its name."""
    first = next(iter(target.hashes.values()))
    return f"targets/{first}.{target.path}" if consistent else f"targets/{target.path}"
