"""What tests of the supervisor share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import supervisor


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A supervisor that stops ignores signals from then on; children of later tests would inherit that, and live on."""
    before = {number: signal.getsignal(number) for number in supervisor.ENDINGS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
