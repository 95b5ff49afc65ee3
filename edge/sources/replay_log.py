"""A log of any format as a source: its frames are decoded and assembled as they would be live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from edge.assemble import Assembler
from edge.dbc.load import load
from edge.decode import Decoder
from edge.decode_parts import SaidDecoder
from edge.logs import Log
from edge.mapping import Mapping
from edge.mapping_csv import LATEST_NS
from edge.outbox.records import Measured
from edge.sources.replay import Notes
from firmware_bridge.frames import FrameBatch
from shared.errors import ConfigError, PacktwinError

_SECOND_NS: Final = 1_000_000_000
_MS_NS: Final = 1_000_000
_SILENCE_NS: Final = 60 * _SECOND_NS


def log_samples(
    log: Log, mapping: Mapping, pack_id: str, sample_s: float, channel: str | None, notes: Notes
) -> Iterator[Measured]:
    """A Sample per `sample_s` of log time. channel: as the log prints it, None = that of its first frame.

    A time is UTC where the log says when it began (or prints it), else that since 1970. PacktwinError for a log without
    times, or without a frame that the mapping knows.
    """
    decoder = _decoder(mapping)
    assembler = Assembler(pack_id, mapping, sample_s)
    ticks = _Ticks(int(sample_s * _SECOND_NS))
    frames = 0
    for batch in _batches(log, channel):
        if not log.notes.has_times:
            raise PacktwinError(f"{log.path} is a {log.format}, which has no times: it cannot be replayed")
        frames += len(batch)
        for held, due_ns in ticks.cut(batch):
            assembler.feed(decoder.decode(held))
            if due_ns is not None and assembler.heard:
                yield _sample(assembler, due_ns, ticks, log)
    if ticks.has_more and assembler.heard:
        yield _sample(assembler, ticks.due_ns, ticks, log)
    if not assembler.heard:
        raise PacktwinError(
            f"{log.path} has no frame that {mapping.path} knows ({frames} frames of {channel or 'its first channel'}, "
            f"{log.notes.bad_lines} {log.notes.unit}s that are none): check mapping and channel"
        )
    read = batch.channel if channel is None else channel
    notes.other_channels = tuple(name for name in log.channels if name != read)
    notes.log = tuple(log.notes.told())
    notes.errors = dict(decoder.errors)


def _decoder(mapping: Mapping) -> Decoder | SaidDecoder:
    """What understands the frames of a log. ConfigError: the mapping is of no bus."""
    if mapping.dbc is not None:
        return Decoder(mapping, load(mapping.dbc))
    if mapping.spoken is None or mapping.spoken.protocol.frames_decoder is None:
        raise ConfigError(
            f"{mapping.path} is not for frames of a bus, so no log can be replayed with it: what was on a serial line "
            "is replayed from a capture (`edge capture export`), which has a .state.json beside it"
        )
    return SaidDecoder(mapping)


def _batches(log: Log, channel: str | None) -> Iterator[FrameBatch]:
    """The frames of one channel."""
    for block in log.blocks():
        if channel is None:
            channel = log.channels[block.channel[0]]
        if channel in log.channels:
            frames = block.frames.take(block.channel == log.channels.index(channel))
            yield FrameBatch(channel, frames.t_ns, frames.can_id, frames.length, frames.data)


def _sample(assembler: Assembler, due_ns: int, ticks: _Ticks, log: Log) -> Measured:
    assert ticks.first_ns is not None
    t_ns = round((log.notes.start_ns + due_ns) / _MS_NS) * _MS_NS
    if not 0 <= t_ns < LATEST_NS:
        raise PacktwinError(f"{log.path} has a frame at {t_ns / 1e9:.0f} s, which no Sample can have: mend the log")
    return assembler.sample(due_ns - ticks.first_ns, t_ns)


class _Ticks:
    """Cuts frames where a Sample is due, every `interval_ns` of the log's time from its first frame on."""

    def __init__(self, interval_ns: int) -> None:
        self._interval_ns = interval_ns
        self.first_ns: int | None = None
        self.due_ns = 0
        self.has_more = False
        """Frames have come since the last Sample."""

    def cut(self, batch: FrameBatch) -> Iterator[tuple[FrameBatch, int | None]]:
        """(frames, their times from the first one on; when a Sample is due after them, None = not yet)."""
        if not len(batch):
            return
        if self.first_ns is None:
            self.first_ns = int(batch.t_ns[0])
            self.due_ns = self.first_ns + self._interval_ns
        newest_ns = np.maximum.accumulate(batch.t_ns)
        at = 0
        while at < len(batch):
            end = at + int(np.searchsorted(newest_ns[at:], self.due_ns))
            held = batch.take(slice(at, end))
            held = FrameBatch(held.channel, held.t_ns - self.first_ns, held.can_id, held.length, held.data)
            at = end
            self.has_more = self.has_more or bool(len(held))
            if at == len(batch):
                yield held, None
                return
            t_ns = int(batch.t_ns[at])
            while t_ns >= self.due_ns:
                due_ns = self.due_ns
                # Over a long silence of the log nothing is told: a pause of a year is no year of stale samples.
                is_silence = t_ns - due_ns > _SILENCE_NS
                self.due_ns = t_ns + self._interval_ns if is_silence else due_ns + self._interval_ns
                self.has_more = False
                yield held, due_ns
                held = held.take(slice(0, 0))
