"""A process made to be killed: puts, flushes and sends as fast as it can, and says what it was promised.

Arguments: flash folder, memory folder, URL. A line on stdout for each put that returned: boot, first seq, stop, mono_ns
of the first (each next one 1 ms later). Whatever is not on stdout was not yet promised.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from fakes.outbox import event, measured

from edge.clock import Clock
from edge.outbox.box import Outbox
from edge.transport import HttpTransport
from edge.uplink import Uplink, UplinkSettings

MS_NS = 1_000_000


def main(flash: str, memory: str, url: str) -> None:
    clock = Clock("system")
    outbox = Outbox(
        "device-1",
        Path(flash),
        Path(memory) if memory else None,
        max_bytes=64 << 20,
        flush_s=0.06,
        now=clock.mono_ns,
        kernel_boot_id="the same",
    )
    uplink = Uplink(
        outbox,
        HttpTransport(url, read_s=2.0),
        clock,
        UplinkSettings(mode="live", backlog_rows=100, desired_s=0.05),
        jitter=lambda low, high: 0.01,
    )

    def send() -> None:
        while True:
            time.sleep(min(uplink.step(clock.mono_ns()).wait_s, 0.02))

    def flush() -> None:
        while True:
            outbox.flush(clock.mono_ns())
            time.sleep(0.007)

    for job in (send, flush):
        threading.Thread(target=job, daemon=True).start()
    while True:
        now = clock.mono_ns()
        records = [measured(now + i * MS_NS, t_ns=clock.t_ns()) for i in range(5)]
        seqs = outbox.put([*records, event(now)] if now % 10 == 0 else records)
        sys.stdout.write(f"{outbox.boot} {seqs.start} {seqs.start + 5} {now}\n")
        sys.stdout.flush()
        time.sleep(0.003)


if __name__ == "__main__":
    main(*sys.argv[1:])
