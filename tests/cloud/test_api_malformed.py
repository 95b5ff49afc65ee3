"""Whatever arrives: 4xx with a reason, or a Receipt for every record and exactly those rows in the database."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable

import pytest
from api_server import PROTOBUF, Api, running_api
from fake_batches import NOW_NS, batch, block, layout
from malformed import malformed, malformed_json, valid

from cloud import db
from cloud.config import Config, Database, Retention
from cloud.ingest import Ingest, Outcome
from shared.batch import Batch
from shared.errors import WireError
from shared.records import REJECT_REASONS, Receipt
from shared.wire import decode_batch, decode_receipt, encode_batch
from shared.wire_json import decode_batch_json
from shared.wire_pb2 import Batch as PbBatch

GROUP = 200


def test_the_unchanged_batches_are_valid() -> None:
    for seed in range(30):
        decode_batch(valid(seed))


def test_a_small_body_cannot_ask_for_gigabytes() -> None:
    """664 bytes took 1.3 GB once: constant columns cost nothing on the wire, whatever their number."""
    wide = block("P", 6000, of=layout(1024, 1024))
    wide.rows[:] = 0
    message = PbBatch.FromString(encode_batch(batch("dev", wide)))
    for number in range(1, 12):
        message.blocks.add().CopyFrom(message.blocks[0])
        message.blocks[number].first_seq = 6000 * number
    body = message.SerializeToString()
    assert len(body) < 1000
    with pytest.raises(WireError) as refused:
        decode_batch(body)
    assert refused.value.reason == "too_large"
    samples = [{"pack_id": "P", "seq": i, "mono_ns": i} for i in range(7000)]
    samples[0]["cell_v"] = [3.0] * 1024
    samples[1] |= {"temp_c": [3.0] * 1024, "extra": {f"e{i}": 1 for i in range(512)}}
    with pytest.raises(WireError) as refused:
        decode_batch_json(json.dumps({"schema": 1, "device": "d", "boot": "0" * 16, "samples": samples}).encode())
    assert refused.value.reason == "too_large"


def seqs_of(receipt: Receipt) -> list[int]:
    spans = [*receipt.accepted, *((item.first, item.last) for item in receipt.rejected)]
    return sorted(seq for first, last in spans for seq in range(first, last + 1))


def stored(conn: db.Connection) -> Counter[tuple[str, str, int]]:
    views = ("samples", "estimates", "events", "reports")
    query = " UNION ALL ".join(f"SELECT device, boot, seq FROM {view}" for view in views)
    gaps = "SELECT d.device, boot_hex(g.boot), g.seq FROM gap g JOIN device d USING (device_key)"
    return Counter(conn.execute(f"{query} UNION ALL {gaps}").fetchall())


def accepted(sent: Batch, receipt: Receipt) -> Counter[tuple[str, str, int]]:
    seqs = [seq for first, last in receipt.accepted for seq in range(first, last + 1)]
    return Counter((sent.device, f"{sent.boot:016x}", seq) for seq in seqs)


def run_cases(count: int, database: Database, make: Callable[[int], bytes], decode: Callable[[bytes], Batch]) -> None:
    """Decodes `count` cases and writes what decodes; asserts that nothing is lost, doubled or a traceback."""
    reasons: Counter[str] = Counter()
    expected: Counter[tuple[str, str, int]] = Counter()
    with db.connect(database) as conn:
        ingest = Ingest(conn, Config(database=database), lambda: NOW_NS)
        waiting: list[Batch] = []

        def write() -> None:
            outcomes: list[Outcome] = ingest.write_each(waiting)
            for sent, outcome in zip(waiting, outcomes, strict=True):
                assert seqs_of(outcome.receipt) == sent.seqs().tolist()
                expected.update(accepted(sent, outcome.receipt))
                reasons.update(f"row: {item.reason}" for item in outcome.receipt.rejected)
                reasons["taken"] += bool(outcome.receipt.accepted)
            waiting.clear()

        for number in range(count):
            body = make(number)
            try:
                waiting.append(decode(body))
            except WireError as error:
                assert error.reason in REJECT_REASONS
                assert 0 < len(str(error)) < 400 and "\n" not in str(error)
                reasons[f"{error.reason}: {' '.join(w for w in str(error).split()[:5] if w.isalpha())}"] += 1
            if len(waiting) == GROUP:
                write()
        write()
        assert stored(conn) == Counter(set(expected))  # a batch that came twice is accepted twice and stored once
    print(f"\n{count} malformed batches:")
    for reason, times in reasons.most_common():
        print(f"{times:8d}  {reason}")
    assert reasons["taken"] > 0


def test_two_thousand_malformed_batches_lose_nothing_and_break_nothing(database: Database) -> None:
    run_cases(2_000, database, malformed, decode_batch)


@pytest.mark.slow
def test_a_hundred_thousand_malformed_batches_lose_nothing_and_break_nothing(database: Database) -> None:
    run_cases(100_000, database, malformed, decode_batch)


def test_malformed_json_loses_nothing_and_breaks_nothing(database: Database) -> None:
    run_cases(1_000, database, malformed_json, decode_batch_json)


def test_malformed_batches_over_http_get_4xx_or_a_receipt(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    statuses: Counter[int] = Counter()
    expected: Counter[tuple[str, str, int]] = Counter()
    with running_api(Config(database=database, retention=Retention(raw_days=36500))) as api:
        api.until_healthy()
        for number in range(400):
            status = post(api, malformed(number), expected)
            statuses[status] += 1
    print(f"\n{dict(statuses)}")
    assert set(statuses) <= {200, 400, 413}
    assert statuses[200] > 0 and statuses[400] > 0
    with db.connect(database) as conn:
        assert stored(conn) == Counter(set(expected))
    assert caplog.records == []


def post(api: Api, body: bytes, expected: Counter[tuple[str, str, int]]) -> int:
    answer = api.client.post("/device/v1/batches", content=body, headers=PROTOBUF)
    if answer.status_code == 200:
        sent = decode_batch(body)
        receipt = decode_receipt(answer.content)
        assert seqs_of(receipt) == sent.seqs().tolist()
        expected.update(accepted(sent, receipt))
    else:
        told = answer.json()
        assert told["reason"] in REJECT_REASONS and told["error"].endswith(".")
    return answer.status_code
