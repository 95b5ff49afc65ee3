"""Two network namespaces joined by a cable: two machines that share a disk. Needs root and iproute2.

A Namespace runs functions in a thread of its own that lives in it, and so do the sockets and processes made there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from conftest import missing

P = ParamSpec("P")
T = TypeVar("T")

_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One of the two. address: what the other one calls it by."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address
        # One thread for all: a child dies with the thread that started it (PR_SET_PDEATHSIG).
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=self._enter)

    def __call__(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """work(*args) in here."""
        return self._thread.submit(work, *args, **kwargs).result()

    def close(self) -> None:
        """Ends the thread, and so what it has started."""
        self._thread.shutdown()

    def _enter(self) -> None:
        descriptor = os.open(Path("/run/netns") / self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(descriptor, _NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self.name)
        finally:
            os.close(descriptor)


@contextmanager
def two_machines() -> Iterator[tuple[Namespace, Namespace]]:
    """(the cloud's, the device's); gone at the end. Skips with the reason where that cannot be."""
    if shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
        missing("needs ip (apt-get install iproute2)")
    names = [f"packtwin-{os.getpid()}-{side}" for side in ("cloud", "car")]
    addresses = ["10.77.0.1", "10.77.0.2"]
    made: list[str] = []
    try:
        for name in names:
            problem = _ip("netns", "add", name)
            if problem:
                missing(f"needs network namespaces: {problem}")
            made.append(name)
        ends = [["type", "veth"], ["peer", "name", "cable"]]
        _must("link", "add", "cable", "netns", names[0], *ends[0], *ends[1], "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            _must("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for link in ("lo", "cable"):
                _must("-n", name, "link", "set", link, "up")
        both = [Namespace(*pair) for pair in zip(names, addresses, strict=True)]
        yield both[0], both[1]
        for namespace in both:
            namespace.close()
    finally:
        for name in made:
            _ip("netns", "del", name)


def _ip(*words: str) -> str:
    """Runs `ip`; what it complains of, `` = nothing."""
    path = {**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ.get('PATH', '')}"}
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, env=path)
    return done.stderr.strip() or f"ip {' '.join(words)} failed" if done.returncode else ""


def _must(*words: str) -> None:
    problem = _ip(*words)
    assert not problem, problem
