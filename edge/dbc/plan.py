"""Messages -> flat tables: where each signal lies, and which signals a frame holds by message and multiplexors.

A frame is in a *state*: at first the root of its message. A state with a switch (a multiplexor) leads on by the number
of that to the next state, until one has none; that one lists the signals of the frame. A state whose message has two
independent switches is split: its frames go on as one row per switch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edge.dbc.model import Message, Signal

WORD_BITS: Final = 64
NONE: Final = -1
_EXACT: Final = 1 << 53
"""Up to here every whole number is a float64."""
FLOAT_BITS: Final = (16, 32, 64)

Index = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SignalTables:
    """Per signal: raw = (word >> shift | next word << 64 - shift) & mask, then the sign; value = raw x scale + offset.

    A payload is a row of words of 8 bytes, each twice: as little endian and as big endian. place, next_place: which of
    them. is_unsigned: all 64 bits and no sign, so that int64 does not hold it.
    """

    place: Index
    next_place: Index
    shift: Words
    mask: Words
    sign: Words
    is_unsigned: Flags
    end_byte: Index
    scale: Floats
    offset: Floats
    lo: Floats
    hi: Floats
    float_bits: Index  # 0 = a whole number
    has_next: Flags
    is_wide: Flags  # more than 64 bits: one by one
    is_slow: Flags  # float64 arithmetic would round what cantools does not


@dataclass(frozen=True, slots=True, eq=False)
class StateTables:
    """Per state: its switch (NONE = no more) and the signals that are known by now, listing[first : first + count].

    is_odd: signals overlap or go beyond the message, so that cantools refuses the frame. A split state has its parts in
    parts[part_first : part_first + part_count].
    """

    switch: Index
    first: Index
    count: Index
    is_odd: Flags
    part_first: Index
    part_count: Index
    listing: Index
    parts: Index


@dataclass(frozen=True, slots=True, eq=False)
class SwitchTables:
    """Per switch: its signal, and next_state[switch, class] by the class of its number.

    bounds int64, ascending: class k holds the numbers from bounds[k - 1] up to bounds[k].
    is_scaled: the number is the value, cut to a whole number, not the raw one.
    """

    signal: Index
    is_scaled: Flags
    bounds: npt.NDArray[np.int64]
    next_state: Index


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All messages compiled. root[message]: the state that its frames begin in."""

    messages: tuple[Message, ...]
    signals: tuple[Signal, ...]
    message_of: Index  # of a signal
    need_bytes: Index  # of a message: shorter frames may lack something
    root: Index
    table: SignalTables
    states: StateTables
    switches: SwitchTables


def compile_plan(messages: Sequence[Message], only: Collection[str] | None = None) -> Plan:
    """The tables of `messages`; only: no other signals than these (`Message.Signal`) are listed."""
    signals = tuple(signal for message in messages for signal in message.signals)
    builder = _Builder(None if only is None else frozenset(only))
    root = [builder.message(message) for message in messages]
    return Plan(
        messages=tuple(messages),
        signals=signals,
        message_of=_ints([i for i, message in enumerate(messages) for _ in message.signals]),
        need_bytes=_ints([max([m.length, *(-(-s.end_bit // 8) for s in m.signals)]) for m in messages]),
        root=_ints(root),
        table=_signal_tables(signals),
        states=builder.states(),
        switches=builder.switches(),
    )


class _Builder:
    """Collects states and switches message by message."""

    def __init__(self, only: frozenset[str] | None) -> None:
        self._only = only
        self._signals = 0
        self._switch: list[int] = []
        self._lists: list[list[int]] = []
        self._odd: list[bool] = []
        self._parts: list[list[int]] = []
        self._switch_signal: list[int] = []
        self._switch_scaled: list[bool] = []
        self._branches: list[list[tuple[int, int, int]]] = []  # of a switch: from, up to (not with), state

    def message(self, message: Message) -> int:
        """The root state of a message."""
        base, self._signals = self._signals, self._signals + len(message.signals)
        children: dict[str | None, list[int]] = {}
        for i, signal in enumerate(message.signals):
            children.setdefault(signal.switch, []).append(i)
        return _MessageBuilder(self, message, base, children).state([], False, children.get(None, []))

    def add(self, listed: list[Signal], at: list[int], is_odd: bool, parts: list[int]) -> int:
        """A new state without a switch."""
        self._switch.append(NONE)
        wanted = self._only
        self._lists.append([i for i, s in zip(at, listed, strict=True) if wanted is None or s.path in wanted])
        self._odd.append(is_odd)
        self._parts.append(parts)
        return len(self._switch) - 1

    def add_switch(self, state: int, signal: Signal, at: int, branches: list[tuple[int, int, int]]) -> None:
        """Lets `state` go on by the number of `signal`."""
        self._switch[state] = len(self._switch_signal)
        self._switch_signal.append(at)
        self._switch_scaled.append(not signal.is_plain or signal.is_float)
        self._branches.append(branches)

    def states(self) -> StateTables:
        """The states so far."""
        counts = [len(listed) for listed in self._lists]
        part_counts = [len(parts) for parts in self._parts]
        return StateTables(
            switch=_ints(self._switch),
            first=_starts(counts),
            count=_ints(counts),
            is_odd=np.array(self._odd, bool),
            part_first=_starts(part_counts),
            part_count=_ints(part_counts),
            listing=_ints([i for listed in self._lists for i in listed]),
            parts=_ints([i for parts in self._parts for i in parts]),
        )

    def switches(self) -> SwitchTables:
        """The switches so far."""
        bounds = sorted({bound for branches in self._branches for lo, hi, _ in branches for bound in (lo, hi)})
        place = {bound: i for i, bound in enumerate(bounds)}
        next_state = np.full((len(self._branches), len(bounds) + 1), NONE)
        for switch, branches in enumerate(self._branches):
            for lo, hi, state in branches:
                next_state[switch, place[lo] + 1 : place[hi] + 1] = state
        return SwitchTables(
            signal=_ints(self._switch_signal),
            is_scaled=np.array(self._switch_scaled, bool),
            bounds=np.array(bounds, np.int64),
            next_state=next_state,
        )


class _MessageBuilder:
    """The states of one message. Signals are counted within it."""

    def __init__(self, builder: _Builder, message: Message, base: int, children: dict[str | None, list[int]]) -> None:
        self._builder, self._message, self._base, self._children = builder, message, base, children

    def state(self, before: list[int], was_odd: bool, new: list[int]) -> int:
        """The state of a frame in which `new` signals have joined those `before`."""
        signals = self._message.signals
        is_odd = was_odd or _odd([signals[i] for i in new], self._message.length) is not None
        here = sorted({*before, *new})
        switches = [i for i in new if self._numbers(i)]
        if len(switches) < 2:
            state = self._add(here, is_odd, [])
            for switch in switches:
                self._branch(state, here, is_odd, switch)
            return state
        parts = []
        for n, switch in enumerate(switches):
            held = here if n == 0 else []
            part = self._add(held, is_odd, [])
            self._branch(part, held, is_odd, switch)
            parts.append(part)
        return self._add([], is_odd, parts)

    def _add(self, here: list[int], is_odd: bool, parts: list[int]) -> int:
        listed = [self._message.signals[i] for i in here]
        return self._builder.add(listed, [self._base + i for i in here], is_odd, parts)

    def _numbers(self, switch: int) -> set[int]:
        """The numbers that the DBC knows of a switch: groups of others, and its value table (a group may be empty)."""
        signal = self._message.signals[switch]
        if not signal.is_switch:
            return set()
        known = {n for i in self._children.get(signal.name, []) for n in self._message.signals[i].groups or ()}
        return known | set(signal.values or ())

    def _branch(self, state: int, here: list[int], is_odd: bool, switch: int) -> None:
        """Leads on from `state` by the numbers of `switch`. Numbers with the same signals share a state."""
        signal = self._message.signals[switch]
        lo, hi = (-(1 << 63), 1 << 63) if not signal.is_plain or signal.is_float else _raw_range(signal)
        members: dict[int, list[int]] = {n: [] for n in self._numbers(switch) if lo <= n < hi}
        for i in self._children.get(signal.name, []):
            for number in self._message.signals[i].groups or ():
                if number in members:
                    members[number].append(i)
        known: dict[tuple[int, ...], int] = {}
        branches: list[tuple[int, int, int]] = []
        for number in sorted(members):
            group = tuple(members[number])
            if group not in known:
                known[group] = self.state(here, is_odd, list(group))
            at = _as_signed(number)
            if branches and branches[-1][1] == at and branches[-1][2] == known[group]:
                branches[-1] = (branches[-1][0], at + 1, known[group])
            elif at < (1 << 63) - 1:  # one number of 2**64 that no DBC has ever named
                branches.append((at, at + 1, known[group]))
        self._builder.add_switch(state, signal, self._base + switch, branches)


def _odd(signals: Sequence[Signal], length: int) -> Signal | None:
    """A signal that overlaps one of its own byte order or goes beyond `length` bytes: cantools refuses such frames."""
    for is_big in (False, True):
        end = 0
        for signal in sorted((s for s in signals if s.big_endian == is_big), key=lambda s: s.first_bit):
            if signal.first_bit < end or signal.end_bit > 8 * length:
                return signal
            end = signal.end_bit
    return None


def odd_signal(message: Message) -> str | None:
    """The name of a signal that overlaps another in some frame, or goes beyond the message; None = all is well."""
    plan = compile_plan([message])
    for state in np.flatnonzero(plan.states.is_odd).tolist():
        begin = plan.states.first[state]
        listed = plan.states.listing[begin : begin + plan.states.count[state]]
        signals = [plan.signals[i] for i in listed]
        for switch in {(s.switch, s.groups) for s in signals}:
            found = _odd([s for s in signals if (s.switch, s.groups) == switch], message.length)
            if found is not None:
                return found.name
        return signals[-1].name if signals else None
    return None


def _raw_range(signal: Signal) -> tuple[int, int]:
    """The least raw number and one beyond the greatest."""
    if signal.signed:
        return -(1 << signal.bits - 1), 1 << signal.bits - 1
    return 0, 1 << signal.bits


def _as_signed(number: int) -> int:
    """The number as 64 bits with a sign hold it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _signal_tables(signals: Sequence[Signal]) -> SignalTables:
    last = [s.first_bit + s.bits - 1 for s in signals]
    ends = list(zip(signals, last, strict=True))
    word = [(end if s.big_endian else s.first_bit) // WORD_BITS for s, end in ends]
    other = [(s.first_bit if s.big_endian else end) // WORD_BITS for s, end in ends]
    wide = np.array([s.bits > WORD_BITS for s in signals], bool)
    limits = [s.limits for s in signals]
    return SignalTables(
        place=np.array([2 * at + s.big_endian for s, at in zip(signals, word, strict=True)], np.intp),
        next_place=_ints([2 * at + s.big_endian for s, at in zip(signals, other, strict=True)]),
        shift=_words([(-1 - end if s.big_endian else s.first_bit) % WORD_BITS for s, end in ends]),
        mask=_words([(1 << min(s.bits, WORD_BITS)) - 1 for s in signals]),
        sign=_words([1 << s.bits - 1 if s.signed and s.bits <= WORD_BITS and not s.is_float else 0 for s in signals]),
        is_unsigned=np.array([s.bits == WORD_BITS and not s.signed and not s.is_float for s in signals], bool),
        end_byte=_ints([-(-s.end_bit // 8) for s in signals]),
        scale=np.array([1.0 if s.is_plain else float(s.scale) for s in signals], np.float64),
        # Minus zero is what can be added without turning a minus zero of a float into zero.
        offset=np.array([-0.0 if s.is_plain else float(s.offset) for s in signals], np.float64),
        lo=np.array([lo for lo, _ in limits], np.float64),
        hi=np.array([hi for _, hi in limits], np.float64),
        float_bits=_ints([s.bits if s.is_float else 0 for s in signals]),
        has_next=np.array([a != b for a, b in zip(word, other, strict=True)], bool) & ~wide,
        is_wide=wide,
        is_slow=np.array([_is_slow(s) for s in signals], bool),
    )


def _is_slow(signal: Signal) -> bool:
    """Whether raw x scale + offset in float64 may differ from what exact whole numbers give, rounded once."""
    if signal.is_float or signal.is_plain or signal.bits > WORD_BITS:
        return False
    if signal.is_whole:
        return (1 << signal.bits) * abs(int(signal.scale)) + abs(int(signal.offset)) > _EXACT
    return signal.bits > 53 and isinstance(signal.scale, int)


def _ints(values: Sequence[int]) -> Index:
    return np.array(values, np.intp)


def _words(values: Sequence[int]) -> Words:
    return np.array(values, np.uint64)


def _starts(counts: Sequence[int]) -> Index:
    return np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.intp) if counts else _ints([])
