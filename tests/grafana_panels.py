"""The committed dashboards, and their questions as Grafana itself would put them to its data sources."""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

GRAFANA: Final = Path(__file__).parents[1] / "deploy" / "grafana"
LIMIT_S: Final = 0.5  # so long may a panel take
MAX_POINTS: Final = 1000  # as wide as a panel is on a screen
_NICE_MS: Final = (
    *(10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 20_000, 30_000, 60_000, 120_000, 300_000),
    *(600_000, 900_000, 1_200_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000),
)
_UNITS: Final = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "y": timedelta(days=365)}


@dataclass(frozen=True, slots=True)
class Question:
    """One target of a panel."""

    board: str
    since: str  # the dashboard's own range, such as now-1h
    panel: Mapping[str, Any]
    target: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.board.removeprefix('packtwin-')}: {self.panel['title']} {self.target['refId']}"


def boards() -> list[dict[str, Any]]:
    """All dashboards by file name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted((GRAFANA / "dashboards").glob("*.json"))]


def questions(kind: str) -> Iterator[Question]:
    """Every target whose data source is of that type."""
    for board in boards():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                if target["datasource"]["type"] == kind:
                    yield Question(board["uid"], board["time"]["from"], panel, target)


def sql_questions() -> list[Question]:
    """Every question to the database."""
    return list(questions("grafana-postgresql-datasource"))


def span(since: str) -> timedelta:
    """The length of a range such as `now-2y`."""
    found = re.fullmatch(r"now-(\d+)([mhdy])", since)
    assert found, since
    return int(found[1]) * _UNITS[found[2]]


def interval_ms(width: timedelta) -> int:
    """What Grafana takes for $__interval_ms: the range over the points, rounded to a nice number."""
    wanted = width.total_seconds() * 1000 / MAX_POINTS
    return min(_NICE_MS, key=lambda nice: abs(nice - wanted))


def expanded(rawsql: str, now: datetime, width: timedelta, pack: str) -> str:
    """The text that Grafana sends to PostgreSQL. AssertionError for a macro or variable that nothing stands for."""
    since, until = (f"'{t.astimezone(UTC).isoformat(timespec='milliseconds')}'" for t in (now - width, now))
    text = re.sub(r"\$__timeFilter\(([^()]+)\)", rf"\1 BETWEEN {since} AND {until}", rawsql)
    text = text.replace("$__timeFrom()", since).replace("$__timeTo()", until)
    text = text.replace("$__interval_ms", str(interval_ms(width)))
    quoted = pack.replace("'", "''")
    text = text.replace("${pack:sqlstring}", f"'{quoted}'")
    assert not re.search(r"\$[_{a-z]", text), f"a macro is left: {text}"
    return text


def median_s(ask: Callable[[], object]) -> float:
    """How long it takes, the median of three."""
    looks_s = []
    for _ in range(3):
        began_s = time.perf_counter()
        ask()
        looks_s.append(time.perf_counter() - began_s)
    return statistics.median(looks_s)
