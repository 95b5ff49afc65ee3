"""`python -m cloud`: migrate, api, ingest, gateway, device, pack, train, release ... Exit 0 ok, 1 failed, 2 bad use."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

from cloud import config as settings
from cloud.config import Config
from cloud.device_command import add_device, run_device
from cloud.release_command import add_release, run_release
from shared.errors import ConfigError, PacktwinError

_EXAMPLES: Final = """examples:
  python -m cloud migrate                 bring the database's tables up to date
  python -m cloud api                     API, page and ingest on http://localhost:5001
  python -m cloud device add my-box       a device's token, for one beyond this machine
  python -m cloud pack import packs.csv   what people know of their packs
  python -m cloud pack list
  python -m cloud train                   a model from simulated lives, into models/
  python -m cloud release publish models/rul-2.bundle
  python -m cloud backup twin.backup      the whole database in one file; `restore` fills an empty one from it
  python -m cloud release list            what is published, and what each device is told to run

Settings come from the environment and from .env: DB_HOST DB_PORT DB_NAME DB_USER DB_PASSWORD API_HOST API_PORT ...;
.env.example lists them all."""


def parser(training: bool = False) -> argparse.ArgumentParser:
    """The command line. training: with the options of `train`, whose imports take seconds and need its extra."""
    top = argparse.ArgumentParser(
        prog="python -m cloud",
        description="packtwin's cloud side.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--env-file", type=Path, default=Path(".env"), metavar="F", help="settings file (default .env)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("migrate", help="bring the database's tables up to date")
    commands.add_parser("api", help="serve API and page; takes the uploads, too")
    ingest = commands.add_parser("ingest", help="write what waits on the bus into the database")
    ingest.add_argument("--from-start", action="store_true", help="read the bus from its start again")
    letters = commands.add_parser("deadletter", help="messages on the bus that could not be written (BUS=kafka)")
    actions = letters.add_subparsers(dest="deadletter_command", required=True, metavar="COMMAND")
    actions.add_parser("list", help="print them as CSV")
    replay = actions.add_parser("replay", help="send once more what waits, when its cause is mended")
    replay.add_argument("ids", nargs="*", metavar="ID", help="ids of `list`; none = all that wait")
    commands.add_parser("gateway", help="take what devices publish to the MQTT broker")
    pack = commands.add_parser("pack", help="what people know of their packs")
    packs = pack.add_subparsers(dest="pack_command", required=True, metavar="COMMAND")
    table = packs.add_parser("import", help="read a CSV table", description=_pack_columns())
    table.add_argument("file", type=Path, metavar="F.csv")
    packs.add_parser("list", help="print all packs as CSV")
    about = "All of the database in one file, pg_dump's custom format; everything else may go on meanwhile."
    commands.add_parser("backup", help="write the database to a file", description=about).add_argument(
        "file", type=Path, metavar="FILE"
    )
    commands.add_parser("restore", help="fill an empty database from such a file").add_argument(
        "file", type=Path, metavar="FILE"
    )
    add_device(commands)
    add_release(commands)
    _add_train(commands, training)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser(training="train" in words).parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return _run(options, settings.load(os.environ, options.env_file))
    except ConfigError as error:
        return _say(error, 2)
    except (PacktwinError, psycopg.Error) as error:
        return _say(error, 1)
    except KeyboardInterrupt:
        return 0


def _run(options: argparse.Namespace, config: Config) -> int:
    if options.command == "migrate":
        return _migrate(config)
    if options.command == "api":
        from cloud.api import process

        process.run(config)
        return 0
    if options.command == "gateway":
        from cloud import gateway_process

        gateway_process.run(config)
        return 0
    if options.command == "ingest":
        return _ingest(options, config)
    if options.command == "deadletter":
        from cloud.deadletter import run_deadletter

        return run_deadletter(options, config)
    if options.command in ("backup", "restore"):
        from cloud.backup import run_backup

        return run_backup(options.command, options.file, config.database)
    if options.command == "device":
        return run_device(options, config)
    if options.command == "release":
        return run_release(options, config)
    if options.command == "train":
        return _train(options, config)
    return _import_packs(config, options.file) if options.pack_command == "import" else _list_packs(config)


def _migrate(config: Config) -> int:
    from cloud import db

    with db.connect(config.database, "packtwin-migrate") as conn:
        applied = db.migrate(conn)
    for name in applied:
        print(f"applied {name}")
    print(f"{config.database.name} at {config.database.host}:{config.database.port} is up to date")
    return 0


def _ingest(options: argparse.Namespace, config: Config) -> int:
    if config.bus != "kafka":
        raise ConfigError("with the direct bus the ingest runs inside the API process; start `python -m cloud api`")
    from cloud import consume

    consume.run(config, from_start=options.from_start)
    return 0


def _import_packs(config: Config, file: Path) -> int:
    from cloud import db
    from cloud.db import queries_packs
    from cloud.pack_table import read_packs

    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    rows = read_packs(text, str(file))
    with db.connect(config.database, "packtwin-pack") as conn:
        queries_packs.import_packs(conn, rows)
    print(f"{len(rows)} packs read from {file}")
    return 0


def _list_packs(config: Config) -> int:
    from cloud import db
    from cloud.db import queries_packs
    from cloud.pack_table import write_packs

    with db.connect(config.database, "packtwin-pack") as conn:
        sys.stdout.write(write_packs(queries_packs.facts(conn)))
    return 0


def _add_train(commands: Any, training: bool) -> None:
    if training:
        with contextlib.suppress(ModuleNotFoundError):
            from cloud.training.command import add_train

            add_train(commands)
            return
    # Whatever follows `train` here, the answer is that its extra is missing: no option is one.
    train = commands.add_parser(
        "train", help="learn a model from lives of packs (needs the extra `train`)", prefix_chars="\0", add_help=False
    )
    train.add_argument("arguments", nargs="*")


def _train(options: argparse.Namespace, config: Config) -> int:
    try:
        from cloud.training.command import run_train

        return run_train(options, config)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"training needs {error.name}, which is not installed here; run: pip install 'packtwin[train]'"
        ) from error


def _pack_columns() -> str:
    return (
        "Columns: pack_id, and any of device, vehicle, fleet, chemistry (nmc lfp nca lmo lto), series, parallel, "
        "nominal_ah, nominal_v, layout_file, commissioned (YYYY-MM-DD), tags (a;b;c), limits.NAME. "
        "All or nothing; reading a table twice changes nothing."
    )


def _say(error: Exception, code: int) -> int:
    print(f"cloud: {' '.join(str(error).split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
