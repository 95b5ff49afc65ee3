"""One simulated pack behind a BMS: its values as that BMS says them. Pure: who owns it moves it on."""

from __future__ import annotations

from typing import Final

from firmware_bridge.pack.car import TICK_S, Car
from firmware_bridge.pack.part_values import part_values
from firmware_bridge.protocol import EXTRA, Protocol, Value
from firmware_bridge.virtual.lies import Lies

_COUNTS_TO: Final = 256


class VirtualPack:
    """A car's pack at an address of a line. `values`: flat names of a Part -> what is said of them now."""

    def __init__(self, pack_id: str, car: Car, address: int | None, cells: int, temps: int) -> None:
        self.pack_id = pack_id
        self.car = car
        self.address = address
        self.cells, self.temps = cells, temps
        self.values: dict[str, Value] = {}

    def step(self, spoken: Protocol, lies: Lies, ticks: int = 1) -> None:
        """Moves the pack on by ticks of 0.1 s, and says how it is then."""
        for _ in range(ticks):
            self.car.step()
        t_s = self.car.t_s
        if lies.frozen and self.values and t_s >= lies.after_s:
            return
        values = lies.told(part_values(self.car, self.cells, self.temps), t_s)
        if spoken.counter is not None:
            name = spoken.counter.removeprefix(EXTRA)
            unit = spoken.extras.get(name, ("", 1.0))[0]
            # Some count seconds, the others what they have said.
            values[EXTRA + name] = float(int(t_s) if unit == "s" else round(t_s / TICK_S) % _COUNTS_TO)
        self.values = values
