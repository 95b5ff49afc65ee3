"""Sends the recorded trips of a real BMW i3 through the agent's replay road, uplink and database.

usage: replay_i3.py FOLDER [--url http://127.0.0.1:5001]

Each `TripXNN.csv.gz` becomes the pack `I3_TripXNN`; the trips begin a day apart from 2026-01-01, in the order of their
names. Exit 0 only when every row is acknowledged. Run again, it adds nothing: a trip's boot id is made of its content.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import door
from settings import ROOT

from cloud import config
from edge.clock import Clock
from edge.config_sources import SAMPLES
from edge.mapping import load_mapping
from edge.progress import ProgressLine
from edge.replay import Pace, send_samples
from edge.sources.replay import Notes, content_boot, count_lines, csv_samples
from edge.transport import HttpTransport
from shared.errors import ConfigError, PacktwinError

DEVICE: Final = "i3-replay"
MAPPING: Final = SAMPLES / "mapping-csv.toml"
_DAY_NS: Final = 86_400_000_000_000


def trips(folder: Path) -> list[Path]:
    """The trips in the order of their names. ConfigError if there is none."""
    found = sorted(folder.glob("Trip*.csv.gz"))
    if not found:
        raise ConfigError(f"{folder} has no Trip*.csv.gz: give the folder of the BMW i3 trips")
    return found


def replay(folder: Path, url: str) -> int:
    """Sends all trips; how many rows. PacktwinError unless every one is acknowledged."""
    clock = Clock("system")
    mapping = load_mapping(MAPPING)
    assert mapping.csv is not None
    files = trips(folder)
    transport = way_up(url)
    line = ProgressLine("BMW i3", sum(count_lines(path) - 1 for path in files), lambda: clock.mono_ns() / 1e9)
    done = 0
    for index, path in enumerate(files):
        pack_id = f"I3_{path.name.removesuffix('.csv.gz')}"
        shape = replace(mapping.csv, start_ns=mapping.csv.start_ns + index * _DAY_NS)
        trip = replace(mapping, csv=shape)
        before, name = done, path.name
        told = send_samples(
            Pace(None, clock).chunks(csv_samples(path, trip, pack_id, Notes())),
            device=DEVICE,
            boot=content_boot(path, trip, pack_id),
            transport=transport,
            clock=clock,
            shown=lambda acked, problem, before=before, name=name: line.show(before + acked, problem or name),  # type: ignore[misc]
        )
        done += told.acked
    line.end(done)
    return done


def way_up(url: str) -> HttpTransport:
    """To the API; with a token, made once, and the CA to trust, where it is served beyond loopback."""
    way = door.of(config.load(os.environ))
    if way.access is None:
        return HttpTransport(url)
    file = door.device_token(ROOT / ".local" / "edge" / f"token-{DEVICE}", DEVICE, os.environ)
    return HttpTransport(url, token=file.read_text().strip(), ca_file=str(way.ca_file) if way.ca_file else None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when all is acknowledged, 2 for bad usage, 1 when the work failed."""
    parser = argparse.ArgumentParser(description="Sends recorded BMW i3 trips through the agent to the database.")
    parser.add_argument("folder", type=Path, help="the folder with Trip*.csv.gz")
    default = os.environ.get("PACKTWIN_URL") or f"http://127.0.0.1:{os.environ.get('API_PORT') or 5001}"
    parser.add_argument("--url", default=default, help="the API (default: %(default)s)")
    args = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        rows = replay(args.folder, args.url)
    except PacktwinError as error:
        print(f"packtwin: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("packtwin: stopped, run it again to send the rest", file=sys.stderr)
        return 1
    print(f"{rows:,} rows are acknowledged")
    return 0


if __name__ == "__main__":
    sys.exit(main())
