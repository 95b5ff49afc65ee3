"""Makes the model that ships, `cloud/champion/rul-1.bundle`, from simulated lives alone; the same bytes every time.

Needs the extra `train`. The bundle is committed: those who only run packtwin train nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cloud.training import card, dataset
from cloud.training.run import Order, train
from shared.errors import PacktwinError

FOLDER = Path(__file__).resolve().parents[2] / "cloud" / "champion"
PACKS, SEED = dataset.PACKS, 2026
NAME, COUNTER = "rul", 1


def make(folder: Path) -> Path:
    """Writes bundle and card into `folder`; returns the bundle's path."""
    order = Order(name=NAME, counter=COUNTER, seed=SEED, licence="MIT (simulated)")
    made = train(dataset.simulated(PACKS, SEED), order, told=lambda step: print(f"champion: {step}", file=sys.stderr))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}-{COUNTER}.bundle"
    for target, body in ((path.with_suffix(".html"), card.as_html(made.card, made.plots)), (path, made.body)):
        part = target.with_suffix(".part")
        part.write_bytes(body)
        os.replace(part, target)
    judged = made.card["judged"]
    print(f"{path.name}: {len(made.body) // 1000} kB, R2 {judged['r2']:.3f}, mean error {judged['mae']:.0f} cycles")
    return path


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
    except PacktwinError as error:
        sys.exit(f"packtwin: {error}")
