"""Listens on a bus for some seconds. Sends nothing; a slcan adapter is told to listen only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from edge.clock import both_ns
from edge.config_sources import SourceConfig
from edge.sources.can import source_of
from edge.sources.source import Source
from firmware_bridge.frames import FrameBatch

_SECOND_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Listened:
    """What came in seconds_s. errors: error frames by kind; bad_lines: junk on a serial line."""

    seconds_s: float
    batches: list[FrameBatch] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    bad_lines: int = 0
    drops: int = 0
    notes: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """How many frames came."""
        return sum(map(len, self.batches))

    @property
    def ids(self) -> set[int]:
        """The ids of them, with EXTENDED."""
        return {int(one) for batch in self.batches for one in np.unique(batch.can_id)}


def listen(
    config: SourceConfig,
    seconds_s: float,
    *,
    opened: Callable[[SourceConfig], Source] = source_of,
    mono_ns: Callable[[], int] = lambda: both_ns()[0],
    sleep: Callable[[float], None] = time.sleep,
) -> Listened:
    """All that comes within seconds_s. SourceError: it cannot be opened, or goes; ConfigError: no such interface."""
    source = opened(replace(config, listen_only=True))
    heard = Listened(seconds_s)
    source.open()
    try:
        end_ns = mono_ns() + int(seconds_s * _SECOND_NS)
        while (now_ns := mono_ns()) < end_ns:
            batch = source.read(now_ns)
            if len(batch):
                heard.batches.append(batch)
            sleep(min(source.tick_s, max(end_ns - mono_ns(), 0) / _SECOND_NS))
        heard.errors, heard.bad_lines = dict(source.error_frames), source.bad_lines
        heard.drops, heard.notes = source.drops or 0, source.notes
    finally:
        source.close()
    return heard
