"""The table of a running stack: service, state, address, each asked now."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import kafka
import mosquitto
import postgres
import state
from processes import is_alive
from services import answers

READY, STARTING, LEFT_OUT = "ready", "not answering", "left out"


def show(found: state.State, at: postgres.Login) -> tuple[str, bool]:
    """Returns the table, and whether everything that should run here is ready."""
    checks = [(each, _health(each, at)) for each in found.services]
    rows = [("SERVICE", "STATE", "PID", "RESTARTS", "ADDRESS")]
    for each, health in checks:
        pid = str(each.process.pid) if each.process else "-"
        where = each.problem or each.address
        rows.append((each.name, health, pid, str(each.restarts), where))
    return state.table(rows), all(health in (READY, LEFT_OUT) for _, health in checks)


def _health(each: state.Running, at: postgres.Login) -> str:
    if each.problem:
        return LEFT_OUT
    if each.name == "database":
        return READY if at.answers() else "down"
    if each.address.endswith("(yours)"):
        return READY if _asked(each.health) else "down"
    if each.process is None or not is_alive(each.process):
        return "down"
    return READY if not each.health or _asked(each.health) else STARTING


def _asked(url: str) -> bool:
    """Returns whether a server answers in its own protocol; tcp:// = whether anyone listens."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return answers(url)
    return _ASKERS[parts.scheme](parts.port or 0, parts.hostname or "")


def _listens(port: int, host: str) -> bool:
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True


_ASKERS: Mapping[str, Callable[[int, str], bool]] = {
    "kafka": kafka.answers,
    "mqtt": mosquitto.answers,
    "tcp": _listens,
}
