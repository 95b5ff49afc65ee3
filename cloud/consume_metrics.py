"""Prometheus metrics of what writes: the ingest process, or the API with the direct bus."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud.bus import Counters
from cloud.ingest import Outcome

_COUNTED: Final = {
    "rows": "Records newly written",
    "duplicates": "Records that were there already",
    "rejected": "Records and messages that are refused",
    "batches": "Batches written",
    "transactions": "Transactions",
}
Gauges = dict[str, tuple[str, float]]
"""Name -> (what it is, value)."""


def database_up(up: bool) -> Gauges:
    """packtwin_ingest_database_up."""
    return {"packtwin_ingest_database_up": ("1 = the database answers the ingest", float(up))}


class IngestMetrics(Collector):
    """packtwin_ingest_*: counters as they are now, gauges and further counters by what is asked at each scrape."""

    def __init__(
        self,
        counters: Counters,
        gauges: Callable[[], Gauges] | None = None,
        more: Callable[[], Gauges] | None = None,
        leave_out: Sequence[str] = (),
    ) -> None:
        self._counters, self._gauges, self._more = counters, gauges, more
        self._names = [name for name in _COUNTED if name not in leave_out]

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        for name in self._names:
            value = getattr(self._counters, name)
            yield CounterMetricFamily(f"packtwin_ingest_{name}", f"{_COUNTED[name]} since the start", value=value)
        seconds = self._counters.transaction_s
        text = "Time spent in transactions [s]"
        yield CounterMetricFamily("packtwin_ingest_transaction_seconds", text, value=seconds)
        for name, (text, value) in (self._more() if self._more else {}).items():
            yield CounterMetricFamily(name, text, value=value)
        for name, (text, value) in (self._gauges() if self._gauges else {}).items():
            yield GaugeMetricFamily(name, text, value=value)


class PredictionMetrics(Collector):
    """battery_predictions_total of the packs whose predictions came by."""

    def __init__(self) -> None:
        self._counts: Tally[str] = Tally()

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Counts newly committed Estimates that hold a prediction."""
        for outcome in outcomes:
            for estimate in outcome.estimates:
                if estimate.failure_probability is not None or estimate.rul_cycles is not None:
                    self._counts[estimate.pack_id] += 1

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        counter = CounterMetricFamily("battery_predictions", "Predictions since the start", labels=["battery_id"])
        for pack_id, count in list(self._counts.items()):
            counter.add_metric([pack_id], count)
        yield counter
