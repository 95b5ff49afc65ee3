"""The lane of one pack: its source, its decoder, its assembler, and what can be told of them."""

from __future__ import annotations

from typing import Any, Final

from edge.assemble import Assembler, readable
from edge.config import SourceConfig
from edge.dbc import Dbc
from edge.decode import Decoder
from edge.mapping import Mapping
from edge.outbox_records import Measured
from edge.sources.can import Source
from shared.records import Estimate

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
    """One pack on its bus. `problem` is why its source cannot be read now; `latest` the last Sample.

    estimate: the last one of this pack, None = not asked yet; predictions: how many of them said something.
    """

    def __init__(self, config: SourceConfig, source: Source, mapping: Mapping, dbc: Dbc, sample_s: float) -> None:
        self.config = config
        self.source = source
        self.problem: str | None = "not opened yet"
        self.retries = 0
        self.latest: Measured | None = None
        self.estimate: Estimate | None = None
        self.predictions = 0
        self.mapping = mapping
        self._decoder = Decoder(mapping, dbc)
        self._assembler = Assembler(config.pack_id, mapping, sample_s)
        self._heard_ns: int | None = None
        self._rate_from: tuple[int, int] | None = None
        self._frames_per_s = 0.0

    def tick(self, mono_ns: int) -> None:
        """Reads what came and takes it in. Raises SourceError when the bus has gone."""
        frames = self.source.read(mono_ns)
        if len(frames):
            self._heard_ns = mono_ns
            self._assembler.feed(self._decoder.decode(frames))

    def sample(self, mono_ns: int, t_ns: int | None) -> Measured | None:
        """The Sample that ends now; None before the pack has said anything at all."""
        self._note_rate(mono_ns)
        if not self._assembler.heard:
            return None
        self.latest = self._assembler.sample(mono_ns, t_ns)
        return self.latest

    def say(self, estimate: Estimate) -> None:
        """Takes in what the model says of this pack."""
        self.estimate = estimate
        self.predictions += estimate.rul_cycles is not None

    def _note_rate(self, mono_ns: int) -> None:
        since_ns, before = self._rate_from or (mono_ns, self._decoder.frames)
        if mono_ns > since_ns:
            self._frames_per_s = (self._decoder.frames - before) * _SECOND_NS / (mono_ns - since_ns)
        if self._rate_from is None or mono_ns - since_ns >= _RATE_S * _SECOND_NS:
            self._rate_from = (mono_ns, self._decoder.frames)

    def errors(self) -> dict[str, int]:
        """What could not be decoded, by reason, since the start."""
        bad_lines = self.source.bad_lines
        return dict(self._decoder.errors) | ({"bad_line": bad_lines} if bad_lines else {})

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
                "silent_s": None if self._heard_ns is None else (mono_ns - self._heard_ns) / _SECOND_NS,
                "frames": self._decoder.frames,
                "frames_per_s": round(self._frames_per_s, 1),
                "frames_skipped": self._decoder.skipped,
                "retries": self.retries,
                "errors": self.errors(),
            },
            "age_s": None if latest is None else (mono_ns - latest.mono_ns) / _SECOND_NS,
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
        return {name: getattr(said, name) for name in _SAID} | {"age_s": (mono_ns - said.mono_ns) / _SECOND_NS}

    def _state(self, mono_ns: int) -> str:
        if self.problem is not None:
            return "down"
        if self._heard_ns is None or mono_ns - self._heard_ns > _SILENT_S * _SECOND_NS:
            return "silent"
        return "live"


def _set_bits(bits: int | None) -> list[int] | None:
    """The positions of the set bits: a set of 96 is more than a number in a browser can hold."""
    return None if bits is None else [i for i in range(bits.bit_length()) if bits >> i & 1]
