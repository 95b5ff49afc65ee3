"""An exported capture as a source: F.log with F.state.json beside it gives the Samples that the agent gave, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from edge.capture.exported import CaptureState, Chunk, Frames, not_a_state, restored
from edge.capture.window import meaning
from edge.config_sources import BLUETOOTH
from edge.dbc.load import load
from edge.decode import Decoder
from edge.lane import INTAKE
from edge.mapping import Mapping as FieldMapping
from edge.outbox.records import Measured
from shared.errors import ConfigError

Reader = Callable[[Path, CaptureState, FieldMapping, str], Iterator[Measured]]


def means_the_same(state: CaptureState, mapping: FieldMapping) -> bool:
    """Whether the mapping and its DBC are those with which the agent read the bus."""
    return state.mapping == meaning(mapping)


def capture_samples(log: Path, state: CaptureState, mapping: FieldMapping, pack_id: str) -> Iterator[Measured]:
    """The Samples of an exported capture. PacktwinError: log and state do not belong together."""
    return _reader(mapping)(log, state, mapping, pack_id)


def _reader(mapping: FieldMapping) -> Reader:
    """What reads captures of such a pack; each import brings what the others do without."""
    if mapping.spoken is not None and mapping.spoken.protocol.bytes_decoder is not None:
        from edge.capture.replay_serial import serial_samples

        return serial_samples
    if mapping.spoken is not None and mapping.spoken.protocol.medium == BLUETOOTH:
        from edge.capture.replay_ble import reading_samples

        return reading_samples
    if mapping.spoken is not None:
        from edge.capture.replay_can import said_samples

        return said_samples
    if mapping.published is not None:
        from edge.capture.replay_messages import message_samples

        return message_samples
    return _frame_samples


def _frame_samples(log: Path, state: CaptureState, mapping: FieldMapping, pack_id: str) -> Iterator[Measured]:
    """The Samples of a capture of frames that a DBC describes."""
    if mapping.dbc is None:
        raise ConfigError(f"{mapping.path} does not say what frames mean: give the mapping of the pack")
    decoder = Decoder(mapping, load(mapping.dbc))
    assembler = restored(state, mapping, pack_id)
    try:
        decoder.restore(state.assembler.get(INTAKE, {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise not_a_state(state.path) from None
    frames = Frames(log, state)
    for step in state.steps:
        if isinstance(step, int):
            assembler.feed(decoder.decode(frames.take(step)))
        elif not isinstance(step, Chunk):
            yield assembler.sample(*step)
    frames.end()
