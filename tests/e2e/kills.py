"""Kills at times that a printed seed decides: KILL_SEED=N has the same again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable

from e2e.stack import Stack


def kill_seed() -> int:
    """KILL_SEED, or a new one; printed."""
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"KILL_SEED={seed}")
    return seed


def kill_each(
    stack: Stack,
    plan: Iterable[str],
    rng: random.Random,
    *,
    up_s: tuple[float, float],
    down_s: tuple[float, float],
) -> None:
    """SIGKILL for one part after the other, each after so long, and its next start so long after that."""
    for victim in plan:
        time.sleep(rng.uniform(*up_s))
        stack.kill(victim)
        time.sleep(rng.uniform(*down_s))
        stack.start(victim)
