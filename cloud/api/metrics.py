"""Prometheus metrics of the API process, and of every pack as the database last saw it."""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.ingest import Outcome
from shared.records import REJECT_REASONS, Receipt

router = APIRouter(tags=["system"])

_PACK_GAUGES: Final = {
    "battery_soc_percent": ("State of charge [%]", "soc"),
    "battery_soh_percent": ("State of health [%]", "soh"),
    "battery_temperature_celsius": ("Hottest battery temperature [degC]", "temperature"),
    "battery_rul_cycles": ("Predicted remaining useful life [cycles]", "rul_prediction"),
    "battery_failure_probability": ("Predicted probability of end of life within 100 cycles, 0..1",
                                    "failure_probability"),
}  # fmt: skip
Statuses = Callable[[], Sequence[Mapping[str, Any]]]


class Metrics:
    """All counters of one API process. `statuses`: rows as `/api/battery/latest` for every pack.

    writes: this process commits what is uploaded; else the ingest does, and counts the predictions.
    """

    def __init__(self, statuses: Statuses, readers: Callable[[], int], *, writes: bool) -> None:
        self.registry = CollectorRegistry()
        self.predictions: Tally[str] = Tally()
        self.uploads = Counter(
            "packtwin_uploads_refused", "Uploads that were not taken as a whole", ["reason"], registry=self.registry
        )
        self.records = Counter(
            "packtwin_ingest_records", "Records answered by a Receipt", ["outcome"], registry=self.registry
        )
        # At 0 from the start: a rate over a series that begins at its first refusal would not see that one.
        for reason in (*REJECT_REASONS, "415", "503"):
            self.uploads.labels(reason)
        for outcome in ("accepted", *REJECT_REASONS):
            self.records.labels(outcome)
        self.receipts = Counter("packtwin_ingest_batches", "Batches answered by a Receipt", registry=self.registry)
        self.latency = Histogram(
            "packtwin_http_request_seconds",
            "Time until an answer begins [s]",
            ["method", "route", "status"],
            registry=self.registry,
            buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        Gauge("packtwin_live_readers", "Open live streams", registry=self.registry).set_function(readers)
        self.registry.register(_Packs(statuses, self.predictions if writes else None))

    def count_receipt(self, receipt: Receipt) -> None:
        """Counts what a Receipt accepts and rejects."""
        self.receipts.inc()
        self.records.labels("accepted").inc(sum(last - first + 1 for first, last in receipt.accepted))
        for item in receipt.rejected:
            self.records.labels(item.reason).inc(item.last - item.first + 1)

    def count_predictions(self, outcomes: Sequence[Outcome]) -> None:
        """Counts newly committed Estimates that hold a prediction."""
        for outcome in outcomes:
            for estimate in outcome.estimates:
                if estimate.failure_probability is not None or estimate.rul_cycles is not None:
                    self.predictions[estimate.pack_id] += 1


class _Packs(Collector):
    """Reads the packs when Prometheus asks; without a database there are none."""

    def __init__(self, statuses: Statuses, predictions: Tally[str] | None) -> None:
        self._statuses = statuses
        self._predictions = predictions

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        rows = self._statuses()
        for name, (text, column) in _PACK_GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=["battery_id"])
            for row in rows:
                if row[column] is not None:
                    gauge.add_metric([row["battery_id"]], row[column])
            yield gauge
        if self._predictions is None:
            return
        counter = CounterMetricFamily("battery_predictions", "Predictions since the start", labels=["battery_id"])
        for row in rows:
            counter.add_metric([row["battery_id"]], self._predictions[row["battery_id"]])
        yield counter


@router.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    registry = request.app.state.packtwin.metrics.registry
    return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})


class Timing:
    """ASGI middleware: observes how long each answer takes to begin, by route."""

    def __init__(self, app: ASGIApp, latency: Histogram) -> None:
        self._app = app
        self._latency = latency

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "") or "page"
                labels = (scope["method"], route, str(message["status"]))
                self._latency.labels(*labels).observe(time.perf_counter() - began_s)
            await send(message)

        await self._app(scope, receive, send_timed)
