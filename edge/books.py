"""The outbox's accounts. They are about Samples; two identities hold at rest, whatever was killed in between."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts that one outbox file keeps of the Samples that came into it or left it for good."""

    acquired: int = 0
    filtered: int = 0
    rejected: int = 0
    stored: int = 0
    acked: int = 0
    refused: int = 0
    evicted: int = 0
    lost: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in TALLY))

    @property
    def remaining(self) -> int:
        """How many Samples should still be pending."""
        return self.stored - self.acked - self.refused - self.evicted - self.lost


TALLY: Final = tuple(field.name for field in fields(Tally))


def balance(kept: Tally, pending: int) -> Tally:
    """What to add to `kept` so that it agrees with `pending` Samples really found after a crash of the machine.

    Missing ones are lost. More than expected: they were stored after the copy of the accounts was made.
    """
    missing = kept.remaining - pending
    return Tally(lost=missing) if missing >= 0 else Tally(acquired=-missing, stored=-missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """acquired = stored + filtered + rejected; stored = acked + refused + pending + evicted + lost (Samples, ever).

    After a power cut they go on from the copy on flash, so what was acknowledged since that copy is not in them.
    """

    acquired: int
    filtered: int
    rejected: int
    stored: int
    acked: int
    refused: int
    pending: int
    evicted: int
    lost: int
    pending_other: int  # events, reports, gaps and estimates not yet acknowledged
    hot_bytes: int
    cold_bytes: int  # with its WAL
    oldest_age_s: float | None  # of the oldest pending record; None = nothing pending, or from before the last boot
    boot: int
    last_seq: int  # -1 = none yet

    @classmethod
    def of(cls, tally: Tally, pending: int, **rest: int | float | None) -> Books:
        """Books from the sum of all tallies and the Samples counted as pending."""
        return cls(**asdict(tally), pending=pending, **rest)  # type: ignore[arg-type]

    def imbalance(self) -> tuple[int, int]:
        """(acquired - its parts, stored - its parts); (0, 0) at rest."""
        parts = self.acked + self.refused + self.pending + self.evicted + self.lost
        return self.acquired - self.stored - self.filtered - self.rejected, self.stored - parts


def excluding(tally: Tally, **drop: int) -> Tally:
    """The tally with `drop` taken off by name."""
    return replace(tally, **{name: getattr(tally, name) - n for name, n in drop.items()})
