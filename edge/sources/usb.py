"""USB adapters by their serial number, whatever name the system gives them today: `channel = "usb:SERIAL"`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PREFIX: Final = "usb:"
_SYSFS: Final = Path("/sys")


def name_of(channel: str, kind: str, sysfs: Path = _SYSFS) -> str | None:
    """What the device of a channel is called now. kind: `tty` (a path in /dev) or `net` (an interface).

    A channel without the prefix is its own name. None = no such adapter is plugged in.
    """
    if not channel.startswith(PREFIX):
        return channel
    wanted = channel.removeprefix(PREFIX)
    for entry in sorted((sysfs / "class" / kind).glob("*/device")):
        if _serial_of(entry.resolve(), sysfs.resolve()) == wanted:
            return f"/dev/{entry.parent.name}" if kind == "tty" else entry.parent.name
    return None


def _serial_of(device: Path, sysfs: Path) -> str | None:
    """The serial number of the USB device that this one is part of."""
    while device not in (sysfs, device.parent):
        try:
            return (device / "serial").read_text("ascii", "replace").strip()
        except OSError:
            device = device.parent
    return None
