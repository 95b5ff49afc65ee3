"""The cloud's settings: read once from the environment over `.env`, then handed down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

from shared import bands
from shared.bands import Bands
from shared.errors import ConfigError
from shared.hosts import plain_is_allowed
from shared.records import MODES


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a setting's text may be. read: the value of a text; ValueError when it is not `wanted`."""

    wanted: str
    read: Callable[[str], Any]


def _whole(lo: int, hi: int) -> _Kind:
    def read(text: str) -> int:
        number = int(text)
        if not lo <= number <= hi:
            raise ValueError
        return number

    return _Kind(f"a whole number from {lo} to {hi}", read)


def _choice(choices: tuple[str, ...]) -> _Kind:
    def read(text: str) -> str:
        if text.strip() not in choices:
            raise ValueError
        return text.strip()

    return _Kind("one of " + ", ".join(choices), read)


def _flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in (*_ON, *_OFF):
        raise ValueError
    return word in _ON


BUSES: Final = ("direct", "kafka")
_PREFIXES: Final = (
    *("API_", "AUTO_", "BAND_", "DB_", "EARLIER_", "GATEWAY_", "INGEST_", "KAFKA_", "KEYS_", "MODELS_"),
    *("MQTT_", "RELEASE_", "RETENTION_", "TLS_", "UPLINK_"),
)
"""What begins so in `.env` is meant for the cloud, and wrong when the cloud does not know it."""
_ON, _OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_TEXT: Final = _Kind("text", str.strip)
_SECRET: Final = _Kind("text", str)
_PATH: Final = _Kind("a path", lambda text: Path(text.strip()))
_WORDS: Final = _Kind("words", lambda text: tuple(text.replace(",", " ").split()))
_FLAG: Final = _Kind("true or false", _flag)
_PORT: Final = _whole(1, 65535)
_ANY_PORT: Final = _whole(0, 65535)  # 0 = one that is free
_DAYS: Final = _whole(0, 36500)


@dataclass(frozen=True, slots=True)
class Database:
    """Where PostgreSQL is and who we are there."""

    host: Annotated[str, "DB_HOST", _TEXT] = "127.0.0.1"
    port: Annotated[int, "DB_PORT", _PORT] = 5432
    name: Annotated[str, "DB_NAME", _TEXT] = "twin_data"
    user: Annotated[str, "DB_USER", _TEXT] = "twin"
    password: Annotated[str, "DB_PASSWORD", _SECRET] = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept; 0 = for ever."""

    raw_days: Annotated[int, "RETENTION_RAW_DAYS", _whole(1, 36500)] = 400
    minute_days: Annotated[int, "RETENTION_1M_DAYS", _DAYS] = 800
    """Where not set: at least raw_days."""
    hour_days: Annotated[int, "RETENTION_1H_DAYS", _DAYS] = 0
    day_days: Annotated[int, "RETENTION_1D_DAYS", _DAYS] = 0


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where the `kafka` bus is. replication: of the topics that we make; 3 brokers want 3."""

    bootstrap: Annotated[str, "KAFKA_BOOTSTRAP", _TEXT] = "127.0.0.1:9092"
    replication: Annotated[int, "KAFKA_REPLICATION", _whole(1, 32)] = 1
    earlier: Annotated[bool, "EARLIER_KAFKA", _FLAG] = False
    """Also publish the earlier system's topic `ev_battery_telemetry`."""


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The broker that the gateway serves. TLS where ca_file is given or the port is 8883."""

    host: Annotated[str, "MQTT_HOST", _TEXT] = "127.0.0.1"
    port: Annotated[int, "MQTT_PORT", _PORT] = 1883
    user: Annotated[str, "MQTT_USER", _TEXT] = ""
    password: Annotated[str, "MQTT_PASSWORD", _SECRET] = field(default="", repr=False)
    ca_file: Annotated[Path | None, "MQTT_CA_FILE", _PATH] = None
    password_file: Annotated[Path | None, "MQTT_PASSWORD_FILE", _PATH] = None
    """Mosquitto's, which the gateway keeps equal to the devices' tokens; None = the broker asks nobody."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who gets in beyond loopback. cert_file and key_file: None = made in tls_dir by a CA of our own."""

    api_token: Annotated[str, "API_TOKEN", _TEXT] = field(default="", repr=False)
    tls_dir: Annotated[Path, "TLS_DIR", _PATH] = Path(".local/tls")
    cert_file: Annotated[Path | None, "API_CERT_FILE", _PATH] = None
    key_file: Annotated[Path | None, "API_KEY_FILE", _PATH] = None
    tls_names: Annotated[tuple[str, ...], "TLS_NAMES", _WORDS] = ()
    """Further names and addresses by which other machines reach this one; for the certificate that is made."""
    plaintext_hosts: Annotated[tuple[str, ...], "ALLOW_PLAINTEXT_HOSTS", _WORDS] = ()
    """What may be listened on, and called, without TLS although it is not loopback: a private network of one's own."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of the cloud."""

    database: Database = Database()
    bus: Annotated[str, "BUS", _choice(BUSES)] = "direct"
    """How Batches get to the ingest: `direct`, within one process, or `kafka`."""
    kafka: Kafka = Kafka()
    mqtt: Mqtt = Mqtt()
    access: Access = Access()
    metrics_host: Annotated[str, "METRICS_HOST", _TEXT] = "127.0.0.1"
    """Where the ingest's and the gateway's metrics listen."""
    ingest_metrics_port: Annotated[int, "INGEST_METRICS_PORT", _ANY_PORT] = 9101
    gateway_metrics_port: Annotated[int, "GATEWAY_METRICS_PORT", _ANY_PORT] = 9102
    api_host: Annotated[str, "API_HOST", _TEXT] = "127.0.0.1"
    api_port: Annotated[int, "API_PORT", _ANY_PORT] = 5001
    auto_register: Annotated[bool, "AUTO_REGISTER", _FLAG] = True
    """A known device's first record of a pack registers the pack; else it is rejected as `unknown_pack`."""
    uplink_mode: Annotated[str, "UPLINK_MODE", _choice(tuple(MODES))] = "normal"
    """The mode that devices are asked for while nobody looks at one of their packs."""
    retention: Retention = Retention()
    bands: Bands = field(default_factory=Bands)
    release_dir: Annotated[Path, "RELEASE_DIR", _PATH] = Path(".local/release")
    """The signed repository that devices fetch models from."""
    keys_dir: Annotated[Path, "KEYS_DIR", _PATH] = Path(".local/keys")
    """The keys that sign it."""
    models_dir: Annotated[Path, "MODELS_DIR", _PATH] = Path("models")
    """Where trained bundles and their cards are written."""
    mlflow_uri: Annotated[str, "MLFLOW_TRACKING_URI", _TEXT] = ""
    """Where trainings are noted; "" = a file in `.local/mlflow`, `off` = nowhere."""


_PARTS: Final[Mapping[str, Any]] = {
    "database": Database, "kafka": Kafka, "mqtt": Mqtt, "access": Access, "retention": Retention
}  # fmt: skip


def _settings(part: Any) -> dict[str, tuple[str, _Kind]]:
    """{field: (setting, kind)} of a dataclass."""
    hints = get_type_hints(part, include_extras=True).items()
    return {name: hint.__metadata__ for name, hint in hints if hasattr(hint, "__metadata__")}


SETTINGS: Final = bands.SETTINGS | {
    setting for part in (Config, *_PARTS.values()) for setting, _ in _settings(part).values()
}
"""Every setting that the cloud reads."""


def load(environ: Mapping[str, str], env_file: Path | None = None) -> Config:
    """The Config of `environ` over `env_file`; ConfigError, one sentence, for a bad value or an unknown key."""
    raw = {**(read_env_file(env_file) if env_file else {}), **environ}
    given = {name: value for name, value in raw.items() if value.strip()}  # an empty value counts as not set
    parts = {name: part(**_values(part, given)) for name, part in _PARTS.items()}
    config = Config(**_values(Config, given), **parts, bands=bands.read(given))
    if "RETENTION_1M_DAYS" not in given:
        retention = config.retention
        minute_days = max(retention.minute_days, retention.raw_days)
        config = replace(config, retention=replace(retention, minute_days=minute_days))
    _check(config)
    return config


def _values(part: Any, given: Mapping[str, str]) -> dict[str, Any]:
    """{field: value} of those fields of a dataclass whose settings are given."""
    found = {}
    for name, (setting, kind) in _settings(part).items():
        if setting in given:
            try:
                found[name] = kind.read(given[setting])
            except ValueError as error:
                value = given[setting].strip()
                raise ConfigError(f"{setting}={value!r} is not {kind.wanted}; correct the setting") from error
    return found


def _check(config: Config) -> None:
    """ConfigError for settings that do not go together."""
    access, host, retention = config.access, config.metrics_host, config.retention
    if (access.cert_file is None) != (access.key_file is None):
        raise ConfigError("API_CERT_FILE and API_KEY_FILE go together; set both or neither")
    if not plain_is_allowed(host, access.plaintext_hosts):
        raise ConfigError(
            f"METRICS_HOST={host} would show metrics to other machines without TLS and login: keep it on 127.0.0.1, "
            f"or name {host} in ALLOW_PLAINTEXT_HOSTS if the network is your own"
        )
    # Late rows repair a minute from raw rows, an hour from minutes, a day from hours: the finer must not outlive them.
    kept = [(setting, getattr(retention, name)) for name, (setting, _) in _settings(Retention).items()]
    for (finer, fine_days), (coarser, days) in pairwise(kept):
        if days and (not fine_days or days < fine_days):
            raise ConfigError(f"{coarser}={days} is shorter than {finer}={fine_days} (0 = for ever)")


def read_env_file(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of a `.env` file, {} when there is none; quotes around a value are taken off."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; fix or remove it") from error
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ").strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name.isidentifier():
            raise ConfigError(f"{path} line {number} is not NAME=value")
        if name.startswith(_PREFIXES) and name not in SETTINGS:
            raise ConfigError(f"{path} line {number}: {name} is not a setting; see .env.example")
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'"
        values[name] = value[1:-1] if quoted else value.partition(" #")[0].rstrip()
    return values
