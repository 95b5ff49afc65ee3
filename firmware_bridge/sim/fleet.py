"""Cars with their buses, moved on at the speed of the wall clock, or as fast as they can into a log."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from firmware_bridge.frames import FrameBatch
from firmware_bridge.lives.cars import pasts
from firmware_bridge.pack.car import TICK_S, Car
from firmware_bridge.pack.signals import NAMES, values
from firmware_bridge.packer import TICK_NS, Packer, packtwin_dbc
from firmware_bridge.sim.buses import Bus
from firmware_bridge.sim.control import Control

EPOCH_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01T00:00:00Z: where the time of a log begins."""

_BEAT_S: Final = 0.01  # the shortest time between two looks at the clock
_LONGEST_WAIT_S: Final = 0.2
_DRAIN_S: Final = 1.0
_LATE_S: Final = 0.5  # so much may be made good at once; more is skipped


def pack_ids(count: int) -> list[str]:
    """The ids of `count` simulated packs: BATTERY_001, BATTERY_002 .."""
    return [f"BATTERY_{number:03d}" for number in range(1, count + 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """The cars, by pack id, and what turns their values into frames."""

    cars: dict[str, Car]
    packer: Packer

    @classmethod
    def drawn(cls, count: int, seed: int) -> Fleet:
        """`count` cars, all drawn from `seed`."""
        behind = enumerate(zip(pack_ids(count), pasts(seed, range(count)), strict=True))
        cars = {pack_id: Car(seed, number, past) for number, (pack_id, past) in behind}
        return cls(cars, Packer(packtwin_dbc(), NAMES))

    def tick(self, tick: int, t_ns: int, channels: Sequence[str]) -> list[FrameBatch]:
        """Moves all cars on by one tick, number `tick`, that begins at `t_ns`; returns each car's frames."""
        batches = []
        for car, channel in zip(self.cars.values(), channels, strict=True):
            car.step()
            batches.append(self.packer.frames(channel, tick, values(car), t_ns))
        return batches


def log_lines(fleet: Fleet, ticks: int) -> Iterator[list[str]]:
    """The candump lines of each tick, in time order; car n is on channel can<n-1>."""
    channels = [f"can{n}" for n in range(len(fleet.cars))]
    for tick in range(ticks):
        batches = fleet.tick(tick, EPOCH_NS + tick * TICK_NS, channels)
        # All cars keep the same timetable, so line n of each car bears the same time.
        yield [line for lines in zip(*(batch.candump() for batch in batches), strict=True) for line in lines]


class Live:
    """Runs a fleet against the wall clock, `speed` times as fast; `log` is where it says how it goes."""

    def __init__(self, fleet: Fleet, buses: Sequence[Bus], control: Control, speed: float, log: TextIO) -> None:
        self._fleet = fleet
        self._buses = buses
        self._control = control
        self._ticks_per_s = speed / TICK_S
        self._log = log
        self._channels = [bus.where for bus in buses]
        self._told: set[str] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, control)
        for bus in buses:
            if (fd := bus.fileno()) is not None:
                self._selector.register(fd, selectors.EVENT_READ, bus)

    def run(self, stop: Callable[[], bool], ticks: int | None, status_s: float | None = None) -> None:
        """Runs until `stop()`, or for so many ticks; prints a line per car every `status_s` if given."""
        done, begin_s = 0, time.monotonic()
        status_at_s = begin_s
        while not stop() and (ticks is None or done < ticks):
            now_s = time.monotonic()
            due = int((now_s - begin_s) * self._ticks_per_s) + 1
            if due - done > max(_LATE_S * self._ticks_per_s, 2):
                begin_s += (due - done - 1) / self._ticks_per_s
                due = done + 1
                self._tell_once("this machine cannot keep up with so many cars at this speed; time is skipped")
            for tick in range(done, due if ticks is None else min(due, ticks)):
                self._send(tick)
                done = tick + 1
            if status_s is not None and now_s >= status_at_s:
                status_at_s = now_s + status_s
                self._print_status()
            self._wait(begin_s + done / self._ticks_per_s)
        self._drain()

    def _send(self, tick: int) -> None:
        batches = self._fleet.tick(tick, tick * TICK_NS, self._channels)
        for bus, frames in zip(self._buses, batches, strict=True):
            bus.send(frames)
            if bus.dropped:
                self._tell_once(f"{bus.where} does not take all frames; those are counted and dropped")

    def _drain(self) -> None:
        """Gives the readers a moment to take what still waits."""
        until_s = time.monotonic() + _DRAIN_S
        while any(bus.wants_to_write for bus in self._buses) and time.monotonic() < until_s:
            self._wait(until_s)

    def _wait(self, until_s: float) -> None:
        """Serves buses and control socket until the next tick is due."""
        self._watch_writers()
        wait_s = min(max(until_s - time.monotonic(), _BEAT_S), _LONGEST_WAIT_S)
        for key, _ in self._selector.select(wait_s):
            key.data.serve()

    def _watch_writers(self) -> None:
        for bus in self._buses:
            if (fd := bus.fileno()) is not None:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if bus.wants_to_write else 0)
                self._selector.modify(fd, events, bus)

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            print(f"sim: {what}", file=self._log, flush=True)

    def _print_status(self) -> None:
        for (pack_id, car), bus in zip(self._fleet.cars.items(), self._buses, strict=True):
            bms = car.bms
            print(
                f"{pack_id} {car.demand.state} {3.6 * car.demand.speed_mps:.1f} km/h {100 * bms.soc:.1f} % "
                f"{bms.pack_v:.1f} V {bms.current_a:.1f} A {bms.temp_max_c:.1f} degC, {bus.dropped} frames dropped",
                file=self._log,
                flush=True,
            )
