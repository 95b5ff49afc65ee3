"""The cloud's settings: read once from the environment over `.env`, then handed down."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from shared.bands import Band, Bands
from shared.errors import ConfigError
from shared.hosts import plain_is_allowed
from shared.records import MODES


@dataclass(frozen=True, slots=True)
class Database:
    """Where PostgreSQL is and who we are there."""

    host: str = "127.0.0.1"
    port: int = 5432
    name: str = "twin_data"
    user: str = "twin"
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows are kept; 0 = for ever."""

    raw_days: int = 400
    minute_days: int = 800
    hour_days: int = 0
    day_days: int = 0


@dataclass(frozen=True, slots=True)
class Kafka:
    """Where the `kafka` bus is. replication: of the topics that we make; 3 brokers want 3."""

    bootstrap: str = "127.0.0.1:9092"
    replication: int = 1
    earlier: bool = False
    """Also publish the earlier system's topic `ev_battery_telemetry`."""


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The broker that the gateway serves. TLS where ca_file is given or the port is 8883."""

    host: str = "127.0.0.1"
    port: int = 1883
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    password_file: Path | None = None
    """Mosquitto's, which the gateway keeps equal to the devices' tokens; None = the broker asks nobody."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who gets in beyond loopback. cert_file and key_file: None = made in tls_dir by a CA of our own."""

    api_token: str = field(default="", repr=False)
    tls_dir: Path = Path(".local/tls")
    cert_file: Path | None = None
    key_file: Path | None = None
    tls_names: tuple[str, ...] = ()
    """Further names and addresses by which other machines reach this one; for the certificate that is made."""
    plaintext_hosts: tuple[str, ...] = ()
    """What may be listened on, and called, without TLS although it is not loopback: a private network of one's own."""


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of the cloud."""

    database: Database = Database()
    bus: str = "direct"
    """How Batches get to the ingest: `direct`, within one process, or `kafka`."""
    kafka: Kafka = Kafka()
    mqtt: Mqtt = Mqtt()
    access: Access = Access()
    metrics_host: str = "127.0.0.1"
    """Where the ingest's and the gateway's metrics listen."""
    ingest_metrics_port: int = 9101
    gateway_metrics_port: int = 9102
    api_host: str = "127.0.0.1"
    api_port: int = 5001
    auto_register: bool = True
    """A known device's first record of a pack registers the pack; else it is rejected as `unknown_pack`."""
    uplink_mode: str = "normal"
    """The mode that devices are asked for while nobody looks at one of their packs."""
    retention: Retention = Retention()
    bands: Bands = field(default_factory=Bands)
    release_dir: Path = Path(".local/release")
    """The signed repository that devices fetch models from."""
    keys_dir: Path = Path(".local/keys")
    """The keys that sign it."""
    models_dir: Path = Path("models")
    """Where trained bundles and their cards are written."""
    mlflow_uri: str = ""
    """Where trainings are noted; "" = a file in `.local/mlflow`, `off` = nowhere."""


_T = TypeVar("_T")
BUSES: Final = ("direct", "kafka")
_PREFIXES: Final = (
    *("API_", "AUTO_", "BAND_", "DB_", "EARLIER_", "GATEWAY_", "INGEST_", "KAFKA_", "KEYS_", "MODELS_"),
    *("MQTT_", "RELEASE_", "RETENTION_", "TLS_", "UPLINK_"),
)
_BANDS: Final = {"SOC": "soc", "SOH": "soh", "TEMPERATURE": "temperature", "RUL": "rul", "FAILURE": "failure"}
SETTINGS: Final = frozenset(
    {"API_HOST", "API_PORT", "AUTO_REGISTER", "BAND_TEMPERATURE_COLD", "UPLINK_MODE"}
    | {"BUS", "KAFKA_BOOTSTRAP", "KAFKA_REPLICATION", "EARLIER_KAFKA"}
    | {f"MQTT_{name}" for name in ("HOST", "PORT", "USER", "PASSWORD", "CA_FILE", "PASSWORD_FILE")}
    | {"API_TOKEN", "TLS_DIR", "TLS_NAMES", "API_CERT_FILE", "API_KEY_FILE", "ALLOW_PLAINTEXT_HOSTS"}
    | {"METRICS_HOST", "INGEST_METRICS_PORT", "GATEWAY_METRICS_PORT"}
    | {"KEYS_DIR", "MLFLOW_TRACKING_URI", "MODELS_DIR", "RELEASE_DIR"}
    | {f"DB_{name}" for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD")}
    | {f"RETENTION_{name}_DAYS" for name in ("RAW", "1M", "1H", "1D")}
    | {f"BAND_{name}_{level}" for name in _BANDS for level in ("WARNING", "CRITICAL")}
)
"""Every setting that the cloud reads."""


def load(environ: Mapping[str, str], env_file: Path | None = None) -> Config:
    """The Config of `environ` over `env_file`; ConfigError, one sentence, for a bad value or an unknown key."""
    values = _Values({**(read_env_file(env_file) if env_file else {}), **environ})
    none = Config()
    return Config(
        database=Database(
            host=values.text("DB_HOST", none.database.host),
            port=values.whole("DB_PORT", none.database.port, 1, 65535),
            name=values.text("DB_NAME", none.database.name),
            user=values.text("DB_USER", none.database.user),
            password=values.raw.get("DB_PASSWORD", ""),
        ),
        bus=values.one_of("BUS", none.bus, BUSES),
        kafka=Kafka(
            bootstrap=values.text("KAFKA_BOOTSTRAP", none.kafka.bootstrap),
            replication=values.whole("KAFKA_REPLICATION", none.kafka.replication, 1, 32),
            earlier=values.flag("EARLIER_KAFKA", none.kafka.earlier),
        ),
        mqtt=_mqtt(values),
        access=_access(values),
        metrics_host=_metrics_host(values),
        ingest_metrics_port=values.whole("INGEST_METRICS_PORT", none.ingest_metrics_port, 0, 65535),
        gateway_metrics_port=values.whole("GATEWAY_METRICS_PORT", none.gateway_metrics_port, 0, 65535),
        api_host=values.text("API_HOST", none.api_host),
        api_port=values.whole("API_PORT", none.api_port, 0, 65535),
        auto_register=values.flag("AUTO_REGISTER", none.auto_register),
        uplink_mode=values.one_of("UPLINK_MODE", none.uplink_mode, tuple(MODES)),
        retention=_retention(values),
        bands=_bands(values),
        release_dir=Path(values.text("RELEASE_DIR", str(none.release_dir))),
        keys_dir=Path(values.text("KEYS_DIR", str(none.keys_dir))),
        models_dir=Path(values.text("MODELS_DIR", str(none.models_dir))),
        mlflow_uri=values.text("MLFLOW_TRACKING_URI", none.mlflow_uri),
    )


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


def _mqtt(values: _Values) -> Mqtt:
    none = Mqtt()
    return Mqtt(
        host=values.text("MQTT_HOST", none.host),
        port=values.whole("MQTT_PORT", none.port, 1, 65535),
        user=values.text("MQTT_USER", none.user),
        password=values.raw.get("MQTT_PASSWORD", ""),
        ca_file=values.file("MQTT_CA_FILE"),
        password_file=values.file("MQTT_PASSWORD_FILE"),
    )


def _access(values: _Values) -> Access:
    none = Access()
    cert_file, key_file = values.file("API_CERT_FILE"), values.file("API_KEY_FILE")
    if (cert_file is None) != (key_file is None):
        raise ConfigError("API_CERT_FILE and API_KEY_FILE go together; set both or neither")
    return Access(
        api_token=values.raw.get("API_TOKEN", "").strip(),
        tls_dir=Path(values.text("TLS_DIR", str(none.tls_dir))),
        cert_file=cert_file,
        key_file=key_file,
        tls_names=values.words("TLS_NAMES"),
        plaintext_hosts=values.words("ALLOW_PLAINTEXT_HOSTS"),
    )


def _metrics_host(values: _Values) -> str:
    host = values.text("METRICS_HOST", Config().metrics_host)
    if not plain_is_allowed(host, values.words("ALLOW_PLAINTEXT_HOSTS")):
        raise ConfigError(
            f"METRICS_HOST={host} would show metrics to other machines without TLS and login: keep it on 127.0.0.1, "
            f"or name {host} in ALLOW_PLAINTEXT_HOSTS if the network is your own"
        )
    return host


def _retention(values: _Values) -> Retention:
    none = Retention()
    raw = values.whole("RETENTION_RAW_DAYS", none.raw_days, 1, 36500)
    minute = values.whole("RETENTION_1M_DAYS", max(none.minute_days, raw), 0, 36500)
    hour = values.whole("RETENTION_1H_DAYS", none.hour_days, 0, 36500)
    day = values.whole("RETENTION_1D_DAYS", none.day_days, 0, 36500)
    # Late rows repair a minute from raw rows, an hour from minutes, a day from hours: the finer must not outlive them.
    shorter = ("RETENTION_RAW_DAYS", raw)
    for longer in (("RETENTION_1M_DAYS", minute), ("RETENTION_1H_DAYS", hour), ("RETENTION_1D_DAYS", day)):
        if longer[1] and (not shorter[1] or longer[1] < shorter[1]):
            raise ConfigError(f"{longer[0]}={longer[1]} is shorter than {shorter[0]}={shorter[1]} (0 = for ever)")
        shorter = longer
    return Retention(raw, minute, hour, day)


def _bands(values: _Values) -> Bands:
    none = Bands()
    found: dict[str, Band] = {}
    for key, name in _BANDS.items():
        default: Band = getattr(none, name)
        band = Band(
            values.number(f"BAND_{key}_WARNING", default.warning),
            values.number(f"BAND_{key}_CRITICAL", default.critical),
            default.rising,
        )
        if (band.warning > band.critical) if band.rising else (band.warning < band.critical):
            raise ConfigError(
                f"BAND_{key}_WARNING={band.warning:g} is worse than BAND_{key}_CRITICAL={band.critical:g}; swap them"
            )
        found[name] = band
    return Bands(**found, cold_c=values.number("BAND_TEMPERATURE_COLD", none.cold_c))


class _Values:
    """Settings as text, with one typed reader per kind; an empty value counts as not set."""

    def __init__(self, raw: Mapping[str, str]) -> None:
        self.raw = raw

    def text(self, name: str, default: str) -> str:
        return self._read(name, default, lambda value: value, "text")

    def file(self, name: str) -> Path | None:
        value = self.raw.get(name, "").strip()
        return Path(value) if value else None

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(self.raw.get(name, "").replace(",", " ").split())

    def whole(self, name: str, default: int, lo: int, hi: int) -> int:
        def read(value: str) -> int:
            number = int(value)
            if not lo <= number <= hi:
                raise ValueError
            return number

        return self._read(name, default, read, f"a whole number from {lo} to {hi}")

    def number(self, name: str, default: float) -> float:
        def read(value: str) -> float:
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
            return number

        return self._read(name, default, read, "a number")

    def flag(self, name: str, default: bool) -> bool:
        words = {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }

        def read(value: str) -> bool:
            if value.lower() not in words:
                raise ValueError
            return words[value.lower()]

        return self._read(name, default, read, "true or false")

    def one_of(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        def read(value: str) -> str:
            if value not in choices:
                raise ValueError
            return value

        return self._read(name, default, read, "one of " + ", ".join(choices))

    def _read(self, name: str, default: _T, read: Callable[[str], _T], wanted: str) -> _T:
        value = self.raw.get(name, "").strip()
        if not value:
            return default
        try:
            return read(value)
        except ValueError as error:
            raise ConfigError(f"{name}={value!r} is not {wanted}; correct the setting") from error
