"""`edge doctor --write-config`: reads the DBC and a log (or listens), asks propose_pack, writes the files, tells."""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edge.config import load_config
from edge.config_sources import SourceConfig
from edge.dbc.load import load
from edge.dbc.model import Database
from edge.doctor.buses import can_interfaces, serial_ports
from edge.doctor.listen import listen
from edge.logs import open_log
from edge.mapping import load_mapping
from edge.propose.fields import Proposal
from edge.propose.pack import propose, to_compare
from edge.propose.values import Floats, Heard, Listener, series
from edge.propose.write import PACK_QUESTIONS, Bus, edge_text, mapping_text
from firmware_bridge.frames import FrameBatch
from shared.errors import ConfigError, PacktwinError
from shared.fields import ID

_SENDER: Final = re.compile(r"^\s*BO_\s+\d+\s+(\S+?)\s*:\s*\d+\s+(\S+)", re.M)
_MOST_FRAMES: Final = 2_000_000
"""Enough of a log to judge by; the rest is not read."""
_BITRATE: Final = 500_000


def write_config(args: argparse.Namespace) -> int:
    """Runs the command. ConfigError for what cannot be used, PacktwinError where there is no battery."""
    out = Path(args.out or ".")
    mapping_path, edge_path = out / "mapping.toml", out / "edge.toml"
    for path in (mapping_path, edge_path):
        if path.exists() and not args.force:
            raise ConfigError(f"{path} is there already: give another folder with -o, or --force to write over it")
    dbc = Path(args.dbc)
    database = load(dbc)
    senders = senders_of(dbc)
    channel, heard, courses, origin = _heard(args, database, senders)
    if heard is not None and not heard.known:
        raise PacktwinError(
            f"none of the {heard.frames} frames {origin} is of a message in {dbc}: "
            "it is another bus, or another DBC is needed"
        )
    proposal = propose(database, senders, heard, courses)
    if not proposal.is_battery:
        count = sum(len(message.signals) for message in database.messages)
        raise PacktwinError(
            f"{dbc} has no battery: none of its {count} signals looks like a pack voltage, a current, a state of "
            "charge or a cell; nothing was written"
        )
    made_from = f"Made from {dbc.name}{f' and {heard.frames} frames {origin}' if heard is not None else ' alone'}."
    bus = _bus(args, channel)
    try:
        out.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(dbc.resolve(), out.resolve())
        mapping_path.write_text(mapping_text(proposal, dbc=relative, made_from=made_from), "utf-8")
        pack_id, device = _id(dbc.stem, "MY_PACK"), _id(socket.gethostname(), "my-box")
        edge_path.write_text(edge_text(device=device, pack_id=pack_id, bus=bus, mapping=mapping_path.name), "utf-8")
    except OSError as error:
        raise PacktwinError(f"{out} cannot be written: {error.strerror}") from None
    load_mapping(mapping_path)
    load_config(edge_path, {})
    _tell(proposal, database, bus, (mapping_path, edge_path), args.log, channel)
    return 0


def senders_of(dbc: Path) -> dict[str, str]:
    """The node that sends each message, as the file's BO_ lines have it."""
    text = dbc.read_bytes().decode("utf-8", "replace")
    return {name: sender for name, sender in _SENDER.findall(text) if not sender.startswith("Vector__")}


def _heard(
    args: argparse.Namespace, database: Database, senders: dict[str, str]
) -> tuple[str | None, Heard | None, dict[str, Floats], str]:
    """(channel, what was heard on it, courses, where it was heard)."""
    if args.log:
        log = open_log(Path(args.log))
        channel, heard = best_channel(database, log.batches(), args.channel)
        origin = f"of {Path(args.log).name}" + (f", channel {channel}" if len(log.channels) > 1 or args.channel else "")
        return channel, heard, _courses(database, senders, heard, lambda: _of(log.batches(), channel)), origin
    if args.channel:
        config = live_source(args.interface, args.channel, args.bitrate or _BITRATE)
        batches = listen(config, args.seconds).batches
        _, heard = best_channel(database, iter(batches), None)
        if not heard.frames:
            raise PacktwinError(f"{args.channel} was silent for {args.seconds:g} s: `edge doctor` says more")
        return (
            args.channel,
            heard,
            _courses(database, senders, heard, lambda: iter(batches)),
            f"heard on {args.channel}",
        )
    return None, None, {}, ""


def best_channel(database: Database, batches: Iterable[FrameBatch], wanted: str | None) -> tuple[str | None, Heard]:
    """The channel of which the DBC knows most frames, and what was heard on it. ConfigError: it is not there."""
    listeners: dict[str, Listener] = {}
    frames, seen = 0, set[str]()
    for batch in batches:
        seen.add(batch.channel)
        if wanted in (None, batch.channel):
            listeners.setdefault(batch.channel, Listener(database.messages)).feed(batch)
            frames += len(batch)
            if frames > _MOST_FRAMES:
                break
    if wanted is not None and wanted not in listeners:
        raise ConfigError(f"the log has no channel {wanted}: it has {', '.join(sorted(seen)) or 'no frames at all'}")
    if not listeners:
        return None, Heard(0, 0, 0.0, {})
    best = wanted or max(listeners, key=lambda name: listeners[name].known)
    return best, listeners[best].heard()


def _of(batches: Iterable[FrameBatch], channel: str | None) -> Iterator[FrameBatch]:
    frames = 0
    for batch in batches:
        if batch.channel == channel:
            yield batch
            frames += len(batch)
            if frames > _MOST_FRAMES:
                return


def _courses(
    database: Database, senders: dict[str, str], heard: Heard, batches: Callable[[], Iterator[FrameBatch]]
) -> dict[str, Floats]:
    volts, currents = to_compare(database, senders, heard)
    return series(database.messages, [*volts, *currents], batches()) if volts and currents else {}


def live_source(interface: str | None, channel: str, bitrate: int) -> SourceConfig:
    """A source that only listens. An interface that is not given follows from the channel."""
    if interface is None:
        interface = "slcan" if channel.startswith("/") else "socketcan"
    return SourceConfig(
        pack_id="doctor",
        interface=interface,
        channel=channel,
        bitrate=bitrate,
        tty_baudrate=115_200,
        listen_only=True,
        mapping_path=Path(),
    )


def _bus(args: argparse.Namespace, channel: str | None) -> Bus:
    """How the agent is to be told of the bus: what was listened to, else what there is on this machine."""
    bitrate = args.bitrate or _BITRATE
    rate = () if args.bitrate else ("is the bus one of 500 kbit/s? Neither a DBC nor a log says so.",)
    if args.channel and not args.log:
        source = live_source(args.interface, args.channel, bitrate)
        return Bus(interface=source.interface, channel=args.channel, bitrate=bitrate)
    if args.interface and args.channel:
        return Bus(interface=args.interface, channel=args.channel, bitrate=bitrate, questions=rate)
    interfaces, ports = can_interfaces(), serial_ports()
    if interfaces:
        name = channel if channel in [one.name for one in interfaces] else interfaces[0].name
        others = [one.name for one in interfaces if one.name != name]
        asked = (f"is it {name}, or rather {', '.join(others)}?",) if others else ()
        known = next(one.bitrate for one in interfaces if one.name == name)
        assert name is not None
        return Bus(interface="socketcan", channel=name, bitrate=known or bitrate, questions=asked)
    if ports:
        return Bus(
            interface="slcan",
            channel=ports[0],
            bitrate=bitrate,
            questions=(f"is the adapter on {ports[0]}{' or on ' + ', '.join(ports[1:]) if ports[1:] else ''}?", *rate),
        )
    where = "where is the bus? This machine has no CAN interface and no serial adapter now."
    return Bus(interface="socketcan", channel="can0", bitrate=bitrate, questions=(where, *rate))


def _id(name: str, otherwise: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:64]
    return plain if ID.fullmatch(plain) else otherwise


def _tell(
    proposal: Proposal, database: Database, bus: Bus, written: Sequence[Path], log: str | None, channel: str | None
) -> None:
    for note in database.notes[:5]:
        print(f"note  {note}")
    for choice in proposal.fields:
        count = len(choice.signals)
        shown = choice.signals[0] + (f" .. ({count})" if count > 1 else "")
        print(f"{choice.name:20} {shown}")
    if proposal.alarms:
        print(f"{'alarms':20} {len(proposal.alarms)}")
    for name in proposal.missing:
        print(f"{name:20} nothing looks like it")
    for name, asked in proposal.questions:
        print(f"QUESTION  {name}: {asked}")
    for name, _, asked in PACK_QUESTIONS:
        print(f"QUESTION  {name}: {asked}")
    for asked in bus.questions:
        print(f"QUESTION  bus: {asked}")
    print(f"wrote {' and '.join(map(str, written))}: look at each QUESTION in them", file=sys.stderr)
    if log is not None:
        more = f" --channel {channel}" if channel else ""
        print(f"try it: python -m edge replay {log} --mapping {written[0]}{more} --pack TEST -o -", file=sys.stderr)
