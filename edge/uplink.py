"""The road from the outbox to the cloud: live rows first, a backlog beside them, nothing settled without a Receipt."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge.clock import Clock
from edge.outbox.box import Outbox
from edge.outbox.records import OutboxError, Taken, only
from edge.transport import Desired, Forbidden, Refused, Transport, Unavailable, Untrusted
from shared.batch import Batch
from shared.records import MODES, Receipt, Rejected
from shared.wire import encode_batch

log = logging.getLogger(__name__)

_SECOND_NS: Final = 1_000_000_000
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = {"live": 10.0, "normal": 60.0, "economy": 60.0}  # someone watches: be back soon
_NEWS_NS: Final = 2 * _SECOND_NS
"""What is older when the road opens again is part of the backlog, which goes by flash and in order."""
_ECONOMY_FLUSH_S: Final = 90.0
_LISTEN_NS: Final = _SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkSettings:
    """How to send. mode: one of MODES, until the cloud asks for another one."""

    mode: str = "normal"
    live_rows: int = 600
    backlog_rows: int = 1000
    undated_wait_s: float = 120.0  # rows without UTC wait so long after the first contact, then go without
    desired_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What one step did. wait_s: when the next step makes sense (0 = at once); acked, refused: records."""

    wait_s: float
    acked: int = 0
    refused: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkState:
    """For the page and the metrics. latency_s: of the last answered request. problem: one sentence, None = all well.

    forbidden: the problem is a token or a certificate, which time alone will not cure.
    """

    mode: str
    connected: bool = False
    problem: str | None = None
    forbidden: bool = False
    latency_s: float | None = None
    last_ok_mono_ns: int | None = None
    sent_bytes: int = 0
    batches: int = 0
    failures: int = 0
    desired_bundle: str | None = None


class Uplink:
    """Call `step` again and again from one thread (it blocks while a request is under way).

    Each step does one piece of work: ask what the cloud desires (every `desired_s`), send the newest rows when they are
    due by the mode, or send one batch of the backlog. It also tells the outbox the offset once the clock is trusted.
    """

    def __init__(
        self,
        outbox: Outbox,
        transport: Transport,
        clock: Clock,
        settings: UplinkSettings,
        *,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._outbox, self._transport, self._clock, self._settings = outbox, transport, clock, settings
        self._jitter = jitter
        self._flush_s = outbox.flush_s
        self._failures = 0
        self._sending = False  # whether it was a batch that failed last: then only a batch that arrives is good news
        self._not_before_ns = 0
        self._live_due_ns = 0
        self._live_since_ns: int | None = None  # rows put since then are live; None = those of just now
        self._desired_due_ns = 0
        self._told: Desired | None = None
        self._contact_ns: int | None = None
        self.state = UplinkState(mode=settings.mode)
        self._set_mode(settings.mode)

    def step(self, now_mono_ns: int) -> Progress:
        """One piece of work. Never raises for the network; what it did not send stays in the outbox."""
        return self._step(now_mono_ns, waiting=True)

    def _step(self, now_mono_ns: int, *, waiting: bool) -> Progress:
        taken: Taken | None = None
        try:
            offset_ns = self._clock.offset_ns()
            if offset_ns is not None:
                self._outbox.date(offset_ns)
            self._listen()
            if now_mono_ns < self._not_before_ns:
                return Progress(wait_s=_seconds(self._not_before_ns - now_mono_ns))
            if now_mono_ns >= self._desired_due_ns:
                self._ask(now_mono_ns)
                return Progress(wait_s=0.0)
            taken = self._next(now_mono_ns, waiting)
            if taken is None:
                due_ns = min(self._live_due_ns, self._desired_due_ns)
                if self._told is not None:  # it may tell us more at any time
                    due_ns = min(due_ns, now_mono_ns + _LISTEN_NS)
                return Progress(wait_s=max(_seconds(due_ns - now_mono_ns), 0.05))
            return self._deliver(taken, now_mono_ns)
        except (Unavailable, Forbidden, OutboxError) as error:
            if taken is not None:
                self._outbox.release(taken)
            self._sending = taken is not None
            return self._back_off(error, now_mono_ns)

    def drain(self, now_mono_ns: int) -> Progress:
        """As `step`, for a replay: everything in order, oldest first, without waiting for a mode's time."""
        return self._step(now_mono_ns, waiting=False)

    def _next(self, now_mono_ns: int, waiting: bool) -> Taken | None:
        undated = self._contact_ns is not None and (
            now_mono_ns - self._contact_ns >= self._settings.undated_wait_s * _SECOND_NS
        )
        if waiting and now_mono_ns >= self._live_due_ns:
            self._live_due_ns = now_mono_ns + int(MODES[self.state.mode] * _SECOND_NS)
            just_ns = now_mono_ns - _NEWS_NS
            since_ns = just_ns if self._live_since_ns is None else self._live_since_ns
            self._live_since_ns = just_ns
            live = self._outbox.take(self._settings.live_rows, newest=True, undated=undated, since_ns=since_ns)
            if live is not None:
                return live
        return self._outbox.take(self._settings.backlog_rows, newest=False, undated=undated, fresh=not waiting)

    def _deliver(self, taken: Taken, now_mono_ns: int) -> Progress:
        sent_before = self.state.sent_bytes
        receipts: list[Receipt] = []
        try:
            self._send(taken.batch, receipts)
        finally:
            # Whatever was answered counts, also when a later part of the same batch found the network gone.
            settled = self._outbox.settle(taken, _joined(receipts))
        self._sending = False
        self._well(now_mono_ns)
        self._wish(receipts[-1].mode)
        if settled.refused:
            log.warning("the cloud refused records: count=%d boot=%016x", settled.refused, taken.batch.boot)
        if not settled.acked and not settled.refused:
            raise Unavailable("the cloud answered, but accepted none of the records")
        sent = self.state.sent_bytes - sent_before
        return Progress(wait_s=0.0, acked=settled.acked, refused=settled.refused, sent_bytes=sent)

    def _send(self, batch: Batch, receipts: list[Receipt]) -> None:
        """Sends the batch, in halves where the cloud cannot read it, until the record that is to blame is alone."""
        body = encode_batch(batch)
        sent_ns = self._clock.mono_ns()
        self.state = replace(self.state, sent_bytes=self.state.sent_bytes + len(body), batches=self.state.batches + 1)
        try:
            receipt = self._transport.send(body)
        except Refused as refused:
            if len(batch) > 1:
                for half in halves(batch):
                    self._send(half, receipts)
                return
            seq = int(batch.seqs()[0])
            log.warning("record refused: boot=%016x seq=%d %s", batch.boot, seq, refused)
            receipt = Receipt(accepted=(), rejected=(Rejected(seq, seq, refused.reason),), t_ns=0)
        self._answered(receipt.t_ns, sent_ns, 0)
        receipts.append(receipt)

    def _ask(self, now_mono_ns: int) -> None:
        self._desired_due_ns = now_mono_ns + int(self._settings.desired_s * _SECOND_NS)
        sent_ns = self._clock.mono_ns()
        desired: Desired = self._transport.desired(self._outbox.device)
        if desired.asked:
            self._answered(desired.t_ns or 0, sent_ns, desired.error_ns)
        self._well(now_mono_ns)
        self._follow(desired)

    def _listen(self) -> None:
        """Follows what the cloud said without being asked."""
        told = self._transport.told()
        if told is not None and told is not self._told:
            self._told = told
            self._follow(told)

    def _follow(self, desired: Desired) -> None:
        self._wish(desired.mode)
        self.state = replace(self.state, desired_bundle=desired.bundle)

    def _answered(self, cloud_t_ns: int, sent_mono_ns: int, error_ns: int) -> None:
        received_ns = self._clock.mono_ns()
        self._clock.learn(cloud_t_ns, sent_mono_ns, received_ns, error_ns)
        self.state = replace(self.state, latency_s=_seconds(received_ns - sent_mono_ns))

    def _wish(self, wish: str | None) -> None:
        """Follows the cloud's wish; None = it has none now, `normal` = the device's own setting is right."""
        own = self._settings.mode
        if wish not in MODES:
            return
        mode = own if wish == "normal" or (wish == "economy" and own == "live") else wish
        if mode == self.state.mode:
            return
        log.info("uplink mode: %s -> %s", self.state.mode, mode)
        self._live_due_ns = 0
        self._set_mode(mode)

    def _set_mode(self, mode: str) -> None:
        self.state = replace(self.state, mode=mode)
        # An economical mode keeps rows for a minute before it sends them: flash must not see them sooner.
        self._outbox.flush_s = max(self._flush_s, _ECONOMY_FLUSH_S) if mode == "economy" else self._flush_s

    def _well(self, now_mono_ns: int) -> None:
        if self._contact_ns is None:
            self._contact_ns = now_mono_ns
        if self._sending:
            return
        if self.state.problem is not None:
            log.info("uplink is back")
        self._failures = 0
        self.state = replace(self.state, connected=True, problem=None, forbidden=False, last_ok_mono_ns=now_mono_ns)

    def _back_off(self, error: Exception, now_mono_ns: int) -> Progress:
        if self.state.problem is None or (isinstance(error, Forbidden) and self.state.problem != str(error)):
            log.warning("uplink waits, nothing is lost: %s", error)
        self._failures += 1
        longest = min(_LONGEST_WAIT_S[self.state.mode], _FIRST_WAIT_S * 2.0 ** min(self._failures, 10))
        wait_s = self._jitter(_FIRST_WAIT_S, longest)
        wait_s = max(wait_s, getattr(error, "retry_after_s", None) or 0.0)
        self._not_before_ns = now_mono_ns + int(wait_s * _SECOND_NS)
        # After an outage the newest rows go first, whatever the mode had in mind.
        self._live_due_ns = 0
        self._live_since_ns = None
        self.state = replace(
            self.state,
            connected=False,
            problem=str(error),
            forbidden=isinstance(error, Forbidden | Untrusted),
            failures=self.state.failures + 1,
        )
        return Progress(wait_s=wait_s)


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """The batch as two, by seq; it has at least two records."""
    seqs = batch.seqs()
    parts = [only(batch, part) for part in np.array_split(seqs, 2)]
    first, second = parts
    assert first is not None and second is not None
    return first, second


def _joined(receipts: list[Receipt]) -> Receipt:
    return Receipt(
        accepted=tuple(span for receipt in receipts for span in receipt.accepted),
        rejected=tuple(item for receipt in receipts for item in receipt.rejected),
        t_ns=receipts[-1].t_ns if receipts else 0,
    )


def _seconds(ns: int) -> float:
    return ns / _SECOND_NS
