"""Frames for every message of a DBC and every number of its multiplexors; cantools as the judge of what they say."""

from __future__ import annotations

import math
import random
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cantools
import numpy as np

from edge.dbc.flat import GROUP, LAYOUT, SHORT_FRAME, FlatDecoder
from edge.dbc.model import Message, Signal
from firmware_bridge.frames import EXTENDED, FrameBatch

MOST_GROUPS = 4000


@dataclass
class Verdict:
    """What a comparison saw: frames, how many of them cantools refuses, values, and the kinds of values it must see."""

    frames: int = 0
    refused: int = 0
    values: int = 0
    messages: set[str] = field(default_factory=set)
    groups: set[tuple[int, str, int]] = field(default_factory=set)  # of this DBC: numbers of multiplexors
    visited: int = 0  # such numbers in all
    beyond_float: int = 0  # whole numbers of more than 53 bits
    nans: int = 0


def can_id_of(message: Any) -> int:
    """The id of a message of cantools as FrameBatch has it."""
    return int(message.frame_id) | (EXTENDED if message.is_extended_frame else 0)


def written(payload: bytes, signal: Signal, raw: int) -> bytes:
    """The payload with the bits of a signal set to `raw`."""
    order = "big" if signal.big_endian else "little"
    shift = max(8 * len(payload) - signal.end_bit, 0) if signal.big_endian else signal.first_bit
    mask = (1 << signal.bits) - 1 << shift
    whole = int.from_bytes(payload, order) & ~mask | raw << shift & mask
    return (whole & (1 << 8 * len(payload)) - 1).to_bytes(len(payload), order)


def payloads(message: Message, chance: random.Random, count: int) -> Iterator[bytes]:
    """At least `count` payloads: each number of each multiplexor (4,000 at most), then anything, also short."""
    by_name = {signal.name: signal for signal in message.signals}
    told = 0
    for switch in (s for s in message.signals if s.is_switch):
        for number in sorted(numbers_of(message, switch))[:MOST_GROUPS]:
            yield _aimed(message, by_name, {switch.name: number}, chance)
            told += 1
    for n in range(max(count - told, count // 2, 1)):
        length = message.length if n % 5 else chance.randrange(0, min(message.length + 3, 65))
        payload = _bytes(chance, message.length)
        if n % 2:
            payload = _aimed(message, by_name, {}, chance)
        yield payload[:length] + _bytes(chance, length - message.length)


def _bytes(chance: random.Random, length: int) -> bytes:
    if length <= 0:
        return b""
    kind = chance.random()
    if kind < 0.7:
        return chance.randbytes(length)
    if kind < 0.8:
        return chance.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * length
    return bytes(chance.choice((0, 1, 2, 0x7F, 0x80, 0xC0, 0xFF, 0xF0)) for _ in range(length))  # NaNs are among these


def numbers_of(message: Message, switch: Signal) -> set[int]:
    """The numbers that the DBC knows of a multiplexor."""
    groups = {n for s in message.signals if s.switch == switch.name for n in s.groups or ()}
    return groups | set(switch.values or ()) if groups or switch.values else set()


def unvisited(message: Message, verdict: Verdict) -> set[tuple[str, int]]:
    """Numbers of its multiplexors that no frame had though their bits can hold them (of the first 4,000 each)."""
    return {
        (switch.name, number)
        for switch in message.signals
        if switch.is_switch
        for number in sorted(numbers_of(message, switch))[:MOST_GROUPS]
        if int(switch.value(_held(switch, _raw(switch, number)))) == number
        and (message.can_id, switch.name, number) not in verdict.groups
    }


def _held(switch: Signal, raw: int) -> int:
    """What the bits of a multiplexor make of a number."""
    raw &= (1 << switch.bits) - 1
    return raw - (1 << switch.bits) if switch.signed and raw >> switch.bits - 1 else raw


def _raw(switch: Signal, number: int) -> int:
    """A raw number by which the switch means `number`."""
    if switch.is_float:
        kind = {16: "<e", 32: "<f", 64: "<d"}[switch.bits]
        return int.from_bytes(struct.pack(kind, (number - switch.offset) / switch.scale), "little")
    near = round((number - switch.offset) / switch.scale)
    return next((raw for raw in (near, near + 1, near - 1) if int(switch.value(raw)) == number), near)


def _aimed(message: Message, by_name: Mapping[str, Signal], wanted: Mapping[str, int], chance: random.Random) -> bytes:
    """A payload whose multiplexors lead to those `wanted` and have numbers that the DBC knows."""
    aim = dict(wanted)
    for name in wanted:
        at = by_name[name]
        while at.switch is not None and at.groups:
            aim.setdefault(at.switch, chance.choice(sorted(at.groups)))
            at = by_name[at.switch]
    payload = _bytes(chance, message.length)
    for switch in (s for s in message.signals if s.is_switch):
        numbers = sorted(numbers_of(message, switch))
        if numbers:
            payload = written(payload, switch, _raw(switch, aim.get(switch.name, chance.choice(numbers))))
    return payload


def compare(messages: Iterable[Message], judge: Any, frames: list[tuple[int, bytes]], verdict: Verdict) -> None:
    """Fails unless frames say bit for bit what cantools says of them, and what it refuses is told as such."""
    decoder = FlatDecoder(list(messages), match="id")
    found = decoder.decode(FrameBatch.of("", [(i, can_id, payload) for i, (can_id, payload) in enumerate(frames)]))
    ours: dict[tuple[int, str], list[tuple[int, Any]]] = defaultdict(list)
    refused_here = set()
    columns = zip(found.frame.tolist(), found.signal.tolist(), found.raw.tolist(), found.quality.tolist(), strict=True)
    for frame, signal, raw, quality in columns:
        if quality in (GROUP, LAYOUT):
            refused_here.add(frame)
        if quality != SHORT_FRAME:
            ours[frames[frame][0], decoder.signals[signal].name].append((frame, decoder.exact(signal, raw, found.wide)))
    by_id = {can_id_of(message): message for message in judge.messages}
    theirs: dict[tuple[int, str], list[tuple[int, Any]]] = defaultdict(list)
    refused = set()
    for frame, (can_id, payload) in enumerate(frames):
        try:
            told = by_id[can_id].decode(payload, decode_choices=False, allow_truncated=True)
        except (cantools.database.DecodeError, ValueError, OverflowError):
            refused.add(frame)
            continue
        for name, value in told.items():
            theirs[can_id, name].append((frame, value))
    told_of = {frame for (_, _), pairs in ours.items() for frame, _ in pairs} & refused
    assert told_of <= refused_here, "a frame that cantools refuses has good values"
    assert not refused_here - refused, "a frame that cantools decodes is called refused"
    empty = {frame for frame in refused if not frames[frame][1]}
    counted = decoder.errors["group"] + decoder.errors["layout"]
    assert counted == len(refused - empty), f"{counted} of {len(refused - empty)} refused frames are counted"
    for key, expected in theirs.items():
        got = [pair for pair in ours.get(key, []) if pair[0] not in refused]
        assert [frame for frame, _ in got] == [frame for frame, _ in expected], key
        assert _bits(value for _, value in got) == _bits(value for _, value in expected), key
        verdict.values += len(expected)
        verdict.beyond_float += sum(isinstance(value, int) and abs(value) > 1 << 53 for _, value in expected)
        verdict.nans += sum(math.isnan(value) for _, value in expected)
    extra = {key for key, pairs in ours.items() if any(frame not in refused for frame, _ in pairs)} - set(theirs)
    assert not extra, f"values that cantools does not give: {extra}"
    values = found.value[found.quality != SHORT_FRAME]
    exact = [float(value) for frame, value in sorted(p for pairs in ours.values() for p in pairs if p[1] == p[1])]
    assert sorted(exact) == sorted(values[~np.isnan(values)].tolist())
    verdict.frames += len(frames)
    verdict.refused += len(refused)
    verdict.messages |= {by_id[can_id].name for can_id, _ in frames}
    before = len(verdict.groups)
    verdict.groups |= {(*key, int(v)) for key, pairs in theirs.items() if _is_switch(by_id, key) for _, v in pairs}
    verdict.visited += len(verdict.groups) - before


def _is_switch(by_id: Mapping[int, Any], key: tuple[int, str]) -> bool:
    return bool(by_id[key[0]].get_signal_by_name(key[1]).is_multiplexer)


def _bits(values: Iterable[Any]) -> list[Any]:
    """Values such that equal ones have the same type and, of floats, the same bits; every NaN is one."""
    return [v if isinstance(v, int) else "nan" if math.isnan(v) else struct.pack("<d", v) for v in values]
