"""The capture of a pack on a serial line as a source: F.serial.jsonl holds all that was on the line, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge.assemble import Assembler
from edge.capture.exported import Bytes, CaptureState, Chunk, chunks_of, not_a_state, restored
from edge.decode_parts import PartDecoder
from edge.lane import INTAKE
from edge.mapping import Mapping
from edge.outbox.records import Measured
from edge.sources.ear import Asking, Ear, Told
from firmware_bridge.protocol import Part

_PACE_S: Final = 1.0  # of requests; nothing is asked here


def serial_samples(log: Path, state: CaptureState, mapping: Mapping, pack_id: str) -> Iterator[Measured]:
    """The Samples of the capture beside `log`. PacktwinError: the files do not belong together."""
    chunks = chunks_of(log, state)
    ear, decoder = _ear(state, mapping), PartDecoder(mapping)
    assembler = restored(state, mapping, pack_id)
    for step in state.steps:
        if isinstance(step, Chunk):
            chunk = chunks[step.number]
            _feed(assembler, decoder, chunk.mono_ns, _told(ear, chunk))
        elif not isinstance(step, int):
            yield assembler.sample(*step)


def _ear(state: CaptureState, mapping: Mapping) -> Ear:
    """An ear that hears of this pack alone, as it was when the capture begins."""
    assert mapping.spoken is not None and mapping.spoken.protocol.bytes_decoder is not None
    spoken = mapping.spoken
    try:
        told = state.assembler[INTAKE]
        others = tuple(told["others"])
        polls = bool(told["polls"])
        packs = [
            Asking.of(spoken.protocol, spoken.vehicle, each, _PACE_S, polls=polls)
            for each in (told["address"], *others)
        ]
        ear = Ear(mapping.spoken.protocol.bytes_decoder(), packs)
        ear.restore(told)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise not_a_state(state.path) from None
    return ear


def _told(ear: Ear, chunk: Bytes) -> list[Told]:
    if chunk.sent:
        ear.sent(chunk.data)
        return []
    return ear.feed(chunk.data) if chunk.data else ear.end()


def _feed(assembler: Assembler, decoder: PartDecoder, t_ns: int, told: list[Told]) -> None:
    parts = [(t_ns, said) for owner, said in told if owner == 0 and isinstance(said, Part)]
    if parts:
        assembler.feed(decoder.decode(parts))
