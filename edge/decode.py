"""Frames -> Fields by a DBC and a mapping. Pure: what cannot be decoded is counted here by reason, never raised."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Any, Final

from edge.dbc.aggregate import Aggregate, aggregate, values_of
from edge.dbc.flat import GOOD, GROUP, LAYOUT, QUALITIES, FlatDecoder
from edge.dbc.model import Database, Message
from edge.long_messages import LongMessages
from edge.mapping import COUNTER, Mapping, Target
from edge.tables import nearest
from firmware_bridge.frames import FrameBatch
from firmware_bridge.reassembly import Assembled
from shared.errors import ConfigError
from shared.fields import SPANNED

LARGEST: Final = 3.4e38
"""What a float32 can hold: no field means more, and scaled integers of it stay finite numbers."""
RANGED: Final = frozenset({*SPANNED, COUNTER})
"""Of these targets the least and greatest value are told too: a counter may come round between two looks."""
_NO_ERROR: Final = frozenset({QUALITIES[LAYOUT], "remote"})
"""What is counted as errors by the decoder of all signals and is none here: the mapping names the signals it means."""


@dataclass(slots=True)
class Fields:
    """What the frames of a tick (or one row of a CSV) said, by target name.

    newest: the last value, when (ns), and why there is none. spans: the least and greatest of the good values of those
    fields whose Samples carry them. heard: a frame of the pack came, if only one that says nothing of its fields.
    """

    newest: dict[str, tuple[float | None, int, str | None]] = field(default_factory=dict)
    spans: dict[str, tuple[float, float]] = field(default_factory=dict)
    heard: bool = True

    def put(self, target: Target, t_ns: int, value: float, reason: str | None = None) -> None:
        """What a signal's `value` means for `target`, or why it means nothing."""
        meant, reason = _meaning(target, value, reason)
        self.newest[target.name] = (meant, t_ns, reason)

    def put_span(self, target: Target, values: Iterable[float]) -> None:
        """The least and greatest of what a signal's good `values` mean for `target`."""
        meant = [one for value in values if (one := _meaning(target, value, None)[0]) is not None]
        if meant:
            lo, hi = self.spans.get(target.name, (math.inf, -math.inf))
            self.spans[target.name] = (min(lo, *meant), max(hi, *meant))


class Decoder:
    """Decodes the frames of one bus. `frames` and `skipped` (not mapped) count from the start, `errors` by reason."""

    def __init__(self, mapping: Mapping, database: Database) -> None:
        targets: dict[str, list[Target]] = {}
        for target in mapping.targets:
            if target.signal not in database.signals:
                hint = nearest(target.signal, database.signals)
                raise ConfigError(f'{mapping.path}: signal "{target.signal}" is not in {database.path}{hint}')
            targets.setdefault(target.signal, []).append(target)
        mapped = mapped_messages(mapping, database)
        self._decoder = FlatDecoder(mapped, only=targets)
        self._targets = [tuple(targets.get(signal.path, ())) for signal in self._decoder.signals]
        self._long = LongMessages(self._decoder, mapping.isotp)

    @property
    def frames(self) -> int:
        """Frames that were looked at."""
        return self._decoder.frames + self._long.frames

    @property
    def skipped(self) -> int:
        """Frames that the mapping asks nothing of."""
        return self._decoder.skipped

    @property
    def errors(self) -> Counter[str]:
        """Frames that said nothing or not all, by reason."""
        here = Counter({reason: n for reason, n in self._decoder.errors.items() if reason not in _NO_ERROR})
        return here + Counter({f"{transport}_{reason}": n for (transport, reason), n in self._long.lost.items()})

    def snapshot(self) -> dict[str, Any]:
        """What is half received, as a copy that JSON can hold; {} where nothing is longer than a frame."""
        return self._long.snapshot()

    def restore(self, state: MappingType[str, Any]) -> None:
        """Goes on from a `snapshot`. KeyError, TypeError, ValueError, AttributeError: it is none."""
        self._long.restore(state)

    def decode(self, batch: FrameBatch) -> Fields:
        """What the mapped frames of a batch say."""
        batch, wholes = self._long.take(batch)
        found = aggregate(self._decoder, batch)
        fields = Fields(heard=len(found.rows.frame) > 0)
        # Signals of one name may lie in several messages: the one that came last is the newest.
        order = found.last_frame.argsort(kind="stable")
        for at, signal, t_ns, value, quality in zip(
            order.tolist(),
            found.signal[order].tolist(),
            batch.t_ns[found.last_frame[order]].tolist(),
            found.last[order].tolist(),
            found.last_quality[order].tolist(),
            strict=True,
        ):
            reason = None if quality in (GOOD, LAYOUT) else QUALITIES[quality]
            for target in self._targets[signal]:
                # What `put` does, without its calls for what is the rule.
                number = value * target.scale + target.offset
                if reason is None and target.values is None and -LARGEST <= number <= LARGEST:
                    fields.newest[target.name] = (number, t_ns, None)
                else:
                    fields.put(target, t_ns, value, reason)
                if target.name in RANGED and found.count[at]:
                    self._span(fields, target, found, at, batch)
        for message, whole in wholes:
            self._put_whole(fields, message, whole)
        return fields

    def _put_whole(self, fields: Fields, message: Message, whole: Assembled) -> None:
        """What a message of several frames says, unless a frame has said it since."""
        fields.heard = True
        told = self._decoder.decode_payload(message, [whole.t_ns], [whole.payload])
        for signal, value, quality in zip(
            told.signal.tolist(), told.value.tolist(), told.quality.tolist(), strict=True
        ):
            if quality == GROUP:  # of a multiplexor's number that the DBC does not know: it says nothing for sure
                continue
            reason = None if quality in (GOOD, LAYOUT) else QUALITIES[quality]
            for target in self._targets[signal]:
                if fields.newest.get(target.name, (None, whole.t_ns, None))[1] <= whole.t_ns:
                    fields.put(target, whole.t_ns, value, reason)
                if target.name in SPANNED and reason is None:
                    fields.put_span(target, [value])

    def _span(self, fields: Fields, target: Target, found: Aggregate, at: int, batch: FrameBatch) -> None:
        """The span of a target: by the ends of its signal, where those mean the ends of it."""
        ends = [float(found.lo[at]), float(found.hi[at])]
        if target.values is not None or any(_meaning(target, end, None)[0] is None for end in ends):
            ends = values_of(self._decoder, batch, found.rows, int(found.signal[at])).tolist()
        fields.put_span(target, ends)


def mapped_messages(mapping: Mapping, database: Database) -> list[Message]:
    """The messages in which a signal of the mapping lies."""
    wanted = {target.signal for target in mapping.targets}
    return [m for m in database.messages if any(signal.path in wanted for signal in m.signals)]


def _meaning(target: Target, value: float, reason: str | None) -> tuple[float | None, str | None]:
    """What a signal's value means for a target, or why it means nothing."""
    if reason is not None:
        return None, reason
    if not math.isfinite(value):
        return None, "invalid"
    if target.values is not None:
        known = target.values.get(float(value))
        return known, "invalid" if known is None else None
    number = value * target.scale + target.offset
    return (None, "out_of_range") if abs(number) > LARGEST else (number, None)
