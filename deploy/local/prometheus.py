"""Prometheus and Alertmanager on loopback, with the configuration and rules of deploy/prometheus.

server = Server(folder, 9090, {"api": "127.0.0.1:5001"}, alertmanager="127.0.0.1:9093")
server.prepare(); spawn(server.command()), then wait until server.ready_url answers 200
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from door import Door
from programs import program
from settings import ROOT

from shared.errors import ConfigError

FOLDER = ROOT / "deploy" / "prometheus"
HOST = "127.0.0.1"
RETENTION = "15d"


@dataclass(frozen=True, slots=True)
class Server:
    """One Prometheus with everything of its own below a folder."""

    folder: Path
    port: int
    targets: Mapping[str, str]  # {job: host:port}; jobs: api, ingest, gateway, agent
    alertmanager: str | None = None  # host:port
    api: Door | None = None  # where the API wants TLS or a token; then `targets` has none of the job api

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ready_url(self) -> str:
        return f"{self.url}/-/ready"

    def prepare(self) -> None:
        """Writes configuration, rules and targets; the data of earlier runs stay."""
        targets = self.folder / "targets"
        targets.mkdir(parents=True, exist_ok=True)
        config = (FOLDER / "prometheus.yml").read_text(encoding="utf-8")
        if self.api is not None:
            config = config.replace("scrape_configs:\n", "scrape_configs:\n" + self._api_job(self.api), 1)
        (self.folder / "prometheus.yml").write_text(config, encoding="utf-8")
        shutil.rmtree(self.folder / "rules", ignore_errors=True)
        shutil.copytree(FOLDER / "rules", self.folder / "rules")
        lines = [f'- targets: ["{address}"]\n  labels: {{job: {job}}}\n' for job, address in self.targets.items()]
        (targets / "packtwin.yml").write_text("".join(lines) or "[]\n", encoding="utf-8")
        alarms = f'- targets: ["{self.alertmanager}"]\n' if self.alertmanager else "[]\n"
        (targets / "alertmanager.yml").write_text(alarms, encoding="utf-8")

    def _api_job(self, api: Door) -> str:
        """A scrape job of its own: a list of targets can carry neither a CA nor a token."""
        token = self.folder / "api-token"
        token.unlink(missing_ok=True)
        token.touch(mode=0o600)
        token.write_text(api.token(), encoding="utf-8")
        scheme, address = api.url.split("://")
        ca = f"    tls_config: {{ca_file: {api.ca_file}}}\n" if api.ca_file else ""
        return (
            f"  - job_name: api\n    scheme: {scheme}\n{ca}    authorization: {{credentials_file: {token}}}\n"
            f'    static_configs:\n      - targets: ["{address}"]\n'
        )

    def command(self) -> list[str]:
        return [
            str(_binary("prometheus")),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--storage.tsdb.retention.time={RETENTION}",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]


@dataclass(frozen=True, slots=True)
class Alertmanager:
    """One Alertmanager, alone: it looks for no others."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ready_url(self) -> str:
        return f"{self.url}/-/ready"

    @property
    def config_file(self) -> Path:
        """A copy of ours: whom to tell is the user's to fill in there, and from then on it is theirs."""
        return self.folder / "alertmanager.yml"

    def prepare(self) -> None:
        """Writes the configuration, unless it is no longer what we wrote last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ours, last = FOLDER / "alertmanager.yml", self.folder / "alertmanager.yml.as-shipped"
        there = self.config_file.exists()
        if not there or (last.exists() and last.read_bytes() == self.config_file.read_bytes()):
            shutil.copyfile(ours, self.config_file)
            shutil.copyfile(ours, last)

    def command(self) -> list[str]:
        return [
            str(_binary("alertmanager")),
            f"--config.file={self.config_file}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]


_NAMES: Mapping[str, tuple[str, ...]] = {
    "prometheus": ("prometheus",),
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),  # Debian's name
}
_GET: Mapping[str, str] = {
    "prometheus": "metrics need Prometheus (apt-get install prometheus)",
    "alertmanager": "alerts need Alertmanager (apt-get install prometheus-alertmanager)",
}


def problem(name: str = "prometheus") -> str | None:
    """Returns what is missing on this machine for `prometheus` or `alertmanager`, and how to get it; None: nothing."""
    return None if any(map(program, _NAMES[name])) else _GET[name]


def _binary(name: str) -> Path:
    for each in _NAMES[name]:
        found = program(each)
        if found is not None:
            return found
    raise ConfigError(_GET[name])
