"""The [[source]] tables of edge.toml: one per pack, each of a kind of its own (`type`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge.tables import Table
from shared.errors import ConfigError

SAMPLES: Final = Path(__file__).parent / "samples"
SERIAL: Final = "serial"
MQTT: Final = "mqtt"
BLUETOOTH: Final = "ble"
_USB: Final = "usb:"
_MAX_ADDRESS: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class SerialConfig:
    """A BMS on a serial port; its language is the mapping's. None = as the language has it.

    baudrate: bit/s. address: of the pack, where several share a line. poll_s: from one round of requests to the next.
    poll: whether anything is asked; False = it is only listened to, because somebody else asks on that line.
    """

    baudrate: int | None = None
    address: int | None = None
    poll_s: float | None = None
    poll: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CanPollConfig:
    """Requests over CAN, to a pack whose mapping has a `protocol`. poll False = the bus is only listened to.

    address: of the pack, where several share a bus. poll_s: from one round of requests to the next. None = as the
    language has it.
    """

    poll: bool = False
    address: int | None = None
    poll_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttConfig:
    """A gateway that publishes on a broker. client_id: "" = made of the device and the pack; it names the session.

    session_s: so long the broker keeps what comes while nobody listens; what is older is no measurement of now.
    """

    host: str
    port: int
    tls: bool
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    client_id: str = ""
    session_s: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class BleConfig:
    """A BMS on Bluetooth. bms: the module of aiobmsble that reads it, "" = by what it advertises."""

    bms: str = ""
    poll_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One pack and the line on which it talks. options: what python-can's interface needs beyond channel and bitrate.

    serial, mqtt, ble: what a source of that `type` says beside; all None = a CAN bus: `can` says what may be sent.
    """

    pack_id: str
    interface: str
    channel: str
    bitrate: int
    tty_baudrate: int
    listen_only: bool
    mapping_path: Path
    past: Path | None = None  # Sessions of the pack from before it was measured here, as JSON lines
    commissioned_t_ns: int | None = None  # UTC of the pack's first day in use; None = not known
    options: tuple[tuple[str, str | int | float | bool], ...] = ()
    serial: SerialConfig | None = None
    can: CanPollConfig = CanPollConfig()
    mqtt: MqttConfig | None = None
    ble: BleConfig | None = None


def read_sources(
    tables: Sequence[Table], folder: Path, path: Path, plaintext_hosts: Collection[str] = ()
) -> tuple[SourceConfig, ...]:
    """All [[source]] of the edge.toml at `path`; paths in them count from `folder`.

    plaintext_hosts: brokers beyond this machine that may be spoken to without TLS.
    """
    sources = tuple(_source(table, folder, plaintext_hosts) for table in tables)
    _check(sources, path)
    return sources


def _source(table: Table, folder: Path, plaintext_hosts: Collection[str]) -> SourceConfig:
    kind = table.choice("type", "can", among=tuple(_KINDS))
    mapping = table.text("mapping")
    source = SourceConfig(
        pack_id=table.id("pack_id"),
        mapping_path=find_shipped(folder, mapping, SAMPLES),
        past=table.file("past", folder),
        commissioned_t_ns=table.day("commissioned"),
        **_KINDS[kind](table, folder, plaintext_hosts),
    )
    table.done()
    if not source.mapping_path.is_file():
        raise table.fail("mapping", f'= "{mapping}" does not exist: give the path of a mapping.toml')
    return source


def _can(table: Table, folder: Path, _: Collection[str]) -> dict[str, Any]:
    interface = table.text("interface", "slcan")
    channel = table.text("channel")
    options = table.raw("options", {})
    if not isinstance(options, dict) or not all(isinstance(v, str | int | float) for v in options.values()):
        raise table.fail("options", f"= {options!r} must be a table of texts and numbers for python-can's {interface}")
    can = CanPollConfig(
        poll=table.flag("poll", False),
        address=table.whole("address", lo=0, hi=_MAX_ADDRESS) if "address" in table else None,
        poll_s=table.number("poll_s", lo=0.1, hi=3600.0) if "poll_s" in table else None,
    )
    listen_only = table.flag("listen_only", not can.poll)
    if can.poll and listen_only:
        raise table.fail("listen_only", "= true with poll = true: who only listens cannot ask, leave one of them out")
    return {
        "interface": interface,
        "channel": _port(channel, folder) if interface == "slcan" else channel,
        "bitrate": table.whole("bitrate", 500_000, lo=10_000, hi=10_000_000),
        "tty_baudrate": table.whole("tty_baudrate", 115_200, lo=1200, hi=10_000_000),
        "listen_only": listen_only,
        "options": tuple(options.items()),
        "can": can,
    }


def _serial(table: Table, folder: Path, _: Collection[str]) -> dict[str, Any]:
    serial = SerialConfig(
        baudrate=table.whole("baudrate", lo=300, hi=4_000_000) if "baudrate" in table else None,
        address=table.whole("address", lo=0, hi=_MAX_ADDRESS) if "address" in table else None,
        poll_s=table.number("poll_s", lo=0.1, hi=3600.0) if "poll_s" in table else None,
        poll=table.flag("poll", True),
    )
    channel = _port(table.text("channel"), folder)
    return _beside_can(SERIAL, channel) | {"serial": serial}


def _mqtt(table: Table, folder: Path, plaintext_hosts: Collection[str]) -> dict[str, Any]:
    from edge.transport import check_ca, checked_address  # a heavy import that most commands do without

    address = checked_address(table.text("url"), "mqtt", plaintext_hosts, f"{table.where}: url")
    ca_file = table.file("ca_file", folder)
    check_ca(ca_file, f"{table.where}: ca_file", "the broker's")
    tls = address.scheme == "mqtts"
    mqtt = MqttConfig(
        host=(address.host or "").strip("[]"),
        port=address.port or (8883 if tls else 1883),
        tls=tls,
        user=table.text("user", ""),
        password=table.secret("password_file", folder),
        ca_file=ca_file,
        client_id=table.text("client_id", ""),
        session_s=table.whole("session_s", 60, lo=10, hi=30 * 86_400),
    )
    return _beside_can(MQTT, f"{address.scheme}://{mqtt.host}:{mqtt.port}") | {"mqtt": mqtt}


def _ble(table: Table, folder: Path, _: Collection[str]) -> dict[str, Any]:
    address = table.text("address").strip()
    if not address:
        raise table.fail("address", "is empty: give the address of the BMS, or the name under which it is heard")
    ble = BleConfig(bms=table.text("bms", ""), poll_s=table.number("poll_s", BleConfig().poll_s, lo=1.0, hi=3600.0))
    return _beside_can(BLUETOOTH, address) | {"ble": ble}


def _beside_can(interface: str, channel: str) -> dict[str, Any]:
    """What a source that is no CAN bus says of one."""
    return {"interface": interface, "channel": channel, "bitrate": 0, "tty_baudrate": 0, "listen_only": False}


_KINDS: Final[Mapping[str, Callable[[Table, Path, Collection[str]], dict[str, Any]]]] = {
    "can": _can, SERIAL: _serial, MQTT: _mqtt, BLUETOOTH: _ble
}  # fmt: skip


def _port(channel: str, folder: Path) -> str:
    """A serial port: a path, counted from the file's folder, or `usb:SERIAL`."""
    return channel if channel.startswith(_USB) else str(folder / channel)


def find_shipped(folder: Path, name: str, shipped: Path) -> Path:
    """The file `name` beside `folder`; a bare name that is not there means the one that ships with packtwin."""
    here = folder / name
    return shipped / name if not here.exists() and Path(name).name == name and (shipped / name).is_file() else here


def _check(sources: Sequence[SourceConfig], path: Path) -> None:
    if not sources:
        raise ConfigError(f"{path}: no [[source]] is given: add one per pack")
    packs: set[str] = set()
    ports: dict[str, SourceConfig] = {}
    sessions: dict[tuple[str, str], str] = {}
    for source in sources:
        if source.pack_id in packs:
            raise ConfigError(f'{path}: pack_id "{source.pack_id}" is used by two [[source]]: give each its own')
        packs.add(source.pack_id)
        if source.mqtt is not None and source.mqtt.client_id:
            session = source.channel, source.mqtt.client_id
            other_id = sessions.setdefault(session, source.pack_id)
            if other_id != source.pack_id:
                raise ConfigError(
                    f'{path}: client_id "{session[1]}" at {session[0]} is used by {other_id} and {source.pack_id}, so '
                    "that each would throw the other out: give each its own, or leave it out"
                )
        if source.interface not in ("slcan", SERIAL):
            continue
        other = ports.setdefault(source.channel, source)
        if other is source:
            continue
        here = f"{path}: channel {source.channel} is read by {other.pack_id} and {source.pack_id}"
        if source.serial is None or other.serial is None:
            raise ConfigError(f"{here}: a serial port has one reader, give each pack its own")
        if source.serial.address is None or other.serial.address is None:
            raise ConfigError(f"{here}: give each an address, so that it is known which pack is asked")
        if source.serial.baudrate != other.serial.baudrate:
            raise ConfigError(f"{here}, each at its own baudrate: a line has one, give both the same")
        if source.serial.poll != other.serial.poll:
            raise ConfigError(f"{here}, with poll = true and false: if somebody else asks there, set both to false")
