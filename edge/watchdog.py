"""The word to systemd: ready, alive as long as every part of the pipeline moves, and which part does not.

A process that merely runs is no proof: a bus, a disk or a network call that hangs for ever would hold samples back in
silence. So each part says when it has done a round, and a part that is silent for too long stops the word; systemd
then starts the agent anew (WatchdogSec=). Without systemd nothing of this is heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

log = logging.getLogger(__name__)

_SECOND_NS: Final = 1_000_000_000
_ASIDE_S: Final = 5.0
"""Between two looks where systemd asked for no watchdog."""
_WORDS_PER_INTERVAL: Final = 3
_MOST_S: Final = 0.2
"""A word that systemd does not take is left out: it must not hold up what it tells of."""


class Pulse:
    """When each part has last done a round. Thread-safe: a beat replaces one number."""

    def __init__(self, limits_s: Mapping[str, float], now_ns: int) -> None:
        """limits_s: how long each part may be silent."""
        self._limits_ns = {part: int(limit_s * _SECOND_NS) for part, limit_s in limits_s.items()}
        self._beats_ns = dict.fromkeys(limits_s, now_ns)

    def beat(self, part: str, now_ns: int) -> None:
        """`part`, one of those with a limit, has done a round."""
        self._beats_ns[part] = now_ns

    def stuck(self, now_ns: int) -> list[str]:
        """The parts that have been silent for too long, with how long."""
        silent_ns = {part: now_ns - beat_ns for part, beat_ns in self._beats_ns.items()}
        return [
            f"{part} has not moved for {silent // _SECOND_NS} s"
            for part, silent in silent_ns.items()
            if silent > self._limits_ns[part]
        ]


class Systemd:
    """The socket of NOTIFY_SOCKET. interval_s: how often systemd wants the word, None = it does not."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self.interval_s = _interval_s(environment)

    def tell(self, *words: str) -> None:
        """Sends the words, each NAME=value; nothing where nobody listens."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(_MOST_S)
            out.connect(self._address)
            out.send("\n".join(words).encode())


def _interval_s(environment: Mapping[str, str]) -> float | None:
    wanted, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or not int(wanted) or whose not in ("", str(os.getpid())):
        return None
    return int(wanted) / 1e6


async def keep_told(pulse: Pulse, systemd: Systemd, now_ns: Callable[[], int]) -> None:
    """Says READY, then WATCHDOG while nothing is stuck, until cancelled; then STOPPING."""
    pause_s = _ASIDE_S if systemd.interval_s is None else systemd.interval_s / _WORDS_PER_INTERVAL
    systemd.tell("READY=1", "STATUS=works")
    was: list[str] = []
    try:
        while True:
            stuck = pulse.stuck(now_ns())
            if stuck:
                systemd.tell(f"STATUS={'; '.join(stuck)}")
            else:
                systemd.tell("WATCHDOG=1", *(["STATUS=works"] if was else []))
            if bool(stuck) != bool(was):
                log.error("stuck: %s", "; ".join(stuck)) if stuck else log.info("every part moves again")
            was = stuck
            await asyncio.sleep(pause_s)
    finally:
        systemd.tell("STOPPING=1")
