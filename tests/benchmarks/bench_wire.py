"""Bytes and CPU of a Batch: `drive.csv.gz` against the same Samples as JSON (orjson) in zstd. Prints and judges."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import orjson
import zstandard
from drive import plain, samples

from edge.outbox.records import Row, batch_of
from shared.records import MODES, Receipt, boot_hex, new_boot
from shared.wire import decode_batch, encode_batch, encode_layout, encode_receipt

DEVICE = "edge-01"
BOOT = new_boot()
GOALS = {60: 75.0, 5: 130.0}
ROUNDS, LOOPS = 7, 40
MONTH_S = 30 * 86400
TLS_RECORD_BYTES = 5 + 8 + 16 + 1  # header, nonce and tag of TLS 1.3 with AES-GCM, content type
TCP_IP_BYTES = 52  # IPv4 + TCP with timestamps, per segment
MSS_BYTES = 1400


def main() -> int:
    """Prints all figures; 1 if a goal is missed."""
    layout, made, bodies = samples()
    encoded_layout = encode_layout(layout)
    rows = [
        Row(s.seq, s.pack_id, encoded_layout, s.mono_ns, s.t_ns, None, None, body)
        for s, body in zip(made, bodies, strict=True)
    ]
    exact = _equal(made, encode_batch(batch_of(DEVICE, BOOT, rows)))
    print(f"values after decoding equal the {len(made)} Samples at their resolutions: {exact}")
    sizes = {n: _mean_bytes(rows, n) for n in (1, 5, 10, 60, 600)}
    for n, size in sizes.items():
        goal = f"   goal <= {GOALS[n]:.0f}" if n in GOALS else ""
        print(f"bytes per Sample, whole body, {n:>3} per batch: {size:7.1f}{goal}")
    fits = all(sizes[n] <= goal for n, goal in GOALS.items())
    encode_ratio, decode_ratio = _cpu(made, rows, 60)
    _cpu(made, rows, 5)
    for mode, send_s in MODES.items():
        _month(mode, send_s, sizes)
    fast = encode_ratio <= 1.0 and decode_ratio <= 0.5
    print("all goals met" if exact and fits and fast else "a goal was MISSED")
    return 0 if exact and fits and fast else 1


def _equal(made: list[object], body: bytes) -> bool:
    (block,) = decode_batch(body).blocks
    for wanted, got in zip(made, block.samples(), strict=True):
        for name in wanted.__slots__:  # type: ignore[attr-defined]
            a, b = getattr(wanted, name), getattr(got, name)
            if isinstance(a, float):
                a, b = round(a, 6), round(b, 6)
            if a != b:
                print(f"seq {got.seq}: {name} {a!r} != {b!r}")
                return False
    return True


def _mean_bytes(rows: list[Row], n: int) -> float:
    starts = range(0, len(rows) - n + 1, max(n, 20))
    return statistics.mean(len(encode_batch(batch_of(DEVICE, BOOT, rows[i : i + n]))) for i in starts) / n


def _cpu(made: list[object], rows: list[Row], n: int) -> tuple[float, float]:
    """Encode and decode time against JSON with a name for every value, as most software sends it; ratios of medians.

    The contract's own JSON (arrays for cells, no device names per Sample) is timed beside it.
    """
    compressor, decompressor = zstandard.ZstdCompressor(level=3), zstandard.ZstdDecompressor()
    part, ours = rows[600 : 600 + n], made[600 : 600 + n]
    head = {"schema": 1, "device": DEVICE, "boot": boot_hex(BOOT)}
    compact = {**head, "samples": [plain(sample) for sample in ours]}  # type: ignore[arg-type]
    named = [{**head, **_named(sample)} for sample in compact["samples"]]  # type: ignore[arg-type]
    body = encode_batch(batch_of(DEVICE, BOOT, part))
    jobs: dict[str, Callable[[], object]] = {
        "encode": lambda: encode_batch(batch_of(DEVICE, BOOT, part)),
        "decode": lambda: decode_batch(body),
    }
    for name, form in (("named", named), ("compact", compact)):
        packed = compressor.compress(orjson.dumps(form))
        jobs[f"{name} encode"] = lambda form=form: compressor.compress(orjson.dumps(form))  # type: ignore[misc]
        jobs[f"{name} decode"] = lambda packed=packed: orjson.loads(decompressor.decompress(packed))  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            start = time.process_time()
            for _ in range(LOOPS):
                job()
            times[name].append((time.process_time() - start) / LOOPS / n * 1e6)
    us = {name: statistics.median(values) for name, values in times.items()}
    for step, note in (("encode", "from the outbox's rows"), ("decode", "with validation")):
        beside = ", ".join(
            f"{kind} JSON {us[f'{kind} {step}']:.2f} (x {us[step] / us[f'{kind} {step}']:.2f})"
            for kind in ("named", "compact")
        )
        print(f"CPU us per Sample at {n}: {step} {note} {us[step]:.2f}; orjson + zstd: {beside}")
    return us["encode"] / us["named encode"], us["decode"] / us["named decode"]


def _named(sample: dict[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in sample.items():
        if isinstance(value, list | tuple):
            flat.update({f"{name}_{i:02d}": each for i, each in enumerate(value)})
        elif isinstance(value, dict):
            flat.update(value)
        else:
            flat[name] = value
    return flat


def _month(mode: str, send_s: float, sizes: dict[int, float]) -> None:
    """GB a month of one pack at one Sample a second, with HTTP headers, TLS and TCP/IP, both ways."""
    n = int(send_s)
    receipt = encode_receipt(Receipt(accepted=((1_000_000, 1_000_000 + n),), t_ns=1_790_000_000 * 10**9))
    post = (
        b"POST /device/v1/batches HTTP/1.1\r\nHost: cloud.example.com\r\nAccept-Encoding: identity\r\n"
        b"Content-Length: 4000\r\nAccept: application/x-protobuf\r\nUser-Agent: packtwin\r\n"
        b"Authorization: Bearer 0123456789abcdef0123456789abcdef0123456789a\r\n"
        b"Content-Type: application/x-protobuf\r\n\r\n"
    )
    answer = (
        b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 04:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 20\r\n"
        b"content-type: application/x-protobuf\r\n\r\n"
    )
    desired = 500  # GET /device/v1/desired and its answer, every 10 s
    body = sizes[n] * n
    parts = [len(post), body, len(answer) + len(receipt)]
    exchange = sum(part + TLS_RECORD_BYTES + TCP_IP_BYTES * -(-part // MSS_BYTES) for part in parts) + 2 * TCP_IP_BYTES
    poll = desired + 2 * TLS_RECORD_BYTES + 4 * TCP_IP_BYTES
    month = MONTH_S / send_s * exchange + MONTH_S / 10 * poll
    print(
        f"{mode:>8} mode, one pack, {n:>2} Samples a batch: {month / 1e9:.3f} GB a month "
        f"(bodies {MONTH_S / send_s * body / 1e9:.3f}, polling for what is desired {MONTH_S / 10 * poll / 1e9:.3f})"
    )
    _month_over_mqtt(mode, send_s, body, len(receipt))


def _month_over_mqtt(mode: str, send_s: float, body: float, receipt_bytes: int) -> None:
    """The same over MQTT: PUBLISH up and back, a PUBACK for each; where a Receipt is rare, a question each 10 s."""
    topic, properties = len("packtwin/v1/0123456789abcdef/receipt"), 16  # correlation, expiry
    head, ack = 7 + topic + properties, 4

    def exchange(up_bytes: float) -> float:
        parts = (head + up_bytes, ack, head + receipt_bytes, ack)
        wire = sum(part + TLS_RECORD_BYTES + TCP_IP_BYTES * -(-part // MSS_BYTES) for part in parts)
        return wire + 2 * TCP_IP_BYTES

    asks = max(0.0, MONTH_S / 10 - MONTH_S / send_s) * exchange(0)
    month = MONTH_S / send_s * exchange(body) + asks
    print(f"{'':>8} over MQTT: {month / 1e9:.3f} GB a month (asking whether the gateway is there {asks / 1e9:.3f})")


if __name__ == "__main__":
    sys.exit(main())
