"""The only file that reads time.

`mono_ns` counts from the host's boot (suspend included). UTC is told only while some source of it is trusted: the
kernel (adjtimex says synchronised), the cloud (its time in an answer that took < 2 s, kept as an offset; the host's
clock is never set), or the host's clock as it is (`clock = "system"` in edge.toml).
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MAX_ROUND_TRIP_NS: Final = 2_000_000_000
_DRIFT: Final = 50e-6
"""How far a host's oscillator may go wrong, s per s: an old answer is worth less than a fresh one."""
_SYSTEM_TOLERANCE_NS: Final = 5_000_000_000
_EARLIEST_NS: Final = 1_577_836_800_000_000_000  # 2020: a cloud that says less has no clock either
_LATEST_NS: Final = 1 << 62  # 2116: what the wire can carry
_STA_UNSYNC: Final = 0x40
_TIME_ERROR: Final = 5
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class _Timex(ctypes.Structure):
    """The head of Linux's struct timex, up to what is read here."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


@functools.cache
def _libc_adjtimex() -> Any:
    """libc's adjtimex; None where it has none."""
    try:
        return ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None


def kernel_synchronised() -> bool:
    """Whether the kernel says that something (NTP, PTP) keeps its clock right. False where it cannot be asked."""
    adjtimex = _libc_adjtimex()
    if adjtimex is None:
        return False
    timex = _Timex()
    state = adjtimex(ctypes.byref(timex))
    return 0 <= state < _TIME_ERROR and not timex.status & _STA_UNSYNC


def kernel_boot_id() -> str:
    """What names this start of the kernel; "" where the kernel does not say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _mono_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def both_ns() -> tuple[int, int]:
    """(mono_ns, what the host's clock shows in ns since 1970) of one instant: what moves the kernel's stamps over."""
    return _mono_ns(), time.time_ns()


@dataclass(frozen=True, slots=True)
class _Answer:
    offset_ns: int
    error_ns: int
    at_ns: int

    def error_at(self, mono_ns: int) -> float:
        return self.error_ns + _DRIFT * (mono_ns - self.at_ns)


class Clock:
    """Monotonic time and, when trusted, UTC. May be used by several threads.

    The three readers are arguments so that a test can hold time still; nothing else passes them.
    """

    def __init__(
        self,
        mode: str = "trusted",
        *,
        mono_ns: Callable[[], int] = _mono_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        synchronised: Callable[[], bool] = kernel_synchronised,
    ) -> None:
        self._mode = mode
        self._mono_ns, self._wall_ns, self._synchronised = mono_ns, wall_ns, synchronised
        self._answer: _Answer | None = None
        self._lock = threading.Lock()

    def mono_ns(self) -> int:
        """Nanoseconds since the host booted."""
        return self._mono_ns()

    def t_ns(self) -> int | None:
        """UTC in ns; None = no source of it is trusted yet."""
        offset = self.offset_ns()
        return None if offset is None else self._mono_ns() + offset

    def offset_ns(self) -> int | None:
        """UTC - mono_ns as it is trusted now; None = not yet."""
        return self._read()[1]

    @property
    def trusted(self) -> bool:
        """Whether UTC is known."""
        return self._read()[1] is not None

    @property
    def source(self) -> str:
        """Where the trust comes from: `kernel`, `cloud`, `system` or `none`."""
        return self._read()[0]

    def learn(self, cloud_t_ns: int, sent_mono_ns: int, received_mono_ns: int, error_ns: int = 0) -> bool:
        """The cloud's time in an answer to a request; False = the answer took too long, or that cannot be the time.

        error_ns: how coarse `cloud_t_ns` is in itself (0.5 s for an HTTP Date header).
        """
        trip_ns = received_mono_ns - sent_mono_ns
        if not 0 <= trip_ns < MAX_ROUND_TRIP_NS or not _EARLIEST_NS <= cloud_t_ns < _LATEST_NS:
            return False
        answer = _Answer(cloud_t_ns - (sent_mono_ns + trip_ns // 2), trip_ns // 2 + error_ns, received_mono_ns)
        with self._lock:
            best = self._answer
            if best is None or answer.error_ns <= best.error_at(received_mono_ns):
                self._answer = answer
        return True

    def _read(self) -> tuple[str, int | None]:
        host = self._wall_ns() - self._mono_ns()
        if self._synchronised():
            return "kernel", host
        with self._lock:
            answer = self._answer
        if self._mode == "system" and (answer is None or abs(host - answer.offset_ns) < _SYSTEM_TOLERANCE_NS):
            return "system", host
        if answer is not None:  # also where the host's clock was to be believed, but is plainly wrong
            return "cloud", answer.offset_ns
        return "none", None
