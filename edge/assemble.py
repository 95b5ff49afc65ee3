"""Fields -> one Sample per pack and `sample_s`. Pure; times are ns of the host's monotonic clock.

A Sample carries the newest value of each field, and the least and greatest of current and pack voltage over all frames
since the one before. What is too old is None with `stale`, what never came `absent`: the last value is never repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edge.decode import Fields
from edge.mapping import ALARM, EXTRA
from edge.mapping import Mapping as FieldMapping
from edge.outbox_records import Measured
from shared.block import Layout, block_of, pack_row
from shared.fields import BALANCING, BALANCING_WORD_BITS, BY_NAME, CELL_V, SPANNED, STATES, TEMP_C
from shared.records import Sample

_SECOND_NS: Final = 1_000_000_000
_LEAST_MAX_AGE_S: Final = 5.0
_MAX_AGE_INTERVALS: Final = 5


class Assembler:
    """Merges what the frames of one pack say. `feed` Fields in their order, then ask for the `sample`."""

    def __init__(self, pack_id: str, mapping: FieldMapping, sample_s: float) -> None:
        self.pack_id = pack_id
        self.layout: Layout = mapping.layout
        own_limit_s = max(_MAX_AGE_INTERVALS * sample_s, _LEAST_MAX_AGE_S)
        self._max_age_ns = {t.name: int((t.max_age_s or own_limit_s) * _SECOND_NS) for t in mapping.targets}
        self._scalars = [t.name for t in mapping.targets if t.name in BY_NAME and "[" not in t.name]
        self._extras = [t.name for t in mapping.targets if t.name.startswith(EXTRA)]
        self._alarms = [t.name for t in mapping.targets if t.name.startswith(ALARM)]
        self._balancing = [t.name for t in mapping.targets if t.name.partition("[")[0] == BALANCING]
        self._arrays = {
            name: [t.name for t in mapping.targets if t.name.startswith(f"{name}[")]
            for name in (CELL_V.name, TEMP_C.name)
        }
        self._newest: dict[str, tuple[float | None, int, str | None]] = {}  # value, when, why there is none
        self._spans: dict[str, tuple[float, float]] = {}
        self._begun_ns: dict[str, int] = {}
        self._spanned = [name for name in SPANNED if name in self._scalars]
        self.heard = False

    def feed(self, fields: Iterable[Fields]) -> None:
        """Takes in what frames said, oldest first."""
        newest, spans = self._newest, self._spans
        for said in fields:
            self.heard = True
            t_ns = said.t_ns
            for name, value in said.values.items():
                newest[name] = (value, t_ns, None)
            for name, reason in said.reasons.items():
                newest[name] = (None, t_ns, reason)
            for name in self._spanned:
                got = said.values.get(name)
                if got is not None:
                    lo, hi = spans.get(name, (got, got))
                    spans[name] = (min(lo, got), max(hi, got))

    def sample(self, mono_ns: int, t_ns: int | None) -> Measured:
        """The Sample that ends at `mono_ns` (UTC `t_ns`), rounded to its layout; starts the next one."""
        quality: dict[str, str] = {}
        values = {name: self._value(name, mono_ns, quality) for name in self._scalars}
        known: dict[str, Any] = {name: _typed(name, value) for name, value in values.items()}
        for name in self._spanned:
            newest = values[name]
            known[f"{name}_min"], known[f"{name}_max"] = self._spans.get(name, (newest, newest))
            if newest is None:  # its last frame was bad: what came before it says nothing of the whole
                known[f"{name}_min"] = known[f"{name}_max"] = None
        self._spans.clear()
        sample = Sample(
            pack_id=self.pack_id,
            seq=0,
            mono_ns=mono_ns,
            t_ns=t_ns,
            cell_v=self._array(CELL_V.name, mono_ns, quality),
            temp_c=self._array(TEMP_C.name, mono_ns, quality),
            balancing=self._bits(mono_ns, quality),
            extra={name[len(EXTRA) :]: self._value(name, mono_ns, quality) for name in self._extras},
            quality=quality,
            **known,
        )
        row, quality = pack_row(sample, self.layout)
        return Measured(
            pack_id=self.pack_id,
            layout=self.layout,
            row=row.tobytes(),
            mono_ns=mono_ns,
            t_ns=t_ns,
            quality=quality,
            alarms=self._standing(mono_ns, quality),
        )

    def _value(self, name: str, mono_ns: int, quality: dict[str, str]) -> float | None:
        """The newest value; None with its reason in `quality`."""
        value, seen_ns, reason = self._newest.get(name, (None, mono_ns, "absent"))
        if mono_ns - seen_ns > self._max_age_ns[name]:
            value, reason = None, "stale"
        if reason is not None:
            quality[name] = reason
        return value

    def _array(self, name: str, mono_ns: int, quality: dict[str, str]) -> tuple[float | None, ...]:
        """The values by position. None at all until each was seen once: a half scan is no picture of a pack.

        A position that stays away longer than its limit holds nothing up: it is absent, the others are told.
        """
        names = self._arrays[name]
        seen = [key for key in names if key in self._newest]
        if seen and len(seen) < len(names):
            begun_ns = self._begun_ns.setdefault(name, mono_ns)
            if mono_ns - begun_ns <= self._max_age_ns[names[0]]:
                quality.update(dict.fromkeys(names, "absent"))
                return (None,) * len(names)
        return tuple([self._value(key, mono_ns, quality) for key in names])

    def _bits(self, mono_ns: int, quality: dict[str, str]) -> int | None:
        """The balancing bits; None with one reason when any of them is not known."""
        if not self._balancing:
            return None
        why: dict[str, str] = {}
        values = [self._value(name, mono_ns, why) for name in self._balancing]
        if why:
            quality[BALANCING] = next(iter(why.values()))
            return None
        if self._balancing == [BALANCING]:  # one signal holds them all
            bits = int(values[0] or 0)
            if not 0 <= bits < 1 << self.layout.balancing_words * BALANCING_WORD_BITS:
                quality[BALANCING] = "out_of_range"
                return None
            return bits
        return sum(1 << i for i, value in enumerate(values) if value)

    def _standing(self, mono_ns: int, quality: dict[str, str]) -> tuple[str, ...]:
        """The alarms that stand; `quality["alarms"]` says when some are not known."""
        why: dict[str, str] = {}
        standing = [name for name in self._alarms if self._value(name, mono_ns, why)]
        if why:
            quality["alarms"] = next(iter(why.values()))
        return tuple(name[len(ALARM) :] for name in standing)


def _typed(name: str, value: float | None) -> Any:
    """The value as the Sample has it: states by name, contactors and switches as bool."""
    kind = BY_NAME[name].kind
    if value is None or kind == "float":
        return value
    return STATES[int(value)] if kind == "state" else bool(value)


def readable(measured: Measured) -> Mapping[str, Any]:
    """A Measured by Sample's names with plain values, as JSON shows it (seq is 0: the outbox gives it)."""
    return next(
        block_of(
            measured.pack_id,
            measured.layout,
            [0],
            [measured.mono_ns],
            [measured.t_ns],
            measured.row,
            [measured.quality],
            [measured.alarms],
        ).dicts()
    )
