"""One round of learning on the running stack: train, compare with the model that runs, publish what is surely better.

usage: retrain.py [--force]     (inside `run.py with database,api`: DB_* and PACKTWIN_URL say where these are)

Learns from the database's lives and simulated ones. Exit 0 also when the running model is kept; --force publishes too.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import door

from cloud import config as settings
from cloud.__main__ import main as cloud
from cloud.release import next_counter, repository
from shared.bundle import SUFFIX
from shared.errors import PacktwinError

DEVICE = "local-agent"
PACKS, NAME = 1000, "rul"


def running_bundle(way: door.Door) -> str | None:
    """NAME-COUNTER of the model that the fleet is told to run; None = none yet. PacktwinError: the API is away."""
    answer = way.get(f"/device/v1/desired?device={DEVICE}")
    if answer is None:
        raise PacktwinError(f"{way.url} does not say which model runs")
    bundle = json.loads(answer)["bundle"]
    return None if bundle is None else str(bundle)


def retrain(url: str, *, force: bool) -> int:
    """Trains, compares, publishes; the exit code."""
    config = settings.load(os.environ)
    champion = running_bundle(replace(door.of(config), url=url))
    counter = next_counter(config.models_dir, config.release_dir)
    with tempfile.TemporaryDirectory() as folder:
        against = []
        if champion is not None:
            path = Path(folder) / f"{champion}{SUFFIX}"
            path.write_bytes(repository(config).read(path.name))
            against = ["--against", str(path)]
        arguments = ["train", "--source", "db", "--packs", str(PACKS), "--seed", str(counter), "--name", NAME]
        if code := cloud([*arguments, *against]):
            return code
    made = config.models_dir / f"{NAME}-{counter}{SUFFIX}"
    verdict = json.loads(made.with_suffix(".verdict.json").read_text(encoding="utf-8"))
    if not (verdict["better"] or force):
        print(
            f"kept {champion}: {verdict['champion_score']:.1f} cycles, {made.stem}: {verdict['challenger_score']:.1f}"
        )
        return 0
    return cloud(["release", "publish", str(made), "--to", "fleet"])


def main(arguments: Sequence[str]) -> int:
    """0 = published or kept, 1 = it failed, 2 = bad usage."""
    if set(arguments) - {"--force"}:
        print("usage: retrain.py [--force]", file=sys.stderr)
        return 2
    try:
        return retrain(os.environ["PACKTWIN_URL"], force="--force" in arguments)
    except (PacktwinError, OSError) as error:
        print(f"packtwin: the round failed: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
