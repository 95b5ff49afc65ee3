"""Splitting by whole packs: no row of a pack that is learned from is ever judged on."""

from __future__ import annotations

import numpy as np

from cloud.training.dataset import Dataset, Ints


def folds(data: Dataset, count: int, seed: int) -> list[Ints]:
    """The packs of `data` in `count` parts of about the same size, drawn by `seed`."""
    shuffled = np.random.default_rng(seed).permutation(data.known_packs())
    return [shuffled[k::count] for k in range(min(count, shuffled.size))]


def parted(data: Dataset, held_out: Ints) -> tuple[Dataset, Dataset]:
    """(what is learned from, what is judged on): the rows of all other packs, and of `held_out`."""
    apart = np.isin(data.pack, held_out)
    return data.take(~apart), data.take(apart)
