"""A bus with a virtual car on it, in place of an adapter: what is sent there is answered a moment later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.config_sources import SourceConfig
from edge.sources.source import Untold, only_where_allowed
from firmware_bridge.frames import FrameBatch
from firmware_bridge.protocols.uds_ev import VEHICLES
from firmware_bridge.protocols.vehicles.virtual import VirtualVehicle

MS = 1_000_000
Frame = tuple[int, bytes]

SERIES = {"kona": 98, "ioniq5": 180, "ev6": 192, "leaf": 96, "bolt": 96}
CELL_STEP_V = {"kona": 0.02, "ioniq5": 0.02, "ev6": 0.02, "leaf": 0.001, "bolt": 5 / 0xFFFF}


def car_values(vehicle: str) -> dict[str, float]:
    """What a car has to say; each cell another voltage."""
    step_v = CELL_STEP_V[vehicle]
    cells = {f"cell_v[{i}]": (round(3.6 / step_v) + i % 7) * step_v for i in range(SERIES[vehicle])}
    sensors = {f"temp_c[{i}]": 20.0 + i for i in range(4)}
    pack_v = round(sum(cells.values()), 1)
    return (
        {"pack_v": pack_v, "current_a": -42.5, "soc_bms": 0.615, "soh_bms": 0.95, "ambient_c": 11.0} | cells | sensors
    )


class CarBus(Untold):
    """A SendingSource. `sent`: all that was put on the bus, with its time. `say` puts frames of others there."""

    def __init__(self, config: SourceConfig, car: VirtualVehicle, *, takes_ns: int = 8 * MS) -> None:
        super().__init__()
        self.config, self.car, self.takes_ns = config, car, takes_ns
        self.sent: list[tuple[int, int, bytes]] = []
        self.now = 0
        self.is_full = False
        self.answers: Callable[[int, bytes], Sequence[Frame]] = car.take
        self._coming: list[tuple[int, int, bytes]] = []

    def open(self) -> None: ...

    def close(self) -> None: ...

    def send(self, can_id: int, payload: bytes) -> bool:
        only_where_allowed(self.config)
        if self.is_full:
            return False
        self.sent.append((self.now, can_id, payload))
        if frames := self.answers(can_id, payload):
            self.say(frames, self.takes_ns)
        return True

    def say(self, frames: Sequence[Frame], after_ns: int = 0) -> None:
        self.say_at(max([self.now + after_ns, *(at for at, _, _ in self._coming)]), frames)

    def say_at(self, t_ns: int, frames: Sequence[Frame]) -> None:
        """A millisecond apart, from then on."""
        self._coming += [(t_ns + n * MS, can_id, payload) for n, (can_id, payload) in enumerate(frames)]

    def read(self, t_ns: int) -> FrameBatch:
        self.now = t_ns
        here = [frame for frame in self._coming if frame[0] <= t_ns]
        self._coming = [frame for frame in self._coming if frame[0] > t_ns]
        return FrameBatch.of("can0", here)


def virtual(vehicle: str) -> VirtualVehicle:
    return VirtualVehicle(VEHICLES[vehicle], car_values(vehicle))
