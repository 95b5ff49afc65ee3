"""The folder in which running simulators and those who look for them meet: sockets, and links to serial ports."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from shared.errors import ConfigError


def run_dir(environ: Mapping[str, str]) -> Path:
    """Where this user's simulators meet: $PACKTWIN_RUN, else $XDG_RUNTIME_DIR/packtwin, else /tmp/packtwin-<uid>."""
    if chosen := environ.get("PACKTWIN_RUN"):
        return Path(chosen).absolute()
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "packtwin"
    return Path(f"/tmp/packtwin-{os.getuid()}")


def made_private(path: Path) -> Path:
    """Creates the folder (0700) if need be and returns it. ConfigError if it cannot be, or belongs to someone else."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot create the folder {path} ({error.strerror}): name another in PACKTWIN_RUN or --channel"
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise ConfigError(f"{path} belongs to another user: name another folder in PACKTWIN_RUN or --channel")
    return path


def locked(path: Path) -> IO[bytes]:
    """A lock on the folder that lasts while the file returned is open. ConfigError if another process has it."""
    try:
        lock = (path / ".lock").open("wb")
    except OSError as error:
        raise ConfigError(f"cannot write into the folder {path} ({error.strerror}): name another") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise ConfigError(
            f"another simulator already has its cars in {path}: stop it, or name another folder with --channel"
        ) from error
    return lock
