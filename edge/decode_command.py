"""`python -m edge decode`: a log and its DBCs become a table of values, a row per frame and signal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from edge.logs.frames import Block
from firmware_bridge.frames import id_of
from shared.errors import ConfigError, PacktwinError

Commands = Any  # what argparse's add_subparsers returns
_STDOUT: Final = "-"
_KIB: Final = 10


class Output(Protocol):
    """Where the rows go."""

    rows: int

    def write(self, block: Block, t_text: Any, channels: Sequence[str], parts: Sequence[Any]) -> None:
        """Writes the rows of a block."""

    def close(self) -> None:
        """All rows have been written."""


def add_decode(commands: Commands) -> None:
    """`edge decode`"""
    what = "turns a log of CAN frames into a table of values by a DBC"
    parser: argparse.ArgumentParser = commands.add_parser(
        "decode",
        help=what,
        description=f"{what[0].upper()}{what[1:]}: t_s, channel, id, message, signal, value, unit, quality.",
        epilog="examples:\n"
        "  python -m edge decode --dbc pack.dbc drive.log -o drive.csv\n"
        "  python -m edge decode --dbc can0=pack.dbc --dbc can1=car.dbc --relative drive.asc -o drive.parquet\n"
        "  python -m edge decode --dbc uds.dbc --isotp 7BB,7EC diagnosis.mf4 -o - | head",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", metavar="LOG", help="candump, ASC, BLF, TRC, GVRET, CRTD, MF4 and others; text also .gz")
    parser.add_argument(
        "--dbc", metavar="[CHANNEL=]F", action="append", required=True, help="DBC, of one channel or of all; repeatable"
    )
    parser.add_argument(
        "--isotp", metavar="ID,ID", action="append", default=[], type=_ids, help="ids (hex) that carry ISO-TP messages"
    )
    parser.add_argument("--relative", action="store_true", help="t_s from the first frame of the log")
    parser.add_argument(
        "-o", dest="out", metavar="out.csv|.parquet|-", default=_STDOUT, help="where to (default: - = stdout)"
    )
    parser.set_defaults(run=_decode)


def _ids(text: str) -> list[int]:
    """Ids in hex: of more than three digits, or beyond 11 bits, it has 29."""
    try:
        return [id_of(word) for word in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _decode(args: argparse.Namespace) -> int:
    from edge.clock import Clock
    from edge.decode_log import LogDecoder, doubled
    from edge.logs import open_log
    from edge.logs.digits import seconds_column
    from edge.progress import ProgressLine

    path = Path(args.log)
    log = open_log(path)
    databases = [_database(word) for word in args.dbc]
    for line in (*(note for _, database in databases for note in database.notes), *doubled(databases)):
        print(line, file=sys.stderr)
    decoder = LogDecoder(databases, [one for ids in args.isotp for one in ids])
    clock = Clock("system")
    size_kib = max(log.size_bytes >> _KIB, 1)
    progress = ProgressLine(f"{path.name} KiB", size_kib, lambda: clock.mono_ns() / 1e9)
    first_ns: int | None = None
    with _output(args.out, path) as out:
        for block in log.blocks():
            first_ns = int(block.frames.t_ns[0]) if first_ns is None else first_ns
            is_relative = args.relative and log.notes.has_times
            t_text = seconds_column(block.frames.t_ns - first_ns) if is_relative else block.t_text
            out.write(block, t_text, log.channels, decoder.feed(block, log.channels))
            progress.show(log.done_bytes >> _KIB, f"{log.notes.frames:,} frames, {out.rows:,} values")
        out.close()
    decoder.close()
    progress.end(size_kib)
    print(f"{log.notes.frames:,} frames ({log.format}), {out.rows:,} values", file=sys.stderr)
    for line in (*log.notes.told(), *_unused(databases, log.channels), *decoder.told()):
        print(line, file=sys.stderr)
    return 0


def _database(word: str) -> tuple[str | None, Any]:
    """The DBC of `[CHANNEL=]F`: what is a file as it stands is one, else a channel's name comes before the =."""
    from edge.dbc.load import load

    channel, equals, name = word.partition("=")
    if not (name if equals else word).strip():
        raise ConfigError(f'--dbc "{word}" names no file: give F or CHANNEL=F')
    if not equals or Path(word).exists():
        return None, load(Path(word))
    return channel, load(Path(name))


def _unused(databases: Sequence[tuple[str | None, Any]], channels: Sequence[str]) -> Iterator[str]:
    for channel in sorted({channel for channel, _ in databases if channel is not None} - set(channels)):
        known = ", ".join(name or "(without a name)" for name in channels) or "none"
        yield f"no frame of channel {channel} is in the log, whose channels are: {known}"


@contextmanager
def _output(name: str, log: Path) -> Iterator[Output]:
    """Where to write to. ConfigError for what is no such place."""
    from edge.decode_csv import CsvRows

    if name == _STDOUT:
        yield CsvRows(sys.stdout.buffer)
        return
    path = Path(name)
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{name} must end in .csv or .parquet, or be - for stdout")
    if path.exists() and path.samefile(log):
        raise ConfigError(f"{name} is the log itself: give another file to write to")
    try:
        if path.suffix == ".parquet":
            from edge.decode_parquet import ParquetRows

            with ParquetRows.opened(path) as rows:
                yield rows
            return
        with path.open("wb", buffering=1 << 20) as file:
            yield CsvRows(file)
    except OSError as error:
        raise PacktwinError(f"{name} cannot be written: {error.strerror or error}") from None
