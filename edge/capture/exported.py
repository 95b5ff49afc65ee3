"""The files of an exported capture: F.log, F.serial.jsonl, and F.state.json, which says in which order they came.

The state says what the assembler knew before the first frame, and the order of what followed: how many frames each read
of the bus brought, or which chunk of a serial line came or was sent, and when each Sample was taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edge.assemble import Assembler
from edge.capture.window import FORMAT
from edge.logs import candump
from edge.logs.frames import Notes
from edge.mapping import Mapping as FieldMapping
from firmware_bridge.frames import FrameBatch
from shared.errors import ConfigError, PacktwinError

_SUFFIXES: Final = {"state": ".state.json", "serial": ".serial.jsonl"}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a serial line, by their number among those of the capture."""

    number: int


Step = int | Chunk | tuple[int, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureState:
    """What stands beside an exported log. offset_ns: the log's times less those of the Samples' mono_ns.

    steps: in order, n = a read of n frames, a Chunk = its number, (mono_ns, t_ns) = a Sample. mapping: digest of what
    frames meant then.
    """

    path: Path
    pack_id: str
    sample_s: float
    mapping: str
    offset_ns: int
    assembler: Mapping[str, Any]
    steps: tuple[Step, ...]

    @property
    def samples(self) -> int:
        """How many Samples it gives."""
        return sum(isinstance(step, tuple) for step in self.steps)

    @property
    def frames(self) -> int:
        """How many frames the log must have."""
        return sum(step for step in self.steps if isinstance(step, int))

    @property
    def chunks(self) -> int:
        """How many chunks of a serial line there must be."""
        return sum(isinstance(step, Chunk) for step in self.steps)


def beside(log: Path, name: str) -> Path:
    """Where the `state` or the `serial` chunks of an exported log are."""
    return log.with_name(f"{log.name.removesuffix('.log')}{_SUFFIXES[name]}")


def state_beside(log: Path) -> CaptureState | None:
    """The state of the capture that `log` is; None where none lies beside it. ConfigError: it cannot be read."""
    path = beside(log, "state")
    try:
        told = json.loads(path.read_bytes())
        if told["format"] != FORMAT:
            raise ConfigError(f"{path} has format {told['format']}, known here is {FORMAT}: take a newer packtwin")
        return CaptureState(
            path=path,
            pack_id=str(told["pack_id"]),
            sample_s=float(told["sample_s"]),
            mapping=str(told["mapping"]),
            offset_ns=int(told["offset_ns"]),
            assembler=told["assembler"],
            steps=tuple(map(_step, told["steps"])),
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, RecursionError):
        raise not_a_state(path) from None


def _step(step: Any) -> Step:
    if isinstance(step, int):
        return step
    if isinstance(step, dict):
        return Chunk(int(step["chunk"]))
    mono_ns, t_ns = step
    return int(mono_ns), None if t_ns is None else int(t_ns)


def restored(state: CaptureState, mapping: FieldMapping, pack_id: str) -> Assembler:
    """The assembler as it was when the capture begins."""
    assembler = Assembler(pack_id, mapping, state.sample_s)
    try:
        assembler.restore(state.assembler)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise not_a_state(state.path) from None
    return assembler


def not_a_state(path: Path) -> ConfigError:
    """The error that says so; raise it."""
    return ConfigError(f"{path} is not the state of a capture: export it again, or move it away")


class Frames:
    """The frames of the log, handed out in the reads in which they came."""

    def __init__(self, log: Path, state: CaptureState) -> None:
        self._log, self._state = log, state
        self._batches = _batches(log)
        self._rest = FrameBatch.empty("")
        self._taken = 0

    def take(self, count: int) -> FrameBatch:
        """The next `count` frames, with the times that they had on the device."""
        parts, have = [self._rest], len(self._rest)
        while have < count:
            batch = next(self._batches, None)
            if batch is None:
                raise self._strange(self._taken + have)
            parts.append(batch)
            have += len(batch)
        whole = FrameBatch.concat("", parts) if len(parts) > 1 else self._rest
        self._rest = whole.take(slice(count, None))
        self._taken += count
        chosen = whole.take(slice(0, count))
        return replace(chosen, t_ns=chosen.t_ns - self._state.offset_ns)

    def end(self) -> None:
        """Nothing may be left."""
        more = len(self._rest) + sum(map(len, self._batches))
        if more:
            raise self._strange(self._taken + more)

    def _strange(self, frames: int) -> PacktwinError:
        return PacktwinError(
            f"{self._log} has {frames} frames, {self._state.path.name} beside it speaks of {self._state.frames}: "
            "export the capture again, or move that file away to replay the log alone"
        )


def _batches(log: Path) -> Iterator[FrameBatch]:
    try:
        with log.open("rb") as file:
            for block in candump.blocks(file, Notes()):
                yield block.frames
    except OSError as error:
        raise ConfigError(f"{log} cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True, slots=True)
class Bytes:
    """A chunk. data b"" = the line had fallen silent."""

    mono_ns: int
    data: bytes
    sent: bool


def chunks_of(log: Path, state: CaptureState) -> list[Bytes]:
    """All that was on the line. PacktwinError: it is not what the state speaks of."""
    chunks = _chunks(beside(log, "serial"))
    if len(chunks) != state.chunks:
        raise PacktwinError(
            f"{beside(log, 'serial')} has {len(chunks)} chunks, {state.path.name} beside it speaks of {state.chunks}: "
            "export the capture again"
        )
    return chunks


def _chunks(path: Path) -> list[Bytes]:
    try:
        lines = path.read_text("ascii").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    chunks = []
    for number, line in enumerate(lines, 1):
        try:
            told = json.loads(line)
            chunks.append(Bytes(int(told["mono_ns"]), bytes.fromhex(told["hex"]), bool(told["sent"])))
        except (ValueError, TypeError, KeyError):
            raise PacktwinError(f"{path} line {number} is no chunk of a line: export the capture again") from None
    return chunks
