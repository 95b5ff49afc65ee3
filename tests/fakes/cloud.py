"""A cloud in a few lines: it keeps every record once, whatever is sent twice, and can be told to misbehave."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge.transport import Desired, Unavailable
from shared.batch import Batch, ranges
from shared.errors import WireError
from shared.records import Gap, Receipt, Rejected
from shared.wire import decode_batch, encode_receipt


class FakeCloud:
    """rows[boot][seq] = (pack_id, mono_ns, t_ns) of Samples, others[boot][seq] = the record. Thread-safe."""

    def __init__(self, now_ns: Callable[[], int] = lambda: 1) -> None:
        self.rows: dict[int, dict[int, Any]] = defaultdict(dict)
        self.others: dict[int, dict[int, Any]] = defaultdict(dict)
        self.refused: dict[int, set[int]] = defaultdict(set)
        self.batches: list[Batch] = []
        self.twice = 0
        self.refuse: Callable[[int, int], str | None] = lambda boot, seq: None
        self.mode: str | None = None
        self._now_ns = now_ns
        self._lock = threading.Lock()

    def receive(self, batch: Batch) -> Receipt:
        """Commits the batch."""
        with self._lock:
            self.batches.append(batch)
            rejected = []
            for seq in batch.seqs().tolist():
                reason = self.refuse(batch.boot, seq)
                if reason is not None:
                    self.refused[batch.boot].add(seq)
                    rejected.append(Rejected(seq, seq, reason))
            refused = self.refused[batch.boot]
            for block in batch.blocks:
                for seq, mono, t in zip(block.seq.tolist(), block.mono_ns.tolist(), block.t_ns.tolist(), strict=True):
                    if seq in refused:
                        continue
                    known = self.rows[batch.boot].setdefault(seq, (block.pack_id, mono, t))
                    assert known[:2] == (block.pack_id, mono), f"seq {seq} means two samples"
                    self.twice += known != (block.pack_id, mono, t)
            for record in batch.singles():
                if record.seq not in refused:
                    self.others[batch.boot].setdefault(record.seq, record)
            gone = [item.first for item in rejected]
            accepted = [span for span in ranges(batch.seqs()) if span]
            return Receipt(
                accepted=tuple(_without(accepted, gone)), rejected=tuple(rejected), t_ns=self._now_ns(), mode=self.mode
            )

    def gaps(self) -> list[Gap]:
        """The gaps that devices told."""
        return [record for told in self.others.values() for record in told.values() if isinstance(record, Gap)]

    def missing(self, boot: int) -> set[int]:
        """What the gaps say of a start, as the view `gaps` counts it."""
        lost: set[int] = set()
        received = set(self.rows[boot]) | set(self.others[boot]) | self.refused[boot]
        for gap in self.gaps():
            if gap.of_boot == boot:
                last = gap.last_seq
                if gap.ahead:
                    last = max([last, *received, *(stop for _, stop in gap.stored)]) + gap.ahead
                stored = {seq for first, stop in gap.stored for seq in range(first, stop + 1)}
                lost |= set(range(gap.first_seq, last + 1)) - stored
        return lost - received


def _without(spans: list[tuple[int, int]], gone: list[int]) -> Iterator[tuple[int, int]]:
    for first, last in spans:
        at = first
        for seq in gone:
            if at <= seq <= last:
                if seq > at:
                    yield at, seq - 1
                at = seq + 1
        if at <= last:
            yield at, last


class DirectTransport:
    """The transport's interface without a network. `away` = nobody answers; `deaf` = it commits, the answer is lost."""

    def __init__(self, cloud: FakeCloud) -> None:
        self.cloud = cloud
        self.away = False
        self.deaf = False
        self.sent = 0
        self.desired_mode: str | None = None
        self.date_ns: int | None = None
        self.failure: Callable[[Batch], Exception | None] = lambda batch: None
        self.on_send: Callable[[], None] = lambda: None

    def send(self, body: bytes) -> Receipt:
        """As HttpTransport.send."""
        self.sent += 1
        self.on_send()
        if self.away:
            raise Unavailable("nobody answers")
        batch = decode_batch(body)
        failure = self.failure(batch)
        if failure is not None:
            raise failure
        receipt = self.cloud.receive(batch)
        if self.deaf:
            raise Unavailable("the answer was lost")
        return receipt

    def desired(self, device: str) -> Desired:
        """As HttpTransport.desired."""
        if self.away:
            raise Unavailable("nobody answers")
        return Desired(self.desired_mode, None, self.date_ns, 1_000_000_000)

    def told(self) -> None:
        """As HttpTransport.told."""

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def served(cloud: FakeCloud, *, seed: int = 0, trouble: float = 0.0) -> Iterator[str]:
    """The cloud behind a real HTTP server on a free port; `trouble` = share of failing requests. Yields its URL."""
    chance = random.Random(seed)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, b'{"mode": null, "bundle": null}', "application/json")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            luck = chance.random()
            if luck < trouble / 3:
                self._answer(503, b"{}", "application/json")
                return
            if luck < 2 * trouble / 3:  # killed before the commit
                self.close_connection = True
                return
            try:
                receipt = cloud.receive(decode_batch(body))
            except WireError as error:
                self._answer(400, f'{{"detail": "{error.reason}"}}'.encode(), "application/json")
                return
            if luck < trouble:  # killed after it
                self.close_connection = True
                return
            self._answer(200, encode_receipt(receipt), "application/x-protobuf")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
