"""Writes the dashboards as Grafana reads them: `python deploy/grafana/build.py [-o DIR]`, default DIR: dashboards."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import fleet
import health
import models
import pack
import pipeline

BOARDS = (fleet.board, pack.board, health.board, models.board, pipeline.board)


def main() -> None:
    """One file per dashboard, named by its uid."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("-o", type=Path, metavar="DIR", default=Path(__file__).with_name("dashboards"))
    folder: Path = options.parse_args().o
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        made = board()
        text = json.dumps(made, indent=2, ensure_ascii=False)
        (folder / f"{made['uid']}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
