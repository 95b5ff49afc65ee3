"""`cloud device add | list | revoke | ca`."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import errors

from cloud.config import Config
from cloud.db import connect, queries_access
from cloud.db.connect import Connection
from shared.errors import ConfigError, PacktwinError


def add_device(commands: Any) -> None:
    """Adds `device` to the subparsers of `cloud`."""
    device = commands.add_parser("device", help="which devices may send, and their tokens")
    ways = device.add_subparsers(dest="device_command", required=True, metavar="COMMAND")
    add = ways.add_parser("add", help="register a device and print its token, this once")
    add.add_argument("device", metavar="ID")
    add.add_argument("-o", dest="out", type=Path, metavar="FILE", help="write the token there, for its owner only")
    ways.add_parser("list", help="all devices, their tokens and when they last sent something")
    revoke = ways.add_parser("revoke", help="end a device's token; what it cannot send it keeps")
    revoke.add_argument("device", metavar="ID")
    ways.add_parser("ca", help="the CA that devices and browsers trust, and certificates for API and MQTT broker")


def run_device(options: argparse.Namespace, config: Config) -> int:
    """Runs the command; 0. ConfigError and other PacktwinErrors are the caller's to print."""
    if options.device_command == "ca":
        return _ca(config)
    try:
        with connect(config.database, "packtwin-device") as conn:
            if options.device_command == "list":
                return _list(conn)
            return _add(conn, config, options) if options.device_command == "add" else _revoke(conn, options.device)
    except errors.UndefinedTable as error:
        raise PacktwinError("the database has not all of packtwin's tables; run `python -m cloud migrate`") from error


def _add(conn: Connection, config: Config, options: argparse.Namespace) -> int:
    from cloud import devices

    file: Path | None = options.out
    if file is not None:  # before there is a token that nobody would see
        _create(file)
    try:
        token = devices.add(conn, options.device, config.mqtt)
    except BaseException:
        if file is not None:
            file.unlink(missing_ok=True)
        raise
    if file is None:
        print(token)
        _note(
            f"this is the token of {options.device}, shown this once: put it into the file that uplink.token_file names"
        )
    else:
        file.write_text(f"{token}\n", "utf-8")
        _note(f"the token of {options.device} is in {file}")
    return 0


def _create(file: Path) -> None:
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}; name a new file") from None


def _revoke(conn: Connection, device: str) -> int:
    from cloud import devices

    if devices.revoke(conn, device):
        print(f"the token of {device} is revoked; `cloud device add {device}` gives it a new one")
    else:
        print(f"{device} has no token")
    return 0


def _list(conn: Connection) -> int:
    table = [("DEVICE", "TOKEN", "LAST RECEIVED", "PACKS", "REGISTERED")]
    table += [
        (row.device, _token(row), _time(row.last_received_at), str(row.packs), _time(row.registered_at))
        for row in queries_access.devices(conn)
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _token(row: queries_access.DeviceRow) -> str:
    if row.revoked_at is not None:
        return f"revoked {_time(row.revoked_at)}"
    return f"since {_time(row.made_at)}" if row.made_at is not None else "none"


def _time(t: datetime | None) -> str:
    return f"{t:%Y-%m-%d %H:%M} UTC" if t is not None else "-"


def _ca(config: Config) -> int:
    from cloud.tls import Authority, names_of

    authority, now = Authority(config.access.tls_dir), datetime.now(UTC)
    authority.prepare(now)
    print(f"{authority.ca_file}  SHA-256 {authority.fingerprint()}")
    for name, host in (("api", config.api_host), ("mqtt", "0.0.0.0")):
        pair = authority.pair(name, names_of(host, config.access), now)
        print(f"{pair.cert_file}  {pair.key_file}")
    return 0


def _note(text: str) -> None:
    print(f"cloud: {text}", file=sys.stderr)
