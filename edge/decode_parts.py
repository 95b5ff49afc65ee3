"""Parts of a BMS -> Fields by a mapping. Pure: the language has decoded them, here they only get their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from edge.decode import RANGED, Fields
from edge.mapping import Mapping, Target
from firmware_bridge.frames import FrameBatch
from firmware_bridge.protocol import LineError, Part
from shared.fields import BALANCING


class PartDecoder:
    """Names what the Parts of one pack say. `parts` and `skipped` (nothing of it is mapped) count from the start."""

    def __init__(self, mapping: Mapping) -> None:
        self._targets: dict[str, list[Target]] = {}
        for target in mapping.targets:
            self._targets.setdefault(target.signal, []).append(target)
        self.parts = self.skipped = 0

    def decode(self, parts: Iterable[tuple[int, Part]]) -> Fields:
        """What the Parts say, each with its time in ns, oldest first."""
        fields = Fields(heard=False)
        for t_ns, part in parts:
            self.parts += 1
            wanted = self._targets.keys() & part.values.keys()
            self.skipped += not wanted
            fields.heard = fields.heard or bool(wanted)
            for name in wanted:
                for target in self._targets[name]:
                    _put(fields, target, t_ns, part, name)
        return fields


class SaidDecoder:
    """Decodes frames of a bus in a language of `firmware_bridge`, as Decoder does by a DBC; nothing is asked."""

    def __init__(self, mapping: Mapping) -> None:
        assert mapping.spoken is not None and mapping.spoken.protocol.frames_decoder is not None
        self._ear = mapping.spoken.protocol.frames_decoder(mapping.spoken.vehicle)
        self._parts = PartDecoder(mapping)
        self.errors: Counter[str] = Counter()

    def decode(self, batch: FrameBatch) -> Fields:
        """What the frames of a batch say."""
        parts = []
        for t_ns, can_id, payload in batch.rows():
            for said in self._ear.frame(t_ns, can_id, payload):
                if isinstance(said, LineError):
                    self.errors[said.error] += 1
                else:
                    parts.append((t_ns, said))
        return self._parts.decode(parts)


def _put(fields: Fields, target: Target, t_ns: int, part: Part, name: str) -> None:
    value = part.values[name]
    if value is None or isinstance(value, str):
        reason = part.quality.get(name, "absent") if value is None else "invalid"
        fields.newest[target.name] = (None, t_ns, reason)
    elif target.name == BALANCING:
        # A bit a cell: more bits than a float has.
        fields.newest[target.name] = (int(value), t_ns, None)
    else:
        fields.put(target, t_ns, float(value))
        if target.name in RANGED:
            fields.put_span(target, [float(value)])
