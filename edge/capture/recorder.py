"""The flight recorder: the newest raw input of every bus in memory, and from it the window around what went wrong.

The reading thread only hands over what came (`Track`): a copy of the frames' columns, no work. A thread of its own
calls `step`: it packs stretches of a few seconds (segments) with zstd into files on tmpfs, drops the oldest beyond
`max_bytes`, and writes the windows that are due to flash (`edge/capture/store.py`).

Each segment begins with what the assembler knew then, and holds the reads and the Samples in the order in which they
happened: from there the same Samples can be made again, frame by frame (`edge/capture/replay.py`).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edge.capture.ring import Open, Ring
from edge.capture.store import CaptureError, CaptureStore
from edge.capture.window import About, Want, keep
from edge.config import RecorderConfig
from edge.sources.source import HELD_S
from firmware_bridge.frames import FrameBatch
from shared.batch import MAX_TEXT_CHARS
from shared.errors import ConfigError

log = logging.getLogger(__name__)

TRIGGER: Final = "trigger"
"""The cause of a capture that a person asked for."""
_WARNING: Final = ":warning"
_SECOND_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _SECOND_NS
_SEGMENTS_BEFORE: Final = 12
_LONGEST_SEGMENT_S: Final = 5.0
_SEGMENT_BYTES: Final = 4 << 20
_ALARMS_PER_HOUR: Final = 12
_LATE_NS: Final = int(1.25 * HELD_S * _SECOND_NS)  # until all that was read is here, also without a Sample
_MOST_WINDOWS: Final = 2
"""So many windows long a capture may get, by alarms that rise while it is still open."""
Snapshot = Callable[[], Mapping[str, Any]]


class Track:
    """One pack's raw input. Called by the thread that reads its bus; nothing here waits for the one that writes."""

    def __init__(self, recorder: Recorder, pack_id: str, snapshot: Snapshot) -> None:
        self.pack_id = pack_id
        self._recorder, self._snapshot = recorder, snapshot
        self._lock = threading.Lock()
        self._open: Open | None = None
        self._number = 0
        self._standing: set[str] | None = None
        self.newest_ns = 0
        """When the last thing happened that is recorded; any thread may read it."""

    def frames(self, mono_ns: int, batch: FrameBatch, newest_ns: int | None = None) -> None:
        """Frames of the bus, before the assembler has them. newest_ns: when the last of them was read, else at once."""
        with self._lock:
            segment = self._segment(mono_ns)
            self.newest_ns = mono_ns if newest_ns is None else newest_ns
            segment.frames(self.newest_ns, batch)

    def chunk(self, mono_ns: int, data: bytes, *, sent: bool) -> None:
        """Bytes of a serial line, received or sent."""
        with self._lock:
            self._segment(mono_ns).chunk(mono_ns, data, sent)

    def sample(self, mono_ns: int, t_ns: int | None) -> None:
        """A Sample that is about to be taken."""
        with self._lock:
            self._segment(mono_ns).sample(mono_ns, t_ns)

    def alarms(self, mono_ns: int, standing: Collection[str], *, known: bool) -> None:
        """The alarms of the Sample that was taken; one that was not there before asks for a capture.

        known: whether all of them could be read; else none has gone for sure.
        """
        before = self._standing
        rising = set(standing) - (before or set())
        self._standing = set(standing) if known or before is None else before | set(standing)
        if before is not None and rising:
            self._recorder.want(self.pack_id, _together("", *_worst_first(rising)), mono_ns)

    def critical(self, code: str, mono_ns: int) -> None:
        """Something critical was found out about this pack."""
        self._recorder.want(self.pack_id, code, mono_ns)

    def cut(self) -> None:
        """Ends the open segment, so that what it holds can be packed. From any thread."""
        with self._lock:
            self._close()

    def open_bytes(self) -> int:
        """What the open segment takes."""
        open_ = self._open  # another thread may close it
        return 0 if open_ is None else open_.size_bytes

    def _segment(self, mono_ns: int) -> Open:
        self.newest_ns = mono_ns
        open_ = self._open
        if open_ is not None and (
            mono_ns - open_.begin_ns >= self._recorder.segment_ns or open_.size_bytes >= self._recorder.segment_bytes
        ):
            self._close()
        if self._open is None:
            self._open = Open(self.pack_id, self._number, mono_ns, self._snapshot())
            self._number += 1
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            self._recorder.closed(self._open)
            self._open = None


class Recorder:
    """All tracks of this device. `step` is called by one thread; `trigger`, `status` by any."""

    def __init__(
        self,
        config: RecorderConfig,
        cold_dir: Path,
        hot_dir: Path | None,
        now: Callable[[], int],
        offset_ns: Callable[[], int | None],
        dating_ns: Callable[[], int | None],
    ) -> None:
        """hot_dir: on tmpfs, None = the ring is in this process. now: the clock's mono_ns.

        offset_ns: UTC - mono_ns, None = not known. dating_ns: the one by which the outbox dates what came before.
        """
        self._config, self._now, self._offset_ns, self._dating_ns = config, now, offset_ns, dating_ns
        self.store = CaptureStore(cold_dir, config.keep, config.keep_bytes)
        self.segment_ns = int(min(config.before_s / _SEGMENTS_BEFORE, _LONGEST_SEGMENT_S) * _SECOND_NS)
        self.segment_bytes = 0
        self._ring = Ring(config.max_bytes, hot_dir)
        self._lock = threading.Lock()
        self._queue: deque[Open] = deque()
        self._tracks: dict[str, Track] = {}
        self._about: dict[str, About] = {}
        self._waiting: dict[str, Want] = {}
        self._over: list[Want] = []  # as long as they may get, beside a newer one of the same pack
        self._asked_ns: dict[str, deque[int]] = {}
        self.dropped = self.kept = self.passed_over = 0
        self.problem: str | None = None
        self.store.clear_up()

    def track(self, pack_id: str, snapshot: Snapshot, about: About) -> Track:
        """The track of a pack. snapshot: gives what its assembler knows, as a copy."""
        track = self._tracks[pack_id] = Track(self, pack_id, snapshot)
        self._about[pack_id] = about
        self.segment_bytes = min(_SEGMENT_BYTES, self._config.max_bytes // (8 * len(self._tracks)))
        return track

    # --- from any thread ---

    def closed(self, segment: Open) -> None:
        """Takes a segment that is full; it is dropped, and counted, when the packing is too far behind."""
        with self._lock:
            if self._queued_bytes() > self._config.max_bytes // 4:
                self.dropped += 1
                return
            self._queue.append(segment)

    def want(self, pack_id: str, cause: str, mono_ns: int, note: str | None = None) -> Want | None:
        """Asks for the window around `mono_ns`; one of the pack that is still open grows instead.

        None: alarms have asked too often within an hour, which is counted. The flash is not there for that.
        """
        end_ns = mono_ns + int(self._config.after_s * _SECOND_NS)
        with self._lock:
            open_ = self._waiting.get(pack_id)
            longest_ns = int(_MOST_WINDOWS * (self._config.before_s + self._config.after_s) * _SECOND_NS)
            if open_ is not None and end_ns - open_.begin_ns <= longest_ns:
                notes = "; ".join(dict.fromkeys(text for text in (open_.note, note) if text))
                grown = replace(
                    open_,
                    end_ns=max(end_ns, open_.end_ns),
                    cause=_together(open_.cause, *cause.split()),
                    note=notes[:MAX_TEXT_CHARS] or None,
                )
                self._waiting[pack_id] = grown
                return grown
            if cause != TRIGGER and self._too_often(pack_id, mono_ns):
                self.passed_over += 1
                return None
            if open_ is not None:
                self._over.append(open_)
            want = Want(
                id=secrets.token_hex(8),
                pack_id=pack_id,
                cause=cause,
                note=note,
                begin_ns=mono_ns - int(self._config.before_s * _SECOND_NS),
                at_ns=mono_ns,
                end_ns=end_ns,
            )
            self._waiting[pack_id] = want
        log.info("a window of %s will be kept: id=%s cause=%s", pack_id, want.id, cause)
        return want

    def _too_often(self, pack_id: str, mono_ns: int) -> bool:
        asked = self._asked_ns.setdefault(pack_id, deque())
        while asked and mono_ns - asked[0] > _HOUR_NS:
            asked.popleft()
        if len(asked) >= _ALARMS_PER_HOUR:
            return True
        asked.append(mono_ns)
        return False

    def trigger(self, pack_id: str | None, note: str | None) -> list[dict[str, Any]]:
        """Asks for a window around now, of one pack or of all: what `edge capture trigger` shows.

        ConfigError: no pack of that id.
        """
        if pack_id is not None and pack_id not in self._tracks:
            raise ConfigError(f"this device has no pack {pack_id}: it has {', '.join(self._tracks)}")
        now_ns = self._now()
        packs = list(self._tracks) if pack_id is None else [pack_id]
        wants = [want for each in packs if (want := self.want(each, TRIGGER, now_ns, note)) is not None]
        return [
            {"id": want.id, "pack_id": want.pack_id, "wait_s": round(max(want.end_ns - now_ns, 0) / _SECOND_NS, 1)}
            for want in wants
        ]

    def status(self) -> dict[str, Any]:
        """For the page, the metrics and `edge status`."""
        with self._lock:
            waiting = [want.id for want in (*self._over, *self._waiting.values())]
            beside = self._queued_bytes()
        oldest_ns = self._ring.oldest_ns
        return {
            "bytes": self._ring.size_bytes + beside + self._open_bytes(),
            "max_bytes": self._config.max_bytes,
            "covers_s": None if oldest_ns is None else round((self._now() - oldest_ns) / _SECOND_NS, 1),
            "waiting": waiting,
            "kept": self.kept,
            "given_up": self.store.given_up,
            "passed_over": self.passed_over,
            "dropped_segments": self.dropped,
            "problem": self.problem,
        }

    def _open_bytes(self) -> int:
        return sum(track.open_bytes() for track in self._tracks.values())

    def _queued_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._queue)

    # --- by the one thread that packs and writes ---

    def step(self) -> bool:
        """Packs what was handed over and keeps the windows that are due; whether it kept one."""
        now_ns = self._now()
        with self._lock:
            due = self._over
            self._over = []
            for pack_id, want in list(self._waiting.items()):
                if self._is_over(want, now_ns):
                    due.append(self._waiting.pop(pack_id))
        for want in due:
            self._tracks[want.pack_id].cut()
        self._pack()
        for want in due:
            self._keep(want, now_ns)
        return bool(due)

    def _is_over(self, want: Want, now_ns: int) -> bool:
        """Whether all that was read within the window must be here: what is read comes with the next Sample."""
        late_ns = now_ns - want.end_ns
        is_whole = self._tracks[want.pack_id].newest_ns >= want.end_ns or late_ns > _LATE_NS
        return is_whole and late_ns > self.segment_ns // _SEGMENTS_BEFORE

    def close(self) -> None:
        """Keeps the windows that are not over yet, as far as they have got, and forgets the rest."""
        with self._lock:
            due = [*self._over, *self._waiting.values()]
            self._over, self._waiting = [], {}
        for track in self._tracks.values():
            track.cut()
        self._pack()
        for want in due:
            self._keep(want, self._now())
        self._ring.clear()

    def _pack(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._ring.make_room(self._open_bytes())
                    return
                segment = self._queue.popleft()
                beside = self._queued_bytes()
            try:
                self._ring.add(segment, beside + self._open_bytes())
            except OSError as error:
                self.dropped += 1
                self._trouble(f"the recorder cannot hold a segment: {error.strerror or error}")

    def _keep(self, want: Want, now_ns: int) -> None:
        segments = self._ring.window(want.pack_id, want.begin_ns, want.at_ns, want.end_ns)
        if not segments:
            self._trouble(f"nothing of {want.pack_id} was recorded, so capture {want.id} is not kept")
            return
        try:
            meta = keep(
                self.store,
                want,
                self._about[want.pack_id],
                segments,
                offset_ns=self._offset_ns(),
                dating_ns=self._dating_ns(),
                now_ns=now_ns,
            )
        except (CaptureError, OSError) as error:
            self._trouble(f"capture {want.id} of {want.pack_id} is lost: {error}")
            return
        self.kept += 1
        self.problem = None
        log.info(
            "kept a capture: id=%s pack=%s cause=%s frames=%d samples=%d bytes=%d",
            meta.id, meta.pack_id, meta.cause, meta.frames, meta.samples, meta.size_bytes,
        )  # fmt: skip

    def _trouble(self, sentence: str) -> None:
        if sentence != self.problem:
            log.warning("%s", sentence)
        self.problem = sentence


def _worst_first(codes: Collection[str]) -> list[str]:
    """Alarms, then warnings that are not alarms at the same time."""
    alone = [code for code in codes if code.removesuffix(_WARNING) == code or code.removesuffix(_WARNING) not in codes]
    return sorted(alone, key=lambda code: (code.endswith(_WARNING), code))


def _together(causes: str, *more: str) -> str:
    """Causes with further ones, each once, as many as a record can hold."""
    words = dict.fromkeys(causes.split())
    for word in more:
        if len(" ".join([*words, word])) <= MAX_TEXT_CHARS:
            words[word] = None
    return " ".join(words)
