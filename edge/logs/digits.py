"""Numbers -> text, a column at a time: what makes a CSV of millions of values a matter of numpy.

A column of text is uint8[n, width] with NUL wherever a row has no character: who writes it leaves the NULs out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Chars = npt.NDArray[np.uint8]

_GROUP: Final = 10_000


def _table(texts: list[bytes]) -> npt.NDArray[np.uint32]:
    return np.array([text.ljust(4, b"\0") for text in texts], "S4").view(np.uint32)


_FULL: Final = np.frombuffer(b"".join(b"%04d" % n for n in range(_GROUP)), np.uint32)
"""0..9999 as four digits."""
_LEADING: Final = np.frombuffer(b"".join((b"%d" % n if n else b"").rjust(4, b"\0") for n in range(_GROUP)), np.uint32)
"""0..9999 without leading zeros; 0 is nothing."""
_TRAILING: Final = _table([(b"%04d" % n).rstrip(b"0") for n in range(_GROUP)])
"""0..9999 as decimals, without trailing zeros; 0 is nothing."""
_ZERO: Final = np.frombuffer(b"\0\0\0" + b"0", np.uint32)[0]
_POINT_ZERO: Final = np.frombuffer(b"0\0\0\0", np.uint32)[0]


def whole(number: npt.NDArray[np.int64]) -> Chars:
    """Whole numbers, int64 >= 0, as decimal digits."""
    groups = []
    rest = number
    while True:
        above = rest // _GROUP
        groups.append(rest - above * _GROUP)
        if not above.any():
            break
        rest = above
    text = np.empty((len(number), len(groups)), np.uint32)
    is_begun: npt.NDArray[np.bool_] | None = None
    for column, group in enumerate(reversed(groups)):
        leading = _LEADING[group]
        if column == len(groups) - 1:  # a zero that stands alone is shown
            leading = np.where(group == 0, _ZERO, leading)
        text[:, column] = leading if is_begun is None else np.where(is_begun, _FULL[group], leading)
        is_begun = group > 0 if is_begun is None else is_begun | (group > 0)
    return text.view(np.uint8)


def decimals(number: npt.NDArray[np.int64], places: int) -> Chars:
    """Decimals behind a point: `number` of 10^-places each, trailing zeros left out but one. places: 4 or 8."""
    if places == 4:
        text = np.where(number == 0, _POINT_ZERO, _TRAILING[number])[:, None]
        return np.ascontiguousarray(text).view(np.uint8)
    high = number // _GROUP
    low = number - high * _GROUP
    text = np.empty((len(number), 2), np.uint32)
    text[:, 0] = np.where(low == 0, np.where(high == 0, _POINT_ZERO, _TRAILING[high]), _FULL[high])
    text[:, 1] = _TRAILING[low]
    return text.view(np.uint8)


def seconds_column(t_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bytes_]:
    """Times as text in s, S[n]: six decimals, or nine where there is something below 1 us."""
    if not len(t_ns):
        return np.empty(0, "S1")
    size = np.abs(t_ns)
    seconds = size // 1_000_000_000
    rest = size - seconds * 1_000_000_000
    is_fine = rest % 1000 != 0
    chars = whole(seconds)
    sign = np.where(t_ns < 0, ord("-"), 0).astype(np.uint8)[:, None]
    point = np.full((len(t_ns), 1), ord("."), np.uint8)
    us, ns = _fixed(rest // 1000, 6), _fixed(rest % 1000, 3)
    ns[~is_fine] = 0
    return squeezed(np.hstack([sign, chars, point, us, ns]))


def _fixed(number: npt.NDArray[np.int64], places: int) -> Chars:
    """Exactly `places` digits (up to 8)."""
    high = number // _GROUP
    text = np.empty((len(number), 2), np.uint32)
    text[:, 0] = _FULL[high]
    text[:, 1] = _FULL[number - high * _GROUP]
    return text.view(np.uint8)[:, 8 - places :].copy()


def squeezed(chars: Chars) -> npt.NDArray[np.bytes_]:
    """Text without its NULs, aligned to the left, S[n]."""
    there = chars != 0
    lengths = there.sum(axis=1)
    out = np.zeros((len(chars), max(int(lengths.max(initial=0)), 1)), np.uint8)
    out[np.arange(out.shape[1]) < lengths[:, None]] = chars[there]
    return out.view(f"S{out.shape[1]}")[:, 0]
