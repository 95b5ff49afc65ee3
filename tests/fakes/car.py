"""A machine with an uplink to a cloud in the same process."""

from __future__ import annotations

from pathlib import Path

from fakes.cloud import DirectTransport, FakeCloud
from fakes.outbox import Machine, measured

from edge.outbox.box import Outbox
from edge.uplink import Uplink, UplinkSettings


class Car:
    """A machine with an uplink to a FakeCloud; `drive` runs both as the agent's loops do."""

    def __init__(self, folder: Path, mode: str = "normal", *, know_time: bool = True) -> None:
        self.machine = Machine(folder)
        self.clock = self.machine.clock
        self.clock.ntp = know_time
        self.outbox: Outbox = self.machine.start()
        self.cloud = FakeCloud(lambda: self.clock.true_t_ns)
        self.transport = DirectTransport(self.cloud)
        self.uplink = Uplink(
            self.outbox,
            self.transport,  # type: ignore[arg-type]
            self.clock,
            UplinkSettings(mode=mode),
            jitter=lambda low, high: high,
        )
        self.latencies_s: list[float] = []

    def drive(self, seconds: int, *, samples: bool = True) -> None:
        for _ in range(seconds):
            now = self.clock.forward(1.0)
            if samples:
                self.outbox.put([measured(now, t_ns=self.clock.t_ns())])
            self.outbox.flush(now)
            for _ in range(50):
                if self.uplink.step(self.clock.mono_ns()).wait_s > 0:
                    break
