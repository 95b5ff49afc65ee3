"""Publishing models: sign a bundle, tell devices to run it, go back to the model before, keep signatures fresh."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cloud.config import Config
from cloud.db import Connection, queries_release
from cloud.db.queries_release import Assignment
from cloud.tuf_repository import LIFETIME, ReleaseError, Repository
from shared import bundle as bundles
from shared.bundle import MODEL_ID, SUFFIX, BundleError, Manifest
from shared.errors import ConfigError, PacktwinError
from shared.features import schema_id

log = logging.getLogger(__name__)

_TARGET: Final = re.compile(rf"(?:[0-9a-f]{{64}}\.)?{MODEL_ID.pattern}{re.escape(SUFFIX)}")
_LOOK_EVERY_S: Final = 600.0
_FRESH: Final = LIFETIME["timestamp"] * 0.75
"""A timestamp with less left than this is signed anew: a day without the API's process must not end all updates."""


@dataclass(frozen=True, slots=True)
class Release:
    """What came of publishing. signed, told: whether that changed anything; notes: what a person should know of it."""

    model_id: str
    signed: bool
    told: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """A signed bundle. manifest: None = its file is damaged; told: who is told to run it now."""

    model_id: str
    counter: int
    size_bytes: int
    manifest: Manifest | None
    told: tuple[Assignment, ...]


def repository(config: Config) -> Repository:
    """The repository of the settings; there need not be one yet."""
    return Repository(config.release_dir, config.keys_dir)


def next_counter(models: Path, release: Path) -> int:
    """1 + the highest counter among the bundles in MODELS_DIR and in the repository RELEASE_DIR."""
    counters = [0]
    for folder in (models, release / "targets"):
        try:
            names = [path.name for path in folder.iterdir()] if folder.exists() else []
        except OSError as error:
            raise ConfigError(
                f"{folder} cannot be read: {error.strerror}; correct MODELS_DIR or RELEASE_DIR"
            ) from error
        counters += [int(found[2]) for name in names if (found := _TARGET.fullmatch(name))]
    return 1 + max(counters)


def read_bundle(path: Path) -> bytes:
    """The bytes of a bundle's file; ConfigError when it is none."""
    try:
        body = path.read_bytes()
        bundles.read(body)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; name a bundle that `cloud train` wrote") from error
    except BundleError as error:
        raise ConfigError(f"{path}: {error}") from error
    return body


def publish(conn: Connection, config: Config, body: bytes, to: str, now: datetime) -> Release:
    """Signs the bundle and tells `to` (a device, or `fleet`) to run it; a second time it changes nothing.

    ConfigError for an unknown device, ReleaseError for a counter that is taken.
    """
    manifest = bundles.read(body).manifest
    key = queries_release.device_key(conn, to)
    notes = [*_misfits(manifest), *_others(conn, manifest, to)]
    signed = repository(config).publish(manifest.model_id + SUFFIX, body, custom_of(manifest), now)
    return _tell(conn, manifest, body, key, signed=signed, notes=tuple(notes))


def revert(conn: Connection, config: Config, to: str, now: datetime) -> Release:
    """Publishes the model that `to` was told before, under a new counter; ReleaseError when there was none."""
    key = queries_release.device_key(conn, to)
    current, earlier = queries_release.before(conn, key)
    if current is None or earlier is None:
        told = "nothing yet" if current is None else f"{current.bundle} and nothing before it"
        raise ReleaseError(f"{to} was told to run {told}; there is no earlier model to go back to")
    there = repository(config)
    try:
        body = bundles.renumbered(
            there.read(earlier.bundle + SUFFIX), next_counter(config.models_dir, config.release_dir)
        )
    except BundleError as error:
        raise ReleaseError(f"{earlier.bundle} cannot be published again: {error}") from error
    manifest = bundles.read(body).manifest
    signed = there.publish(manifest.model_id + SUFFIX, body, custom_of(manifest), now)
    note = f"{manifest.model_id} is the model of {earlier.bundle}, published again"
    return _tell(conn, manifest, body, key, signed=signed, notes=(note,), revives=earlier.key)


def published(conn: Connection, config: Config) -> list[Published]:
    """Every signed bundle, highest counter first, with who is told to run it."""
    there = repository(config)
    told = queries_release.newest(conn)
    rows = []
    for name, target in there.targets().items():
        model_id = name.removesuffix(SUFFIX)
        counter = int(model_id.rpartition("-")[2])
        try:
            manifest = bundles.read(there.read(name)).manifest
        except (ReleaseError, BundleError):
            manifest = None
        runs = tuple(one for one in told if one.bundle == model_id)
        rows.append(Published(model_id, counter, target.length, manifest, runs))
    return sorted(rows, key=lambda row: -row.counter)


def custom_of(manifest: Manifest) -> dict[str, Any]:
    """What a target's signed metadata repeats of its manifest, so that a device need not fetch what it cannot use."""
    return {
        "model_id": manifest.model_id,
        "counter": manifest.counter,
        "feature_schema": manifest.feature_schema,
        "chemistry": list(manifest.chemistry),
        "hardware": manifest.hardware,
    }


class Renewal:
    """The thread that keeps timestamp and snapshot fresh: at its start, and long before they expire."""

    def __init__(self, config: Config) -> None:
        self._repository = repository(config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="release-renewal", daemon=True)
        self._problem: str | None = None

    def start(self) -> None:
        """Starts the thread; where nothing is published yet it looks again later."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Lets what is being signed be finished."""
        self._stop.set()
        self._thread.join(timeout_s)

    def look(self, now: datetime, *, at_start: bool = False) -> bool:
        """Renews if that is due; whether it did. Errors as `Repository.renew`."""
        expires = self._repository.expires()
        if expires is None or not (at_start or expires - now < _FRESH or expires - now > LIFETIME["timestamp"]):
            return False
        self._repository.renew(now)
        log.info("the release's timestamp is signed until %s", self._repository.expires())
        return True

    def _run(self) -> None:
        at_start = True
        while True:
            try:
                self.look(datetime.now(UTC), at_start=at_start)
                at_start, self._problem = False, None
            except PacktwinError as error:
                if str(error) != self._problem:
                    log.warning("models cannot be updated for long: the release is not renewed: %s", error)
                self._problem = str(error)
            except Exception:
                log.exception("renewing the release failed; it is tried again")
            if self._stop.wait(_LOOK_EVERY_S):
                return


def _tell(
    conn: Connection,
    manifest: Manifest,
    body: bytes,
    key: int | None,
    *,
    signed: bool,
    notes: tuple[str, ...],
    revives: int | None = None,
) -> Release:
    digest = hashlib.sha256(body).hexdigest()
    told = queries_release.assign(conn, key, manifest.model_id, manifest.counter, digest, revives)
    return Release(manifest.model_id, signed, told, notes)


def _misfits(manifest: Manifest) -> list[str]:
    """Why agents of this version will not run it; they say so in a report."""
    found = []
    if manifest.feature_schema != schema_id():
        found.append("it was trained on other features than this version makes: its agents will refuse it")
    if manifest.hardware != bundles.HARDWARE:
        found.append(f"it is made for {manifest.hardware}: agents with {bundles.HARDWARE} will refuse it")
    return found


def _others(conn: Connection, manifest: Manifest, to: str) -> list[str]:
    """Devices that will not follow: they were told a higher counter, or have an assignment of their own."""
    found = []
    for row in queries_release.newest(conn):
        who = row.device or queries_release.FLEET
        if who == to and row.counter > manifest.counter:
            found.append(f"{who} was told {row.bundle}; who has proven it never goes back, `cloud release revert` does")
        elif to == queries_release.FLEET and row.device and row.bundle != manifest.model_id:
            found.append(f"{who} keeps {row.bundle}, which was published for it alone")
    return found
