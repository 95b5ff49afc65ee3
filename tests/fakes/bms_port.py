"""BMSs behind a pty: `serve` answers what was asked meanwhile, as packs at these addresses would."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from firmware_bridge.protocol import Protocol, Value

JBD_VALUES: Mapping[str, Value] = {
    "pack_v": 13.28,
    "current_a": -2.5,
    "soc_bms": 0.87,
    "cycles": 12.0,
    "extra.remaining_ah": 87.0,
    "extra.nominal_ah": 100.0,
    "charge_mos": True,
    "discharge_mos": True,
    "balancing": 0b0100,
    "cell_v[0]": 3.321,
    "cell_v[1]": 3.320,
    "cell_v[2]": 3.319,
    "cell_v[3]": 3.320,
    "temp_c[0]": 21.4,
    "temp_c[1]": 0.0,
    "extra.hw_version": "JBD-SP04S020",
    "extra.sw_version": "2.1",
}


class BmsPort:
    """A port behind a link that stays when the adapter is plugged into another place."""

    def __init__(self, link: Path, protocol: Protocol, packs: Mapping[int | None, Mapping[str, Value]]) -> None:
        self.link, self.protocol = link, protocol
        self.packs = {address: dict(values) for address, values in packs.items()}
        self.asked: list[bytes] = []
        """All that was ever written to the line."""
        self._requests = {poll.request: (address, poll) for address in packs for poll in protocol.polls(address, None)}
        self._rest = b""
        self.fd = -1
        self.plug_in()

    def plug_in(self) -> None:
        """It is there, under a name that it may not have had before."""
        self.fd, line = os.openpty()
        tty.setraw(line)
        os.set_blocking(self.fd, False)
        fresh = self.link.with_name(f"{self.link.name}.new")
        fresh.symlink_to(os.ttyname(line))
        fresh.replace(self.link)
        self._line = line  # kept open, so that a reader that leaves is no hang-up

    def pull_out(self) -> None:
        """It is gone."""
        for fd in (self.fd, self._line):
            with contextlib.suppress(OSError):
                os.close(fd)

    def serve(self) -> int:
        """Answers all requests that have come whole; returns how many bytes. What is no request of a pack here gets no
        answer.
        """
        answered = 0
        with contextlib.suppress(BlockingIOError, OSError):
            self._rest += os.read(self.fd, 4096)
        while found := next((one for one in self._requests if self._rest.startswith(one)), None):
            self._rest = self._rest[len(found) :]
            self.asked.append(found)
            address, _ = self._requests[found]
            assert self.protocol.answer is not None
            for reply in self.protocol.answer(found, self.packs[address], address):
                answered += os.write(self.fd, reply)
        longest = max(map(len, self._requests))
        if len(self._rest) > longest:
            self.asked.append(self._rest)
            self._rest = b""
        return answered


@contextlib.contextmanager
def served(port: BmsPort, by: Callable[[], object] | None = None) -> Iterator[BmsPort]:
    """A thread that answers until the end of the block."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            if select.select([port.fd], [], [], 0.01)[0] or by is not None:
                (by or port.serve)()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield port
    finally:
        done.set()
        thread.join()
        port.pull_out()


class Hurry:
    """A clock of which time passes as fast as it is asked for."""

    def __init__(self) -> None:
        self.now_ns = 10**9

    def mono_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


class Quick:
    """A clock for those who wait at a port: it runs ten times as fast as ours."""

    def mono_ns(self) -> int:
        return time.monotonic_ns() * 10

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / 10)
