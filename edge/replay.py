"""Sending files: through the same assembling, outbox, uplink and Receipts as live data, as fast as Receipts allow."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TextIO

from edge.clock import Clock, kernel_boot_id
from edge.outbox.box import Outbox
from edge.outbox.inspect import tables
from edge.outbox.records import Measured, Record
from edge.transport import Transport
from edge.uplink import Uplink, UplinkSettings
from shared.block import block_of
from shared.errors import PacktwinError

_CHUNK_ROWS: Final = 500
MOST_PENDING: Final = 4000
_PATIENCE_S: Final = 120.0
_FORBIDDEN_S: Final = 10.0  # a token that was just made is known everywhere by then
_SECOND_NS: Final = 1_000_000_000
_MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What became of a file's Samples, or of its other records."""

    samples: int
    acked: int


def chunked(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in handfuls."""
    todo = iter(records)
    while chunk := list(islice(todo, _CHUNK_ROWS)):
        yield chunk


class Pace:
    """Holds rows back so that a file's time runs `speed` times as fast as real time; None = no holding back."""

    def __init__(self, speed: float | None, clock: Clock) -> None:
        self._speed, self._clock = speed, clock
        self._begun: tuple[int, int] | None = None

    def chunks(self, rows: Iterable[Measured]) -> Iterator[list[Measured]]:
        """The rows in handfuls, each when its time has come."""
        todo = iter(rows)
        if self._speed is None:
            while chunk := list(islice(todo, _CHUNK_ROWS)):
                yield chunk
            return
        due: list[Measured] = []
        for row in todo:
            begun_ns, first_ns = self._begun = self._begun or (self._clock.mono_ns(), row.mono_ns)
            due_ns = begun_ns + (row.mono_ns - first_ns) / self._speed
            if due and (due_ns > self._clock.mono_ns() or len(due) == _CHUNK_ROWS):
                yield due
                due = []
            time.sleep(max(due_ns - self._clock.mono_ns(), 0.0) / _SECOND_NS)
            due.append(row)
        if due:
            yield due


def write_samples(chunks: Iterable[list[Measured]], out: TextIO, shown: Callable[[int], None]) -> int:
    """Writes each Sample as a line of JSON; how many."""
    written = 0
    for chunk in chunks:
        first = chunk[0]
        block = block_of(
            first.pack_id,
            first.layout,
            range(written, written + len(chunk)),
            [row.mono_ns for row in chunk],
            [row.t_ns for row in chunk],
            b"".join(row.row for row in chunk),
            [row.quality for row in chunk],
            [row.alarms for row in chunk],
        )
        out.writelines(json.dumps(record) + "\n" for record in block.dicts())
        written += len(chunk)
        shown(written)
    return written


def send_samples(
    chunks: Iterable[Sequence[Record]],
    *,
    device: str,
    boot: int,
    transport: Transport,
    clock: Clock,
    shown: Callable[[int, str], None],
    most_pending: int = MOST_PENDING,
) -> Told:
    """Sends all of them and waits for every Receipt. PacktwinError if the cloud refuses some or stays away.

    most_pending: how many may wait for a Receipt before the next are read; 0 = each chunk goes up at once.
    The boot names the content, so what the cloud already has it acknowledges without storing it again.
    """
    with _scratch() as folder, _outbox(device, boot, folder, clock) as outbox:
        uplink = Uplink(outbox, transport, clock, UplinkSettings())
        road = _Road(outbox, uplink, clock, shown)
        for chunk in chunks:
            outbox.put(chunk)
            road.samples += len(chunk)
            road.advance(most_pending)
        road.advance(0)
        if road.refused:
            reasons = {
                row["reason"] for file in tables(folder / "cold", folder / "hot").values() for row in file["rejects"]
            }
            raise PacktwinError(
                f"the cloud refused {road.refused} of {road.samples} records ({', '.join(sorted(reasons))}): "
                "check the times and ids in the file and its mapping"
            )
        return Told(samples=road.samples, acked=road.acked)


class _Road:
    """Counts what went up, Samples or whatever the file holds, and steps the uplink until few enough are pending."""

    def __init__(self, outbox: Outbox, uplink: Uplink, clock: Clock, shown: Callable[[int, str], None]) -> None:
        self._outbox, self._uplink, self._clock, self._shown = outbox, uplink, clock, shown
        self.samples = self.acked = self.refused = 0
        self._last_good_ns = clock.mono_ns()

    def advance(self, most_pending: int) -> None:
        """Sends until at most `most_pending` of them wait for a Receipt."""
        while self.samples - self.acked - self.refused > most_pending:
            now_ns = self._clock.mono_ns()
            progress = self._uplink.drain(now_ns)
            self.acked += progress.acked
            self.refused += progress.refused
            state = self._uplink.state
            self._shown(self.acked, state.problem or "")
            if state.problem is None:
                self._last_good_ns = now_ns
            elif state.forbidden and now_ns - self._last_good_ns > _FORBIDDEN_S * _SECOND_NS:
                raise PacktwinError(f"{state.problem}; nothing is lost, run it again then")
            elif now_ns - self._last_good_ns > _PATIENCE_S * _SECOND_NS:
                raise PacktwinError(f"{state.problem}: gave up after {_PATIENCE_S:.0f} s, run it again when it is back")
            time.sleep(min(progress.wait_s, 1.0))


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder in memory where there is tmpfs: a replay can always be run again, so it need not outlive anything."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="packtwin-replay-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@contextmanager
def _outbox(device: str, boot: int, folder: Path, clock: Clock) -> Iterator[Outbox]:
    outbox = Outbox(
        device,
        folder / "cold",
        folder / "hot",
        max_bytes=_MAX_BYTES,
        flush_s=3600.0,
        now=clock.mono_ns,
        kernel_boot_id=kernel_boot_id(),
        boot=boot,
    )
    try:
        yield outbox
    finally:
        outbox.close()


@contextmanager
def opened_output(name: str) -> Iterator[TextIO]:
    """The file to write to; `-` = stdout."""
    if name == "-":
        yield sys.stdout
        return
    try:
        with Path(name).open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise PacktwinError(f"{name} cannot be written: {error.strerror}") from None
