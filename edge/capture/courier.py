"""Brings kept captures to the cloud: a few parts at a time through the outbox, where anything else goes first.

A part leaves flash only as a copy, so nothing is lost here; what the outbox gave up is put again. Killed in between, a
few parts go up twice, and the cloud keeps one of each.
"""

from __future__ import annotations

import logging
from typing import Final

from edge.capture.store import CaptureError, CaptureStore, Meta
from edge.clock import Clock
from edge.outbox.box import Outbox
from edge.outbox.records import OutboxError
from shared.records import Capture

log = logging.getLogger(__name__)

_PARTS_AT_ONCE: Final = 8


class Courier:
    """Call `step` now and then, from the thread that also writes the store."""

    def __init__(self, store: CaptureStore, outbox: Outbox, clock: Clock) -> None:
        self._store, self._outbox, self._clock = store, outbox, clock
        self._away: tuple[Meta, range, int] | None = None  # what is in the outbox, and how many were acked before it
        self._refused_before = 0
        self._unreadable: set[str] = set()

    def step(self, *, is_idle: bool) -> None:
        """Notes what the cloud has, then puts the next parts. is_idle: the cloud answers, so they would leave soon."""
        if self._outbox.last_pending():
            return
        if self._away is not None:
            self._settle(*self._away)
            self._away = None
        if not is_idle:
            return
        for meta in self._store.all():
            sent = self._store.sent(meta.id)
            if sent < len(meta.parts) and meta.id not in self._unreadable:
                self._put(meta, range(sent, min(sent + _PARTS_AT_ONCE, len(meta.parts))))
                return

    def _settle(self, meta: Meta, parts: range, acked_before: int) -> None:
        refused = self._outbox.last_refused - self._refused_before
        if refused:
            log.warning("the cloud refuses parts of a capture, which stays here: id=%s parts=%d", meta.id, refused)
            self._unreadable.add(meta.id)
        elif self._outbox.last_acked - acked_before >= len(parts):
            try:
                self._store.mark_sent(meta.id, parts.stop)
            except CaptureError as error:  # given up meanwhile, or the disk is full: the parts go up again
                log.warning("%s", error)

    def _put(self, meta: Meta, parts: range) -> None:
        acked, refused = self._outbox.last_acked, self._outbox.last_refused
        try:
            self._outbox.put([self._record(meta, number) for number in parts])
        except CaptureError as error:
            log.warning("a capture cannot go up: %s", error)
            self._unreadable.add(meta.id)
        except OutboxError:  # full, or no disk: who measures says why
            return
        else:
            self._away, self._refused_before = (meta, parts, acked), refused

    def _record(self, meta: Meta, number: int) -> Capture:
        return Capture(
            pack_id=meta.pack_id,
            seq=0,
            mono_ns=self._clock.mono_ns(),
            t_ns=meta.kept_t_ns,
            id=meta.id,
            part=number,
            parts=len(meta.parts),
            file=meta.parts[number][0],
            cause=meta.cause,
            note=meta.note,
            begin_t_ns=meta.begin_t_ns,
            end_t_ns=meta.end_t_ns,
            data=self._store.part(meta, number),
        )
