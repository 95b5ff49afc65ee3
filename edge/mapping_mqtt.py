"""What a mapping with a table [mqtt] may name: a topic of a broker, and a place within the JSON of its messages.

`from = "BE/info#battery_voltage"` is what stands under that key in the messages of BE/info, `"jk/soc/current"` a whole
message. Where the table has a `topic`, `"battery_voltage"` is a key in the messages of that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.tables import Table
from shared.fields import BY_NAME

PERIOD_S: Final = 5.0
"""How often gateways publish, where the mapping does not say."""
_STEP: Final = re.compile(r'\.?([A-Za-z_][^.\[\]"]*)|\.?\[(\d{1,6})\]|\.?\["((?:[^"\\]|\\.)*)"\]')
_UNITS: Final = {
    ("V", "mV"): (1e-3, 0.0),
    ("V", "kV"): (1e3, 0.0),
    ("A", "mA"): (1e-3, 0.0),
    ("1", "%"): (1e-2, 0.0),
    ("kohm", "ohm"): (1e-3, 0.0),
    ("kohm", "Mohm"): (1e3, 0.0),
    ("degC", "degF"): (5 / 9, -160 / 9),
    ("degC", "K"): (1.0, -273.15),
    ("km/h", "m/s"): (3.6, 0.0),
    ("km/h", "mph"): (1.609344, 0.0),
    ("km", "m"): (1e-3, 0.0),
    ("km", "mi"): (1.609344, 0.0),
    ("Ah", "mAh"): (1e-3, 0.0),
    ("kWh", "Wh"): (1e-3, 0.0),
}
"""(Unit of the field, unit of what comes) -> scale, offset."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A topic, and the path to a value in the JSON of its messages; () = the whole message.

    + in the topic is one level, whose name is the first that is heard there.
    """

    topic: str
    path: Path

    @classmethod
    def parse(cls, signal: str, topic: str) -> Place:
        """What `from` names; `topic`: where it names none. ValueError says what is wrong with it."""
        named, has_path, path = signal.partition("#")
        if topic and not has_path and "/" not in signal:
            named, has_path, path = "", "#", signal
        if not named and not topic:
            raise ValueError("has no topic, and [mqtt] names none")
        if problem := _wrong_topic(named or topic):
            raise ValueError(problem)
        return cls(named or topic, parse_path(path) if has_path else ())


@dataclass(frozen=True, slots=True)
class Published:
    """A table [mqtt]. topic: "" = each `from` names its own. time: where a message says when it was measured.

    period_s: how often a value comes.
    """

    topic: str
    time: Path | None
    period_s: float

    @classmethod
    def read(cls, table: Table) -> Published:
        """From the table; ConfigError for what is wrong with it."""
        topic = table.text("topic", "")
        if topic and (problem := _wrong_topic(topic)):
            raise table.fail("topic", f'= "{topic}" {problem}')
        time = None
        if "time" in table:
            text = table.text("time")
            try:
                time = parse_path(text)
            except ValueError as error:
                raise table.fail("time", f'= "{text}" {error}') from None
        period_s = table.number("period_s", PERIOD_S, lo=0.1, hi=3600.0)
        table.done()
        return cls(topic, time, period_s)

    def check(self, table: Table, signals: Sequence[str]) -> None:
        """ConfigError: one of them names no place."""
        for signal in signals:
            try:
                Place.parse(signal, self.topic)
            except ValueError as error:
                raise table.fail("from", f'= "{signal}" {error}') from None

    def converted(self, table: Table, name: str) -> tuple[float, float]:
        """(scale, offset) from the `unit` in which a field comes to the field's own; 1 and 0 where none is named."""
        own = BY_NAME[name].unit if name in BY_NAME else ""
        unit = table.text("unit", own)
        if unit == own:
            return 1.0, 0.0
        if (own, unit) not in _UNITS:
            known = [own, *(theirs for ours, theirs in _UNITS if ours == own)] if own else []
            told = f"must be one of {', '.join(known)}, or give scale and offset" if known else "has no meaning here"
            raise table.fail("unit", f'= "{unit}" {told}')
        return _UNITS[own, unit]


def parse_path(text: str) -> Path:
    """`a.b[3]["any key"]`, also with `$.` before it. ValueError says what is wrong with it."""
    rest = text.removeprefix("$")
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        step = _STEP.match(rest, at)
        if step is None:
            raise ValueError(f'is no path from "{rest[at:]}" on: write it as battery.cells[3] or ["any key"]')
        steps.append(step[1] or (int(step[2]) if step[2] else re.sub(r"\\(.)", r"\1", step[3] or "")))
        at = step.end()
    if not steps:
        raise ValueError("names no key: write it as battery.cells[3]")
    return tuple(steps)


def topics(published: Published, signals: Sequence[str]) -> list[str]:
    """What to subscribe to, each once."""
    return list(dict.fromkeys(Place.parse(signal, published.topic).topic for signal in signals))


def fits(topic: str, wanted: str) -> bool:
    """Whether a message's topic is one that is wanted; + in `wanted` stands for any one level."""
    if "+" not in wanted:
        return topic == wanted
    levels, patterns = topic.split("/"), wanted.split("/")
    return len(levels) == len(patterns) and all(b in ("+", a) for a, b in zip(levels, patterns, strict=True))


def names_at(topic: str, wanted: str) -> dict[str, str]:
    """What stands in a topic that `fits` for each + : the topic that is wanted, up to there -> the level's name."""
    if "+" not in wanted:
        return {}
    levels, patterns = topic.split("/"), wanted.split("/")
    return {"/".join(patterns[: i + 1]): levels[i] for i, pattern in enumerate(patterns) if pattern == "+"}


def _wrong_topic(topic: str) -> str | None:
    if "\0" in topic or len(topic.encode("utf-8", "replace")) > 65_535:
        return "is no topic"
    if "#" in topic:
        return "has a #, which no message's topic has: name each topic, + stands for one level of it"
    if any("+" in level and level != "+" for level in topic.split("/")):
        return "has a + within a level: it stands for a whole one, as in batmon/+/soc/current"
    return None
