"""Which packs a list shows, in which order, and how many each choice would show."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from cloud.api.reader import Reader
from cloud.db import queries_fleet
from cloud.db.queries_packs import Row
from shared.records import MODES

Show = Literal["all", "critical", "warning", "stale", "unpredicted"]
Order = Literal["id", "status", "soc", "soh", "temp", "spread", "rul", "failure", "age"]
SHOWS: Final[tuple[Show, ...]] = ("all", "critical", "warning", "stale", "unpredicted")
_STALE_AFTER_S: Final = 15.0
_STALE_AFTER_SENDS: Final = 3
KEPT_S: Final = 2.0
_UNKNOWN: Final = float("inf")
_DIGITS: Final = re.compile(r"(\d+)")
_RANKS: Final[Mapping[str, tuple[str, int]]] = {
    "soc": ("soc_bms", 1),
    "soh": ("soh", 1),
    "temp": ("temp_max_c", -1),
    "spread": ("spread_v", -1),
    "rul": ("rul", 1),
    "failure": ("failure", -1),
}
"""Order -> reading, and 1 = the least comes first, -1 = the most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is asked for. search: all of its words must be found in a pack's names, state, tags or model."""

    search: str = ""
    show: Show = "all"
    order: Order = "id"


class Fleet:
    """The overview of all packs, read at most every KEPT_S however many lists are asked for."""

    def __init__(self, reader: Reader, now_s: Callable[[], float] = time.monotonic) -> None:
        self._reader, self._now_s = reader, now_s
        self._lock = threading.Lock()
        self._rows: Sequence[Row] = ()
        self._until_s = float("-inf")

    def rows(self, *, fresh: bool) -> Sequence[Row]:
        """As `queries_fleet.overview`; a little old perhaps unless `fresh`. ApiProblem when the database is away."""
        with self._lock:
            if fresh or self._now_s() >= self._until_s:
                self._rows = self._reader.ask(queries_fleet.overview)
                self._until_s = self._now_s() + KEPT_S
            return self._rows


def stale_after_s(mode: str | None, default: str) -> float:
    """How old a pack's newest sample may be before it is stale: a device in economy mode is silent for a minute."""
    return max(_STALE_AFTER_S, _STALE_AFTER_SENDS * MODES[mode or default])


def choose(
    rows: Sequence[Row], choice: Choice, now: datetime, default_mode: str = "normal"
) -> tuple[list[str], dict[Show, int]]:
    """The ids of the packs that fit, in order, and how many of all packs each of SHOWS has.

    default_mode: the uplink mode of devices that have none of their own.
    """
    words = choice.search.lower().split()
    counts: dict[Show, int] = dict.fromkeys(SHOWS, 0)
    chosen = []
    for row in rows:
        belongs = _belongs(row, now, default_mode)
        for show in belongs:
            counts[show] += 1
        if choice.show in belongs and all(word in _text(row) for word in words):
            chosen.append(row)
    chosen.sort(key=lambda row: (_rank(row, choice.order), natural(row["pack_id"])))
    return [row["pack_id"] for row in chosen], counts


def natural(name: str) -> list[Any]:
    """A sort key by which B2 comes before B10, as people count."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(_DIGITS.split(name))]


def level(row: Row) -> int | None:
    """0 good, 1 warning, 2 critical: the worse of its band and of what the pack alarms itself; None = nothing known."""
    if any(not alarm.endswith(":warning") for alarm in row["alarms"]):
        return 2
    if row["alarms"]:
        return max(1, row["band"] or 0)
    found: int | None = row["band"]
    return found


def _belongs(row: Row, now: datetime, default_mode: str) -> list[Show]:
    shows: list[Show] = ["all"]
    worst = level(row)
    if worst in (1, 2):
        shows.append("warning" if worst == 1 else "critical")
    if row["t"] is None or now - row["t"] > timedelta(seconds=stale_after_s(row["mode"], default_mode)):
        shows.append("stale")
    if row["rul"] is None:
        shows.append("unpredicted")
    return shows


def _text(row: Row) -> str:
    tags = row["tags"].values() if isinstance(row["tags"], dict) else row["tags"]
    names = (row[name] for name in ("pack_id", "device", "vehicle", "fleet", "chemistry", "state", "model_id"))
    return " ".join(str(part) for part in (*names, *tags) if part).lower()


def _rank(row: Row, order: Order) -> float:
    """How early it comes: smaller is earlier, unknown is last."""
    if order == "id":
        return 0.0
    if order == "status":
        worst = level(row)
        return _UNKNOWN if worst is None else -worst
    if order == "age":  # never heard = silent for the longest time
        return float(row["t"].timestamp()) if row["t"] else -_UNKNOWN
    reading, sign = _RANKS[order]
    value = row[reading]
    return _UNKNOWN if value is None else sign * float(value)
