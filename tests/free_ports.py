"""Ports for the servers of tests."""

from __future__ import annotations

import os
import socket
from typing import Final

_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; never the same twice, and never one of another worker.

    The kernel would give one again that is chosen and not yet listened on: a test has ten, and two workers run.
    """
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        # Those that a program is given for listening are all odd (or all even), hence halved.
        if port // 2 % _WORKERS == _WORKER % _WORKERS and port not in _given:
            _given.add(port)
            return port
