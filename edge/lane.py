"""The lane of one pack: its intake, its assembler, and what can be told of them."""

from __future__ import annotations

from typing import Any, Final

from edge.assemble import Assembler, readable
from edge.capture.recorder import Recorder, Track
from edge.capture.window import About, meaning
from edge.config_sources import SourceConfig
from edge.intake import Intake
from edge.mapping import Mapping
from edge.outbox.records import Measured
from edge.sources.source import SourceError
from shared.records import Estimate

INTAKE: Final = "intake"
"""Under this name a snapshot holds that of the intake."""
_SECOND_NS: Final = 1_000_000_000
_SILENT_S: Final = 5.0
_RATE_S: Final = 5.0
_SAID: Final = (
    "rul_cycles",
    "rul_cycles_lo",
    "rul_cycles_hi",
    "failure_probability",
    "in_domain",
    "model_id",
    "reason",
)


class Lane:
    """One pack on its line. `problem` is why its source cannot be read now; `latest` the last Sample.

    estimate: the last one of this pack, None = not asked yet; predictions: how many of them said something.
    """

    def __init__(self, config: SourceConfig, intake: Intake, mapping: Mapping, sample_s: float) -> None:
        self.config = config
        self.intake = intake
        self.problem: str | None = "not opened yet"
        self.retries = 0
        self.latest: Measured | None = None
        self.estimate: Estimate | None = None
        self.predictions = 0
        self.is_lossy = False
        """Whether frames of the last Sample's time were lost."""
        self._drops = 0
        self.mapping = mapping
        self.track: Track | None = None
        """Who records what is read; None = nobody."""
        # What is only asked for now and then is not stale before it was asked for again.
        self._pace_s = max(sample_s, intake.pace_s)
        self._assembler = Assembler(config.pack_id, mapping, self._pace_s)
        self._heard_ns: int | None = None
        self._rate_from: tuple[int, int] | None = None
        self._frames_per_s = 0.0

    def tick(self, mono_ns: int) -> None:
        """Reads what came; it is taken in when it is enough or old. Raises SourceError when the source has gone."""
        try:
            if self.intake.tick(mono_ns):
                self._heard_ns = mono_ns
        except SourceError:
            self._take_in()
            raise
        if self.intake.is_full:
            self._take_in()

    def close(self) -> None:
        """Lets the source go; what it gave last is recorded."""
        self.intake.close()
        self._take_in()

    def _take_in(self) -> None:
        """Decodes what waits and gives it to the assembler."""
        fields = self.intake.take_in()
        if fields is not None:
            self._assembler.feed(fields)

    def _snapshot(self) -> dict[str, Any]:
        """What the assembler, and the decoder where it matters, know of all that was read.

        Frames of a bus never wait here: what is recorded is recorded when they are taken in, and that asks for this.
        """
        self._take_in()
        known, intake = self._assembler.snapshot(), self.intake.snapshot()
        return known if intake is None else {**known, INTAKE: intake}

    def sample(self, mono_ns: int, t_ns: int | None) -> Measured | None:
        """The Sample that ends now; None before the pack has said anything at all."""
        self._take_in()
        self._note_rate(mono_ns)
        drops = self.intake.count_drops() or 0
        self.is_lossy, self._drops = drops > self._drops, drops
        self.intake.sampled()
        if not self._assembler.heard:
            return None
        if self.track is not None:
            self.track.sample(mono_ns, t_ns)
        self.latest = self._assembler.sample(mono_ns, t_ns)
        if self.track is not None:
            self.track.alarms(mono_ns, self.latest.alarms, known="alarms" not in self.latest.quality)
        return self.latest

    def record(self, recorder: Recorder, device: str) -> None:
        """Lets the recorder have all that is read from now on."""
        config, digest = self.config, meaning(self.mapping)
        about = About(device=device, channel=config.channel, sample_s=self._pace_s, mapping=digest)
        self.track = self.intake.track = recorder.track(config.pack_id, self._snapshot, about)

    def say(self, estimate: Estimate) -> None:
        """Takes in what the model says of this pack."""
        self.estimate = estimate
        self.predictions += estimate.rul_cycles is not None

    def _note_rate(self, mono_ns: int) -> None:
        since_ns, before = self._rate_from or (mono_ns, self.intake.frames)
        if mono_ns > since_ns:
            self._frames_per_s = (self.intake.frames - before) * _SECOND_NS / (mono_ns - since_ns)
        if self._rate_from is None or mono_ns - since_ns >= _RATE_S * _SECOND_NS:
            self._rate_from = (mono_ns, self.intake.frames)

    def status(self, mono_ns: int) -> dict[str, Any]:
        """The lane as the page and the metrics show it."""
        latest = self.latest
        sample = None if latest is None else readable(latest)
        pack = self.mapping.pack
        return {
            "pack_id": self.config.pack_id,
            "pack": {name: getattr(pack, name) for name in ("chemistry", "series", "nominal_ah", "nominal_v")},
            "source": {
                "interface": self.config.interface,
                "channel": self.config.channel,
                "state": self._state(mono_ns),
                "problem": self.problem,
                "silent_s": None if self._heard_ns is None else _since_s(self._heard_ns, mono_ns),
                "frames": self.intake.frames,
                "frames_per_s": round(self._frames_per_s, 1),
                "frames_skipped": self.intake.skipped,
                "retries": self.retries,
                "errors": dict(self.intake.errors),
                "drops": self.intake.drops,
                "error_frames": dict(self.intake.error_frames),
                "buffer_bytes": self.intake.buffer_bytes,
                "notes": list(self.intake.notes),
            },
            "age_s": None if latest is None else _since_s(latest.mono_ns, mono_ns),
            "sample": sample,
            "estimate": self._said(mono_ns),
            "predictions": self.predictions,
            "units": {extra.name: extra.unit for extra in self.mapping.layout.extras},
            "balancing_cells": _set_bits((sample or {}).get("balancing")),
        }

    def _said(self, mono_ns: int) -> dict[str, Any] | None:
        """The last Estimate with its age, or with the reason why there is none."""
        said = self.estimate
        if said is None:
            return None
        return {name: getattr(said, name) for name in _SAID} | {"age_s": _since_s(said.mono_ns, mono_ns)}

    def _state(self, mono_ns: int) -> str:
        if self.problem is not None:
            return "down"
        if self._heard_ns is None or mono_ns - self._heard_ns > _SILENT_S * _SECOND_NS:
            return "silent"
        return "live"


def _since_s(then_ns: int, mono_ns: int) -> float:
    """How long ago that was. What came while somebody took the time to ask for the status came just now."""
    return max(mono_ns - then_ns, 0) / _SECOND_NS


def _set_bits(bits: int | None) -> list[int] | None:
    """The positions of the set bits: a set of 96 is more than a number in a browser can hold."""
    return None if bits is None else [i for i in range(bits.bit_length()) if bits >> i & 1]
