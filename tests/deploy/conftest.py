"""What tests of the supervisor share, and those of the containers."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import composed
import pytest
import supervisor
from composed import Composed


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A supervisor that stops ignores signals from then on; children of later tests would inherit that, and live on."""
    before = {number: signal.getsignal(number) for number in supervisor.ENDINGS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Composed:
    """deploy/compose with settings of its own."""
    return composed.read(tmp_path_factory.mktemp("compose"))
