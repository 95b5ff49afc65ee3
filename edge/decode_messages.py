"""Messages of gateways -> Fields by a mapping. Pure: what cannot be read is counted here by reason, never raised."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from edge.decode import LARGEST, RANGED, Fields
from edge.mapping import ALARM, Mapping, Target
from edge.mapping_mqtt import Path, Place, fits, names_at
from shared.fields import BALANCING, BY_NAME

_SECOND_NS: Final = 1_000_000_000
_KNOWN_TOPICS: Final = 1024
_LARGEST_BYTES: Final = 1 << 20
_ABSENT: Final = frozenset({"", "unavailable", "unknown", "none", "null", "nan"})
_WORDS: Final = {"on": 1.0, "true": 1.0, "yes": 1.0, "off": 0.0, "false": 0.0, "no": 0.0}
_MS_FROM: Final = 1e11
"""A time beyond it counts ms, not s: as seconds it would lie in the year 5138."""
_MISSING: Final = object()
_NO_JSON: Final = object()


@dataclass(frozen=True, slots=True)
class Heard:
    """One message. mono_ns: when it came. is_kept: it stood at the broker already, nobody knows since when.

    offset_ns: UTC - mono_ns then, None = not known.
    """

    topic: str
    payload: bytes
    mono_ns: int
    is_kept: bool = False
    offset_ns: int | None = None


class Names:
    """Whose messages are this pack's: each + of the wanted topics stands for the first name that was heard there.

    Another one is another device: what it says is of another pack, or of no pack at all. Two threads may ask.
    """

    def __init__(self, places: Iterable[str]) -> None:
        """places: the wanted topics, each up to a +."""
        self._places = frozenset(places)
        # Replaced, never changed: another thread may be reading them.
        self._of: dict[str, str] = {}  # a place -> the name
        self._others: dict[str, str] = {}  # likewise, one that was heard after it

    @property
    def are_complete(self) -> bool:
        """Whether each + has its name."""
        return self._places <= self._of.keys()

    def are_ours(self, heard: dict[str, str], *, is_kept: bool) -> bool:
        """Whether a message is of this pack; `heard` as of `names_at`.

        One that was kept names nobody: who left it at the broker may have gone long ago.
        """
        for place, name in heard.items():
            if place not in self._of and is_kept:
                return False
            if self._of.get(place, name) != name:
                self._others = {place: name, **self._others}
                return False
        if not heard.keys() <= self._of.keys():
            self._of = {**self._of, **heard}
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each + for which more than one name was heard."""
        return tuple(
            f"{place}: {self._of[place]} is taken for this pack, as it was heard first; {other} and whoever else "
            "publishes there is left out: write the name instead of + in the mapping"
            for place, other in self._others.items()
        )

    @property
    def state(self) -> dict[str, str]:
        """As JSON has it."""
        return dict(self._of)

    def restore(self, state: dict[str, str]) -> None:
        """Goes on from a `state`. TypeError, ValueError: it is none."""
        self._of = dict(state)


Wanted = tuple[str, list[tuple[Path, Target]]]
"""A topic that is wanted, and what is wanted of its messages."""


class MessageDecoder:
    """Names what the messages of one pack say. Counts are from the start, `errors` by reason."""

    def __init__(self, mapping: Mapping) -> None:
        published = mapping.published
        assert published is not None
        self._time = published.time
        self._late_ns = 5 * int(published.period_s * _SECOND_NS)
        self._wanted: dict[str, list[tuple[Path, Target]]] = {}
        for target in mapping.targets:
            place = Place.parse(target.signal, published.topic)
            self._wanted.setdefault(place.topic, []).append((place.path, target))
        self._of_topic: dict[str, list[Wanted]] = {}
        self.names = Names(place for wanted in self._wanted for place in names_at(wanted, wanted))
        self.messages = self.skipped = 0
        self.errors: Counter[str] = Counter()

    def decode(self, messages: Iterable[Heard]) -> Fields | None:
        """What the messages say, oldest first; None = nothing."""
        fields = Fields(heard=False)
        for message in messages:
            self.messages += 1
            wanted = self._wanted_of(message.topic)
            if not wanted:
                self.skipped += 1
            elif len(message.payload) > _LARGEST_BYTES:
                self.errors["too_large"] += 1
            else:
                self._decode(fields, message, wanted)
        return fields if fields.heard else None

    def gives_a_name(self, topic: str) -> bool:
        """Whether a message that comes now gives a + its name; it has it from then on."""
        if self.names.are_complete:
            return False
        before = self.names.state
        for wanted, _ in self._wanted_of(topic):
            self.names.are_ours(names_at(topic, wanted), is_kept=False)
        return self.names.state != before

    def _wanted_of(self, topic: str) -> list[Wanted]:
        found = self._of_topic.get(topic)
        if found is None:
            found = [each for each in self._wanted.items() if fits(topic, each[0])]
            if len(self._of_topic) < _KNOWN_TOPICS:
                self._of_topic[topic] = found
        return found

    def _decode(self, fields: Fields, message: Heard, found: Sequence[Wanted]) -> None:
        content = _content(message.payload)
        t_ns = self._measured_ns(message, content)
        if t_ns is None:
            return
        ours = [
            targets
            for topic, targets in found
            if self.names.are_ours(names_at(message.topic, topic), is_kept=message.is_kept)
        ]
        wanted = [each for targets in ours for each in targets]
        self.errors["address"] += len(ours) < len(found)
        if not wanted:
            return
        is_late = message.mono_ns - t_ns > self._late_ns
        self.errors["late"] += is_late
        fields.heard = True
        is_bad = False
        for path, target in wanted:
            value: Any = content
            if path:
                value = _NO_JSON if isinstance(content, str) else _at(content, path)
            if value is _MISSING:
                continue  # it says nothing of it; what was said before grows old
            is_bad |= value is _NO_JSON
            number, reason = _number(target, value)
            if value is not _NO_JSON and reason == "invalid":
                self.errors["value"] += 1
            _put(fields, target.name, t_ns, number, reason, spans=target.name in RANGED and not is_late)
        self.errors["json"] += is_bad

    def _measured_ns(self, message: Heard, content: Any) -> int | None:
        """When it was measured; None = nobody knows, which is counted."""
        utc_ns = None
        if self._time is not None:
            utc_ns = _utc_ns(_at(content, self._time))
            self.errors["time"] += utc_ns is None
        if utc_ns is None or message.offset_ns is None:
            self.errors["kept"] += message.is_kept
            return None if message.is_kept else message.mono_ns
        return min(utc_ns - message.offset_ns, message.mono_ns)


def _content(payload: bytes) -> Any:
    """The JSON of a message; what is none is a text."""
    try:
        return json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode("utf-8", "replace").strip()


def _at(content: Any, path: Path) -> Any:
    """What stands there; _MISSING = nothing does."""
    for step in path:
        if isinstance(content, dict):
            content = content.get(step, _MISSING)
        elif isinstance(content, list) and isinstance(step, int) and step < len(content):
            content = content[step]
        else:
            return _MISSING
    return content


def _number(target: Target, value: Any) -> tuple[float | None, str | None]:
    """The number that a value is for a target, before its scale; None with the reason why it is none."""
    if isinstance(value, str):
        text = value.strip()
        if target.values is not None and text in target.values:
            return target.values[text], None
        if text.casefold() in _ABSENT:
            return None, "absent"
        is_switch = target.name.startswith(ALARM) or _is_bool(target.name)
        try:
            value = _WORDS[text.casefold()] if is_switch and text.casefold() in _WORDS else float(text)
        except ValueError:
            return None, "invalid"
    if value is None:
        return None, "absent"
    if not isinstance(value, bool | int | float):
        return None, "invalid"
    if target.name == BALANCING:  # a bit a cell: more of them than a float has
        return (int(value), None) if isinstance(value, int) or value.is_integer() else (None, "invalid")
    try:
        number = float(value)
    except OverflowError:
        return None, "out_of_range"
    if target.values is not None:
        known = target.values.get(number)
        return known, "invalid" if known is None else None
    if not math.isfinite(number):
        return None, "absent" if math.isnan(number) else "invalid"
    return number * target.scale + target.offset, None


def _is_bool(name: str) -> bool:
    return name.startswith(f"{BALANCING}[") or (name in BY_NAME and BY_NAME[name].kind == "bool")


def _put(fields: Fields, name: str, t_ns: int, number: float | None, reason: str | None, *, spans: bool) -> None:
    if number is not None and abs(number) > LARGEST:
        number, reason = None, "out_of_range"
    fields.newest[name] = (number, t_ns, reason)
    if number is not None and spans:  # what is late belongs to no Sample of now
        lo, hi = fields.spans.get(name, (number, number))
        fields.spans[name] = (min(lo, number), max(hi, number))


def _utc_ns(value: Any) -> int | None:
    """A time in s or ms since 1970, or as ISO 8601 (without a zone: UTC); None = it is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            try:
                told = datetime.fromisoformat(value)
                value = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    if not math.isfinite(seconds) or not 0 < seconds < 1e14:
        return None
    return round(seconds * (1e6 if seconds > _MS_FROM else 1e9))
