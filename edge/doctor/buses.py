"""What this machine has of CAN: interfaces of the kernel with their state, and the serial ports of adapters."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_SYSFS: Final = Path("/sys")
_DEV: Final = Path("/dev")
_ARPHRD_CAN: Final = "280"
_IFF_UP: Final = 1
_IP_S: Final = 5.0
_ADAPTERS: Final = ("ttyACM*", "ttyUSB*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CanInterface:
    """One CAN interface. None = it is not known (`ip` is not installed) or it has no such thing (vcan has no bit rate).

    state: what the controller says: ERROR-ACTIVE, ERROR-WARNING, ERROR-PASSIVE, BUS-OFF, STOPPED. rx_errors, tx_errors:
    its error counters now. bus_offs: how often it fell silent since it was set up.
    """

    name: str
    is_up: bool
    kind: str = ""
    state: str | None = None
    bitrate: int | None = None
    listen_only: bool = False
    restart_ms: int | None = None
    rx_errors: int | None = None
    tx_errors: int | None = None
    bus_offs: int | None = None


def can_interfaces(sysfs: Path = _SYSFS, told: dict[str, dict[str, Any]] | None = None) -> list[CanInterface]:
    """The CAN interfaces by name. told: `ip`'s link objects by name; None = ask it."""
    names = [
        entry.name for entry in sorted((sysfs / "class" / "net").glob("*")) if _text(entry / "type") == _ARPHRD_CAN
    ]
    if told is None:
        told = _ip_links() if names else {}
    return [_interface(sysfs, name, told.get(name, {})) for name in names]


def _interface(sysfs: Path, name: str, link: dict[str, Any]) -> CanInterface:
    info = link.get("linkinfo", {})
    data = info.get("info_data", {})
    try:
        is_up = bool(int(_text(sysfs / "class" / "net" / name / "flags") or "0", 16) & _IFF_UP)
    except ValueError:
        is_up = False
    counters = data.get("berr_counter", {})
    return CanInterface(
        name=name,
        is_up=is_up,
        kind=info.get("info_kind", ""),
        state=data.get("state"),
        bitrate=data.get("bittiming", {}).get("bitrate"),
        listen_only="LISTEN-ONLY" in data.get("ctrlmode", []),
        restart_ms=data.get("restart_ms"),
        rx_errors=counters.get("rx"),
        tx_errors=counters.get("tx"),
        bus_offs=info.get("info_xstats", {}).get("bus_off"),
    )


def _ip_links() -> dict[str, dict[str, Any]]:
    """What `ip` says of each interface; {} where it is not installed or says nothing that can be read."""
    command = ["ip", "-details", "-statistics", "-json", "link", "show"]
    environment = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=_IP_S, env=environment, check=True)
        return {link["ifname"]: link for link in json.loads(done.stdout) if "ifname" in link}
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return {}


def serial_ports(dev: Path = _DEV) -> list[str]:
    """Serial ports of USB adapters, by the names that stay theirs in another socket where there are such."""
    by_id = sorted((dev / "serial" / "by-id").glob("*"))
    named = {path.resolve() for path in by_id}
    others = [path for pattern in _ADAPTERS for path in sorted(dev.glob(pattern)) if path.resolve() not in named]
    return [str(path) for path in (*by_id, *others)]


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace").strip()
    except OSError:
        return ""
