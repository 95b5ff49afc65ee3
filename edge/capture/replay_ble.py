"""The capture of a pack that was read over Bluetooth: F.serial.jsonl holds each reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from edge.capture.exported import CaptureState, Chunk, chunks_of, restored
from edge.decode_parts import PartDecoder
from edge.mapping import Mapping
from edge.outbox.records import Measured
from edge.sources.ble_names import of_json, part_of
from shared.errors import PacktwinError


def reading_samples(log: Path, state: CaptureState, mapping: Mapping, pack_id: str) -> Iterator[Measured]:
    """The Samples of the capture beside `log`. PacktwinError: the files do not belong together."""
    chunks = chunks_of(log, state)
    decoder, assembler = PartDecoder(mapping), restored(state, mapping, pack_id)
    for step in state.steps:
        if isinstance(step, Chunk):
            chunk = chunks[step.number]
            try:
                part = part_of(of_json(json.loads(chunk.data)))
            except (ValueError, TypeError, AttributeError):
                raise PacktwinError(f"{log} is not the capture of a pack on Bluetooth: export it again") from None
            assembler.feed(decoder.decode([(chunk.mono_ns, part)]))
        elif not isinstance(step, int):
            yield assembler.sample(*step)
