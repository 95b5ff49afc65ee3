"""Grafana on loopback, where a `grafana` is installed: our data sources and dashboards, and a role that only reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from postgres import Login
from programs import program
from settings import ROOT

from shared.errors import ConfigError, PacktwinError

FOLDER = ROOT / "deploy" / "grafana"
HOST = "127.0.0.1"
GET = "https://grafana.com/grafana/download; Debian has no package"
HOMES = ("/usr/share/grafana", "/usr/local/share/grafana", "/opt/grafana")
READER = "grafana"


@dataclass(frozen=True, slots=True)
class Server:
    """One Grafana with everything of its own below a folder. `database`: as the owner of the tables."""

    folder: Path
    port: int
    database: Login
    prometheus_url: str
    admin_password: str = field(repr=False)
    reader_password: str = field(repr=False)
    reader: str = READER  # the role that only reads

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def ready_url(self) -> str:
        return f"{self.url}/api/health"

    @property
    def provisioning(self) -> Path:
        """A copy of ours that says what is true of the database."""
        return self.folder / "provisioning"

    def command(self) -> list[str]:
        found = binary()
        server = [str(found), "server"] if found.name == "grafana" else [str(found)]
        return [*server, "--homepath", str(home(found))]

    def environment(self) -> Mapping[str, str]:
        """Returns Grafana's settings; nothing of the system's own grafana.ini is used or changed."""
        return {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.folder),
            "GF_SERVER_HTTP_ADDR": HOST,
            "GF_SERVER_HTTP_PORT": str(self.port),
            "GF_PATHS_DATA": str(self.folder / "data"),
            "GF_PATHS_LOGS": str(self.folder / "logs"),
            "GF_PATHS_PLUGINS": str(self.folder / "plugins"),
            "GF_PATHS_PROVISIONING": str(self.provisioning),
            "GF_LOG_MODE": "console",
            "GF_LOG_LEVEL": "warn",
            "GF_SECURITY_ADMIN_PASSWORD": self.admin_password,
            # Whoever is on this machine sees the page without a login, and so the dashboards; changing them needs one.
            "GF_AUTH_ANONYMOUS_ENABLED": "true",
            "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(FOLDER / "dashboards" / "packtwin-fleet.json"),
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_NEWS_NEWS_FEED_ENABLED": "false",
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GRAFANA_DASHBOARDS": str(FOLDER / "dashboards"),
            "GRAFANA_DB_HOST": f"{self.database.host}:{self.database.port}",
            "GRAFANA_DB_NAME": self.database.name,
            "GRAFANA_DB_USER": self.reader,
            "GRAFANA_DB_PASSWORD": self.reader_password,
            "PROMETHEUS_URL": self.prometheus_url,
        }

    def prepare(self) -> None:
        """Makes the folder, the role that reads, and the copy of the provisioning.

        PacktwinError where this database's owner may not make roles.
        """
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        statements = (FOLDER / "reader.sql").read_text(encoding="utf-8")
        try:
            with self.database.connect() as connection:
                for name, value in (("reader_name", self.reader), ("reader_password", self.reader_password)):
                    connection.execute("SELECT set_config(%s, %s, false)", [f"packtwin.{name}", value])
                connection.execute(statements.encode())
                has = connection.execute("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')")
                self._provision(timescaledb=has.fetchone() == (True,))
        except psycopg.Error as error:
            words = str(error).splitlines()[0]
            raise PacktwinError(
                f"its role {self.reader} could not be made ({words}); run deploy/grafana/reader.sql as a superuser"
            ) from error

    def _provision(self, *, timescaledb: bool) -> None:
        shutil.rmtree(self.provisioning, ignore_errors=True)
        shutil.copytree(FOLDER / "provisioning", self.provisioning)
        if not timescaledb:
            sources = self.provisioning / "datasources" / "packtwin.yaml"
            told = sources.read_text(encoding="utf-8")
            sources.write_text(told.replace("timescaledb: true\n", "timescaledb: false\n"), encoding="utf-8")


def problem() -> str | None:
    """Returns what is missing on this machine and how to get it; None when nothing is."""
    try:
        binary()
    except ConfigError as error:
        return str(error)
    return None


def binary() -> Path:
    """Returns Grafana's program; ConfigError when it is not installed, or its own files are not found."""
    found = program("grafana") or program("grafana-server")
    if found is None:
        raise ConfigError(f"dashboards need Grafana ({GET})")
    home(found)
    return found


def home(found: Path) -> Path:
    """Returns the folder of Grafana's own files: beside the program's, or where packages put them."""
    for place in (found.resolve().parent.parent, *map(Path, HOMES)):
        if (place / "conf" / "defaults.ini").exists():
            return place
    raise ConfigError(f"{found} is there, but not its conf/defaults.ini; install Grafana as a whole ({GET})")
