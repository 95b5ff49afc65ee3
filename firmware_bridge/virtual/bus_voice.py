"""The packs on a CAN bus: what they send by themselves, and what they answer. Pure.

What answers a request is found by the language's own decoder: those of a pack's frames that say what was asked. Cars
answer by themselves (`protocols/vehicles/virtual.py`), over ISO-TP and its flow control.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from firmware_bridge.protocol import Part, Protocol
from firmware_bridge.protocols.vehicles.virtual import VirtualVehicle
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.stammer import Stammer

Frame = tuple[int, bytes]

_NEIGHBOURS: Final = (2, 3)


class BusVoice:
    """What the packs of one bus say."""

    def __init__(
        self,
        spoken: Protocol,
        packs: Sequence[VirtualPack],
        vehicle: str | None,
        lies: Lies,
        stammer: Stammer,
        rng: random.Random,
    ) -> None:
        assert spoken.frames is not None and spoken.frames_decoder is not None
        self._spoken, self._frames, self._decoder = spoken, spoken.frames, spoken.frames_decoder
        self._packs, self._vehicle = packs, vehicle
        self._lies, self._stammer, self._rng = lies, stammer, rng
        self._car = _car(vehicle) if vehicle is not None else None

    @property
    def talks(self) -> bool:
        """Whether packs of this language send without being asked."""
        return not self._spoken.polls(None, self._vehicle)

    @property
    def separation_s(self) -> float:
        """How far apart frames of one answer are to be."""
        return self._car.separation_s if self._car is not None else 0.0

    def by_itself(self) -> list[Frame]:
        """All that the packs send once in a period."""
        return [frame for pack in self._packs for frame in self._spoilt(pack, list(self._said(pack)))]

    def heard(self, can_id: int, payload: bytes) -> list[Frame]:
        """The frames that answer one."""
        if self._car is not None:
            return self._car_heard(self._car, can_id, payload)
        out: list[Frame] = []
        for pack in self._packs:
            polls = self._spoken.polls(pack.address, self._vehicle)
            kinds = {poll.kind for poll in polls if poll.can_id == can_id and poll.request == payload}
            if kinds:
                out += self._spoilt(pack, list(self._said(pack, kinds)), (can_id, payload))
        return out

    def _car_heard(self, car: VirtualVehicle, can_id: int, payload: bytes) -> list[Frame]:
        pack = self._packs[0]
        car.values = pack.values
        if self._lies.silent_field is not None and self._is_hushed_car(car, payload):
            return []
        return self._spoilt(pack, car.take(can_id, payload), (can_id, payload))

    def _is_hushed_car(self, car: VirtualVehicle, payload: bytes) -> bool:
        """Whether the answer to a request holds the silent field."""
        asked = payload[1 : 1 + payload[0]].hex().upper() if payload else ""
        bus, t_s = self._decoder(self._vehicle), self._packs[0].car.t_s
        said = [it for frame in car.all_frames() for it in bus.frame(0, *frame) if isinstance(it, Part)]
        return any(self._lies.hushes(name, t_s) for part in said if part.kind == asked for name in part.values)

    def _said(self, pack: VirtualPack, kinds: set[str] | None = None) -> Iterator[Frame]:
        """The frames of a pack, of these kinds only, without those that carry the silent field."""
        address = pack.address
        if self._stammer.takes_another(pack.car.t_s, self._rng):
            address = next(it for it in _NEIGHBOURS if it != pack.address)
        bus = self._decoder(self._vehicle)
        for can_id, payload in self._frames(pack.values, address, self._vehicle):
            parts = [it for it in bus.frame(0, can_id, payload) if isinstance(it, Part)]
            if kinds is not None and not any(part.kind in kinds for part in parts):
                continue
            if not any(self._lies.hushes(name, pack.car.t_s) for part in parts for name in part.values):
                yield can_id, payload

    def _spoilt(self, pack: VirtualPack, frames: list[Frame], asked: Frame | None = None) -> list[Frame]:
        out = self._stammer.spoilt_frames(frames, pack.car.t_s, self._rng)
        is_echoed = asked is not None and pack.car.t_s >= self._stammer.after_s
        if asked is not None and is_echoed and self._rng.random() < self._stammer.echo:
            out.insert(0, asked)
        return out


def _car(vehicle: str) -> VirtualVehicle:
    from firmware_bridge.protocols.uds_ev import vehicle_of  # the tables of all cars

    return VirtualVehicle(vehicle_of(vehicle), {})
