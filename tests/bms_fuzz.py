"""Fuzzing of decoders: half of the frames are random, half are a pack's own, changed and checked again.

`python tests/bms_fuzz.py` (`make fuzz`) runs a million frames a decoder; tests run fewer of the same.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from bms_cases import Case, bus_frames, cases, exchange, some_values

from firmware_bridge.checksums import crc16_modbus, crc16_xmodem, negated_sum16, sum8, sum16
from firmware_bridge.frames import CLASSIC_BYTES, EXTENDED
from firmware_bridge.protocol import ERRORS, LineError, Said
from shared.fields import QUALITY_REASONS

FRAME_BYTES: Final = 300
MOST_MS: Final = 1.0
"""So long may 300 bytes take."""
MOST_PENDING_BYTES: Final = 8192
MOST_GROWTH_BYTES: Final = 256 * 1024
HANG_S: Final = 1.0
_BATCH: Final = 100
_PACKS: Final = 20
_WATCHED: Final = 5000


def _jbd(frame: bytearray) -> None:
    if frame[:1] == b"\xdd":
        frame[-3:-1] = negated_sum16(frame[2:-3]).to_bytes(2, "big")
    else:
        _modbus(frame)


def _sum8(frame: bytearray) -> None:
    frame[-1] = sum8(frame[:-1])


def _jk02(frame: bytearray) -> None:
    if len(frame) >= 300:
        frame[299] = sum8(frame[:299])


def _jk_uart(frame: bytearray) -> None:
    frame[-2:] = sum16(frame[:-4]).to_bytes(2, "big")


def _modbus(frame: bytearray) -> None:
    frame[-2:] = crc16_modbus(frame[:-2]).to_bytes(2, "little")


def _seplos_v2(frame: bytearray) -> None:
    if frame[1:3].isdigit():
        frame[-5:-1] = b"%04X" % negated_sum16(frame[1:-5])
    else:
        frame[-3:-1] = crc16_xmodem(frame[1:-3]).to_bytes(2, "big")


CHECK_AGAIN: Final[Mapping[str, Callable[[bytearray], None]]] = {
    "jbd": _jbd,
    "jk02": _jk02,
    "jk_uart": _jk_uart,
    "daly_uart": _sum8,
    "daly_modbus": _modbus,
    "seplos_v2": _seplos_v2,
    "seplos_v3": _modbus,
}
"""How a changed frame gets its check anew."""


@dataclass
class Result:
    """What a run showed. ms: processor time of 300 bytes (on CAN: of 38 frames); worst_ms: of one frame.

    ms is the median of batches of 100 frames each, so that what else the machine does is left out.
    """

    case: Case
    seed: int
    frames: int = 0
    parts: int = 0
    errors: int = 0
    ms: float = 0.0
    worst_ms: float = 0.0
    pending_bytes: int = 0
    growth_bytes: int = 0

    @property
    def ok(self) -> bool:
        return (
            self.ms < MOST_MS
            and self.worst_ms < 1000 * HANG_S
            and self.pending_bytes <= MOST_PENDING_BYTES
            and self.growth_bytes <= MOST_GROWTH_BYTES
        )


class Fuzz:
    """A decoder under a seed's frames."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case, self.seed = case, seed
        self._rng = random.Random(f"{case} {seed}")
        self.result = Result(case, seed)
        self._batch_s, self._batch_bytes = 0.0, 0
        self._batches_ms: list[float] = []
        self.said: Counter[str] = Counter()
        self._asks = False
        if case.spoken.medium == "serial":
            talks = [it for _ in range(_PACKS) for it in exchange(case, some_values(case, self._rng))]
            self._own = [(request, reply) for request, replies in talks for reply in replies if reply]
        else:
            frames = [it for _ in range(_PACKS) for it in bus_frames(case, some_values(case, self._rng))]
            self._messages = _messages(case, frames)
        self._begin(asks=False)

    def _begin(self, *, asks: bool) -> None:
        """A new decoder; asks: it knows requests, as one that polls does."""
        self._asks = asks
        if self.case.spoken.bytes_decoder is not None:
            self._line = self.case.spoken.bytes_decoder()
        elif self.case.spoken.frames_decoder is not None:
            self._bus = self.case.spoken.frames_decoder(self.case.vehicle)

    def run(self, frames: int) -> Result:
        """So many frames, half of them to a decoder that knows requests; the last under the eyes of tracemalloc."""
        step = self._serial_frame if self.case.spoken.medium == "serial" else self._can_frame
        watched = min(_WATCHED, frames // 4)
        self._until(frames // 2, step)
        self._begin(asks=True)
        self._until(frames - watched, step)
        self.result.ms = statistics.median(self._batches_ms)
        self._batches_ms.clear()
        gc.collect()
        tracemalloc.start()
        self._until(frames - watched + watched // 5, step)
        before = tracemalloc.get_traced_memory()[0]
        self._until(frames, step)
        gc.collect()
        self.result.growth_bytes = max(tracemalloc.get_traced_memory()[0] - before, 0)
        tracemalloc.stop()
        return self.result

    def _until(self, frames: int, step: Callable[[], None]) -> None:
        while self.result.frames < frames:
            step()

    def _took(self, began_s: float, size: int, said: list[Said]) -> None:
        took_s = time.process_time() - began_s
        self._batch_s += took_s
        self._batch_bytes += size
        self.result.frames += 1
        if self.result.frames % _BATCH == 0:
            self._batches_ms.append(1000 * self._batch_s * FRAME_BYTES / self._batch_bytes)
            self._batch_s, self._batch_bytes = 0.0, 0
        self.result.worst_ms = max(self.result.worst_ms, 1000 * took_s)
        for it in said:
            if isinstance(it, LineError):
                self.result.errors += 1
                self.said[it.error] += 1
                assert it.error in ERRORS and it.offset >= 0 and it.detail, it
            else:
                self.result.parts += 1
                self.said[it.kind] += 1
                for name, value in it.values.items():
                    if value is None:
                        assert it.quality.get(name) in QUALITY_REASONS, (name, it)
                    elif isinstance(value, float):
                        assert math.isfinite(value), (name, it)

    # a line of bytes

    def _serial_frame(self) -> None:
        rng = self._rng
        is_noise = rng.random() < 0.5
        request, own = rng.choice(self._own)
        frame = self._random_bytes(own) if is_noise else self._changed_bytes(own)
        pieces = [frame]
        if rng.random() < 0.2 and len(frame) > 1:
            cut = rng.randrange(1, len(frame))
            pieces = [frame[:cut], frame[cut:]]
        if self._asks and rng.random() < (0.1 if is_noise else 0.8):
            self._line.sent(request)
        said: list[Said] = []
        # Often the line falls silent behind noise, so that what follows is not taken for its rest.
        is_end = rng.random() < (0.6 if is_noise else 0.2)
        began_s = time.process_time()
        for piece in pieces:
            said += self._line.feed(piece)
        if is_end:
            said += self._line.end()
        self._took(began_s, len(frame), said)
        self.result.pending_bytes = max(self.result.pending_bytes, len(self._line.pending))

    def _random_bytes(self, own: bytes) -> bytes:
        """Noise; often behind a good beginning."""
        rng = self._rng
        noise = rng.randbytes(rng.randrange(1, FRAME_BYTES + 1))
        if rng.random() < 0.5:
            noise = own[: rng.randrange(1, min(len(own), 12) + 1)] + noise
        return noise[:FRAME_BYTES]

    def _changed_bytes(self, own: bytes) -> bytes:
        """A frame of a pack with some bytes changed, some gone, some more; mostly with the check that belongs to it."""
        rng = self._rng
        frame = bytearray(own)
        is_letters = own[:1] == b"~" and own[1:2].isdigit()
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            at = rng.randrange(len(frame))
            if is_letters and rng.random() < 0.95:
                frame[at] = rng.choice(b"0123456789ABCDEF")
            else:
                frame[at] = rng.choice((0, 0xFF, 0x7F, 0x80, frame[at] ^ 1 << rng.randrange(8), rng.randrange(256)))
        if rng.random() < 0.1:
            at = rng.randrange(len(frame))
            frame[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
        if rng.random() < 0.9 and len(frame) > 8:
            CHECK_AGAIN[self.case.name](frame)
        return bytes(frame)

    # a bus

    def _can_frame(self) -> None:
        """A message of a pack, or as many frames of noise as it has: what comes in several frames is reached, too."""
        rng = self._rng
        message = rng.choice(self._messages)
        is_noise = rng.random() < 0.5
        if self._asks and self.case.polls:
            for poll in self.case.polls if rng.random() < 0.05 else [rng.choice(self.case.polls)]:
                self._bus.sent(poll.can_id or 0, poll.request)
        for can_id, payload in message:
            if is_noise:
                other = rng.choice((rng.randrange(0x800), EXTENDED | rng.randrange(1 << 29)))
                noise = rng.randbytes(rng.choice((0, 1, 2, 4, 6, 7, 8, 8, 8, 8)))
                self._put(rng.choice((can_id, rng.choice(self._messages)[0][0], other)), noise)
            else:
                self._put(can_id, self._changed_payload(payload))

    def _changed_payload(self, payload: bytes) -> bytes:
        rng = self._rng
        changed = bytearray(payload)
        if changed and rng.random() < 0.7:
            # Of ISO-TP the first byte is the frame's own: it is wrong less often than what it carries.
            first = 1 if self.case.vehicle and rng.random() < 0.95 else 0
            for _ in range(rng.choice((1, 1, 2, 4))):
                at = rng.randrange(min(first, len(changed) - 1), len(changed))
                changed[at] = rng.choice((0, 0xFF, 0x7F, 0x80, changed[at] ^ 1 << rng.randrange(8)))
        if rng.random() < 0.02:
            changed = changed[: rng.randrange(len(changed) + 1)]
        return bytes(changed)

    def _put(self, can_id: int, payload: bytes) -> None:
        now_ns = self.result.frames * 10_000_000
        began_s = time.process_time()
        said = self._bus.frame(now_ns, can_id, payload)
        self._took(began_s, CLASSIC_BYTES, said)


def _messages(case: Case, frames: list[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    """The frames by what they say together: on ISO-TP a first one and those that follow it."""
    found: list[list[tuple[int, bytes]]] = []
    for frame in frames:
        if case.vehicle and frame[1][0] >> 4 == 2:
            found[-1].append(frame)
        else:
            found.append([frame])
    return found


def share_of(case: Case, frames: int) -> int:
    """How many of a decoder's frames this case of it has: dialects and vehicles share them."""
    return frames // sum(1 for it in cases() if it.name == case.name)


def table(results: list[Result]) -> str:
    """The results as Markdown."""
    head = (
        "| decoder | seed | frames | Parts | errors | ms per 300 B | worst frame, ms | held, B | growth, KiB |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| `{it.case}` | {it.seed} | {it.frames:,} | {it.parts:,} | {it.errors:,} | {it.ms:.3f} | {it.worst_ms:.1f} "
        f"| {it.pending_bytes if it.case.spoken.medium == 'serial' else '-'} | {it.growth_bytes / 1024:.1f} |\n"
        for it in results
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzzes the decoders of BMSs; exit 1 when one of them fails.")
    parser.add_argument("--frames", type=int, default=1_000_000, help="frames a decoder (default 1,000,000)")
    parser.add_argument("--seed", type=int, default=None, help="what draws the frames (default: drawn, and printed)")
    parser.add_argument("--only", action="append", help="a language, instead of all")
    parser.add_argument("--write", metavar="F.md", type=Path, help="put the table into a page, between its marks")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    results = []
    for case in cases():
        if args.only and case.name not in args.only:
            continue
        print(f"{case} seed {seed} ...", flush=True)
        results.append(Fuzz(case, seed).run(share_of(case, args.frames)))
        print(table(results[-1:]).splitlines()[-1], "" if results[-1].ok else " FAILED", flush=True)
    if args.write:
        put(args.write, table(results))
    return 0 if all(it.ok for it in results) else 1


BEGIN, END = "<!-- begin: make fuzz -->\n", "<!-- end -->\n"


def put(page: Path, text: str) -> None:
    """Replaces what stands between the page's marks."""
    before, rest = page.read_text().split(BEGIN)
    page.write_text(before + BEGIN + text + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    sys.exit(main())
