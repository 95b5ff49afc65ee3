"""The commands `sim` and `fault`: arguments in, exit code out."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from firmware_bridge.pack.faults import Target
from firmware_bridge.sim.buses import Bus, CanBus, SlcanPty
from firmware_bridge.sim.control import Control, ask
from firmware_bridge.sim.fleet import Fleet, Live, log_lines, pack_ids
from firmware_bridge.sim.rundir import locked, made_private, run_dir
from shared.errors import ConfigError, PacktwinError

_LOG_SECONDS = 60.0
_TICKS_PER_S = 10
_MOST_CARS = 999

_SIM_HELP = """examples:
  python -m firmware_bridge sim                          three cars, each on a serial port as a USB-CAN adapter is
  python -m firmware_bridge sim --interface socketcan --channel vcan0,vcan1,vcan2
  python -m firmware_bridge sim --cars 1 --seed 7 --seconds 600 --log drive.log

The same seed gives the same log, byte for byte. Frames go out at the periods of packtwin.dbc.
settings: PACKTWIN_RUN = folder for sockets and links; TELEMETRY_INTERVAL = seconds between the lines of -v (1.0)."""
_FAULT_HELP = """examples:
  python -m firmware_bridge fault BATTERY_001 'cell_v[17]' +0.05      the BMS measures 50 mV too much there
  python -m firmware_bridge fault BATTERY_001 'cell_v[17]' --clear
  python -m firmware_bridge fault BATTERY_001 --clear                 all of them
  python -m firmware_bridge fault BATTERY_001                         what stands

An offset has the field's own unit (V, A, degC, 0..1 for soc_bms); positions count from 0."""


def add_sim(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `sim` to the command line."""
    parser = commands.add_parser(
        "sim",
        help="simulated cars on CAN",
        description="Simulated cars with a 96s pack that drive, park and charge, on CAN buses or into a candump log.",
        epilog=_SIM_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cars", type=int, default=3, metavar="N", help="how many cars (default 3)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what draws the cars (default 1)")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="X times faster than life (default 1)")
    parser.add_argument("--seconds", type=float, metavar="T", help="end after T simulated seconds (a log: default 60)")
    parser.add_argument("--interface", metavar="I", help="slcan (default) or any interface of python-can")
    parser.add_argument(
        "--channel",
        metavar="C",
        help="one channel a car, with commas between; slcan: folder for the links to the ports",
    )
    parser.add_argument("--log", metavar="F", help="write a candump log instead, as fast as possible; - is stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="print how the cars are, to stderr")
    parser.set_defaults(run=run_sim)


def add_fault(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `fault` to the command line."""
    parser = commands.add_parser(
        "fault",
        help="give a running simulated pack a fault",
        description="Puts an offset on what the BMS of a running simulated pack measures, or takes it away.",
        epilog=_FAULT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pack", metavar="PACK", help="such as BATTERY_001")
    parser.add_argument(
        "field", metavar="FIELD", nargs="?", help="a field of the Sample, such as current_a or 'cell_v[17]'"
    )
    parser.add_argument("offset", metavar="OFFSET", nargs="?", type=float, help="what is added to it")
    parser.add_argument("--clear", action="store_true", help="take away the fault of FIELD, or all")
    parser.set_defaults(run=run_fault)


def run_fault(args: argparse.Namespace) -> int:
    """Runs `fault`; prints the faults that stand afterwards, one a line."""
    target = None if args.field is None else Target.parse(args.field)
    if args.clear and args.offset is not None:
        raise ConfigError("fault: --clear takes no offset: leave one of them out")
    if target is not None and args.offset is None and not args.clear:
        raise ConfigError(f"fault: say how much to add to {target}, such as +0.05, or --clear")
    if target is not None and args.offset is not None:
        target.check(args.offset)
    do = "clear" if args.clear else "show" if target is None else "put"
    standing = ask(run_dir(os.environ), args.pack, do, target, args.offset or 0.0)
    for field, offset in standing.items():
        print(f"{args.pack} {field} {offset:+g}")
    if not standing:
        print(f"{args.pack} has no fault")
    return 0


def run_sim(args: argparse.Namespace) -> int:
    """Runs `sim` until its end, SIGINT or SIGTERM."""
    _check(args)
    ticks = None if args.seconds is None else max(round(args.seconds * _TICKS_PER_S), 1)
    if args.log is not None:
        return _log(args, ticks or round(_LOG_SECONDS * _TICKS_PER_S))
    return _live(args, ticks)


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.cars <= _MOST_CARS:
        raise ConfigError(f"sim: --cars is a number from 1 to {_MOST_CARS}, not {args.cars}")
    if args.seed < 0:
        raise ConfigError(f"sim: --seed is a number from 0 up, not {args.seed}")
    if not 0.01 <= args.speed <= 1000:
        raise ConfigError(f"sim: --speed is a number from 0.01 to 1000, not {args.speed:g}")
    if args.seconds is not None and not (math.isfinite(args.seconds) and args.seconds > 0):
        raise ConfigError(f"sim: --seconds is a number above 0, not {args.seconds:g}")
    if args.log is not None and (args.interface or args.channel):
        raise ConfigError("sim: --log writes a file instead of a bus: leave out --interface and --channel")


def _status_s(args: argparse.Namespace) -> float | None:
    text = os.environ.get("TELEMETRY_INTERVAL", "1.0")
    try:
        status_s = float(text)
    except ValueError:
        status_s = math.nan
    if not 0 < status_s < math.inf:
        raise ConfigError(f"TELEMETRY_INTERVAL is a number of seconds above 0, not {text!r}")
    return status_s if args.verbose else None


def _log(args: argparse.Namespace, ticks: int) -> int:
    fleet = Fleet.drawn(args.cars, args.seed)
    try:
        with until_signal() as stopped, _opened(args.log) as out:
            if out is not sys.stdout:
                _introduce(fleet, [f"{args.log}:can{n}" for n in range(args.cars)])
            for lines in log_lines(fleet, ticks):
                out.write("\n".join(lines) + "\n")
                if stopped():
                    break
            out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise PacktwinError(
            f"cannot write the log {args.log} ({error.strerror}): free space or name another"
        ) from error
    return 0


@contextlib.contextmanager
def _opened(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield sys.stdout
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("w", encoding="ascii", newline="\n"))
        except OSError as error:
            raise ConfigError(f"cannot open the log {name} for writing ({error.strerror}): name another") from error
        yield file


def _live(args: argparse.Namespace, ticks: int | None) -> int:
    status_s = _status_s(args)
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(until_signal())
        folder = made_private(run_dir(os.environ))
        buses = _buses(args, folder, stack)
        fleet = Fleet.drawn(args.cars, args.seed)
        control = Control(folder, {pack_id: car.faults for pack_id, car in fleet.cars.items()})
        stack.callback(control.close)
        _introduce(fleet, [bus.where for bus in buses])
        Live(fleet, buses, control, args.speed, sys.stderr).run(stopped, ticks, status_s)
        for pack_id, bus in zip(fleet.cars, buses, strict=True):
            if bus.dropped:
                print(f"{pack_id}: {bus.dropped} frames were dropped on {bus.where}", file=sys.stderr)
    return 0


@contextlib.contextmanager
def until_signal() -> Iterator[Callable[[], bool]]:
    """Says whether SIGINT or SIGTERM came; meanwhile they do nothing else."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: came.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _buses(args: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> list[Bus]:
    """One bus a car, opened; `stack` closes them."""
    buses: list[Bus] = []
    if args.interface in (None, "slcan"):
        links = made_private(Path(args.channel).absolute() if args.channel else folder / "can")
        stack.enter_context(locked(links))
        for pack_id in pack_ids(args.cars):
            buses.append(SlcanPty(links / pack_id))
            stack.callback(buses[-1].close)
        return buses
    channels = [name for name in (args.channel or "").split(",") if name]
    if len(channels) < args.cars:
        raise ConfigError(
            f"sim: {args.cars} cars need as many channels of {args.interface}, such as "
            f"--channel vcan0,vcan1, but --channel names {len(channels)}"
        )
    for channel in channels[: args.cars]:
        buses.append(CanBus(args.interface, channel))
        stack.callback(buses[-1].close)
    return buses


def _introduce(fleet: Fleet, where: list[str]) -> None:
    for (pack_id, car), place in zip(fleet.cars.items(), where, strict=True):
        print(f"{pack_id}  {place}  {car.itinerary.phase}, {100 * car.bms.soc:.0f} %", flush=True)
