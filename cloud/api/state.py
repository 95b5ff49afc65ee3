"""What every request handler works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from cloud.api.fleet import Fleet
from cloud.api.metrics import Metrics
from cloud.api.reader import Reader
from cloud.config import Config
from cloud.live import Hub
from shared.batch import Batch
from shared.records import Receipt


class Bus(Protocol):
    """Where uploads go: returns the Receipt once all that it accepts is durable, raises BusAway if that cannot be."""

    @property
    def healthy(self) -> bool: ...

    async def submit(self, batch: Batch) -> Receipt: ...


@dataclass(frozen=True, slots=True)
class State:
    """The parts of one API process."""

    config: Config
    reader: Reader
    bus: Bus
    hub: Hub
    metrics: Metrics
    fleet: Fleet


def state_of(connection: HTTPConnection) -> State:
    """The State that `build_app` gave to the app of this request."""
    state = connection.app.state.packtwin
    assert isinstance(state, State)
    return state
