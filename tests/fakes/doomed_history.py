"""A process made to be killed: measures as fast as it can, and says which Reading it has promised to keep.

Arguments: flash folder, memory folder, file that takes Sessions. Goes on behind the last Reading that is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fakes.readings import EVERY_S, PACK, SECOND_NS, reading

from edge.history import FeatureStore
from shared.record_lines import to_line


def main(flash: str, memory: str, sessions: str) -> None:
    store = FeatureStore(Path(memory) if memory else None, Path(flash), flush_s=1e-3)
    store.open(PACK)
    last_t_ns = store.meter(PACK.pack_id).last_t_ns
    k = 0 if last_t_ns is None else (last_t_ns - 10**18) // SECOND_NS // EVERY_S + 1
    sys.stdout.write(f"begin {k}\n")
    with Path(sessions).open("a", buffering=1) as file:
        while True:
            for session in store.step(PACK.pack_id, reading(k)):
                file.write(to_line(session) + "\n")
            store.delivered(PACK.pack_id)
            sys.stdout.write(f"kept {k}\n")
            sys.stdout.flush()
            if k % 20 == 0:
                store.flush(k * SECOND_NS)
            k += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
