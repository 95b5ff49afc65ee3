"""The command `virtual`: arguments in, exit code out."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import sys
from pathlib import Path
from typing import Any, Final

from firmware_bridge.lives.cars import pasts
from firmware_bridge.pack.car import Car
from firmware_bridge.protocol import Protocol
from firmware_bridge.shelf import NAMES, protocol
from firmware_bridge.sim.commands import until_signal
from firmware_bridge.sim.control import Control
from firmware_bridge.sim.rundir import made_private, run_dir
from firmware_bridge.virtual.broker import BrokerLine, Gateway
from firmware_bridge.virtual.bus_voice import BusVoice
from firmware_bridge.virtual.can_line import CanLine
from firmware_bridge.virtual.gateways import GATEWAYS
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.loop import Line, Loop
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.pty_line import PtyLine
from firmware_bridge.virtual.responder import Responder
from firmware_bridge.virtual.stammer import Stammer
from firmware_bridge.virtual.voice import carried
from shared.errors import ConfigError

_TICKS_PER_S: Final = 10
_CELLS_LOW, _TEMPS_LOW = 16, 4
_MOST_CELLS: Final = 192
_HIGH_VOLTAGE: Final = ("uds_ev", "foxbms_can", "pylontech_hv_can")
_HELP: Final = """examples:
  python -m firmware_bridge virtual --protocol daly_uart --pty                 prints the port that it answers on
  python -m firmware_bridge virtual --protocol jk02 --pty --address 1 2        two packs on one RS485 line
  python -m firmware_bridge virtual --protocol pylontech_can --interface socketcan --channel vcan0
  python -m firmware_bridge virtual --protocol uds_ev --vehicle kona --interface socketcan --channel vcan0
  python -m firmware_bridge virtual --protocol jbd --mqtt mqtt://127.0.0.1 --gateway esphome
  python -m firmware_bridge virtual --protocol jbd --pty --junk --truncate 0.1 --fault-after 0

`firmware_bridge fault PACK FIELD OFFSET` changes what it measures while it runs. Shares are of the replies, 0 to 1.
settings: PACKTWIN_RUN = folder for the socket of `fault`."""


def add_virtual(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `virtual` to the command line."""
    parser = commands.add_parser(
        "virtual",
        help="a BMS to talk to",
        description="Simulated packs that answer in a language of `firmware_bridge list`, with faults if told to.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--protocol", required=True, metavar="NAME", help=f"one of {', '.join(NAMES)}")
    add("--vehicle", metavar="V", help="which vehicle, for a protocol of vehicles")
    add("--pty", nargs="?", const="", metavar="LINK", help="on a serial port; LINK: also by a link of this name")
    add("--interface", metavar="I", help="on CAN, an interface of python-can")
    add("--channel", metavar="C", help="its channel")
    add("--mqtt", metavar="URL", help="as a gateway that publishes to the broker mqtt://HOST[:PORT]")
    add("--gateway", choices=tuple(GATEWAYS), default="batmon", help="whose topics (default batmon)")
    add(
        "--address",
        type=_number,
        nargs="+",
        action="extend",
        metavar="N",
        help="addresses of the packs (default: one, the usual one)",
    )
    add("--cells", type=int, metavar="N", help="cells of a pack (default 16, of a car as many as it has)")
    add("--seed", type=int, default=1, metavar="S", help="what draws the packs (default 1)")
    add("--speed", type=float, default=1.0, metavar="X", help="X times faster than life (default 1)")
    add("--seconds", type=float, metavar="T", help="end after T simulated seconds")
    add("--fault-after", type=float, default=10.0, metavar="S", help="seconds of the pack until faults begin (10)")
    _add_faults(parser)
    parser.set_defaults(run=run_virtual)


def _add_faults(parser: argparse.ArgumentParser) -> None:
    line = parser.add_argument_group("faults of the line")
    for flag, share, what in (
        ("--junk", 0.2, "bytes of nobody come before a reply"),
        ("--truncate", 0.2, "bytes of a reply are lost"),
        ("--echo", 1.0, "a request comes back before its reply"),
        ("--wrong-address", 0.2, "the reply of another pack comes, or one that nobody asked for"),
    ):
        help_text = f"{what}; share of the replies (default {share:g})"
        line.add_argument(flag, type=_share, nargs="?", const=share, default=0.0, metavar="SHARE", help=help_text)
    line.add_argument("--silence", action="store_true", help="nothing is said any more")
    said = parser.add_argument_group("faults of what is said")
    said.add_argument("--frozen-counter", action="store_true", help="the last values for ever, the counter among them")
    said.add_argument(
        "--soc-jump", type=float, nargs="?", const=174.0, metavar="PERCENT", help="the SoC jumps there (default 174)"
    )
    said.add_argument("--cell-sum-off", type=float, default=0.0, metavar="X", help="cells are off by X, such as 0.02")
    said.add_argument("--silent-field", metavar="NAME", help="the messages with this field, such as cell_v, stop")


def run_virtual(args: argparse.Namespace) -> int:
    """Runs `virtual` until its end, SIGINT or SIGTERM."""
    spoken = protocol(args.protocol)
    _check(args, spoken)
    lies = Lies(
        after_s=args.fault_after,
        soc=None if args.soc_jump is None else args.soc_jump / 100,
        cell_sum_off=args.cell_sum_off,
        frozen=args.frozen_counter,
        silent_field=args.silent_field,
    )
    stammer = Stammer(
        after_s=args.fault_after,
        junk=args.junk,
        truncate=args.truncate,
        echo=args.echo,
        wrong_address=args.wrong_address,
        is_silent=args.silence,
    )
    packs = drawn(spoken, args.vehicle, args.address, args.cells, args.seed)
    for pack in packs:
        pack.step(spoken, lies)
    with contextlib.ExitStack() as stack:
        stopped = stack.enter_context(until_signal())
        folder = made_private(run_dir(os.environ))
        line = _line(args, spoken, packs, lies, stammer)
        stack.callback(line.close)
        control = Control(folder, {pack.pack_id: pack.car.faults for pack in packs})
        stack.callback(control.close)
        for pack in packs:
            phase, soc = pack.car.itinerary.phase, 100 * pack.car.bms.soc
            print(f"{pack.pack_id}  {line.where}  {phase}, {soc:.0f} %", flush=True)
        ticks = None if args.seconds is None else max(round(args.seconds * _TICKS_PER_S), 1)
        Loop(spoken, packs, lies, line, control, args.speed, sys.stderr).run(stopped, ticks)
        if line.dropped:
            print(f"virtual: {line.dropped} messages were dropped on {line.where}", file=sys.stderr)
    return 0


def drawn(
    spoken: Protocol, vehicle: str | None, addresses: list[int] | None, cells: int | None, seed: int
) -> list[VirtualPack]:
    """The packs that a seed draws, one an address, with so many cells as the language carries."""
    is_high = spoken.name in _HIGH_VOLTAGE
    count = carried(spoken, "cell_v", cells or (None if is_high else _CELLS_LOW), vehicle)
    if cells is not None and count != cells:
        raise ConfigError(f"virtual: a pack that speaks {spoken.name} has {count} cells, not {cells}: see --cells")
    temps = carried(spoken, "temp_c", None if is_high else _TEMPS_LOW, vehicle)
    places: list[int | None] = [*addresses] if addresses else [None]
    behind = zip(places, pasts(seed, range(len(places))), strict=True)
    return [
        VirtualPack(f"{spoken.name.upper()}_{number:03d}", Car(seed, number - 1, past), address, count, temps)
        for number, (address, past) in enumerate(behind, 1)
    ]


def _line(args: argparse.Namespace, spoken: Protocol, packs: list[VirtualPack], lies: Lies, stammer: Stammer) -> Line:
    rng = random.Random(args.seed)
    period_s = spoken.period_s / args.speed
    if args.mqtt:
        gateway = Gateway(spoken, packs, args.vehicle, GATEWAYS[args.gateway], lies, stammer, rng)
        return BrokerLine(args.mqtt, gateway, max(1.0, spoken.period_s) / args.speed)
    if args.interface:
        voice = BusVoice(spoken, packs, args.vehicle, lies, stammer, rng)
        return CanLine(args.interface, args.channel, voice, period_s)
    return PtyLine(Responder(spoken, packs, lies, stammer, rng), Path(args.pty).absolute() if args.pty else None)


def _check(args: argparse.Namespace, spoken: Protocol) -> None:
    ways = [way for way in ("pty", "interface", "mqtt") if getattr(args, way) is not None]
    if len(ways) != 1:
        raise ConfigError("virtual: say where it talks by one of --pty, --interface with --channel, and --mqtt URL")
    if (args.interface is None) != (args.channel is None):
        raise ConfigError("virtual: --interface and --channel belong together: give both")
    if args.pty is not None and spoken.medium != "serial":
        raise ConfigError(f"virtual: {spoken.name} is spoken on CAN: give --interface and --channel instead of --pty")
    if args.interface is not None and spoken.medium != "can":
        raise ConfigError(f"virtual: {spoken.name} is spoken on a serial line: give --pty instead of --interface")
    if args.vehicle not in (spoken.vehicles or (None,)):
        known = f"--vehicle, one of {', '.join(spoken.vehicles)}" if spoken.vehicles else "no --vehicle"
        raise ConfigError(f"virtual: {spoken.name} takes {known}")
    if args.cells is not None and not 1 <= args.cells <= _MOST_CELLS:
        raise ConfigError(f"virtual: --cells is a number from 1 to {_MOST_CELLS}, not {args.cells}")
    if args.seed < 0:
        raise ConfigError(f"virtual: --seed is a number from 0 up, not {args.seed}")
    if not 0.01 <= args.speed <= 1000:
        raise ConfigError(f"virtual: --speed is a number from 0.01 to 1000, not {args.speed:g}")
    if args.seconds is not None and not (math.isfinite(args.seconds) and args.seconds > 0):
        raise ConfigError(f"virtual: --seconds is a number above 0, not {args.seconds:g}")
    if not (math.isfinite(args.fault_after) and args.fault_after >= 0):
        raise ConfigError(f"virtual: --fault-after is a number from 0 up, not {args.fault_after:g}")
    if args.soc_jump is not None and not math.isfinite(args.soc_jump):
        raise ConfigError(f"virtual: --soc-jump is a number of percent, not {args.soc_jump:g}")
    if args.address and len(set(args.address)) < len(args.address):
        raise ConfigError("virtual: --address names a pack twice: give each an address of its own")
    if not abs(args.cell_sum_off) < 1:
        raise ConfigError(f"virtual: --cell-sum-off is a share such as 0.02, not {args.cell_sum_off:g}")
    known_fields = {field.removeprefix("extra.").removesuffix("[]") for field in spoken.fields}
    if args.silent_field is not None and args.silent_field not in known_fields:
        raise ConfigError(f"virtual: {spoken.name} has no field {args.silent_field}: see `firmware_bridge list`")


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share from 0 to 1")
    return share


def _number(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 255:
        raise argparse.ArgumentTypeError(f"{text} is no address from 0 to 255")
    return number
