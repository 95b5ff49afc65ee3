"""What a mapping with a table [csv] says of the files that it is for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from edge.tables import Table

LATEST_NS: Final = 1 << 61
"""Neither the start of a CSV nor the time since then may be more, in ns: their sum is what the wire can carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvShape:
    """How a CSV tells time: `time` names the column of seconds since `start_ns` (UTC); None = rows every `step_s`."""

    time: str | None
    start_ns: int
    step_s: float
    pack_id: str | None

    @classmethod
    def read(cls, table: Table) -> CsvShape:
        """From the table [csv]; ConfigError for what is wrong with it."""
        time = table.text("time") if "time" in table else None
        start = table.raw("start", None)
        if isinstance(start, date) and not isinstance(start, datetime):
            start = datetime(start.year, start.month, start.day, tzinfo=UTC)
        if start is not None and (not isinstance(start, datetime) or start.tzinfo is None):
            raise table.fail("start", f"= {start} must be a UTC time such as 2026-01-01T00:00:00Z")
        if start is None and time is None:
            raise table.fail("start", "is missing: say when the first row was, or name a time column of UTC seconds")
        pack_id = table.id("pack_id") if "pack_id" in table else None
        step_s = table.number("step_s", 1.0, lo=0.001, hi=86_400.0)
        table.done()
        start_ns = 0 if start is None else round(start.timestamp() * 1000) * 1_000_000
        if abs(start_ns) >= LATEST_NS:
            raise table.fail("start", f"= {start} must lie before 2043")
        return cls(time=time, start_ns=start_ns, step_s=step_s, pack_id=pack_id)
