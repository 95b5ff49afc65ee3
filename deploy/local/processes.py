"""Starting, recognising and ending processes of our own: none outlives us, none of a stranger's is touched."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that no later one with the same number is taken for: pid, and its start in clock ticks since boot."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Account:
    """The user a child runs as."""

    uid: int
    gid: int


def identify(pid: int) -> Identity | None:
    """Returns who runs under this pid now; None when nobody does (a zombie counts as nobody)."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if after_name[0] in "ZX" else Identity(pid, int(after_name[19]))


def is_alive(process: Identity) -> bool:
    return identify(process.pid) == process


def spawn(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: Path,
    log: Path,
    account: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Starts a child in its own session with its output appended to `log`; the kernel ends it when we die."""
    parent = os.getpid()

    def before_exec() -> None:  # in the child, after its user was set (which would clear the death signal)
        # What we ignore, as what a shell puts into the background does, would be lost until its own handlers stand.
        for number in _ENDINGS:
            signal.signal(number, signal.SIG_DFL)
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # we died before the line above
            os._exit(1)

    with log.open("ab") as out:
        return subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=before_exec,  # noqa: PLW1509 - nobody here starts a thread
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )


def end(process: Identity, polite: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> None:
    """Ends a process: politely, and by SIGKILL if it lives after `grace_s`; what is left of its group goes too."""
    if is_alive(process):
        os.kill(process.pid, polite)  # to the head alone, which ends the rest in its own order
    deadline = time.monotonic() + grace_s
    while is_alive(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    _kill_group(process)
    while is_alive(process):
        time.sleep(0.02)
    _reap(process.pid)


def _kill_group(process: Identity) -> None:
    # A dead child of ours is a zombie until it is reaped, so its number, and its group's, is not yet anyone else's.
    # A dead process of an earlier run was reaped by init: its number may be a stranger's, so it is left alone.
    try:
        ours = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        ours = False
    if ours or is_alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
