"""The capture of a pack that speaks a BMS's language on a CAN bus: its log holds what was sent, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.capture.exported import CaptureState, Chunk, Frames, not_a_state, restored
from edge.decode_parts import PartDecoder
from edge.lane import INTAKE
from edge.mapping import Mapping
from edge.outbox.records import Measured
from edge.sources.can_ear import CanEar
from firmware_bridge.protocol import Part


def said_samples(log: Path, state: CaptureState, mapping: Mapping, pack_id: str) -> Iterator[Measured]:
    """The Samples of an exported capture. PacktwinError: log and state do not belong together."""
    ear, decoder = _ear(state, mapping), PartDecoder(mapping)
    assembler = restored(state, mapping, pack_id)
    frames = Frames(log, state)
    for step in state.steps:
        if isinstance(step, int):
            said = ear.heard(frames.take(step).rows())
            parts = [(t_ns, part) for t_ns, part in said if isinstance(part, Part)]
            if parts:
                assembler.feed(decoder.decode(parts))
        elif not isinstance(step, Chunk):
            yield assembler.sample(*step)
    frames.end()


def _ear(state: CaptureState, mapping: Mapping) -> CanEar:
    """The ear as it was when the capture begins."""
    assert mapping.spoken is not None
    try:
        return CanEar.restored(mapping.spoken.protocol, mapping.spoken.vehicle, state.assembler[INTAKE])
    except (KeyError, TypeError, ValueError, AttributeError):
        raise not_a_state(state.path) from None
