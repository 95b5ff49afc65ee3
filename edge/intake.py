"""The intake of a lane: a source and the decoder that understands it. What comes in goes out as Fields.

Here: frames of a bus by a DBC. What a BMS says in a language of `firmware_bridge`: intake_parts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from edge.capture.recorder import Track
from edge.dbc.model import Database
from edge.decode import Decoder, Fields
from edge.mapping import Mapping as FieldMapping
from edge.sources.source import HELD_S, Source, Telling
from firmware_bridge.frames import FrameBatch

_US_NS: Final = 1000
_MOST_WAITING: Final = 10_000  # frames: a second of a full bus, some ms of work
_HELD_NS: Final = int(HELD_S * 1e9)


class Intake(Telling, Protocol):
    """What a lane reads from. Only `open` may take long."""

    track: Track | None
    """Who records what is read; None = nobody."""

    @property
    def frames(self) -> int:
        """Frames, or messages of any other kind, that were looked at."""

    @property
    def skipped(self) -> int:
        """Those of which the mapping wants nothing."""

    @property
    def errors(self) -> Mapping[str, int]:
        """What could not be read or decoded, by reason."""

    @property
    def pace_s(self) -> float:
        """How often each of its values comes at most; 0 = as often as the pack sends it."""

    @property
    def is_full(self) -> bool:
        """So much waits that it should be taken in before the next tick."""

    def tick(self, mono_ns: int) -> bool:
        """Reads what came; whether anything did. SourceError: the source has gone."""

    def take_in(self) -> Fields | None:
        """Records and decodes what waits; None = nothing does."""

    def snapshot(self) -> Any:
        """What a decoder must know to go on from here, as JSON can hold it; None = nothing. `take_in` was called."""

    def sampled(self) -> None:
        """All that was taken in is in the Sample that is stored next."""

    def settle(self, *, is_stored: bool) -> None:
        """The Samples of which `sampled` spoke are stored, or they are not and what is in them must come again."""


S = TypeVar("S", bound=Telling)


class OfSource(Generic[S]):
    """An intake that tells what its source tells, which does not want to know what became of it."""

    def __init__(self, source: S) -> None:
        self.source = source

    @property
    def drops(self) -> int | None:
        """See Telling."""
        return self.source.drops

    @property
    def error_frames(self) -> Mapping[str, int]:
        """See Telling."""
        return self.source.error_frames

    @property
    def buffer_bytes(self) -> int | None:
        """See Telling."""
        return self.source.buffer_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """See Telling."""
        return self.source.notes

    @property
    def tick_s(self) -> float:
        """See Telling."""
        return self.source.tick_s

    def open(self) -> None:
        """See Telling."""
        self.source.open()

    def count_drops(self) -> int | None:
        """See Telling."""
        return self.source.count_drops()

    def sampled(self) -> None:
        """See Intake."""

    def settle(self, *, is_stored: bool) -> None:
        """See Intake."""

    def close(self) -> None:
        """See Telling."""
        self.source.close()


class FrameIntake(OfSource[Source]):
    """Frames of a CAN bus, decoded by a DBC."""

    pace_s = 0.0

    def __init__(self, source: Source, mapping: FieldMapping, dbc: Database, channel: str) -> None:
        """ConfigError: the mapping names a signal that the DBC does not have."""
        super().__init__(source)
        self.track: Track | None = None
        self._decoder = Decoder(mapping, dbc)
        self._channel = channel
        self._waiting = 0  # frames, read and not yet decoded: together they cost less
        self._since_ns = self._newest_ns = 0  # when the first of them was read, and the last read

    @property
    def frames(self) -> int:
        """See Intake."""
        return self._decoder.frames

    @property
    def skipped(self) -> int:
        """See Intake."""
        return self._decoder.skipped

    @property
    def errors(self) -> Mapping[str, int]:
        """See Intake."""
        bad_lines = self.source.bad_lines
        return dict(self._decoder.errors) | ({"bad_line": bad_lines} if bad_lines else {})

    @property
    def is_full(self) -> bool:
        """See Intake."""
        held_ns = self._newest_ns - self._since_ns if self._waiting else 0
        return self._waiting >= _MOST_WAITING or held_ns >= _HELD_NS

    def tick(self, mono_ns: int) -> bool:
        """See Intake."""
        count = self.source.poll(mono_ns)
        self._since_ns = self._since_ns if self._waiting else mono_ns
        self._newest_ns = mono_ns
        self._waiting += count
        return count > 0

    def take_in(self) -> Fields | None:
        """See Intake."""
        if not self._waiting:
            return None
        self._waiting = 0
        frames = self.source.frames()
        # Whole us: what a log can hold, so that a replay of it has the very same times.
        t_ns = frames.t_ns - frames.t_ns % _US_NS
        frames = FrameBatch(self._channel, t_ns, frames.can_id, frames.length, frames.data)
        if self.track is not None:
            self.track.frames(self._since_ns, frames, self._newest_ns)
        return self._decoder.decode(frames)

    def snapshot(self) -> Any:
        """See Intake."""
        return self._decoder.snapshot() or None
