"""A virtual car on the diagnostic port: it answers what it is asked over ISO-TP, and refuses what it does not have.

Pure: frames in, frames out. It obeys flow control, so that who asks must send it.
"""

from __future__ import annotations

from typing import Final

from firmware_bridge.isotp_send import Sender, segments
from firmware_bridge.protocol import Values
from firmware_bridge.protocols.vehicles.vehicle import SILENT, Ecu, Vehicle
from firmware_bridge.uds import NEGATIVE, READS

_NO_SERVICE: Final = 0x11
_OUT_OF_RANGE: Final = 0x31
_FLOW: Final = 3


class VirtualVehicle:
    """A car with these values, by the names of a Part; they may be replaced at any time.

    refused: requests that were refused, in their order, as (CAN id, request): 0 of them shows that only readings that
    it has were asked. asked: requests that were answered. answers: the CAN ids that it sends with.
    """

    def __init__(self, vehicle: Vehicle, values: Values) -> None:
        self.values = values
        self.refused: list[tuple[int, bytes]] = []
        self.asked = 0
        self.name = vehicle.name
        self.answers = frozenset(ecu.answer for ecu in vehicle.ecus)
        self._vehicle = vehicle
        self._ecus = {ecu.ask: ecu for ecu in vehicle.ecus}
        self._senders = {ecu.ask: Sender(SILENT) for ecu in vehicle.ecus}

    def take(self, can_id: int, payload: bytes) -> list[tuple[int, bytes]]:
        """The frames that go out when this frame comes in, in their order; `separation_s` apart."""
        ecu = self._ecus.get(can_id)
        if ecu is None or not payload:
            return []
        sender = self._senders[can_id]
        if payload[0] >> 4 == _FLOW:
            return [(ecu.answer, frame) for frame in sender.flow(payload)]
        if not 0 < payload[0] < len(payload):
            return []
        return [(ecu.answer, sender.begin(self._answer(ecu, payload[1 : 1 + payload[0]])))]

    @property
    def separation_s(self) -> float:
        """How far apart the receivers want the frames of a message."""
        return max(sender.separation_s for sender in self._senders.values())

    def all_frames(self) -> list[tuple[int, bytes]]:
        """The answers to all that it has, whole, as a listener would see them."""
        return [
            (reading.ecu.answer, frame)
            for reading in self._vehicle.readings
            for frame in segments(reading.answer(self.values), SILENT)
        ]

    def _answer(self, ecu: Ecu, request: bytes) -> bytes:
        reading = self._vehicle.by_answer.get((ecu.answer, request))
        if reading is not None:
            self.asked += 1
            return reading.answer(self.values)
        self.refused.append((ecu.ask, request))
        return bytes([NEGATIVE, request[0], _OUT_OF_RANGE if request[0] in READS else _NO_SERVICE])
