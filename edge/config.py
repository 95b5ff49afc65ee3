"""edge.toml as frozen dataclasses: read once, handed down. Paths in it count from the file's own folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.tables import Table, read_toml
from shared import bands
from shared.bands import Bands
from shared.errors import ConfigError
from shared.records import MODES

CLOCKS: Final = ("trusted", "system")
SOURCE_TYPES: Final = ("can",)
SEARCH: Final = (Path("edge.toml"), Path(".local/edge/edge.toml"), Path("/etc/packtwin/edge.toml"))
"""Where edge.toml is looked for when no `--config` is given; the second is what `make run` writes."""
SAMPLES: Final = Path(__file__).parent / "samples"
_TMPFS: Final = Path("/dev/shm")
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkConfig:
    """Where records go. url "" = nowhere: the outbox keeps the newest `max_bytes` of them.

    ca_file: who signs the certificates there; None = the CAs that this system trusts. models_url: the cloud's
    http(s) address, where bundles come from; "" = as url.
    """

    url: str = ""
    mode: str = "normal"
    token: str = ""
    plaintext_hosts: tuple[str, ...] = ()
    ca_file: Path | None = None
    models_url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadableConfig:
    """The broker that shows live values to other software. discovery: Home Assistant's prefix, "" = none.

    earlier: also the earlier system's topic, with the statuses of `bands`. interval_s: that of the Samples.
    """

    host: str
    port: int
    tls: bool
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    discovery: str = "homeassistant"
    earlier: bool = False
    interval_s: float = 1.0
    bands: Bands = field(default_factory=Bands)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxConfig:
    """cold_dir: on flash. hot_dir: on tmpfs, None = no tmpfs, everything goes to flash at once."""

    cold_dir: Path
    hot_dir: Path | None
    max_bytes: int = 512 * _MIB
    flush_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A port that the agent serves; port 0 = any free one."""

    host: str
    port: int
    variable: str  # the environment variable that sets the port


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One pack and the bus on which it talks. options: what python-can's interface needs beyond channel and bitrate."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that the agent is told."""

    path: Path
    device: str
    clock: str
    sample_s: float
    prediction_s: float
    trust_root: Path | None  # root metadata of the repository that models come from; None = no model is installed
    uplink: UplinkConfig
    readable: ReadableConfig | None
    outbox: OutboxConfig
    page: Listen
    metrics: Listen
    sources: tuple[SourceConfig, ...]
    bands: Bands


def find_config(given: str | None) -> Path:
    """The edge.toml to use: the one given, else the first that exists of SEARCH. ConfigError if there is none."""
    if given is not None:
        return Path(given)
    for path in SEARCH:
        if path.is_file():
            return path
    places = ", ".join(map(str, SEARCH))
    raise ConfigError(
        f"no edge.toml found ({places}): give one with --config, a commented sample is {SAMPLES}/edge.toml"
    )


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """edge.toml; TELEMETRY_INTERVAL, PREDICTION_INTERVAL, EDGE_PORT, METRICS_PORT, BAND_* in `environ` go first."""
    table = Table(read_toml(path), str(path))
    folder = path.absolute().parent
    device = table.id("device")
    sample_s = _override(table, "sample_s", environ, "TELEMETRY_INTERVAL").number("sample_s", 1.0, lo=0.1, hi=3600.0)
    config = Config(
        path=path,
        device=device,
        clock=table.choice("clock", "trusted", among=CLOCKS),
        sample_s=sample_s,
        prediction_s=_override(table, "prediction_s", environ, "PREDICTION_INTERVAL").number(
            "prediction_s", 5.0, lo=0.1, hi=86_400.0
        ),
        trust_root=table.file("trust_root", folder),
        outbox=_outbox(table, folder, device),
        uplink=_uplink(table.table("uplink"), folder, environ),
        readable=_readable(table.table("readable"), folder, environ, sample_s),
        page=_listen(table.table("page"), environ, 5002, "EDGE_PORT"),
        metrics=_listen(table.table("metrics"), environ, 9100, "METRICS_PORT"),
        sources=tuple(_source(source, folder) for source in table.tables("source")),
        bands=bands.read(environ),
    )
    table.done()
    _check_sources(config)
    return config


def _override(table: Table, key: str, environ: Mapping[str, str], variable: str) -> Table:
    """The table itself, or one with `key` from the environment so that the complaint names the variable."""
    if not environ.get(variable):
        return table
    table.raw(key, None)
    try:
        return Table({key: float(environ[variable])}, f"the environment's {variable}")
    except ValueError:
        raise ConfigError(f"{variable}={environ[variable]} must be a number: set it right or leave it out") from None


def _uplink(table: Table, folder: Path, environ: Mapping[str, str]) -> UplinkConfig:
    uplink = UplinkConfig(
        url=table.text("url", ""),
        mode=table.choice("mode", "normal", among=tuple(MODES)),
        token=table.secret("token_file", folder),
        plaintext_hosts=_plaintext_hosts(environ),
        ca_file=table.file("ca_file", folder),
        models_url=table.text("models_url", ""),
    )
    table.done()
    return uplink


def _readable(table: Table, folder: Path, environ: Mapping[str, str], sample_s: float) -> ReadableConfig | None:
    url = table.text("url", "")
    user = table.text("user", "")
    password = table.secret("password_file", folder)
    ca_file = table.file("ca_file", folder)
    prefix = table.text("discovery_prefix", "homeassistant").strip("/")
    discovery = table.flag("discovery", True)
    earlier = table.flag("earlier_topic", False)
    table.done()
    if not url:
        return None
    from edge.transport import checked_address  # a heavy import that most commands do without

    address = checked_address(url, "mqtt", _plaintext_hosts(environ), "readable.url")
    tls = address.scheme == "mqtts"
    if any(char in prefix for char in "+#\0") or not prefix:
        raise table.fail("discovery_prefix", f'= "{prefix}" is no topic')
    return ReadableConfig(
        host=(address.host or "").strip("[]"),
        port=address.port or (8883 if tls else 1883),
        tls=tls,
        user=user,
        password=password,
        ca_file=ca_file,
        discovery=prefix if discovery else "",
        earlier=earlier,
        interval_s=sample_s,
        bands=bands.read(environ),
    )


def _plaintext_hosts(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(environ.get("ALLOW_PLAINTEXT_HOSTS", "").replace(",", " ").split())


def _outbox(table: Table, folder: Path, device: str) -> OutboxConfig:
    data_dir = table.text("data_dir", "data")
    hot = table.raw("hot_dir", None)
    if hot is not None and not isinstance(hot, str):
        raise table.fail("hot_dir", f'= {hot!r} must be text in quotes, "" for none')
    inner = table.table("outbox")
    max_mib = inner.number("max_mib", 512, lo=1, hi=1 << 20)
    flush_s = inner.number("flush_s", 10, lo=1, hi=3600)
    inner.done()
    if hot is None:
        hot_dir = _TMPFS / f"packtwin-{os.getuid()}" / device if os.access(_TMPFS, os.W_OK) else None
    else:
        hot_dir = folder / hot if hot else None
    return OutboxConfig(cold_dir=folder / data_dir, hot_dir=hot_dir, max_bytes=int(max_mib * _MIB), flush_s=flush_s)


def _listen(table: Table, environ: Mapping[str, str], port: int, variable: str) -> Listen:
    given = _override(table, "port", environ, variable)
    listen = Listen(
        host=table.text("host", "127.0.0.1"), port=given.whole("port", port, lo=0, hi=65535), variable=variable
    )
    table.done()
    return listen


def _source(table: Table, folder: Path) -> SourceConfig:
    table.choice("type", "can", among=SOURCE_TYPES)
    interface = table.text("interface", "slcan")
    channel = table.text("channel")
    options = table.raw("options", {})
    if not isinstance(options, dict) or not all(isinstance(v, str | int | float) for v in options.values()):
        raise table.fail("options", f"= {options!r} must be a table of texts and numbers for python-can's {interface}")
    mapping = table.text("mapping")
    source = SourceConfig(
        pack_id=table.id("pack_id"),
        interface=interface,
        channel=str(folder / channel) if interface == "slcan" else channel,
        bitrate=table.whole("bitrate", 500_000, lo=10_000, hi=10_000_000),
        tty_baudrate=table.whole("tty_baudrate", 115_200, lo=1200, hi=10_000_000),
        listen_only=table.flag("listen_only", True),
        mapping_path=find_shipped(folder, mapping, SAMPLES),
        past=table.file("past", folder),
        commissioned_t_ns=table.day("commissioned"),
        options=tuple(options.items()),
    )
    table.done()
    if not source.mapping_path.is_file():
        raise table.fail("mapping", f'= "{mapping}" does not exist: give the path of a mapping.toml')
    return source


def find_shipped(folder: Path, name: str, shipped: Path) -> Path:
    """The file `name` beside `folder`; a bare name that is not there means the one that ships with packtwin."""
    here = folder / name
    return shipped / name if not here.exists() and Path(name).name == name and (shipped / name).is_file() else here


def _check_sources(config: Config) -> None:
    if not config.sources:
        raise ConfigError(f"{config.path}: no [[source]] is given: add one per pack")
    packs: set[str] = set()
    ports: dict[str, str] = {}
    for source in config.sources:
        if source.pack_id in packs:
            raise ConfigError(f'{config.path}: pack_id "{source.pack_id}" is used by two [[source]]: give each its own')
        packs.add(source.pack_id)
        if source.interface == "slcan" and ports.setdefault(source.channel, source.pack_id) != source.pack_id:
            other = ports[source.channel]
            raise ConfigError(
                f"{config.path}: channel {source.channel} is read by {other} and {source.pack_id}: "
                "a serial port has one reader, give each pack its own"
            )
