"""What `edge doctor --port` has found on a serial line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from firmware_bridge.protocol import Part, Protocol, Value
from shared.fields import CELL_V

_CELL: Final = f"{CELL_V.name}["


@dataclass(slots=True)
class Pack:
    """A BMS that was found. values: the newest of each name; kinds: which message told it; quality: why there is none.

    address None = the usual one of its language. was_asked: it answered us, rather than somebody else.
    doubles: further addresses at which just the same was said. alike: another one that said nearly the same.
    """

    protocol: Protocol
    baudrate: int
    address: int | None
    was_asked: bool
    values: dict[str, Value] = field(default_factory=dict)
    quality: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    doubles: list[int] = field(default_factory=list)
    alike: Pack | None = None

    def take(self, part: Part) -> None:
        """What it said."""
        for name, value in part.values.items():
            self.values[name], self.kinds[name] = value, part.kind
            self.quality.pop(name, None)
        self.quality.update(part.quality)

    @property
    def cells(self) -> list[str]:
        """The names of its cells."""
        return [name for name in self.values if name.startswith(_CELL)]

    @property
    def unheard(self) -> list[str]:
        """The kinds of messages that it should have told, and did not while another one asked it."""
        if self.was_asked:
            return []
        told = set(self.kinds.values())
        polls = self.protocol.polls(self.address, None)
        return list(dict.fromkeys(poll.kind for poll in polls if poll.every == 1 and poll.kind not in told))


@dataclass(slots=True)
class Found:
    """What is on a port. heard_bytes: that came in listened_s without our asking, by baudrate.

    asked: the languages in which was asked. is_taken: somebody else asks there, or the BMS talks by itself, in a
    language known here. requests: the languages in which somebody else was heard asking.
    """

    packs: list[Pack] = field(default_factory=list)
    listened_s: float = 0.0
    heard_bytes: dict[int, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_taken: bool = False
    requests: list[str] = field(default_factory=list)
