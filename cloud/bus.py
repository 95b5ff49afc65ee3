"""What every bus is: it takes Batches, and gives a Receipt for each once all that the Receipt accepts is durable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from cloud.ingest import Outcome
from shared.batch import Batch
from shared.errors import PacktwinError
from shared.records import Receipt

OnCommitted = Callable[[Sequence[Outcome]], None]
"""Called on the event loop with what one transaction committed."""


class BusAway(PacktwinError):
    """Nothing was taken; the same Batch may come again in `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: int = 2) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class Counters:
    """What an ingest did since it started; read them, never write them."""

    batches: int = 0
    rows: int = 0
    duplicates: int = 0
    rejected: int = 0
    transactions: int = 0
    transaction_s: float = 0.0
    failures: int = 0

    def count(self, outcomes: Sequence[Outcome], took_s: float) -> None:
        """Adds one committed transaction."""
        self.transaction_s += took_s
        self.transactions += 1
        self.batches += len(outcomes)
        for outcome in outcomes:
            self.rows += outcome.written
            self.duplicates += outcome.duplicates
            self.rejected += outcome.rejected


class Bus(Protocol):
    """Where uploads go. It lives on one event loop; `cloud.buses.open_bus` makes the one that the settings name."""

    counters: Counters

    @property
    def healthy(self) -> bool:
        """Whether it took or would take the last thing we tried."""
        ...

    @property
    def queued_rows(self) -> int:
        """Records that were submitted and are not answered yet."""
        ...

    async def start(self) -> None:
        """Returns at once, also when what lies behind is away."""
        ...

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Finishes what waits, if that goes in time; the rest is answered with BusAway."""
        ...

    async def submit(self, batch: Batch, body: bytes | None = None) -> Receipt:
        """The Receipt of a Batch, once it is durable. BusAway when that cannot be now.

        body: the bytes that the Batch was decoded from (protobuf), where there are such; saves encoding it again.
        """
        ...
