"""TCP ports of this machine: free or not, and whose."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from shared.errors import ConfigError


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Returns whether a server could listen on host:port now; a host this machine does not have is a ConfigError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
    except socket.gaierror as error:
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror}; set the host to 127.0.0.1 or an address of this machine"
        ) from error
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT is not busy
        try:
            probe.bind(address)
            probe.listen()
        except PermissionError as error:
            raise ConfigError(f"port {port} needs root; set a port above 1023") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another host or port"
            ) from error
    return True


def owner(port: int) -> str:
    """Returns who listens on a TCP port, `PID 12 (name)`; `another user's process` where this user may not see it."""
    inodes = set(_listening_inodes(port))
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"PID {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:  # gone meanwhile, or not ours to look at
            continue
    return "another user's process"


def _listening_inodes(port: int) -> list[str]:
    listening = "0A"
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            columns = row.split()
            if columns[3] == listening and int(columns[1].rsplit(":", 1)[1], 16) == port:
                found.append(f"socket:[{columns[9]}]")
    return found


def claim(
    setting: str, explicit: int | None, default: int, host: str = "127.0.0.1", taken: frozenset[int] = frozenset()
) -> int:
    """Returns the port a server of ours gets: the explicit one or, when its default is busy, the next free one.

    ConfigError (one sentence that names the owner): an explicit port that is busy, or no free one among the next 100.
    """
    if explicit is not None:
        require_free(setting, explicit)
        return explicit
    for port in range(default, default + 100):
        if port not in taken and is_free(port):
            return port
    raise ConfigError(f"no free port from {default} to {default + 99}; set {setting}")


def claim_all(wanted: Mapping[str, tuple[int | None, int]], taken: frozenset[int] = frozenset()) -> Mapping[str, int]:
    """Returns a port for each setting: wanted = {setting: (explicit or None, default)}, all of them different.

    A busy default moves, but never to what another setting has by default: a moved one must not make the next move.
    """
    ours = {name: explicit if explicit is not None else default for name, (explicit, default) in wanted.items()}
    found: dict[str, int] = {}
    for name, (explicit, default) in wanted.items():
        others = {port for other, port in ours.items() if other != name}
        found[name] = claim(name, explicit, default, taken=taken | others | set(found.values()))
    return found


def require_free(setting: str, port: int, host: str = "127.0.0.1") -> None:
    """Raises a ConfigError that names who has the port when it is busy."""
    if not is_free(port, host):
        raise ConfigError(f"port {port} is in use by {owner(port)}; stop it or set {setting}")
