"""What frames of a bus say of each signal: how often, how far it goes, whether it changes, and how two go together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.dbc.flat import GOOD, OUT_OF_RANGE, FlatDecoder
from edge.dbc.model import Message
from firmware_bridge.frames import FrameBatch

BIN_S: Final = 0.5
"""Signals are compared by their means over so many s."""
_LEAST_BINS: Final = 8
_LEAST_T: Final = 4.0
_BIN_NS: Final = int(BIN_S * 1e9)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """One signal in a log. count: values within the DBC's limits, lo..hi and mean theirs, by the DBC's unit.

    bad: values beyond the limits, or none. first, last: the values at the ends. distinct: whether it changed.
    period_s: from one to the next on average; None = seen once or never.
    """

    count: int
    bad: int
    lo: float
    hi: float
    mean: float
    first: float
    last: float
    period_s: float | None

    @property
    def varies(self) -> bool:
        """Whether it had more than one value."""
        return self.hi > self.lo


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard: frames, those that the DBC knows, their time in s, and each signal by `Message.Signal`."""

    frames: int
    known: int
    duration_s: float
    signals: Mapping[str, Seen]


class Listener:
    """Sums up the frames of one bus."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._decoder = FlatDecoder(messages)
        n = len(self._decoder.signals)
        self._count, self._bad = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._sum = np.zeros(n)
        self._lo, self._hi = np.full(n, np.inf), np.full(n, -np.inf)
        self._first, self._last = np.full(n, np.nan), np.full(n, np.nan)
        self._first_ns, self._last_ns = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._begun_ns: int | None = None
        self._ended_ns = 0

    @property
    def known(self) -> int:
        """How many frames were of a message that the DBC has."""
        return self._decoder.frames - self._decoder.skipped

    def feed(self, batch: FrameBatch) -> None:
        """Takes in frames, oldest first."""
        if not len(batch):
            return
        self._begun_ns = int(batch.t_ns[0]) if self._begun_ns is None else self._begun_ns
        self._ended_ns = max(self._ended_ns, int(batch.t_ns[-1]))
        told = self._decoder.decode(batch)
        good = (told.quality == GOOD) & np.isfinite(told.value)
        np.add.at(self._bad, told.signal[~good], 1)
        signal, value, t_ns = told.signal[good], told.value[good], batch.t_ns[told.frame[good]]
        # The last write wins: backwards, that is the first of the batch.
        fresh = np.isnan(self._first[signal])
        self._first[signal[fresh][::-1]], self._first_ns[signal[fresh][::-1]] = value[fresh][::-1], t_ns[fresh][::-1]
        self._last[signal], self._last_ns[signal] = value, t_ns
        np.add.at(self._count, signal, 1)
        np.add.at(self._sum, signal, value)
        np.minimum.at(self._lo, signal, value)
        np.maximum.at(self._hi, signal, value)

    def heard(self) -> Heard:
        """All that was said so far."""
        signals: dict[str, Seen] = {}
        for i, signal in enumerate(self._decoder.signals):
            count = int(self._count[i])
            if count or self._bad[i]:
                gaps = count - 1
                seen = Seen(
                    count=count,
                    bad=int(self._bad[i]),
                    lo=float(self._lo[i]),
                    hi=float(self._hi[i]),
                    mean=float(self._sum[i] / count) if count else float("nan"),
                    first=float(self._first[i]),
                    last=float(self._last[i]),
                    period_s=(self._last_ns[i] - self._first_ns[i]) / gaps / 1e9 if gaps > 0 else None,
                )
                signals.setdefault(signal.path, seen)
        begun_ns = self._begun_ns or 0
        return Heard(self._decoder.frames, self.known, max(self._ended_ns - begun_ns, 0) / 1e9, signals)


def series(messages: Sequence[Message], paths: Sequence[str], batches: Iterable[FrameBatch]) -> dict[str, Floats]:
    """Means of signals over bins of BIN_S since the first frame, NaN where there was none; all of one length."""
    names = set(paths)
    wanted = [message for message in messages if any(signal.path in names for signal in message.signals)]
    decoder = FlatDecoder(wanted, only=names)
    sums: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.intp], Floats]] = []
    begun_ns: int | None = None
    for batch in batches:
        if not len(batch):
            continue
        begun_ns = int(batch.t_ns[0]) if begun_ns is None else begun_ns
        told = decoder.decode(batch)
        good = (told.quality != OUT_OF_RANGE) & np.isfinite(told.value)
        at = np.maximum(batch.t_ns[told.frame[good]] - begun_ns, 0) // _BIN_NS
        sums.append((at, told.signal[good].astype(np.intp), told.value[good]))
    if not sums:
        return {}
    at, signal, value = (np.concatenate(parts) for parts in zip(*sums, strict=True))
    bins = int(at.max(initial=0)) + 1
    out: dict[str, Floats] = {}
    for i, told_signal in enumerate(decoder.signals):
        mine = signal == i
        count = np.bincount(at[mine], minlength=bins)
        total = np.bincount(at[mine], weights=value[mine], minlength=bins)
        with np.errstate(invalid="ignore", divide="ignore"):
            out.setdefault(told_signal.path, np.where(count > 0, total / count, np.nan))
    return out


def correlation(one: Floats, other: Floats) -> float | None:
    """How the steps of two signals from bin to bin go together, -1..1; 0 when chance may do it; None when
    there are too few or none moves.

    Steps, not the values themselves: over a long drive both fall with the state of charge.
    """
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() <= _LEAST_BINS:
        return None
    a, b = np.diff(one[both]), np.diff(other[both])
    if a.std() < 1e-9 or b.std() < 1e-9:
        return None
    r = float(np.corrcoef(a, b)[0, 1])
    # Few bins go together by chance: below this the t statistic says nothing.
    return r if abs(r) * math.sqrt(len(a) - 2) > _LEAST_T * math.sqrt(max(1 - r * r, 0.0)) else 0.0
