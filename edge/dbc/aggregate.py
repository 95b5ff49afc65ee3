"""What each signal did within a batch: last, least, greatest, mean and count, on raw integers before they are scaled.

The pairs are sorted by signal and stay in the order of their frames within it, so that each is one stretch that numpy
reduces. (Sorting frames by what they hold would lose which frame of a multiplexor was the last.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge.dbc.flat import GOOD, GROUP, LAYOUT, OUT_OF_RANGE, Decoded, FlatDecoder
from edge.dbc.follow import Rows
from edge.dbc.plan import Floats, Index
from firmware_bridge.frames import FrameBatch


@dataclass(slots=True, eq=False)
class Aggregate:
    """Of each signal in a batch; frames that cantools refuses for their multiplexor do not count.

    signal int[n]: index into the decoder's signals. last_frame int[n]: the frame that had it last; last float64[n]
    and last_quality uint8[n]: what it said. count int64[n]: good values; lo, hi, mean float64[n]: of those, NaN when
    there is none. rows: the frames that said something, if only that none of their signals is asked for.
    """

    signal: Index
    last_frame: Index
    last: Floats
    last_quality: npt.NDArray[np.uint8]
    count: npt.NDArray[np.int64]
    lo: Floats
    hi: Floats
    mean: Floats
    rows: Rows


def aggregate(decoder: FlatDecoder, batch: FrameBatch) -> Aggregate:
    """The Aggregate of a batch."""
    rows = decoder.rows(batch)
    if rows.quality is not None:
        kept = (rows.quality != GROUP).nonzero()[0]
        rows = Rows(rows.frame[kept], rows.state[kept], rows.payloads, rows.is_short, None)
    if not decoder.is_whole or rows.is_short:
        return _of_values(decoder.decoded(rows, batch), rows)
    begin, signal, raw = decoder.pairs(rows)
    if not len(signal):
        return _nothing(rows)
    counts = np.bincount(signal, minlength=len(decoder.signals))
    told = counts.nonzero()[0]
    count = counts[told]
    end = count.cumsum()
    first = end - count
    order = signal.astype(decoder.small).argsort(kind="stable")
    last = order[end - 1]
    raw_by_signal = raw.take(order, mode="clip")
    least, greatest = np.minimum.reduceat(raw_by_signal, first), np.maximum.reduceat(raw_by_signal, first)
    table = decoder.plan.table
    value = np.empty((4, len(told)))
    value[0], value[1], value[2] = least, greatest, raw[last]
    np.add.reduceat(raw_by_signal, first, dtype=np.float64, out=value[3])
    value[3] /= count
    value *= table.scale[told]
    value += table.offset[told]
    if decoder.has_slow:
        for at, numbers in enumerate((least, greatest, raw[last])):
            value[at] = decoder.value(told, numbers)
    lo, hi = np.minimum(value[0], value[1]), np.maximum(value[0], value[1])  # a negative scale turns them
    last_frame = begin[last] // rows.payloads.width
    found = Aggregate(told, last_frame, value[2], np.zeros(len(told), np.uint8), count, lo, hi, value[3], rows)
    if decoder.has_limits:
        beyond = ((lo < table.lo[told]) | (hi > table.hi[told])).nonzero()[0]
        if len(beyond):
            _within(decoder, found, beyond, first, raw_by_signal)
    return found


def values_of(decoder: FlatDecoder, batch: FrameBatch, rows: Rows, signal: int) -> Floats:
    """All good values of one signal in the order of their frames."""
    found = decoder.decoded(rows, batch)
    good: Floats = found.value[(found.signal == signal) & _is_good(found.quality)]
    return good


def _within(decoder: FlatDecoder, found: Aggregate, beyond: Index, begin: Index, raw: npt.NDArray[np.int64]) -> None:
    """Sums up anew, in place, the signals that have values beyond their limits: those do not count."""
    table = decoder.plan.table
    length = found.count[beyond]
    end = np.cumsum(length)
    first = end - length
    at = np.arange(end[-1]) + np.repeat(begin[beyond] - first, length)
    signal = np.repeat(found.signal[beyond], length)
    value = decoder.value(signal, raw[at])
    good = (value >= table.lo[signal]) & (value <= table.hi[signal])
    found.count[beyond], found.lo[beyond], found.hi[beyond], found.mean[beyond] = _of_good(value, good, first)
    found.last_quality[beyond[~good[end - 1]]] = OUT_OF_RANGE


def _borders(signal: Index) -> tuple[Index, Index]:
    """Where each number begins in an ascending array, and where it stands for the last time."""
    edge = (signal[1:] != signal[:-1]).nonzero()[0]
    first = np.empty(len(edge) + 1, np.intp)
    final = np.empty(len(edge) + 1, np.intp)
    first[0], final[-1] = 0, len(signal) - 1
    first[1:], final[:-1] = edge + 1, edge
    return first, final


def _of_good(
    value: Floats, good: npt.NDArray[np.bool_], first: Index
) -> tuple[npt.NDArray[np.int64], Floats, Floats, Floats]:
    """count, least, greatest and mean of the good values from each `first` to the next; NaN where there is none."""
    count = np.add.reduceat(good.astype(np.int64), first)
    total = np.add.reduceat(np.where(good, value, 0.0), first)
    lo = np.minimum.reduceat(np.where(good, value, np.inf), first)
    hi = np.maximum.reduceat(np.where(good, value, -np.inf), first)
    none = count == 0
    mean = total / np.maximum(count, 1)
    return count, *(np.where(none, np.nan, one) for one in (lo, hi, mean))  # type: ignore[return-value]


def _is_good(quality: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    good: npt.NDArray[np.bool_] = (quality == GOOD) | (quality == LAYOUT)
    return good


def _of_values(found: Decoded, rows: Rows) -> Aggregate:
    """The same from decoded values, for floats, for more than 64 bits and when a frame is short."""
    if not len(found):
        return _nothing(rows)
    order = np.argsort(found.signal, kind="stable")
    signal = found.signal[order]
    first, final = _borders(signal)
    count, lo, hi, mean = _of_good(found.value[order], _is_good(found.quality[order]), first)
    last = order[final]
    return Aggregate(
        signal=signal[first],
        last_frame=found.frame[last],
        last=found.value[last],
        last_quality=found.quality[last],
        count=count,
        lo=lo,
        hi=hi,
        mean=mean,
        rows=rows,
    )


def _nothing(rows: Rows) -> Aggregate:
    none, whole = np.empty(0), np.empty(0, np.int64)
    return Aggregate(none.astype(np.int32), whole, none, none.astype(np.uint8), whole, none, none, none, rows)
