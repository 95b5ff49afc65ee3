"""A pack on a CAN bus that speaks a language of `firmware_bridge`: it is listened to, and asked only with a voice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edge.capture.recorder import Track
from edge.sources.can_ear import CanEar, Frame
from edge.sources.can_talk import BUSY_TICK_S, CanTalk
from edge.sources.can_voice import Voice
from edge.sources.ear import Asking
from edge.sources.filters import exactly
from edge.sources.socketcan import Filter
from edge.sources.source import SendingSource
from firmware_bridge.frames import FrameBatch
from firmware_bridge.protocol import Protocol, Said

_US_NS: Final = 1000
_EXCHANGE_S: Final = 0.05
"""What a request and its answer take, about."""
_NOTED: Final = 3  # rounds in a row without any answer


def filters_of(protocol: Protocol, vehicle: str | None, address: int | None) -> tuple[Filter, ...]:
    """What is of interest of the bus, for a language that is asked: its answers, and anybody's questions.

    () = everything, for one whose packs talk by themselves: makers differ in the ids that they add.
    """
    polls = protocol.polls(address, vehicle)
    if not polls or protocol.frames is None:
        return ()
    ids = {can_id for can_id, _ in protocol.frames({}, address, vehicle)}
    ids |= {poll.can_id for poll in polls if poll.can_id is not None}
    return tuple((can_id, exactly(can_id)) for can_id in sorted(ids))


class CanSpeaker:
    """One pack on one bus: a Speaker. asking.polls () = it only listens, and cannot send at all."""

    def __init__(self, source: SendingSource, protocol: Protocol, vehicle: str | None, asking: Asking) -> None:
        self.track: Track | None = None
        self._source, self._protocol = source, protocol
        self._asking = asking
        asks = {poll.can_id for poll in asking.polls if poll.can_id is not None}
        self._ear = CanEar(protocol, vehicle, asking.address, asks)
        self._talk = CanTalk(asking, silence_s=protocol.silence_s, gap_s=protocol.gap_s)
        self._voice = Voice(protocol.name, asking.polls, source.send) if asking.polls else None
        self._inbox: list[tuple[int, Said]] = []
        self._is_new = True
        self.pace_s = max(asking.poll_s, sum(poll.every == 1 for poll in asking.polls) * _EXCHANGE_S)

    @property
    def error_frames(self) -> Mapping[str, int]:
        """See Source."""
        return self._source.error_frames

    @property
    def drops(self) -> int | None:
        """See Source."""
        return self._source.drops

    @property
    def buffer_bytes(self) -> int | None:
        """See Source."""
        return self._source.buffer_bytes

    @property
    def notes(self) -> tuple[str, ...]:
        """See Source."""
        if self._talk.unanswered < _NOTED:
            return self._source.notes
        return (
            *self._source.notes,
            f"nobody answers in {self._protocol.name}: check the wires (CAN-H/L), the bitrate and that it is awake",
        )

    @property
    def tick_s(self) -> float:
        """See Source."""
        return min(self._source.tick_s, BUSY_TICK_S) if self._voice and self._talk.is_busy else self._source.tick_s

    @property
    def errors(self) -> Mapping[str, int]:
        """See Speaker."""
        counts = {"timeout": self._talk.timeouts, "bad_line": self._source.bad_lines}
        if self._voice is not None:
            counts["not_sent"] = self._voice.refused
        return {name: count for name, count in counts.items() if count}

    def open(self) -> None:
        """See Source."""
        self._source.open()
        self._is_new = True

    def tick(self, mono_ns: int) -> None:
        """See Speaker."""
        if self._is_new:
            self._is_new = False
            self._talk.reset(mono_ns)
        batch = self._source.read(mono_ns)
        rows: list[Frame] = []
        if len(batch):
            # Whole us: what a log can hold, so that a replay of it has the very same times.
            t_ns = batch.t_ns - batch.t_ns % _US_NS
            batch = FrameBatch(batch.channel, t_ns, batch.can_id, batch.length, batch.data)
            if self.track is not None:
                self.track.frames(mono_ns, batch)
            rows = list(batch.rows())
        if self._voice is not None:
            for can_id, payload in self._talk.flows(mono_ns, rows):
                self._voice.say(can_id, payload)
        told = self._ear.heard(rows)
        self._inbox += told
        if self._voice is not None:
            self._talk.heard(mono_ns, [said for _, said in told])
            self._ask(mono_ns, self._voice)

    def _ask(self, mono_ns: int, voice: Voice) -> None:
        poll = self._talk.due(mono_ns)
        if poll is None or poll.can_id is None or not voice.say(poll.can_id, poll.request):
            return
        self._talk.sent(mono_ns, poll)
        question = FrameBatch.of("", [(mono_ns - mono_ns % _US_NS, poll.can_id, poll.request)])
        if self.track is not None:
            self.track.frames(mono_ns, question)
        self._ear.heard(question.rows())

    def take(self) -> list[tuple[int, Said]]:
        """See Speaker."""
        taken, self._inbox = self._inbox, []
        return taken

    def count_drops(self) -> int | None:
        """See Source."""
        return self._source.count_drops()

    def snapshot(self) -> Any:
        """See Speaker."""
        return self._ear.snapshot()

    def close(self) -> None:
        """See Source."""
        self._source.close()
