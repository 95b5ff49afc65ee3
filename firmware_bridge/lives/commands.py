"""The command `lives`: arguments in, files out, exit code."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from firmware_bridge.lives import tables
from firmware_bridge.lives.cars import pasts
from firmware_bridge.lives.law import Law
from firmware_bridge.lives.life import UNTIL_NS, Life, each
from shared.errors import ConfigError

_MOST_PACKS: Final = 100_000
_MOST_CARS: Final = 999
_SECOND_NS: Final = 1_000_000_000

_HELP = """examples:
  python -m firmware_bridge lives -o out                        out/lives.csv: 300 packs from new to their end
  python -m firmware_bridge lives --packs 50 --sessions -o out  also what their cars recorded, LIFE_0001.jsonl.gz ..
  python -m firmware_bridge lives --past 3 -o out               what the three cars of `sim` have behind them

lives.csv has a row a Session: pack_id, cycle, the features of shared.feature_table, rul_cycles and eol_100 (1 = the end
comes within 100 cycles); empty = not known. About one pack in ten is not seen to its end: it has no rul_cycles.
The end is SoH (usable capacity / that of the new pack) below 0.80. The same seed gives the same files, byte for byte.
`edge replay LIFE_0001.jsonl.gz` sends a life up the road. All of it is simulated, and every Session says so."""


def add_lives(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `lives` to the command line."""
    parser = commands.add_parser(
        "lives",
        help="whole lives of simulated packs, to train on",
        description="Packs that age by a published law, as feature tables with labels and as recorded Sessions.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--packs", type=int, metavar="N", help="how many packs (default 300)")
    which.add_argument("--past", type=int, metavar="CARS", help="instead the pasts of so many cars of `sim`")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="what draws the packs (default 1)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the files")
    parser.add_argument("--sessions", action="store_true", help="also write each pack's Sessions, PACK.jsonl.gz")
    parser.add_argument(
        "--law-share",
        type=float,
        default=0.0,
        metavar="X",
        help="draw each parameter of the law from 1-X to 1+X times its value, by the seed (default 0)",
    )
    parser.add_argument(
        "--until", type=_day, default=UNTIL_NS, metavar="DAY", help="when the records end, UTC (default 2026-01-01)"
    )
    parser.set_defaults(run=run_lives)


def run_lives(args: argparse.Namespace) -> int:
    """Runs `lives`; prints what it wrote to stdout, how far it is to stderr."""
    if args.seed < 0:
        raise ConfigError(f"lives: --seed is a number from 0 up, not {args.seed}")
    if not 0 <= args.law_share < 1:
        raise ConfigError(f"lives: --law-share is a number from 0 to below 1, not {args.law_share:g}")
    return _packs(args) if args.past is None else _cars(args)


def _packs(args: argparse.Namespace) -> int:
    packs = 300 if args.packs is None else args.packs
    if not 1 <= packs <= _MOST_PACKS:
        raise ConfigError(f"lives: --packs is a number from 1 to {_MOST_PACKS}, not {packs}")
    folder, began_s = tables.made(args.output), time.monotonic()
    law = Law().drawn(args.seed, args.law_share) if args.law_share else Law()
    progress = Progress(packs, sys.stderr)
    rows = tables.write_table(
        _kept(each(packs, args.seed, law, args.until), folder if args.sessions else None), folder, progress.told
    )
    progress.end()
    files = f"{folder / tables.TABLE}" + (f" and {packs} x {folder}/PACK.jsonl.gz" if args.sessions else "")
    print(
        f"{files}: {packs} simulated packs, {progress.unseen} of them not seen to their end, {rows} sessions, "
        f"{time.monotonic() - began_s:.0f} s"
    )
    return 0


def _kept(lives: Iterator[Life], folder: Path | None) -> Iterator[Life]:
    for life in lives:
        if folder is not None:
            tables.write_sessions(life, folder, packed=True)
        yield life


def _cars(args: argparse.Namespace) -> int:
    if not 1 <= args.past <= _MOST_CARS:
        raise ConfigError(f"lives: --past is a number of cars from 1 to {_MOST_CARS}, not {args.past}")
    if args.law_share or args.sessions:
        raise ConfigError("lives: --past writes what `sim` has behind it: leave out --law-share and --sessions")
    folder = tables.made(args.output)
    for past in pasts(args.seed, range(args.past)):
        life = past.life.ending(args.until)
        path = tables.write_sessions(life, folder, packed=False)
        print(f"{path}: {len(life)} simulated sessions, {life.cycles[-1]:.0f} cycles, SoH {100 * past.soh:.1f} %")
    return 0


def _day(text: str) -> int:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a day is YYYY-MM-DD, not {text!r}") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * _SECOND_NS


class Progress:
    """A line that says how many lives are done: rewritten on a terminal, else printed ten times."""

    def __init__(self, packs: int, out: TextIO) -> None:
        self.unseen = 0
        """Packs whose end is not on record."""
        self._packs, self._out, self._done = packs, out, 0
        self._every = 1 if out.isatty() else max(packs // 10, 1)

    def told(self, life: Life) -> None:
        """One more is done."""
        self._done += 1
        self.unseen += life.eol_cycles is None
        if self._done % self._every == 0:
            end = "\r" if self._out.isatty() else "\n"
            print(f"{self._done} of {self._packs} lives", end=end, file=self._out, flush=True)

    def end(self) -> None:
        """Ends the line."""
        if self._out.isatty():
            print(file=self._out, flush=True)
