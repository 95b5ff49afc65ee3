"""`edge doctor`: looks at this box and says what is right, what is not and what to do.

It sends nothing on any bus; on a serial port that `--port` names, and on no other, read requests (port.py).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge.clock import kernel_synchronised
from edge.config import Config, find_config, load_config
from edge.config_sources import BLUETOOTH, MQTT, SERIAL, SourceConfig
from edge.doctor.broker import bluetooth_check, broker_check
from edge.doctor.buses import CanInterface, can_interfaces, serial_ports
from edge.doctor.checks import (
    FAIL,
    OK,
    WARN,
    Check,
    buffer_check,
    bus_check,
    clock_check,
    disk_check,
    exit_code,
    interface_check,
    no_bus_check,
    port_check,
    python_can_check,
    uplink_check,
)
from edge.doctor.disk import disk_of
from edge.doctor.listen import listen
from edge.doctor.ports import is_busy, port_of, user_name
from edge.sources import usb
from edge.sources.socketcan import FRAME_BYTES, FULL_LOAD
from edge.sources.source import SourceError
from shared.errors import ConfigError

_RMEM_MAX: Final = Path("/proc/sys/net/core/rmem_max")
_CONNECT_S: Final = 5.0
_LISTEN_S: Final = 3.0
_PORTS: Final = {"http": 80, "https": 443, "mqtt": 1883, "mqtts": 8883}
_OWN: Final = ("slcan", "socketcan", SERIAL, MQTT, BLUETOOTH)
"""What needs no python-can."""
_NOT_WITH_PORT: Final = ("config", "dbc", "log", "interface", "channel", "bitrate")
_ONLY_WRITE: Final = ("dbc", "log", "out", "channel", "interface", "bitrate", "force")


def add_doctor(commands: Any) -> None:
    """Adds `doctor` to the command line."""
    parser = commands.add_parser("doctor", help="check this box; name the BMS on a port; propose a configuration")
    parser.add_argument("--config", metavar="F", help="edge.toml")
    parser.add_argument("--json", action="store_true", help="the checks as JSON")
    parser.add_argument(
        "--seconds", type=_seconds, metavar="S", help="how long to listen to each bus (3), or at each bit rate (4)"
    )
    parser.add_argument(
        "--port", metavar="P", help="find the BMS on this serial port: listens, then sends read requests, there only"
    )
    parser.add_argument(
        "--baudrate", type=int, metavar="N", help="with --port: bit/s (default: as each language has it)"
    )
    parser.add_argument(
        "--write-config", action="store_true", help="propose mapping.toml and edge.toml, with --port or for a DBC"
    )
    parser.add_argument("--dbc", metavar="F", help="with --write-config: the DBC file")
    parser.add_argument(
        "--log", metavar="L", help="with --write-config: a log of the bus, in any format of edge decode"
    )
    parser.add_argument("--interface", metavar="I", help="with --write-config: socketcan, slcan or python-can's")
    parser.add_argument(
        "--channel", metavar="C", help="with --write-config: the log's channel; without --log: listen on it"
    )
    parser.add_argument("--bitrate", type=int, metavar="N", help="with --write-config: of the bus (500000)")
    parser.add_argument("-o", "--out", metavar="DIR", help="with --write-config: where to write (here)")
    parser.add_argument("--force", action="store_true", help="with --write-config: write over files that are there")
    parser.set_defaults(run=_doctor)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise ValueError
    return value


def _doctor(args: argparse.Namespace) -> int:
    if args.port:
        wrong = [f"--{name}" for name in _NOT_WITH_PORT if getattr(args, name)]
        if wrong:
            raise ConfigError(f"{', '.join(wrong)} has no meaning with --port: leave it out")
        if (args.out or args.force) and not args.write_config:
            raise ConfigError("-o and --force need --write-config: give that too, or leave them out")
        from edge.doctor.port import doctor_port  # what only this needs

        return doctor_port(args)
    args.seconds = args.seconds or _LISTEN_S
    if args.baudrate is not None:
        raise ConfigError("--baudrate is for a serial port: name it with --port P")
    if args.write_config:
        from edge.propose.command import write_config  # cantools, which the checks may do without

        if not args.dbc:
            raise ConfigError(
                "--write-config needs to know the pack: give --port P of its BMS, or give --dbc F of its bus"
            )
        if args.config or args.json:
            raise ConfigError("--config and --json are for the checks: leave them out with --write-config")
        return write_config(args)
    wrong = [f"--{name}" for name in _ONLY_WRITE if getattr(args, name)]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)} needs --write-config: give that too, or leave it out")
    if args.config and not Path(args.config).is_file():
        raise ConfigError(f"{args.config} does not exist: give the path of an edge.toml")
    checks = []
    for check in _checks(args):
        checks.append(check)
        if not args.json:
            print(f"{check.status:4}  {check.name}: {check.text}", flush=True)
    if args.json:
        print(json.dumps([{"check": c.name, "status": c.status, "text": c.text} for c in checks], indent=1))
    return exit_code(checks)


def _checks(args: argparse.Namespace) -> Iterator[Check]:
    config, check = _config(args.config)
    yield check
    sources = config.sources if config is not None else ()
    mapped: dict[str, set[int]] = {}
    for source in sources:
        mapped[source.pack_id], check = _mapping(source)
        yield check
    interfaces = can_interfaces()
    yield from _interfaces(interfaces, sources)
    is_needed = any(source.interface not in _OWN for source in sources)
    yield python_can_check(_python_can(), is_needed)
    to_hear = list(sources) or [_source(one) for one in interfaces if one.is_up]
    for source in to_hear:
        # Nobody knows what is on a serial port until it is asked, and that is done on a port that is named only.
        if source.serial is not None:
            continue
        if source.mqtt is not None:
            yield _broker(source, args.seconds)
        elif source.ble is not None:
            yield bluetooth_check(source)
        else:
            yield _bus(source, args.seconds, mapped.get(source.pack_id, set()))
    has_uplink = config is not None and bool(config.uplink.url)
    yield clock_check(kernel_synchronised(), config.clock if config is not None else "trusted", has_uplink)
    uses_socketcan = bool(interfaces) or any(source.interface == "socketcan" for source in sources)
    yield buffer_check(_rmem_max(), FULL_LOAD * FRAME_BYTES // 2, os.geteuid() == 0, uses_socketcan)
    data_dir, needs, flush_s = Path("."), 0, 10.0
    if config is not None:
        data_dir, needs, flush_s = config.outbox.cold_dir, config.outbox.max_bytes, config.outbox.flush_s
    yield disk_check(disk_of(data_dir), needs, flush_s)
    url = config.uplink.url if config is not None else ""
    yield uplink_check(url, _reached(url, config.uplink.ca_file) if config is not None and url else None)


def _config(given: str | None) -> tuple[Config | None, Check]:
    try:
        path = find_config(given)
    except ConfigError:
        return None, Check(
            "config", WARN, "no edge.toml: `edge doctor --write-config --dbc F` proposes one for your bus"
        )
    try:
        config = load_config(path)
    except ConfigError as error:
        return None, Check("config", FAIL, str(error))
    return config, Check("config", OK, f"{path}: {', '.join(source.pack_id for source in config.sources)}")


def _mapping(source: SourceConfig) -> tuple[set[int], Check]:
    """The ids that a source's mapping needs, and whether it fits its DBC."""
    from edge.dbc.load import load
    from edge.mapping import load_mapping

    name = f"mapping {source.pack_id}"
    try:
        mapping = load_mapping(source.mapping_path)
        if mapping.spoken is not None:
            spoken = mapping.spoken.protocol.name
            return set(), Check(name, OK, f"{source.mapping_path}: {len(mapping.targets)} names of {spoken}")
        if mapping.published is not None:
            return set(), Check(name, OK, f"{source.mapping_path}: {len(mapping.targets)} places in messages")
        if mapping.dbc is None:
            return set(), Check(name, FAIL, f"{source.mapping_path} is for a CSV: a bus needs one with a DBC")
        database = load(mapping.dbc)
    except ConfigError as error:
        return set(), Check(name, FAIL, str(error))
    wrong = [target.signal for target in mapping.targets if target.signal not in database.signals]
    if wrong:
        shown = ", ".join(wrong[:4])
        return set(), Check(name, FAIL, f"{len(wrong)} signals are not in {mapping.dbc}: {shown}; mend {mapping.path}")
    wanted = {target.signal.partition(".")[0] for target in mapping.targets}
    # A J1939 message comes under whatever id its sender has.
    ids = {m.can_id for m in database.messages if m.name in wanted and not m.is_j1939}
    text = f"{mapping.path}: {len(mapping.targets)} signals of {len(wanted)} messages"
    if database.notes:
        return ids, Check(
            name, WARN, f"{text}; the DBC has {len(database.notes)} odd statements, such as {database.notes[0]}"
        )
    return ids, Check(name, OK, text)


def _interfaces(interfaces: list[CanInterface], sources: tuple[SourceConfig, ...]) -> Iterator[Check]:
    by_channel = {usb.name_of(s.channel, "net"): s for s in sources if s.interface == "socketcan"}
    for one in interfaces:
        yield interface_check(one, by_channel.pop(one.name, None))
    for name, source in by_channel.items():
        text = "no such interface is here: plug the adapter in, load its driver, or mend edge.toml"
        yield Check(f"interface {name or source.channel}", FAIL, text)
    ports = {s.channel: usb.name_of(s.channel, "tty") for s in sources if s.interface in ("slcan", SERIAL)}
    for channel, path in ports.items():
        yield port_check(port_of(path or channel), user_name())
    used = {os.path.realpath(path or channel) for channel, path in ports.items()}
    others = [path for path in serial_ports() if os.path.realpath(path) not in used]
    for path in others:
        check = port_check(port_of(path), user_name())
        yield check if sources == () or check.status == OK else Check(check.name, WARN, check.text)
    has_others = any(source.interface in (MQTT, BLUETOOTH) for source in sources)
    if not interfaces and not ports and not others and not by_channel and not has_others:
        yield no_bus_check()


def _source(one: CanInterface) -> SourceConfig:
    """An interface that no edge.toml tells of."""
    from edge.propose.command import live_source

    return live_source("socketcan", one.name, one.bitrate or 500_000)


def _broker(source: SourceConfig, seconds: float) -> Check:
    from edge.mapping import load_mapping
    from edge.mapping_mqtt import topics

    try:
        mapping = load_mapping(source.mapping_path)
    except ConfigError as error:
        return Check(f"broker {source.channel}", WARN, f"not listened to: {error}")
    if mapping.published is None:
        text = f"{source.mapping_path} has no table [mqtt]: it is for another kind of source"
        return Check(f"broker {source.channel}", FAIL, text)
    return broker_check(source, topics(mapping.published, [target.signal for target in mapping.targets]), seconds)


def _bus(source: SourceConfig, seconds: float, mapped: set[int]) -> Check:
    try:
        return bus_check(source, listen(source, seconds), mapped)
    except (SourceError, ConfigError) as error:
        busy = isinstance(error, SourceError) and is_busy(error)  # the agent itself holds it, most likely
        return Check(
            f"bus {source.channel}", WARN if busy else FAIL, f"{error}{': the agent may be reading it' if busy else ''}"
        )


def _python_can() -> str:
    """Why python-can cannot be had; "" = it can."""
    from firmware_bridge import python_can

    try:
        python_can.load()
    except Exception as error:  # whatever it or a vendor's plug-in of it raises
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _rmem_max() -> int | None:
    try:
        return int(_RMEM_MAX.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _reached(url: str, ca_file: Path | None) -> str | None:
    """Opens a connection (with TLS where the address says so) and closes it: why that failed, None = it did not."""
    address = urlsplit(url)
    host = address.hostname or ""
    try:
        with socket.create_connection((host, address.port or _PORTS.get(address.scheme, 443)), _CONNECT_S) as line:
            if address.scheme in ("https", "mqtts"):
                context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
                context.wrap_socket(line, server_hostname=host).close()
    except ValueError:
        return "its address has no port that is a number"
    except OSError as error:
        return getattr(error, "verify_message", "") or error.strerror or str(error)
    return None
