"""Time that stands still until a test moves it."""

from __future__ import annotations

from edge.clock import Clock

SECOND_NS = 1_000_000_000


class FakeClock(Clock):
    """A Clock whose monotonic and wall time a test sets; `wall_error_ns` is how wrong the host's clock is."""

    def __init__(self, mode: str = "trusted", *, synchronised: bool = False) -> None:
        self.now_ns = 100 * SECOND_NS
        self.true_offset_ns = 1_770_000_000 * SECOND_NS
        self.wall_error_ns = 0
        self.ntp = synchronised
        super().__init__(
            mode,
            mono_ns=lambda: self.now_ns,
            wall_ns=lambda: self.now_ns + self.true_offset_ns + self.wall_error_ns,
            synchronised=lambda: self.ntp,
        )

    @property
    def true_t_ns(self) -> int:
        """What a perfect clock would say."""
        return self.now_ns + self.true_offset_ns

    def forward(self, seconds: float) -> int:
        """Lets time pass; the new mono_ns."""
        self.now_ns += int(seconds * SECOND_NS)
        return self.now_ns
