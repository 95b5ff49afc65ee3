"""Serial ports as the system has them: whether one is there and may be used, and what it is best called."""

from __future__ import annotations

import errno
import getpass
import grp
import os
import stat
from pathlib import Path
from typing import Final

from edge.doctor.buses import serial_ports
from edge.doctor.checks import Port
from edge.sources.source import SourceError

_MEMORY: Final = 1
"""The number under which Linux has /dev/null, /dev/zero and their like."""


def port_of(path: str) -> Port:
    """Whether the port is there and we may use it."""
    try:
        status = os.stat(path)
    except OSError:
        return Port(path=path, exists=False, may_use=False)
    try:
        group = grp.getgrgid(status.st_gid).gr_name if status.st_gid else ""
    except KeyError:
        group = ""
    may_use = os.access(path, os.R_OK | os.W_OK)
    return Port(path=path, exists=True, may_use=may_use, group=group, is_port=_is_port(status))


def _is_port(status: os.stat_result) -> bool:
    """Whether it can be a serial port at all: a character device, and none of memory, as /dev/null is."""
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) != _MEMORY


def is_busy(error: SourceError) -> bool:
    """Whether a port could not be opened because somebody else has it: one that is locked says EAGAIN."""
    return any(os.strerror(number).lower() in str(error) for number in (errno.EAGAIN, errno.EBUSY))


def user_name() -> str:
    """Who we are."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def lasting_name(path: str) -> str:
    """The name of a port that stays its own in another socket, where it has such; else its path from the root."""
    if path.startswith("usb:"):
        return path
    real = os.path.realpath(path)
    for name in serial_ports():
        if name != real and os.path.realpath(name) == real:
            return name
    return str(Path(path).absolute())
