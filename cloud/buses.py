"""Which bus the settings name."""

from __future__ import annotations

from cloud.bus import Bus, OnCommitted
from cloud.bus_direct import DirectBus
from cloud.config import Config


def open_bus(config: Config, on_committed: OnCommitted | None = None) -> Bus:
    """The bus of the settings, not started. on_committed: only a bus that writes here, in this process, calls it."""
    if config.bus == "kafka":
        from cloud.bus_kafka import KafkaBus

        return KafkaBus(config)
    return DirectBus(config, on_committed)
