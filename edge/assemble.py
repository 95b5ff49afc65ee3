"""Fields -> one Sample per pack and `sample_s`. Pure; times are ns of the host's monotonic clock.

A Sample carries the newest value of each field, and the least and greatest of current and pack voltage over all frames
since the one before. What is too old is None with `stale`, what never came `absent`: the last value is never repeated.
What cannot be is None too (`edge/plausible`): `implausible`, or `stuck` where the BMS repeats itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.decode import Fields
from edge.mapping import ALARM, EXTRA
from edge.mapping import Mapping as FieldMapping
from edge.outbox.records import Measured
from edge.plausible.judge import STUCK, Judge
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
        self._judge = Judge(mapping, self._max_age_ns, int(sample_s * _SECOND_NS))
        self._is_stuck = False
        self._whole: set[str] = set()  # arrays of which every position was seen
        self._silent_ns: dict[str, int] = {}  # when all of an array had become stale
        self.heard = False

    def snapshot(self) -> dict[str, Any]:
        """All that the next Samples depend on, as a copy that JSON can hold; `restore` takes it back."""
        return {
            "heard": self.heard,
            "newest": dict(self._newest),
            "spans": dict(self._spans),
            "begun_ns": dict(self._begun_ns),
            "whole": sorted(self._whole),
            "silent_ns": dict(self._silent_ns),
            "judge": self._judge.state,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `snapshot`, also one that has been JSON. KeyError, TypeError, ValueError: it is none."""
        self.heard = bool(state["heard"])
        self._newest = {name: (value, int(t_ns), reason) for name, (value, t_ns, reason) in state["newest"].items()}
        self._spans = {name: (lo, hi) for name, (lo, hi) in state["spans"].items()}
        self._begun_ns = {name: int(t_ns) for name, t_ns in state["begun_ns"].items()}
        self._whole = set(state.get("whole", ()))
        self._silent_ns = dict(state.get("silent_ns", {}))
        self._judge.restore(state.get("judge", {}))

    def feed(self, fields: Fields) -> None:
        """Takes in what the frames of a tick said, those of older ticks first."""
        self.heard = self.heard or fields.heard
        self._newest.update(fields.newest)
        self._judge.feed(fields)
        for name, (lo, hi) in fields.spans.items():
            least, greatest = self._spans.get(name, (lo, hi))
            self._spans[name] = (min(least, lo), max(greatest, hi))

    def sample(self, mono_ns: int, t_ns: int | None) -> Measured:
        """The Sample that ends at `mono_ns` (UTC `t_ns`), rounded to its layout; starts the next one."""
        quality: dict[str, str] = {}
        self._is_stuck = self._judge.is_stuck(mono_ns, self._newest, self._spans)
        values = {name: self._value(name, mono_ns, quality) for name in self._scalars}
        cells = self._array(CELL_V.name, mono_ns, quality)
        cells = self._judge.doubt(mono_ns, values, cells, self._newest, self._spans, quality)
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
            cell_v=cells,
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
        elif self._is_stuck and reason is None:
            value, reason = None, STUCK
        if reason is not None:
            quality[name] = reason
        return value

    def _array(self, name: str, mono_ns: int, quality: dict[str, str]) -> tuple[float | None, ...]:
        """The values by position. None at all until each was seen: a half scan is no picture of a pack.

        That holds at the start, and after a silence in which all have become stale. A position that stays away longer
        than its limit holds nothing up: it is absent or stale, the others are told.
        """
        names = self._arrays[name]
        silent_ns = self._silent_ns.get(name, -1)
        if names and name not in self._whole:
            seen = sum(self._newest.get(key, (None, -1, None))[1] > silent_ns for key in names)
            begun_ns = self._begun_ns.setdefault(name, mono_ns) if seen else mono_ns
            if seen < len(names) and mono_ns - begun_ns <= self._max_age_ns[names[0]]:
                quality.update(dict.fromkeys(names, "absent" if silent_ns < 0 else "stale"))
                return (None,) * len(names)
            if seen:
                self._whole.add(name)
        values = tuple([self._value(key, mono_ns, quality) for key in names])
        if (
            values.count(None) == len(names)
            and name in self._whole
            and all(self._is_old(key, mono_ns) for key in names)
        ):
            self._whole.remove(name)
            self._begun_ns.pop(name, None)
            self._silent_ns[name] = mono_ns
        return values

    def _is_old(self, name: str, mono_ns: int) -> bool:
        return mono_ns - self._newest.get(name, (None, mono_ns, None))[1] > self._max_age_ns[name]

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
