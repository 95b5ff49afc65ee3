"""A process made to be killed while it keeps captures. Argument: the flash folder.

A line on stdout for each that is kept: its id and the sha256 of its log. What is not on stdout was not promised.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from edge.capture.store import CaptureStore, Meta


def main(flash: str) -> None:
    store = CaptureStore(Path(flash), keep=5, keep_bytes=8 << 20)
    store.clear_up()
    print("up", flush=True)
    number = max((int(meta.id, 16) for meta in store.all()), default=0)
    while True:
        number += 1
        id_ = f"{number:016x}"
        lines = [f"({n}.000000) can0 {n % 2048:03X}#{number * n % 2**64:016X}\n".encode() for n in range(2000)]
        meta = Meta(
            id=id_, device="box", pack_id="P-1", cause="trigger", note=None, begin_t_ns=None, end_t_ns=None,
            kept_t_ns=None, kept_mono_ns=number, frames=2000, chunks=0, samples=0,
        )  # fmt: skip
        store.add(id_, {"log": lines, "state": [b"{}"]}, lambda meta=meta: meta)  # type: ignore[misc]
        store.mark_sent(id_, 1)
        print(id_, hashlib.sha256(b"".join(lines)).hexdigest(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
