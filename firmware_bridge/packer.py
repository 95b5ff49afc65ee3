"""A DBC turned round: values in, the frames of a bus out, each message at its own period.

The DBC is read once by cantools (this is the one file of the package that imports it) and becomes a numpy plan, so that
a tick of 0.1 s costs the same few calls however many signals there are. Two signal names are filled in here: `Counter`
(frames of the message, modulo its size) and `Crc` (last byte; CRC-8 SAE J1850 over the bytes before it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED, FrameBatch
from shared.errors import ConfigError

TICK_MS: Final = 100
TICK_NS: Final = TICK_MS * 1_000_000
_SLOT_US: Final = 250  # what the longest classic frame takes at 500 kbit/s
_SLOTS_PER_MS: Final = 1000 // _SLOT_US
_GOLDEN: Final = 0.618034

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Fields:
    """The signals of one byte order as columns, those of one kind of frame side by side.

    A kind is a message, or one group of a multiplexed message; a word is the 8 bytes of its frame as one number.
    """

    value: Ints  # index into the values given
    offset: Floats
    scale: Floats
    lo: Floats  # least and greatest raw value
    hi: Floats
    mask: Words
    shift: Words
    first: Ints  # where each kind's signals begin
    kind: Ints  # the kind that begins there

    def words(self, values: Floats, kinds: int) -> Words:
        """The frame of each kind, uint64[kinds], from the values; what does not fit its signal is cut to its range."""
        out = np.zeros(kinds, np.uint64)
        if len(self.value):
            raw = np.rint((values[self.value] - self.offset) / self.scale)
            bits = np.clip(raw, self.lo, self.hi).astype(np.int64).view(np.uint64) & self.mask
            out[self.kind] = np.bitwise_or.reduceat(bits << self.shift, self.first)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class _Tick:
    """What is due in one tick: which message, how often it was sent in this round before, when within the tick."""

    message: Ints
    sent: Ints
    after_ns: Ints


class Packer:
    """Makes the frames of a DBC's bus from values of its signals, which are called `names`, in that order."""

    def __init__(self, dbc_text: str, names: Sequence[str]) -> None:
        messages = [_Message(message) for message in _load(dbc_text)]
        in_dbc = {signal.name for message in messages for signal in message.signals}
        if odd := in_dbc ^ set(names):
            raise ConfigError(f"signal {min(odd)} is only in one of the DBC and the model: add it to the other")
        column = {name: at for at, name in enumerate(names)}
        self._kinds = sum(message.groups for message in messages)
        first_kind = np.cumsum([0, *[message.groups for message in messages]])
        self._first_kind = first_kind[:-1].astype(np.int64)
        rows = [
            row for m, message in zip(first_kind.tolist(), messages, strict=False) for row in message.rows(m, column)
        ]
        self._intel, self._motorola = (_fields([r for r in rows if r["motorola"] is big]) for big in (False, True))
        self._fixed = np.concatenate([message.group_words() for message in messages])
        self._can_id = np.array([message.can_id for message in messages], np.uint32)
        self._length = np.array([message.length for message in messages], np.uint8)
        self._groups = np.array([message.groups for message in messages], np.int64)
        self._counter_mask = np.array([message.counter_mask for message in messages], np.int64)
        self._counter_shift = np.array([message.counter_shift for message in messages], np.uint64)
        self._crc_at = np.array([message.length - 1 if message.has_crc else -1 for message in messages], np.int64)
        periods_ms = [message.period_ms for message in messages]
        round_ms = math.lcm(TICK_MS, *periods_ms)
        self._per_round = np.array([round_ms // period_ms for period_ms in periods_ms], np.int64)
        self._ticks = _timetable(periods_ms, round_ms)

    @property
    def frames_per_s(self) -> float:
        """How many frames the bus carries in a second."""
        return float(self._per_round.sum()) * 1000 / (len(self._ticks) * TICK_MS)

    def frames(self, channel: str, tick: int, values: Floats, t_ns: int) -> FrameBatch:
        """The frames of tick `tick` (from 0), which begins at `t_ns`; values float64[len(names)] in DBC units."""
        fixed = self._fixed | self._intel.words(values, self._kinds)
        words = fixed | self._motorola.words(values, self._kinds).byteswap()
        rounds, at = divmod(tick, len(self._ticks))
        due = self._ticks[at]
        message = due.message
        sent = rounds * self._per_round[message] + due.sent
        word = words[self._first_kind[message] + sent % self._groups[message]]
        word |= (sent & self._counter_mask[message]).view(np.uint64) << self._counter_shift[message]
        data = word.astype("<u8").view(np.uint8).reshape(-1, CLASSIC_BYTES)
        _seal(data, self._crc_at[message])
        return FrameBatch(channel, t_ns + due.after_ns, self._can_id[message], self._length[message], data)


def packtwin_dbc() -> str:
    """The text of packtwin.dbc, the DBC of the simulated cars."""
    return (files("firmware_bridge") / "packtwin.dbc").read_text(encoding="ascii")


def _load(dbc_text: str) -> Sequence[Any]:
    try:
        from cantools.database import load_string
    except ImportError as error:
        raise ConfigError("simulated cars need cantools: install packtwin[edge]") from error
    messages: Sequence[Any] = load_string(dbc_text, "dbc").messages  # type: ignore[union-attr]
    return messages


class _Message:
    """One message of the DBC, as far as the plan needs it."""

    def __init__(self, message: Any) -> None:
        self.can_id: int = message.frame_id | (EXTENDED if message.is_extended_frame else 0)
        self.length: int = message.length
        self.period_ms: int = message.cycle_time or 0
        if self.length > CLASSIC_BYTES or not 0 < self.period_ms <= 1000:
            raise ConfigError(f"message {message.name} needs a cycle time of 1..1000 ms and at most 8 bytes in the DBC")
        by_name = {signal.name: signal for signal in message.signals}
        self.switch = next((signal for signal in message.signals if signal.is_multiplexer), None)
        own = {"Counter", "Crc", *([self.switch.name] if self.switch else [])}
        self.signals = [signal for name, signal in by_name.items() if name not in own]
        self.groups = 1 + max((max(s.multiplexer_ids) for s in message.signals if s.multiplexer_ids), default=0)
        self.has_crc = "Crc" in by_name
        self.counter_mask = self.counter_shift = 0
        if counter := by_name.get("Counter"):
            self.counter_mask = (1 << counter.length) - 1
            # A counter lies within one byte, so its place in a little-endian word is the same for both byte orders.
            low_bit = counter.start - (counter.length - 1 if _motorola(counter) else 0)
            self.counter_shift = low_bit

    def rows(self, first_kind: int, column: dict[str, int]) -> list[dict[str, Any]]:
        """One row a (signal, kind of frame that carries it)."""
        return [
            {
                "value": column[signal.name],
                "offset": float(signal.offset),
                "scale": float(signal.scale),
                "lo": -(1 << signal.length - 1) if signal.is_signed else 0,
                "hi": (1 << signal.length - (1 if signal.is_signed else 0)) - 1,
                "mask": (1 << signal.length) - 1,
                "shift": _shift(signal),
                "kind": first_kind + group,
                "motorola": _motorola(signal),
            }
            for group in range(self.groups)
            for signal in self.signals
            if not signal.multiplexer_ids or group in signal.multiplexer_ids
        ]

    def group_words(self) -> Words:
        """What the frame of each group holds whatever the values: its own number."""
        groups = np.arange(self.groups, dtype=np.uint64)
        if self.switch is None:
            return groups
        words = groups << np.uint64(_shift(self.switch))
        return words.byteswap() if _motorola(self.switch) else words


def _motorola(signal: Any) -> bool:
    return bool(signal.byte_order == "big_endian")


def _shift(signal: Any) -> int:
    """Lowest bit of the signal in the frame's word, read in the signal's own byte order."""
    if not _motorola(signal):
        return int(signal.start)
    byte, bit = divmod(signal.start, 8)
    return int(63 - (8 * byte + 7 - bit) - (signal.length - 1))


def _fields(rows: list[dict[str, Any]]) -> _Fields:
    rows = sorted(rows, key=lambda row: row["kind"])

    def column(key: str, kind: type[Any]) -> npt.NDArray[Any]:
        return np.array([row[key] for row in rows], kind)

    kinds, first = np.unique(column("kind", np.int64), return_index=True)
    return _Fields(
        column("value", np.int64),
        column("offset", np.float64),
        column("scale", np.float64),
        column("lo", np.float64),
        column("hi", np.float64),
        column("mask", np.uint64),
        column("shift", np.uint64),
        first.astype(np.int64),
        kinds,
    )


def _timetable(periods_ms: list[int], round_ms: int) -> list[_Tick]:
    """When each message is sent in one round: strictly periodic, one frame a slot, and spread over the round."""
    slots = round_ms * _SLOTS_PER_MS
    owner = np.full(slots, -1, np.int64)
    for message in np.argsort(periods_ms, kind="stable").tolist():
        period = periods_ms[message] * _SLOTS_PER_MS
        wish = int(period * (message * _GOLDEN % 1.0))
        phase = next((p % period for p in range(wish, wish + period) if (owner[p % period :: period] < 0).all()), None)
        if phase is None:
            raise ConfigError(
                "the DBC's cycle times ask for more frames than a bus of 500 kbit/s carries: lengthen some"
            )
        owner[phase::period] = message
    ticks = []
    per_tick = TICK_MS * _SLOTS_PER_MS
    for begin in range(0, slots, per_tick):
        taken = begin + np.flatnonzero(owner[begin : begin + per_tick] >= 0)
        message_at = owner[taken]
        periods = np.array(periods_ms, np.int64)[message_at] * _SLOTS_PER_MS
        ticks.append(_Tick(message_at, taken // periods, (taken - begin) * _SLOT_US * 1000))
    return ticks


def _crc_table() -> npt.NDArray[np.uint8]:
    table = np.arange(256)
    for _ in range(8):
        table = (table << 1) ^ np.where(table & 0x80, 0x11D, 0)
    return table.astype(np.uint8)


_CRC: Final = _crc_table()


def _seal(data: npt.NDArray[np.uint8], crc_at: Ints) -> None:
    """Writes the CRC of each frame into its byte `crc_at` (-1 = the frame has none)."""
    for at in np.unique(crc_at[crc_at >= 0]).tolist():
        rows = crc_at == at
        crc = np.full(int(rows.sum()), 0xFF, np.uint8)
        for byte in data[rows, :at].T:
            crc = _CRC[crc ^ byte]
        data[rows, at] = crc ^ 0xFF
