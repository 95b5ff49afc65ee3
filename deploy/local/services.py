"""One supervised service: how it starts, how one knows that it works, how it ends."""

from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from processes import Account, Identity, end, identify, spawn

from shared.errors import PacktwinError

BACKOFF_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
STEADY_S = 60.0  # a child that lived this long starts its backoff anew
LOG_BYTES = 20 * 2**20
CANNOT = 2  # exit code of our own commands: as things are it will not go, and another try changes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What is to run. `command` [] = a server of the user's that is only asked."""

    name: str
    address: str  # what a person would open or call
    command: Sequence[str]
    ready: Callable[[], bool]
    prepare: Callable[[], None] = lambda: None  # once, before the first start
    before_restart: Callable[[], None] = lambda: None
    environment: Mapping[str, str] = field(default_factory=dict)
    account: Account | None = None
    cwd: Path = Path("/")
    polite: signal.Signals = signal.SIGTERM
    start_s: float = 60.0  # how long the first start may take
    health: str = ""  # for `make status`: a URL, or `` = alive is all that can be asked
    optional: bool = False  # the others go on without it, and nobody waits for it long
    missing: str = ""  # why it cannot run here and how to get it; `` = nothing is missing


def left_out(name: str, why: str) -> Service:
    """Returns a service that does not run here: for the table, and for the sentence at the start."""
    return Service(name=name, address="-", command=[], ready=lambda: True, missing=why)


class Child:
    """The running side of one Service."""

    def __init__(self, service: Service, log: Path) -> None:
        self.service, self.log = service, log
        self.restarts = 0
        self.problem = service.missing  # why it is not tried, or not again; `` = it is
        self._popen: subprocess.Popen[bytes] | None = None
        self._started_s = self._retry_s = 0.0
        self._tries = 0

    @property
    def identity(self) -> Identity | None:
        """Who it is now; None while it is not running."""
        return None if self._popen is None or self._popen.poll() is not None else identify(self._popen.pid)

    def start(self, now_s: float) -> None:
        """Starts the process; a command of [] has none."""
        if not self.service.command or self.problem:
            return
        self._popen = spawn(
            self.service.command,
            environment=self.service.environment,
            cwd=self.service.cwd,
            log=self.log,
            account=self.service.account,
            death_signal=self.service.polite,
        )
        self._started_s = now_s

    def exit_code(self) -> int | None:
        """Returns the exit code of a child that ended by itself; None while it runs or where there is none."""
        return None if self._popen is None else self._popen.poll()

    def step(self, now_s: float) -> str | None:
        """Starts a dead child again when its pause is over. Returns a sentence when something happened."""
        code = self.exit_code()
        if code is None or self.problem:
            return None
        if self.service.optional and code == CANNOT:
            self.problem = last_words(self.log).removeprefix("packtwin: ")
            return f"{self.service.name} is left out: {self.problem}"
        if self._retry_s == 0.0:
            self._tries = 0 if now_s - self._started_s > STEADY_S else self._tries
            pause_s = BACKOFF_S[min(self._tries, len(BACKOFF_S) - 1)]
            self._retry_s, self._tries = now_s + pause_s, self._tries + 1
            return f"{self.service.name} ended ({described(code)}); starting it again in {pause_s:g} s, see {self.log}"
        if now_s >= self._retry_s:
            self._retry_s = 0.0
            self.restarts += 1
            try:
                self.service.before_restart()
                self.start(now_s)
            except (PacktwinError, OSError) as error:  # the next step pauses and tries again
                return f"{self.service.name} could not be started: {error}"
            return f"{self.service.name} started again"
        return None

    def stop(self) -> None:
        """Ends the process and its group: politely first, within seconds."""
        if self._popen is not None and self._popen.returncode is None:
            process = identify(self._popen.pid)
            if process is not None:
                end(process, self.service.polite)
            self._popen.poll()
        self._popen = None

    def bound_log(self) -> None:
        """Keeps the log within LOG_BYTES: the older half moves to `.1` (the child appends, so emptying it is safe)."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.with_suffix(".log.1").write_bytes(self.log.read_bytes())
            with self.log.open("r+b") as log:
                log.truncate(0)


def described(code: int) -> str:
    """Returns an exit code in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def answers(url: str) -> bool:
    """Returns whether an HTTP server of this machine answers 200 there. No proxy is asked.

    Whose certificate it shows is not looked at: it is told nothing, and asked only whether it works.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def last_words(log: Path) -> str:
    """Returns the last line of a log that says something, for the one sentence of a failed start."""
    if not log.exists():
        return "it said nothing"
    with log.open("rb") as tail:
        tail.seek(max(0, log.stat().st_size - 8192))
        lines = [line.strip() for line in tail.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
