"""`cloud release publish | list | revert`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from psycopg import errors

from cloud.config import Config
from cloud.db import connect, queries_release
from cloud.db.connect import Connection
from shared.errors import PacktwinError
from shared.features import schema_id

_NONE: Final = "nothing is published yet; `cloud release publish models/NAME-COUNTER.bundle` begins"


def add_release(commands: Any) -> None:
    """Adds `release` to the subparsers of `cloud`."""
    release = commands.add_parser("release", help="which model devices run")
    ways = release.add_subparsers(dest="release_command", required=True, metavar="COMMAND")
    publish = ways.add_parser("publish", help="sign a bundle and tell devices to run it")
    publish.add_argument("bundle", type=Path, metavar="BUNDLE")
    ways.add_parser("list", help="what is published, and what each device is told to run")
    revert = ways.add_parser("revert", help="publish the model before the present one again, under a new counter")
    for way in (publish, revert):
        way.add_argument("--to", default=queries_release.FLEET, metavar="DEVICE", help="a device, or fleet (default)")


def run_release(options: argparse.Namespace, config: Config) -> int:
    """Runs the command; 0. ConfigError and other PacktwinErrors are the caller's to print."""
    from cloud import release

    now = datetime.now(UTC)
    body = release.read_bundle(options.bundle) if options.release_command == "publish" else b""
    try:
        with connect(config.database, "packtwin-release") as conn:
            if options.release_command == "list":
                _list(conn, config)
                return 0
            if options.release_command == "publish":
                done = release.publish(conn, config, body, options.to, now)
            else:
                done = release.revert(conn, config, options.to, now)
    except errors.UndefinedTable as error:
        raise PacktwinError("the database has not all of packtwin's tables; run `python -m cloud migrate`") from error
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    if done.told:
        print(f"{done.model_id} is published; {options.to} is told to run it")
    else:
        print(f"{done.model_id} is published already, and {options.to} is told to run it")
    return 0


def _list(conn: Connection, config: Config) -> None:
    from cloud import release

    rows = release.published(conn, config)
    if not rows:
        print(_NONE)
    else:
        table = [("BUNDLE", "COUNTER", "TRAINED ON", "CHEMISTRY", "FEATURES", "KB", "TOLD TO")]
        table += [
            (row.model_id, str(row.counter), *_about(row), f"{row.size_bytes / 1000:.0f}", _told(row.told))
            for row in rows
        ]
        _print(table)
    devices = queries_release.devices(conn)
    if devices:
        own = {row.device: row.bundle for row in queries_release.newest(conn)}
        print()
        _print([("DEVICE", "TOLD", "AS", "LAST STEP", "WHEN"), *(_device(row, own) for row in devices)])


def _about(row: Any) -> tuple[str, str, str]:
    if row.manifest is None:
        return "file damaged", "-", "-"
    fits = "these" if row.manifest.feature_schema == schema_id() else "others"
    trained = "simulated" if row.manifest.data["simulated"] else "measured"
    return trained, " ".join(row.manifest.chemistry), fits


def _told(assignments: Sequence[queries_release.Assignment]) -> str:
    return ", ".join(
        f"{a.device or queries_release.FLEET} since {a.assigned_at:%Y-%m-%d %H:%M} UTC" for a in assignments
    )


def _device(row: dict[str, Any], own: dict[str | None, str]) -> tuple[str, ...]:
    name = row["device"]
    told, why = (own[name], "device") if name in own else (own.get(None, "-"), "fleet" if None in own else "-")
    step = " ".join(filter(None, (row["step"], row["model_id"], row["reason"] and f"({row['reason']})"))) or "-"
    t_ns = row["t_ns"]
    when = f"{datetime.fromtimestamp(t_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC" if t_ns is not None else "-"
    return name, told, why, step, when


def _print(table: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
