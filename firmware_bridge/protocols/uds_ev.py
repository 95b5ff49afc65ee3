"""Cars that answer on the diagnostic port: UDS and its kin over ISO-TP, by a table of identifiers per vehicle.

A listener reassembles what it sees; where requests are known (`sent`), an answer must belong to one. What a vehicle
can be asked stands in `vehicles/`, a file each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Final

from firmware_bridge.frames import REMOTE
from firmware_bridge.isotp import IsoTp
from firmware_bridge.protocol import LineError, Part, Poll, Protocol, Said, Values
from firmware_bridge.protocols.vehicles.bolt import BOLT
from firmware_bridge.protocols.vehicles.ev6 import EV6
from firmware_bridge.protocols.vehicles.ioniq5 import IONIQ5
from firmware_bridge.protocols.vehicles.kona import KONA
from firmware_bridge.protocols.vehicles.leaf import LEAF
from firmware_bridge.protocols.vehicles.vehicle import Reading, Vehicle
from firmware_bridge.protocols.vehicles.virtual import VirtualVehicle
from firmware_bridge.rows import read
from firmware_bridge.uds import ANSWER, DTCS, NEGATIVE, PENDING, READS, REASONS, is_read, is_reading_frame, request
from shared.errors import ConfigError

VEHICLES: Final = {vehicle.name: vehicle for vehicle in (KONA, IONIQ5, EV6, LEAF, BOLT)}
_DTC_COUNT: Final = "extra.dtc_count"
_DTC_BYTES: Final = 4
_MOST_ASKED: Final = 512
_EVERYBODY: Final = 0x7DF  # the CAN id that all ECUs listen to
_NOISE: Final = ("no_first_frame", "unknown_kind")
_LOST: Final = {
    "sequence": "a frame of the message is missing or came twice",
    "timeout": "the rest of the message came too late",
    "overlong": "it says to be longer than any message",
    "length": "its length is impossible",
    "short": "a frame has fewer bytes than it must have",
    "interrupted": "another message began before it was whole",
    "no_first_frame": "its first frame is missing",
    "unknown_kind": "no frame of ISO-TP",
    "too_many": "too many messages at a time",
    "cut_off": "the end of the message is missing",
}


class _Questions:
    """What was asked and may still be answered: (CAN id of the answer, request). Each takes any number of answers.

    A new question of the same ECU ends what it had answered before.
    """

    def __init__(self) -> None:
        self.any = False
        """Whether anybody asked: from then on an answer must belong to a question."""
        self._answered: dict[tuple[int, bytes], bool] = {}

    def ask(self, answer_id: int, message: bytes) -> None:
        for key in [key for key, is_over in self._answered.items() if is_over and key[0] == answer_id]:
            del self._answered[key]
        self._answered.pop((answer_id, message), None)
        self._answered[answer_id, message] = False
        if len(self._answered) > _MOST_ASKED:
            del self._answered[next(iter(self._answered))]

    def answer(self, answer_id: int, asked: bytes) -> bool:
        """Whether an answer to what begins like `asked` belongs to any of them, one that has none yet first."""
        key = (answer_id, asked)
        if key not in self._answered:
            fitting = [one for one in self._answered if one[0] == answer_id and one[1].startswith(asked)]
            if not fitting:
                return False
            key = min(fitting, key=self._answered.__getitem__)
        self._answered[key] = True
        return True


class UdsDecoder:
    """Frames of one car's diagnostic port. Frames of other ids are nobody's business here."""

    def __init__(self, vehicle: Vehicle) -> None:
        self._vehicle = vehicle
        self._answer_of = {ecu.ask: ecu.answer for ecu in vehicle.ecus}
        self._answers = frozenset(self._answer_of.values())
        self._tp = IsoTp(sessions=2 * len(self._answers))
        self._lost: Counter[str] = Counter()
        self._asked = _Questions()
        self._frames = 0

    def sent(self, can_id: int, payload: bytes) -> None:
        """See FrameDecoder. payload: the frame of a request, or the bare request; a flow control asks for nothing."""
        message = _asked_by(payload)
        if message:
            self._asked.any = True
        for ask, answer in self._answer_of.items():
            if message and can_id in (ask, _EVERYBODY):
                self._asked.ask(answer, message)

    def frame(self, t_ns: int, can_id: int, payload: bytes) -> list[Said]:
        """See FrameDecoder."""
        at = self._frames
        self._frames += 1
        if can_id in self._answers and not can_id & REMOTE:
            if not payload:
                return [LineError("length", at, f"a frame of {can_id:03X} without a byte")]
            whole = self._tp.feed(t_ns, can_id, payload)
            return self._losses(at) + [said for one in whole if (said := self._said(at, can_id, one.payload))]
        if self._asked.any and (can_id in self._answer_of or can_id == _EVERYBODY):
            self.sent(can_id, payload)  # another tester, whose answers will come, too
        return []

    def end(self) -> list[Said]:
        """See FrameDecoder."""
        self._tp.close()
        return self._losses(max(self._frames - 1, 0))

    def _losses(self, at: int) -> list[Said]:
        if sum(self._tp.lost.values()) == sum(self._lost.values()):
            return []
        new = self._tp.lost - self._lost
        self._lost = Counter(self._tp.lost)
        return [
            LineError("noise" if reason in _NOISE else "length", at, _LOST.get(reason, reason))
            for reason in new.elements()
        ]

    def _said(self, at: int, can_id: int, message: bytes) -> Said | None:
        service, where = message[0], f"{can_id:03X}"
        if service == NEGATIVE:
            return self._refused(at, can_id, message)
        if service < ANSWER:
            kind = "echo" if service in READS else "function"
            return LineError(kind, at, f"{where} sent a request: {message[:8].hex(' ')}")
        asked = message[: 1 + READS.get(service - ANSWER, 0)]
        asked = bytes([service - ANSWER]) + asked[1:]
        if self._asked.any and not self._asked.answer(can_id, asked):
            return LineError("address", at, f"nobody asked {where} for {asked.hex(' ')}")
        if message[:2] == bytes([DTCS[0] + ANSWER, DTCS[1]]):
            count = max(len(message) - 3, 0) // _DTC_BYTES
            return Part(kind=DTCS.hex(), values={_DTC_COUNT: float(count)})
        reading = self._vehicle.by_answer.get((can_id, asked))
        if reading is None:
            return LineError("function", at, f"{where} answers {asked.hex(' ')}, which {self._vehicle.name} has not")
        return _part(reading, at, message[len(asked) :])

    def _refused(self, at: int, can_id: int, message: bytes) -> Said | None:
        """A negative answer; None when it only says that the answer takes longer."""
        if len(message) < 3:
            return LineError("length", at, f"a negative answer of {len(message)} bytes instead of 3")
        if message[2] == PENDING:
            return None
        if self._asked.any and not self._asked.answer(can_id, message[1:2]):
            return LineError("address", at, f"nobody asked {can_id:03X} for service {message[1]:02X}")
        why = REASONS.get(message[2], "a reason of its own")
        return LineError("response", at, f"{can_id:03X} refuses service {message[1]:02X}: {message[2]:02X}, {why}")


def _asked_by(payload: bytes) -> bytes:
    """The request in a CAN payload, or the one that it is; empty = none."""
    if is_read(payload) and not is_reading_frame(payload):
        return payload
    size = payload[0] if payload else 0
    return payload[1 : 1 + size] if 0 < size < len(payload) else b""


def _part(reading: Reading, at: int, data: bytes) -> Said:
    if len(data) < reading.least:
        return LineError("length", at, f"{reading.kind} of {len(data)} bytes, at least {reading.least}")
    told = read(reading.table(len(data)), data)
    return Part(kind=reading.kind, values=told.values, quality=told.quality)


def vehicle_of(name: str | None) -> Vehicle:
    """The vehicle of that name. ConfigError if there is none."""
    if name not in VEHICLES:
        raise ConfigError(f'vehicle "{name or ""}" of uds_ev is not one of {", ".join(VEHICLES)}')
    return VEHICLES[name]


@cache
def _polls(address: int | None, vehicle: str | None) -> Sequence[Poll]:
    return tuple(
        Poll(
            kind=reading.kind,
            request=request(reading.request),
            can_id=reading.ecu.ask,
            answer_id=reading.ecu.answer,
            every=reading.every,
        )
        for reading in vehicle_of(vehicle).readings
        if reading.every
    )


def _frames(values: Values, address: int | None, vehicle: str | None) -> Sequence[tuple[int, bytes]]:
    return VirtualVehicle(vehicle_of(vehicle), values).all_frames()


UDS_EV: Final = Protocol(
    name="uds_ev",
    title="Cars on the diagnostic port",
    medium="can",
    rate=500_000,
    verified=True,
    fields=tuple(dict.fromkeys(name for it in VEHICLES.values() for name in (*it.fields, _DTC_COUNT))),
    vehicle_titles={name: it.title for name, it in VEHICLES.items()},
    vehicle_fields={name: (*it.fields, _DTC_COUNT) for name, it in VEHICLES.items()},
    frames_decoder=lambda vehicle: UdsDecoder(vehicle_of(vehicle)),
    polls=_polls,
    frames=_frames,
    extras={
        "temp_max_c": ("degC", 1.0),
        "temp_min_c": ("degC", 1.0),
        "cell_max_number": ("", 1.0),
        "cell_min_number": ("", 1.0),
        "cell_deviation_v": ("V", 0.02),
        "aux_v": ("V", 0.1),
        "charged_ah": ("Ah", 0.1),
        "discharged_ah": ("Ah", 0.1),
        "charged_kwh": ("kWh", 0.1),
        "discharged_kwh": ("kWh", 0.1),
        "operating_s": ("s", 1.0),
        "inverter_v": ("V", 1.0),
        "motor_rpm": ("rpm", 1.0),
        "motor2_rpm": ("rpm", 1.0),
        "charge_limit_kw": ("kW", 0.01),
        "discharge_limit_kw": ("kW", 0.01),
        "remaining_kwh": ("kWh", 0.002),
        "heater_c": ("degC", 1.0),
        "cabin_c": ("degC", 0.5),
        "soc_display": ("1", 0.001),
        "ac_charges": ("", 1.0),
        "dc_charges": ("", 1.0),
        "ac_charged_kwh": ("kWh", 1.0),
        "dc_charged_kwh": ("kWh", 1.0),
        "current_2_a": ("A", 0.001),
        "hx": ("1", 0.0001),
        "dtc_count": ("", 1.0),
    },
    vehicles=tuple(VEHICLES),
    silence_s=0.5,
    gap_s=0.0,
)
