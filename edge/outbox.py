"""The outbox: what was measured stays here until the cloud says that it has it. (signatures; the body is on its way)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edge.books import Books
from edge.outbox_records import Measured, OutboxError, OutboxFull, Record, Settled, Taken
from shared.records import Receipt

__all__ = ["Measured", "Outbox", "OutboxError", "OutboxFull", "Record", "Settled", "Taken"]


class Outbox:
    """One process may have it open. `put` may run in one thread, `flush` in another, `take`... in a third."""

    boot: int
    flush_s: float  # may be changed while running (economy mode: 90)

    def __init__(  # noqa: PLR0913
        self,
        device: str,
        cold_dir: Path,
        hot_dir: Path | None,
        *,
        max_bytes: int,
        flush_s: float,
        now: Callable[[], int],
        kernel_boot_id: str,
        boot: int | None = None,
    ) -> None:
        raise NotImplementedError

    def put(self, records: Sequence[Record]) -> range:
        """Stores all of them or none; returns their seqs. Seqs that a replayed `boot` already has are skipped."""
        raise NotImplementedError

    def filtered(self, samples: int) -> None:
        """Counts Samples that were left out on purpose."""
        raise NotImplementedError

    def flush(self, now_mono_ns: int) -> bool:
        """Call once a second from a thread of its own. True = something was written to flash."""
        raise NotImplementedError

    def take(self, limit_rows: int, *, newest: bool, undated: bool = False) -> Taken | None:
        """The next records to send."""
        raise NotImplementedError

    def settle(self, taken: Taken, receipt: Receipt) -> Settled:
        """What the cloud said about them."""
        raise NotImplementedError

    def release(self, taken: Taken) -> None:
        """They were not sent."""
        raise NotImplementedError

    def date(self, offset_ns: int) -> None:
        """t_ns = mono_ns + offset_ns for the undated records of this kernel boot; the first call counts."""
        raise NotImplementedError

    def books(self) -> Books:
        """The accounts now."""
        raise NotImplementedError

    def close(self) -> None:
        """Writes what is pending to flash and closes both files."""
        raise NotImplementedError
