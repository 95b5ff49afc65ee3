"""The capture of a pack on a broker as a source: F.serial.jsonl holds each message that was read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge.capture.exported import CaptureState, Chunk, chunks_of, not_a_state, restored
from edge.decode_messages import MessageDecoder
from edge.lane import INTAKE
from edge.mapping import Mapping
from edge.outbox.records import Measured
from edge.sources.mqtt import of_chunk
from shared.errors import PacktwinError


def message_samples(log: Path, state: CaptureState, mapping: Mapping, pack_id: str) -> Iterator[Measured]:
    """The Samples of the capture beside `log`. PacktwinError: the files do not belong together."""
    chunks = chunks_of(log, state)
    decoder, assembler = MessageDecoder(mapping), restored(state, mapping, pack_id)
    try:
        decoder.names.restore(state.assembler[INTAKE])
    except (KeyError, TypeError, ValueError):
        raise not_a_state(state.path) from None
    for step in state.steps:
        if isinstance(step, Chunk):
            chunk = chunks[step.number]
            try:
                heard = of_chunk(chunk.data, chunk.mono_ns)
            except (ValueError, KeyError, TypeError):
                raise PacktwinError(f"{log} is not the capture of a pack on a broker: export it again") from None
            if (fields := decoder.decode([heard])) is not None:
                assembler.feed(fields)
        elif not isinstance(step, int):
            yield assembler.sample(*step)
