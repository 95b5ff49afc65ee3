"""Frames -> Fields by a DBC and a mapping. Pure: what cannot be decoded is counted here by reason, never raised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.dbc import Dbc, FrameError, Message
from edge.mapping import Mapping, Target
from edge.tables import nearest
from firmware_bridge.frames import FrameBatch
from shared.errors import ConfigError

_LARGEST: Final = 3.4e38
"""What a float32 can hold: no field means more, and scaled integers of it stay finite numbers."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What one frame (or one row of a CSV) said: values by target name, and why there is none by the same names."""

    t_ns: int
    values: dict[str, float]
    reasons: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Aim:
    """A target with the limits of its signal."""

    target: Target
    signal: str  # within its message
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class _Plan:
    message: Message
    aims: tuple[_Aim, ...]


class Decoder:
    """Decodes the frames of one bus. `frames`, `skipped` (not mapped) and `errors` (by reason) count from the start."""

    def __init__(self, mapping: Mapping, dbc: Dbc) -> None:
        aims: dict[str, list[_Aim]] = {}
        for target in mapping.targets:
            signal = dbc.signals.get(target.signal)
            if signal is None:
                hint = nearest(target.signal, dbc.signals)
                raise ConfigError(f'{mapping.path}: signal "{target.signal}" is not in {dbc.path}{hint}')
            message, _, name = target.signal.partition(".")
            aims.setdefault(message, []).append(_Aim(target, name, signal.lo, signal.hi))
        self._plans = {m.can_id: _Plan(m, tuple(aims[m.name])) for m in dbc.messages(list(aims))}
        self._ids = np.array(sorted(self._plans), np.uint32)
        self.frames = 0
        self.skipped = 0
        self.errors: Counter[str] = Counter()

    def decode(self, batch: FrameBatch) -> list[Fields]:
        """What the mapped frames of a batch say, in their order."""
        mapped = np.isin(batch.can_id, self._ids)
        self.frames += len(batch)
        wanted = batch if mapped.all() else batch.take(mapped)
        self.skipped += len(batch) - len(wanted)
        out = []
        for t_ns, can_id, payload in wanted.rows():
            plan = self._plans[can_id]
            try:
                raw = plan.message.decode(payload)
            except FrameError as error:
                self.errors[error.reason] += 1
                continue
            out.append(self._fields(plan, t_ns, raw, len(payload) < plan.message.length))
        return out

    def _fields(self, plan: _Plan, t_ns: int, raw: MappingOf[str, float], is_short: bool) -> Fields:
        values: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for aim in plan.aims:
            value = raw.get(aim.signal)
            if value is not None:
                reason = None if aim.lo <= value <= aim.hi else "out_of_range"
                put(aim.target, value, reason, values, reasons)
            elif is_short and plan.message.is_missing(aim.signal, raw):
                reasons[aim.target.name] = "short_frame"
        if is_short:
            self.errors["short_frame"] += 1
        return Fields(t_ns, values, reasons)


def put(target: Target, value: float, reason: str | None, values: dict[str, float], reasons: dict[str, str]) -> None:
    """Writes what the signal's `value` means for `target`: into `values`, or why it means nothing into `reasons`."""
    if not math.isfinite(value):
        reasons[target.name] = "invalid"
    elif reason is not None:
        reasons[target.name] = reason
    elif target.values is not None:
        known = target.values.get(float(value))
        if known is None:
            reasons[target.name] = "invalid"
        else:
            values[target.name] = known
    elif abs(number := value * target.scale + target.offset) > _LARGEST:
        reasons[target.name] = "out_of_range"
    else:
        values[target.name] = number
