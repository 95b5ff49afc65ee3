"""Samples -> Sessions (stand-in while it is being written: the names are final)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.life import Floats
from shared.records import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """What does not change about a pack. commissioned_t_ns: UTC ns of its first day in use, None = not known."""

    pack_id: str
    chemistry: str
    series: int
    nominal_ah: float
    commissioned_t_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the Meter wants to know of one Sample. Arrays are float64, NaN = not measured; numbers None = not known."""

    mono_ns: int
    t_ns: int | None = None
    current_a: float | None = None
    cell_v: Floats
    temp_c: Floats
    state: str | None = None
    soh_bms: float | None = None
    cycles: float | None = None
    throughput_ah: float | None = None


class Meter:
    """Measures one pack: each Reading once, in order, gives the Session that it ended."""

    def __init__(self, pack: PackFacts, state: bytes | None = None) -> None:
        self.pack = pack

    def feed(self, reading: Reading) -> Session | None:
        """Takes in the next Reading; the Session that it ended, if it did."""
        raise NotImplementedError

    def to_bytes(self) -> bytes:
        """All of it, to be kept."""
        raise NotImplementedError
