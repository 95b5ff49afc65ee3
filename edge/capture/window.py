"""From the ring to a capture: the frames as a candump log, serial chunks as JSON lines, what a replay needs as JSON.

Times in the log are UTC in whole us: `offset_ns` in the state file takes them back to the monotonic ones, exactly.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from edge.candump_text import candump_text
from edge.capture.ring import Segment, unpacked
from edge.capture.store import CaptureStore, Meta
from edge.mapping import Mapping
from firmware_bridge.frames import FrameBatch

FORMAT: Final = 1
"""Of the state file."""
_US_NS: Final = 1000
_PIECE_FRAMES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """A window that is to be kept. Times: mono_ns. at_ns: when the alarm rose, or a person asked."""

    id: str
    pack_id: str
    cause: str
    note: str | None
    begin_ns: int
    at_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a window's frames come from and mean. mapping: a digest of DBC and mapping."""

    device: str
    channel: str
    sample_s: float
    mapping: str


def meaning(mapping: Mapping) -> str:
    """A digest of what frames mean by this mapping: of its text and of its DBC."""
    digest = hashlib.sha256(mapping.digest_text.encode())
    if mapping.dbc is not None:
        with suppress(OSError):  # who decodes with it says what is wrong
            digest.update(mapping.dbc.read_bytes())
    return digest.hexdigest()


class _Texts:
    """Reads segments once, in order; what the log does not hold is gathered beside it."""

    def __init__(self, segments: Sequence[Segment], channel: str, offset_ns: int, dating_ns: int | None) -> None:
        self._segments, self._channel = segments, channel
        self._offset_ns, self._dating_ns = offset_ns, dating_ns
        self.state: dict[str, Any] = {}
        self.steps: list[Any] = []
        self.serial: list[bytes] = []
        self.frames = self.samples = 0
        self.first_ns, self.last_ns = segments[0].begin_ns, segments[-1].end_ns

    def log(self) -> Iterator[bytes]:
        for number, segment in enumerate(self._segments):
            state, steps = unpacked(segment.read(), self._channel)
            if not number:
                self.state = state
            frames: list[FrameBatch] = []
            for step in steps:
                if isinstance(step, FrameBatch):
                    self.steps.append(len(step))
                    frames.append(step)
                elif len(step) == 2:
                    self._sample(*step)
                else:
                    self._chunk(*step)
            yield from self._lines(FrameBatch.concat(self._channel, frames))

    def _lines(self, batch: FrameBatch) -> Iterator[bytes]:
        self.frames += len(batch)
        moved = replace(batch, t_ns=batch.t_ns + self._offset_ns)
        for at in range(0, len(moved), _PIECE_FRAMES):
            yield candump_text(moved.take(slice(at, at + _PIECE_FRAMES)))

    def _sample(self, mono_ns: int, t_ns: int | None) -> None:
        self.samples += 1
        if t_ns is None and self._dating_ns is not None:  # as the outbox dates it
            t_ns = mono_ns + self._dating_ns
        self.steps.append([mono_ns, t_ns])

    def _chunk(self, mono_ns: int, data: bytes, sent: bool) -> None:
        told = {"t_ns": mono_ns + self._offset_ns, "mono_ns": mono_ns, "sent": sent, "hex": data.hex()}
        self.steps.append({"chunk": len(self.serial)})
        self.serial.append(f"{json.dumps(told)}\n".encode())


def keep(
    store: CaptureStore,
    want: Want,
    about: About,
    segments: Sequence[Segment],
    *,
    offset_ns: int | None,
    dating_ns: int | None,
    now_ns: int,
) -> Meta:
    """Writes the window to flash. CaptureError or OSError: nothing of it is there.

    offset_ns: UTC - mono_ns now, None = not known, the log then counts from the host's boot. dating_ns: the one with
    which the outbox dates Samples that were taken before UTC was known.
    """
    shift_ns = 0 if offset_ns is None else offset_ns // _US_NS * _US_NS
    channel = _token(about.channel)
    texts = _Texts(segments, channel, shift_ns, dating_ns)

    def utc(mono_ns: int) -> int | None:
        return None if offset_ns is None else mono_ns + shift_ns

    def state() -> Iterable[bytes]:
        told = {
            "format": FORMAT, "id": want.id, "device": about.device, "pack_id": want.pack_id, "cause": want.cause,
            "note": want.note, "channel": channel, "sample_s": about.sample_s, "mapping": about.mapping,
            "utc": offset_ns is not None, "offset_ns": shift_ns, "at_ns": want.at_ns, "assembler": texts.state,
            "steps": texts.steps,
        }  # fmt: skip
        yield json.dumps(told, separators=(",", ":")).encode()

    def serial() -> Iterable[bytes]:
        yield from texts.serial

    def meta() -> Meta:
        return Meta(
            id=want.id,
            device=about.device,
            pack_id=want.pack_id,
            cause=want.cause,
            note=want.note,
            begin_t_ns=utc(texts.first_ns),
            end_t_ns=utc(texts.last_ns),
            kept_t_ns=utc(now_ns),
            kept_mono_ns=now_ns,
            frames=texts.frames,
            chunks=len(texts.serial),
            samples=texts.samples,
        )

    return store.add(want.id, {"log": texts.log(), "serial": serial(), "state": state()}, meta)


def _token(channel: str) -> str:
    """The channel as one word of a candump line: of a port's path the last part."""
    return "_".join(channel.rpartition("/")[2].split()) or "can"
