"""The intake of a pack whose BMS speaks a language of `firmware_bridge`, over whatever it is spoken."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, Protocol

from edge.capture.recorder import Track
from edge.decode import Fields
from edge.decode_parts import PartDecoder
from edge.intake import OfSource
from edge.mapping import Mapping as FieldMapping
from edge.sources.source import Telling
from firmware_bridge.protocol import LineError, Part, Said

_MOST_WAITING: Final = 10_000


class Speaker(Telling, Protocol):
    """A source that speaks a language of `firmware_bridge`. It decodes by itself, as it must know what was asked.

    It records what it sends and receives, before it is decoded.
    """

    track: Track | None

    @property
    def pace_s(self) -> float:
        """See Intake."""

    @property
    def errors(self) -> Mapping[str, int]:
        """What went wrong beside the LineErrors, by reason."""

    def tick(self, mono_ns: int) -> None:
        """Reads what came, and asks for what is due where the language asks. SourceError: the source has gone."""

    def take(self) -> list[tuple[int, Said]]:
        """What this pack said since the last call, each with its mono_ns."""

    def snapshot(self) -> Any:
        """See Intake. All that was said has been taken."""


class PartIntake(OfSource[Speaker]):
    """What a BMS says in a language of `firmware_bridge`, by the mapping."""

    def __init__(self, speaker: Speaker, mapping: FieldMapping) -> None:
        super().__init__(speaker)
        self._decoder = PartDecoder(mapping)
        self._errors: Counter[str] = Counter()
        self._waiting: list[tuple[int, Part]] = []

    @property
    def track(self) -> Track | None:
        """See Intake."""
        return self.source.track

    @track.setter
    def track(self, track: Track | None) -> None:
        self.source.track = track

    @property
    def frames(self) -> int:
        """See Intake."""
        return self._decoder.parts + len(self._waiting)

    @property
    def skipped(self) -> int:
        """See Intake."""
        return self._decoder.skipped

    @property
    def errors(self) -> Mapping[str, int]:
        """See Intake."""
        return dict(self._errors + Counter(self.source.errors))

    @property
    def pace_s(self) -> float:
        """See Intake."""
        return self.source.pace_s

    @property
    def is_full(self) -> bool:
        """See Intake."""
        return len(self._waiting) >= _MOST_WAITING

    def tick(self, mono_ns: int) -> bool:
        """See Intake."""
        self.source.tick(mono_ns)
        return self._take()

    def _take(self) -> bool:
        """Whether a Part came."""
        before = len(self._waiting)
        for t_ns, said in self.source.take():
            if isinstance(said, LineError):
                self._errors[said.error] += 1
            else:
                self._waiting.append((t_ns, said))
        return len(self._waiting) > before

    def take_in(self) -> Fields | None:
        """See Intake."""
        self._take()  # one source may read for several lanes
        if not self._waiting:
            return None
        waiting, self._waiting = self._waiting, []
        return self._decoder.decode(waiting)

    def snapshot(self) -> Any:
        """See Intake."""
        return self.source.snapshot()
