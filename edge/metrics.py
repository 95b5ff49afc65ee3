"""The agent's status as Prometheus metrics on a port of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.config import Listen
from edge.page.server import serve_wsgi
from edge.status import COUNTS

_SAMPLE_HELP: Final = {
    "acquired": "Samples given to the outbox.",
    "filtered": "Samples left out on purpose.",
    "rejected": "Samples that the outbox could not store.",
    "stored": "Samples stored.",
    "acked": "Samples that the cloud has.",
    "refused": "Samples that the cloud refused for good.",
    "pending": "Samples stored and not yet acknowledged.",
    "evicted": "Samples given up because the outbox was full.",
    "lost": "Samples lost to a power cut.",
}
Status = Callable[[], dict[str, Any]]


class AgentCollector(Collector):
    """Asks for the status at each scrape. A value that is not known now is left out."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Nothing in advance: a scrape at registration would need a running agent."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics of one scrape."""
        status = self._status()
        for name in COUNTS:
            # Gauges: the contract names them without the suffix that a counter would get.
            yield GaugeMetricFamily(f"packtwin_samples_{name}", _SAMPLE_HELP[name], status["samples"][name])
        yield from _outbox(status)
        yield from _uplink(status["uplink"])
        yield GaugeMetricFamily("packtwin_clock_trusted", "1 = UTC is known.", int(status["clock"]["trusted"]))
        yield from _inference(status["model"]["inference"])
        yield from _recorder(status.get("recorder"))
        yield from _sources(status["packs"])
        yield from _batteries(status["packs"])


def _outbox(status: dict[str, Any]) -> Iterator[Metric]:
    outbox = status["outbox"]
    sizes = GaugeMetricFamily("packtwin_outbox_bytes", "Bytes that the outbox takes.", labels=["file"])
    for file in ("hot", "cold"):
        sizes.add_metric([file], outbox[f"{file}_bytes"])
    yield sizes
    if outbox["oldest_age_s"] is not None:
        yield GaugeMetricFamily(
            "packtwin_outbox_oldest_age_seconds", "Age of the oldest pending record.", outbox["oldest_age_s"]
        )


def _uplink(uplink: dict[str, Any] | None) -> Iterator[Metric]:
    if uplink is None:
        return
    yield GaugeMetricFamily("packtwin_uplink_connected", "1 = the last request was answered.", int(uplink["connected"]))
    if uplink["latency_s"] is not None:
        yield GaugeMetricFamily(
            "packtwin_uplink_latency_seconds", "Time from a request to its answer.", uplink["latency_s"]
        )
    for key, what in (
        ("sent_bytes", "Bytes of batches sent."),
        ("batches", "Batches sent."),
        ("failures", "Failures."),
    ):
        yield CounterMetricFamily(f"packtwin_uplink_{key}", what, value=uplink[key])


def _inference(inference: dict[str, Any]) -> Iterator[Metric]:
    running = int(inference["state"] == "running")
    yield GaugeMetricFamily("packtwin_inference_up", "1 = a model runs in its process.", running)
    for key, what in (
        ("restarts", "Times that the model's process had to be started anew."),
        ("dropped", "Estimates that the outbox could not store."),
    ):
        yield CounterMetricFamily(f"packtwin_inference_{key}", what, value=inference[key])


def _recorder(recorder: dict[str, Any] | None) -> Iterator[Metric]:
    if recorder is None:
        return
    yield GaugeMetricFamily("packtwin_recorder_bytes", "Raw input in memory.", recorder["bytes"])
    captures = CounterMetricFamily("packtwin_captures", "Windows of raw input, by what became.", labels=["outcome"])
    for outcome in ("kept", "given_up", "passed_over"):
        captures.add_metric([outcome], recorder[outcome])
    yield captures


def _sources(packs: list[dict[str, Any]]) -> Iterator[Metric]:
    frames = CounterMetricFamily("packtwin_frames", "Frames read.", labels=["battery_id"])
    skipped = CounterMetricFamily("packtwin_frames_skipped", "Frames that are not mapped.", labels=["battery_id"])
    errors = CounterMetricFamily("packtwin_decode_errors", "Frames not understood.", labels=["battery_id", "reason"])
    drops = CounterMetricFamily("packtwin_frames_dropped", "Frames lost for want of room.", labels=["battery_id"])
    told = CounterMetricFamily("packtwin_error_frames", "What controllers said.", labels=["battery_id", "kind"])
    room = GaugeMetricFamily("packtwin_receive_buffer_bytes", "The kernel's buffer.", labels=["battery_id"])
    up = GaugeMetricFamily("packtwin_source_up", "1 = the bus can be read.", labels=["battery_id"])
    for pack in packs:
        label, source = [pack["pack_id"]], pack["source"]
        frames.add_metric(label, source["frames"])
        skipped.add_metric(label, source["frames_skipped"])
        up.add_metric(label, int(source["state"] != "down"))
        for reason, count in source["errors"].items():
            errors.add_metric([*label, reason], count)
        for kind, count in source["error_frames"].items():
            told.add_metric([*label, kind], count)
        if source["drops"] is not None:
            drops.add_metric(label, source["drops"])
        if source["buffer_bytes"] is not None:
            room.add_metric(label, source["buffer_bytes"])
    yield from (frames, skipped, errors, drops, told, room, up)


def _batteries(packs: list[dict[str, Any]]) -> Iterator[Metric]:
    """The contract's gauges. Life left and failure probability are left out while the model has no answer."""
    soc = GaugeMetricFamily("battery_soc_percent", "State of charge that the BMS claims.", labels=["battery_id"])
    soh = GaugeMetricFamily("battery_soh_percent", "State of health that the BMS claims.", labels=["battery_id"])
    hottest = GaugeMetricFamily("battery_temperature_celsius", "Hottest sensor in the pack.", labels=["battery_id"])
    life = GaugeMetricFamily("battery_rul_cycles", "Equivalent full cycles left.", labels=["battery_id"])
    failure = GaugeMetricFamily("battery_failure_probability", "0..1 within 100 cycles.", labels=["battery_id"])
    predictions = CounterMetricFamily("battery_predictions", "Predictions made.", labels=["battery_id"])
    for pack in packs:
        label, sample = [pack["pack_id"]], pack["sample"] or {}
        for gauge, field in ((soc, "soc_bms"), (soh, "soh_bms")):
            if sample.get(field) is not None:
                gauge.add_metric(label, 100.0 * sample[field])
        temps = [temp for temp in sample.get("temp_c", ()) if temp is not None]
        if temps:
            hottest.add_metric(label, max(temps))
        predictions.add_metric(label, pack["predictions"])
        said = pack["estimate"] or {}
        for gauge, field in ((life, "rul_cycles"), (failure, "failure_probability")):
            if said.get(field) is not None:
                gauge.add_metric(label, said[field])
    yield from (soc, soh, hottest, life, failure, predictions)


@contextmanager
def serve_metrics(listen: Listen, status: Status) -> Iterator[str]:
    """Serves /metrics until the end of the block; yields its address."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(status))
    with serve_wsgi(listen, make_wsgi_app(registry), "metrics") as address:
        yield address
