"""Every language on the shelf as tests use it: values that a pack may have, and what goes over the line for them."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from firmware_bridge.protocol import ALARM, EXTRA, EXTRAS, Part, Poll, Protocol, Said, Value, Values
from firmware_bridge.shelf import NAMES, protocol

TEXTS: Final = {"sw_version": "2.1", "hw_version": "11.A", "model": "PT16S"}
"""Letters that fit into the texts of a protocol."""
SHORT_TEXTS: Final = {("seplos_v3", "sw_version"): "16"}

CELLS: Final = {"jbd": 20, "jk02": 24, "daly_modbus": 32, "seplos_v2": 16, "seplos_v3": 16}
TEMPS: Final = {"jk02": 2}
DIALECTS: Final[Mapping[str, tuple[int | None, ...]]] = {
    "daly_modbus": (None, 0x81),
    "jbd": (None, 1),
    "seplos_v3": (None, 0),
}
"""Addresses at which a language has words of its own."""
BLUETOOTH: Final[Mapping[str, tuple[str, ...]]] = {
    "jk02": ("aa5590eb97000000000000000000000000000011", "aa5590eb96000000000000000000000000000010"),
    "seplos_v2": ("7e10004661000100f7c10d", "7e1000465100003a7f0d", "7e100046620000a68a0d"),
}
"""Requests of a framing that is not polled on a wire, but spoken all the same."""
FEW_CELLS: Final = 16
FEW_TEMPS: Final = 4

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "pack_v": (40.0, 60.0),
    "current_a": (-120.0, 120.0),
    "soc_bms": (0.0, 1.0),
    "soh_bms": (0.5, 1.0),
    "cell_v": (2.5, 4.2),
    "temp_c": (-20.0, 60.0),
    "charge_limit_a": (0.0, 200.0),
    "discharge_limit_a": (0.0, 200.0),
    "insulation_kohm": (100.0, 1000.0),
    "ambient_c": (-20.0, 50.0),
    "coolant_in_c": (-20.0, 50.0),
    "coolant_out_c": (-20.0, 50.0),
    "speed_kmh": (0.0, 150.0),
    "odometer_km": (0.0, 60000.0),
    "throughput_ah": (0.0, 60000.0),
    "energy_kwh": (0.0, 60.0),
    "cycles": (0.0, 2000.0),
}
BY_UNIT: Final[Mapping[str | None, tuple[float, float]]] = {
    "V": (40.0, 60.0),
    "A": (0.0, 2.0),
    "Ah": (1.0, 120.0),
    "degC": (0.0, 60.0),
    "1": (0.0, 1.0),
}
CELL_VOLTS: Final = re.compile(r"(^|_)(cell|max|min|avg|mean|delta)\w*_v(_|$)")
EXTRA_RANGES: Final[Mapping[str, tuple[float, float]]] = {"aux_v": (8.0, 16.0)}
RAW: Final = "_raw"
UNKNOWN_UNIT: Final = (0.0, 15.0)


@dataclass(frozen=True)
class Case:
    """A language, the vehicle whose words it has, if it needs one, and what makes it speak a dialect."""

    name: str
    vehicle: str | None = None
    address: int | None = None
    is_bluetooth: bool = False

    def __str__(self) -> str:
        dialect = "-ble" if self.is_bluetooth else "" if self.address is None else f"-{self.address:x}"
        return f"{self.name}-{self.vehicle}" if self.vehicle else self.name + dialect

    @cached_property
    def spoken(self) -> Protocol:
        return protocol(self.name)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.spoken.vehicle_fields.get(self.vehicle or "", self.spoken.fields)

    @property
    def cells(self) -> int:
        return CELLS.get(self.name, FEW_CELLS)

    @property
    def polls(self) -> Sequence[Poll]:
        return self.spoken.polls(self.address, self.vehicle)


def cases() -> list[Case]:
    """All of them."""
    wired = [
        Case(name, vehicle, address)
        for name in NAMES
        for vehicle in (protocol(name).vehicles or (None,))
        for address in DIALECTS.get(name, (None,))
    ]
    return wired + [Case(name, is_bluetooth=True) for name in BLUETOOTH]


def extras(spoken: Protocol) -> dict[str, tuple[str | None, float]]:
    """Unit and step of each extra that it may tell."""
    return {**EXTRAS, **spoken.extras}


def some_values(case: Case, rng: random.Random) -> dict[str, Value]:
    """A value for each name that the language knows: nothing is left out, nothing is impossible.

    Raw bits are left out: they say the same as the alarms once more.
    """
    values: dict[str, Value] = {}
    for name in case.fields:
        if name.endswith("[]"):
            count = case.cells if name == "cell_v[]" else TEMPS.get(case.name, FEW_TEMPS)
            for i in range(count):
                values[f"{name[:-2]}[{i}]"] = one_value(case.spoken, name[:-2], rng)
        elif not name.endswith(RAW):
            values[name] = one_value(case.spoken, name, rng)
    return values


def one_value(spoken: Protocol, name: str, rng: random.Random) -> Value:
    """A value by that name."""
    if name.startswith(ALARM) or name in ("contactor_main", "contactor_precharge", "charge_mos", "discharge_mos"):
        return rng.random() < 0.5
    if name == "state":
        return rng.choice(("park", "drive", "charge_ac"))
    if name == "balancing":
        return rng.randrange(1 << 16)
    if not name.startswith(EXTRA):
        return rng.uniform(*RANGES[name])
    short = name[len(EXTRA) :]
    unit, step = extras(spoken)[short.split("[")[0]]
    if unit is None:
        return SHORT_TEXTS.get((spoken.name, short)) or TEXTS.get(short, "A1")
    by_unit = RANGES["cell_v"] if unit == "V" and CELL_VOLTS.search(short) else BY_UNIT.get(unit, UNKNOWN_UNIT)
    lo, hi = EXTRA_RANGES.get(short, by_unit)
    return float(round(rng.uniform(lo, hi))) if step >= 1 else rng.uniform(lo, hi)


def exchange(case: Case, values: Values, address: int | None = None) -> list[tuple[bytes, list[bytes]]]:
    """(request, replies) of each poll of a serial language, or of what it is asked over Bluetooth."""
    assert case.spoken.answer is not None
    address = case.address if address is None else address
    requests = [poll.request for poll in case.spoken.polls(address, case.vehicle)]
    if case.is_bluetooth:
        requests = [bytes.fromhex(text) for text in BLUETOOTH[case.name]]
    return [(request, list(case.spoken.answer(request, values, address))) for request in requests]


def bus_frames(case: Case, values: Values, address: int | None = None) -> list[tuple[int, bytes]]:
    """What a pack sends on CAN, all of it once."""
    assert case.spoken.frames is not None
    return list(case.spoken.frames(values, address or case.address, case.vehicle))


def heard(case: Case, values: Values, address: int | None = None, *, asked: bool = True) -> list[Said]:
    """What a decoder makes of all that a pack with these values says; asked: it knows the requests."""
    said: list[Said] = []
    if case.spoken.bytes_decoder is not None:
        line = case.spoken.bytes_decoder()
        for request, replies in exchange(case, values, address):
            if asked:
                line.sent(request)
            for reply in replies:
                said += line.feed(reply)
        return said + line.end()
    assert case.spoken.frames_decoder is not None
    bus = case.spoken.frames_decoder(case.vehicle)
    if asked:
        for poll in case.spoken.polls(address or case.address, case.vehicle):
            assert poll.can_id is not None
            bus.sent(poll.can_id, poll.request)
    for number, (can_id, payload) in enumerate(bus_frames(case, values, address)):
        said += bus.frame(number * 1_000_000, can_id, payload)
    return said + bus.end()


def told(said: Sequence[Said]) -> dict[str, Value]:
    """The values of all Parts, put together. No LineError may be among what was said."""
    values: dict[str, Value] = {}
    for part in said:
        assert isinstance(part, Part), part
        values.update(part.values)
    return values
