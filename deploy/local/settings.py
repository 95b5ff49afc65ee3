"""The settings of `make run`: the environment over `.env` over the defaults; `.env.example` is the one list of all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloud import config as cloud_config
from shared.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
STACKS = ("small", "full")
FULL_PORTS: Mapping[str, int] = {
    "MQTT_PORT": 1883,
    "BROKER_TLS_PORT": 8883,
    "MLFLOW_PORT": 5000,
    "S3_PORT": 9000,
    "PROMETHEUS_PORT": 9090,
    "ALERTMANAGER_PORT": 9093,
    "GRAFANA_PORT": 3000,
    "INGEST_METRICS_PORT": 9101,
    "GATEWAY_METRICS_PORT": 9102,
}
"""The settings of the ports that STACK=full adds, with their defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one run of the stack is told. A port of None was left open: its default may move."""

    external: bool  # DB_HOST names a server of the user's
    db_port: int | None
    cloud: cloud_config.Config
    edge_port: int | None
    metrics_port: int | None
    cars: int
    full: bool = False  # STACK=full: with the servers that other software expects
    ports: Mapping[str, int | None] = field(default_factory=dict)  # by setting, of the servers of STACK=full
    environment: Mapping[str, str]  # for the children: `.env` under the environment


def known_settings(example: Path = ROOT / ".env.example") -> frozenset[str]:
    """Returns the names of all settings."""
    return frozenset(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example.read_text(encoding="utf-8"), re.MULTILINE))


def read_settings(environment: Mapping[str, str], env_file: Path = ROOT / ".env") -> Settings:
    """Returns the settings; an empty variable counts as not set. ConfigError: an unknown name or a senseless value."""
    written = cloud_config.read_env_file(env_file)
    known = known_settings()
    for name in written:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]}?" if near else "; .env.example lists them all"
            raise ConfigError(f"{env_file.name}: {name} is not a setting{meant}")
    merged = {**written, **environment}
    full = _stack(merged) == "full"
    settings = Settings(
        external=bool(merged.get("DB_HOST")),
        db_port=_whole(merged, "DB_PORT", 65535),
        cloud=cloud_config.load(merged),
        edge_port=_whole(merged, "EDGE_PORT", 65535),
        metrics_port=_whole(merged, "METRICS_PORT", 65535),
        cars=_whole(merged, "CARS", 99) or 3,
        full=full,
        ports={name: _whole(merged, name, 65535) for name in FULL_PORTS} if full else {},
        environment=merged,
    )
    if settings.cloud.api_port == 0:
        raise ConfigError("API_PORT=0 is no address for a browser; set a port from 1 to 65535")
    return settings


def _stack(merged: Mapping[str, str]) -> str:
    value = merged.get("STACK") or "small"
    if value not in STACKS:
        raise ConfigError(f"STACK={value!r} is not one of {', '.join(STACKS)}; correct the setting")
    return value


def _whole(merged: Mapping[str, str], name: str, highest: int) -> int | None:
    value = merged.get(name)
    if not value:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= highest:
        raise ConfigError(f"{name}={value!r} is not a whole number from 1 to {highest}; correct the setting")
    return int(value)
