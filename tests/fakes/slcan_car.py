"""A virtual car behind a USB-CAN adapter, as a process: `slcan_car.py LINK VEHICLE SOC`. It answers UDS over slcan.

An adapter that was opened to listen (`L`) takes nothing to send, as real ones do.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fakes.asked_car import car_values, virtual

from firmware_bridge.frames import FrameBatch
from firmware_bridge.protocols.vehicles.virtual import VirtualVehicle
from firmware_bridge.sim.buses import SlcanPty
from firmware_bridge.slcan import SlcanParser

_BEAT_S = 0.05


class AskedPort(SlcanPty):
    """The adapter, and the car at its other end."""

    def __init__(self, link: Path, car: VirtualVehicle) -> None:
        super().__init__(link)
        self._car = car
        self._parser = SlcanParser("")
        self._sends = False

    def _answer(self, command: bytes) -> bytes:
        if command[:1] in (b"O", b"L", b"C"):
            self._sends = command[:1] == b"O"
        if command[:1] not in (b"t", b"T"):
            return super()._answer(command)
        if not self._sends:
            return b"\a"
        for _, can_id, payload in self._parser.feed(command + b"\r", 0).rows():
            self.send(FrameBatch.of("", [(0, *frame) for frame in self._car.take(can_id, payload)]))
        return super()._answer(command)


def main() -> None:
    link, vehicle, soc = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    car = virtual(vehicle)
    port = AskedPort(link, car)
    beats = 0
    while True:
        car.values = car_values(vehicle) | {"soc_bms": soc, "current_a": -20.0 - beats % 10}
        readable, _, _ = select.select([port.fileno()], [port.fileno()] if port.wants_to_write else [], [], _BEAT_S)
        if readable or port.wants_to_write:
            port.serve()
        beats += 1


if __name__ == "__main__":
    main()
