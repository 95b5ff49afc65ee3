"""What every request handler works with."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import HTTPConnection

from cloud.api.fleet import Fleet
from cloud.api.metrics import Metrics
from cloud.api.reader import Reader
from cloud.bus import Bus
from cloud.config import Config
from cloud.live import Hub


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
