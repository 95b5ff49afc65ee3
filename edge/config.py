"""edge.toml as frozen dataclasses: read once, handed down. Paths in it count from the file's own folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.config_sources import SAMPLES, SourceConfig, read_sources
from edge.tables import Table, read_toml
from shared import bands
from shared.bands import Bands
from shared.errors import ConfigError
from shared.records import MODES

CLOCKS: Final = ("trusted", "system")
SEARCH: Final = (Path("edge.toml"), Path(".local/edge/edge.toml"), Path("/etc/packtwin/edge.toml"))
"""Where edge.toml is looked for when no `--config` is given; the second is what `make run` writes."""
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
class RecorderConfig:
    """The flight recorder. max_bytes: of raw input in memory, 0 = it is off. keep, keep_bytes: of captures on flash.

    before_s, after_s: the window that is kept around an alarm.
    """

    max_bytes: int = 64 * _MIB
    before_s: float = 60.0
    after_s: float = 30.0
    keep: int = 20
    keep_bytes: int = 64 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """A port that the agent serves; port 0 = any free one."""

    host: str
    port: int
    variable: str  # the environment variable that sets the port


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
    recorder: RecorderConfig
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
        recorder=_recorder(table.table("recorder")),
        uplink=_uplink(table.table("uplink"), folder, environ),
        readable=_readable(table.table("readable"), folder, environ, sample_s),
        page=_listen(table.table("page"), environ, 5002, "EDGE_PORT"),
        metrics=_listen(table.table("metrics"), environ, 9100, "METRICS_PORT"),
        sources=read_sources(table.tables("source"), folder, path, _plaintext_hosts(environ)),
        bands=bands.read(environ),
    )
    table.done()
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
    from edge.transport import check_ca, checked_address  # a heavy import that most commands do without

    address = checked_address(url, "mqtt", _plaintext_hosts(environ), "readable.url")
    check_ca(ca_file, "readable.ca_file", "the broker's")
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


def _recorder(table: Table) -> RecorderConfig:
    default = RecorderConfig()
    max_bytes = table.whole("max_bytes", default.max_bytes, lo=0, hi=1 << 34)
    if 0 < max_bytes < _MIB:
        raise table.fail("max_bytes", f"= {max_bytes} must be 0 (off) or at least {_MIB}")
    recorder = RecorderConfig(
        max_bytes=max_bytes,
        before_s=table.number("before_s", default.before_s, lo=1, hi=3600),
        after_s=table.number("after_s", default.after_s, lo=1, hi=3600),
        keep=table.whole("keep", default.keep, lo=1, hi=10_000),
        keep_bytes=table.whole("keep_bytes", default.keep_bytes, lo=_MIB, hi=1 << 40),
    )
    table.done()
    return recorder


def _listen(table: Table, environ: Mapping[str, str], port: int, variable: str) -> Listen:
    given = _override(table, "port", environ, variable)
    listen = Listen(
        host=table.text("host", "127.0.0.1"), port=given.whole("port", port, lo=0, hi=65535), variable=variable
    )
    table.done()
    return listen
