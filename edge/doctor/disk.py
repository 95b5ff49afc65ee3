"""The disk on which a folder lies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from edge.doctor.checks import Disk

_MOUNTS: Final = Path("/proc/self/mountinfo")


def disk_of(folder: Path, mounts: Path = _MOUNTS) -> Disk:
    """The disk on which a folder is, or will be."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    usage = shutil.disk_usage(there)
    flags = os.statvfs(there).f_flag
    return Disk(
        path=str(folder),
        free=usage.free,
        total=usage.total,
        is_writable=os.access(there, os.W_OK | os.X_OK),
        is_read_only=bool(flags & os.ST_RDONLY),
        device=_device(there, mounts),
    )


def _device(folder: Path, mounts: Path) -> str:
    """The block device of the mount that a folder is on; "" = not told."""
    best, device = "", ""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        left, _, right = line.partition(" - ")
        point, source = left.split()[4], right.split()[1]
        if (folder.is_relative_to(point)) and len(point) >= len(best):
            best, device = point, source.rsplit("/", 1)[-1]
    return device
