"""Waiting for what another process, thread or server does in its own time."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import psycopg

T = TypeVar("T")


def until(what: str, check: Callable[[], T], timeout_s: float = 60.0) -> T:
    """The first true answer of `check`, asked every 50 ms; TimeoutError naming `what`.

    A server that does not answer a question in time, or not yet, has not refused: the deadline decides.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        why: Exception | None = None
        try:
            if answer := check():
                return answer
        except (OSError, psycopg.OperationalError, httpx.TransportError) as error:
            why = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_s:g} s") from why
        time.sleep(0.05)  # a poll with a deadline, not a synchronisation


def arrived(fd: int) -> None:
    """Waits until there is something to read: a pty passes bytes on in its own time, where the clock is the test's."""
    select.select([fd], [], [], 5)
