"""A Batch: records of one device and one boot, in order, going up; with the checks that hold however it was encoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

from shared.block import SampleBlock
from shared.errors import WireError
from shared.fields import ID, MAX_CELLS
from shared.records import (
    CAPTURE_FILES,
    GAP_CAUSES,
    MAX_PART_BYTES,
    MAX_PARTS,
    SEVERITIES,
    Capture,
    Estimate,
    Event,
    Gap,
    Report,
    Session,
    Single,
)

SCHEMA: Final = 1
MAX_BODY_BYTES: Final = 8 << 20
MAX_ROWS: Final = 100_000
MAX_VALUES: Final = 1 << 24
"""Most values (rows x columns) of all Samples of a Batch together: a few bytes can ask for gigabytes otherwise."""
MAX_COLUMNS: Final = 1 << 17
"""Most columns of all Layouts of a Batch together: a few bytes can name thousands, and each costs microseconds."""
MAX_TEXT_CHARS: Final = 256
MAX_PLAIN_BYTES: Final = 8 << 20
"""What the data of one part of a Capture may unpack to."""
_MAX_INT: Final = 2**62
_MAX_REASONS: Final = 64

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of (device, boot). Every seq is unique within it."""

    device: str
    boot: int
    blocks: tuple[SampleBlock, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    events: tuple[Event, ...] = ()
    reports: tuple[Report, ...] = ()
    gaps: tuple[Gap, ...] = ()
    sessions: tuple[Session, ...] = ()
    captures: tuple[Capture, ...] = ()

    def singles(self) -> Iterator[Single]:
        """All records that are not Samples."""
        yield from self.estimates
        yield from self.events
        yield from self.reports
        yield from self.gaps
        yield from self.sessions
        yield from self.captures

    def seqs(self) -> Ints:
        """All seq, ascending."""
        singles = [record.seq for record in self.singles()]
        parts = [block.seq for block in self.blocks]
        if singles or not parts:
            parts.append(np.array(singles, np.int64))
        return parts[0] if len(parts) == 1 and not singles else np.sort(np.concatenate(parts))

    def __len__(self) -> int:
        kinds = (self.estimates, self.events, self.reports, self.gaps, self.sessions, self.captures)
        return sum(map(len, self.blocks)) + sum(map(len, kinds))


def ranges(seqs: Ints) -> list[tuple[int, int]]:
    """Ascending numbers as inclusive ranges (first, last)."""
    if not seqs.size:
        return []
    if seqs.size == 1:  # a car that is watched: every message is so
        return [(int(seqs[0]), int(seqs[0]))]
    breaks = np.flatnonzero(np.diff(seqs) != 1)
    firsts = seqs[np.concatenate(([0], breaks + 1))]
    lasts = seqs[np.concatenate((breaks, [seqs.size - 1]))]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def check(batch: Batch) -> Batch:
    """The batch itself if its ids, numbers and counts are possible; WireError naming the first that is not."""
    _require_id("device", batch.device)
    if not 0 <= batch.boot < 2**64:
        raise WireError("malformed", "boot is not a 64-bit number")
    for block in batch.blocks:
        _require_id("pack_id", block.pack_id)
        if len(block) > 1 and (
            (block.seq[1:] <= block.seq[:-1]).any() or (block.mono_ns[1:] < block.mono_ns[:-1]).any()
        ):
            raise WireError("malformed", f"seq or mono_ns does not ascend in the block of {block.pack_id}")
    for record in batch.singles():
        require_possible(record)
    seqs = batch.seqs()
    if not seqs.size:
        raise WireError("malformed", "a batch without records")
    if seqs.size > MAX_ROWS:
        raise WireError("too_large", f"{seqs.size} records in a batch, at most {MAX_ROWS}")
    mixed = len(batch.blocks) != 1 or len(batch.blocks[0]) != seqs.size
    if seqs[0] < 0 or seqs[-1] >= _MAX_INT or (mixed and (seqs[1:] == seqs[:-1]).any()):
        raise WireError("malformed", "seq is negative, too large or used twice")
    return batch


def require_possible(record: Single) -> None:
    """WireError naming what cannot be in this record; nothing if all can."""
    if not (0 <= record.seq < _MAX_INT and 0 <= record.mono_ns < _MAX_INT):
        raise WireError("malformed", f"seq {record.seq} or its mono_ns {record.mono_ns} is out of range")
    if isinstance(record, Estimate | Event | Session | Capture):
        _require_id("pack_id", record.pack_id)
    _require_texts(record)
    match record:
        case Estimate() if max(len(record.r0_mohm), len(record.cell_soc)) > MAX_CELLS:
            wrong = f"more than {MAX_CELLS} cells"
        case Event() if record.severity not in SEVERITIES:
            wrong = f"the unknown severity {record.severity[:80]!r}"
        case Report() if not 0 <= record.counter < _MAX_INT:
            wrong = f"an impossible counter {record.counter}"
        case Gap() if record.cause not in GAP_CAUSES:
            wrong = f"the unknown gap cause {record.cause[:80]!r}"
        case Gap() if not (0 <= record.first_seq < _MAX_INT and -1 <= record.last_seq < _MAX_INT):
            wrong = "an impossible range"
        case Gap() if not 0 <= record.ahead < _MAX_INT:
            wrong = f"an impossible ahead {record.ahead}"
        case Gap() if any(not 0 <= first <= last < _MAX_INT for first, last in record.stored):
            wrong = "an impossible stored range"
        case Session() if not record.duration_s >= 0:
            wrong = f"an impossible duration of {record.duration_s} s"
        case Session() if len(record.reasons) > _MAX_REASONS:
            wrong = f"more than {_MAX_REASONS} reasons"
        case Capture() if wrong_part := _wrong_part(record):
            wrong = wrong_part
        case _:
            return
    raise WireError("malformed", f"the {type(record).__name__} of seq {record.seq} has {wrong}")


def _wrong_part(record: Capture) -> str | None:
    """What cannot be in a part of a capture; None if all can."""
    if not ID.fullmatch(record.id) or record.file not in CAPTURE_FILES or not record.cause:
        return f"no possible id, file or cause: {record.id[:80]!r}, {record.file[:80]!r}, {record.cause[:80]!r}"
    if not 0 <= record.part < record.parts <= MAX_PARTS:
        return f"part {record.part} of {record.parts}"
    if any(abs(t_ns) >= _MAX_INT for t_ns in (record.begin_t_ns, record.end_t_ns) if t_ns is not None):
        return "an impossible window"
    if not 0 < len(record.data) <= MAX_PART_BYTES:
        return f"{len(record.data)} bytes, at most {MAX_PART_BYTES}"
    try:
        plain_bytes = zstandard.frame_content_size(record.data)
    except zstandard.ZstdError:
        return "data that are no zstd frame"
    return None if 0 <= plain_bytes <= MAX_PLAIN_BYTES else f"data that unpack to {plain_bytes} bytes"


def _require_texts(record: Single) -> None:
    texts = [getattr(record, name) for name in record.__slots__]
    if isinstance(record, Report):
        texts += record.numbers
    if isinstance(record, Session):
        texts += [*record.reasons, *record.reasons.values()]
    for text in texts:
        if isinstance(text, str) and not (len(text) <= MAX_TEXT_CHARS and text.isprintable()):
            raise WireError("malformed", f"a text of seq {record.seq} is too long or not printable: {text[:80]!r}")


def _require_id(name: str, value: str) -> None:
    if not ID.fullmatch(value):
        raise WireError("malformed", f"{name} {value[:80]!r} is not an id (letters, digits, . _ -, at most 64)")
