"""Lines made many at once are those that are made one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge.candump_text import candump_text
from firmware_bridge.frames import EXTENDED, FD_LENGTHS, REMOTE, FrameBatch

IDS = st.one_of(st.integers(0, 0x7FF), st.integers(0, 0x1FFF_FFFF).map(lambda n: n | EXTENDED))
FRAMES = st.lists(
    st.tuples(
        st.integers(0, 2**62),
        st.tuples(IDS, st.sampled_from((0, 0, 0, REMOTE))).map(lambda pair: pair[0] | pair[1]),
        st.sampled_from(FD_LENGTHS).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    ),
    max_size=30,
)


def slowly(batch: FrameBatch) -> bytes:
    return "".join(f"{line}\n" for line in batch.candump()).encode()


@given(FRAMES)
def test_any_frames(frames: list[tuple[int, int, bytes]]) -> None:
    batch = FrameBatch.of("can0", frames)
    assert candump_text(batch) == slowly(batch)


@given(st.integers(1, 2000), st.integers(0, 2**32))
def test_many_frames_of_our_time(count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    batch = FrameBatch(
        "slcan_7",
        1_790_000_000 * 10**9 + np.sort(random.integers(0, 10**11, count)),
        random.integers(0, 0x7FF, count).astype(np.uint32) | random.choice([0, EXTENDED], count).astype(np.uint32),
        random.integers(0, 9, count).astype(np.uint8),
        random.integers(0, 255, (count, 8), np.uint8),
    )
    assert candump_text(batch) == slowly(batch)
