"""J1939 transport: several sessions at once, to all and between two, and each loss counted once with a reason."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.frames import EXTENDED
from firmware_bridge.j1939_tp import GLOBAL, J1939Tp
from firmware_bridge.reassembly import Assembled

MS = 1_000_000
EC1 = 0xFEE3
Frame = tuple[int, bytes]


def can_id(pf: int, to: int, by: int) -> int:
    return EXTENDED | 7 << 26 | pf << 16 | to << 8 | by


def announce(kind: int, payload: bytes, group: int, to: int, by: int) -> Frame:
    n = len(payload)
    return can_id(0xEC, to, by), bytes([kind, n & 0xFF, n >> 8, -(-n // 7), 0xFF]) + group.to_bytes(3, "little")


def packets(payload: bytes, to: int, by: int) -> list[Frame]:
    chunks = [payload[i : i + 7].ljust(7, b"\xff") for i in range(0, len(payload), 7)]
    return [(can_id(0xEB, to, by), bytes([i + 1]) + chunk) for i, chunk in enumerate(chunks)]


def bam(payload: bytes, group: int = EC1, by: int = 0) -> list[Frame]:
    return [announce(32, payload, group, GLOBAL, by), *packets(payload, GLOBAL, by)]


def answer(kind: int, to: int, by: int, rest: bytes = b"\xff\xff\xff\xff") -> Frame:
    return can_id(0xEC, to, by), bytes([kind]) + rest.ljust(7, b"\0")


def connection(payload: bytes, to: int, by: int) -> list[Frame]:
    sent = packets(payload, to, by)
    half = len(sent) // 2
    go = answer(17, by, to)
    return [announce(16, payload, EC1, to, by), go, *sent[:half], go, *sent[half:], answer(19, by, to)]


def fed(tp: J1939Tp, frames: list[Frame], step_ns: int = MS) -> list[Assembled]:
    return [m for i, (ident, payload) in enumerate(frames) for m in tp.feed(i * step_ns, ident, payload)]


message = st.tuples(st.binary(min_size=9, max_size=1785), st.booleans())


@given(st.lists(st.lists(message, min_size=1, max_size=3), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_any_interleaving_of_senders_gives_every_message(
    senders: list[list[tuple[bytes, bool]]], shuffle: Random
) -> None:
    queues = [
        [f for payload, to_all in sent for f in (bam(payload, by=by) if to_all else connection(payload, 0x80 + by, by))]
        for by, sent in enumerate(senders)
    ]
    tp, t_ns = J1939Tp(), 0
    got: list[list[bytes]] = [[] for _ in queues]
    while any(queues):
        by = shuffle.choice([i for i, frames in enumerate(queues) if frames])
        ident, payload = queues[by].pop(0)
        for whole in tp.feed(t_ns, ident, payload):
            assert whole.can_id == EXTENDED | 7 << 26 | EC1 << 8 | by and whole.t_ns == t_ns
            got[by].append(whole.payload)
        t_ns += 10_000
    tp.close()
    assert got == [[payload for payload, _ in sent] for sent in senders]
    assert not tp.lost


@given(st.lists(st.tuples(st.integers(0, 2**60), st.sampled_from([0xEC, 0xEB]), st.binary(max_size=8)), max_size=200))
def test_noise_never_raises(noise: list[tuple[int, int, bytes]]) -> None:
    tp = J1939Tp(sessions=2)
    for t_ns, pf, payload in noise:
        for whole in tp.feed(t_ns, can_id(pf, GLOBAL, t_ns & 3), payload):
            assert 8 < len(whole.payload) <= 1785
        assert len(tp._sessions) <= 2


def test_one_may_talk_to_all_and_to_two_others_at_a_time() -> None:
    tp = J1939Tp()
    a, b, c = bam(b"to everyone", by=1), connection(b"to number 2", 2, 1), connection(b"to number 3", 3, 1)
    woven = [frame for trio in zip(a, b, c, strict=False) for frame in trio] + b[len(a) :] + c[len(a) :]
    assert {m.payload for m in fed(tp, woven)} == {b"to everyone", b"to number 2", b"to number 3"}


def test_a_group_for_one_receiver_carries_its_address_in_the_id() -> None:
    whole = fed(J1939Tp(), [announce(16, b"123456789", 0xEF00, 0x27, 0x80), *packets(b"123456789", 0x27, 0x80)])
    assert whole[0].can_id == EXTENDED | 0x1CEF2780


def test_a_packet_that_is_sent_again_is_taken_and_one_that_we_missed_is_a_loss() -> None:
    sent = packets(b"0123456789ABCDEFGHIJ", 2, 1)
    begin = announce(16, b"0123456789ABCDEFGHIJ", EC1, 2, 1)
    again = [begin, sent[0], sent[2], answer(17, 1, 2), sent[1], sent[2]]
    tp = J1939Tp()
    assert [m.payload for m in fed(tp, again)] == [b"0123456789ABCDEFGHIJ"]
    tp = J1939Tp()
    assert fed(tp, [begin, sent[0], sent[2], answer(19, 1, 2)]) == [] and tp.lost == {"sequence": 1}


LONG = b"0123456789ABCDEFGHIJ"
REASONS = {
    "a packet is missing": ([f for i, f in enumerate(bam(LONG)) if i != 2], MS, "sequence"),
    "packets come late": (bam(LONG), 751 * MS, "timeout"),
    "nobody saw the announcement": (bam(LONG)[1:], MS, "no_first_frame"),
    "a new announcement": (bam(LONG)[:2] + bam(LONG), MS, "interrupted"),
    "the log ends": (bam(LONG)[:2], MS, "cut_off"),
    "too short for the transport": (bam(b"12345678"), MS, "length"),
    "a cut packet": ([*bam(LONG)[:3], (can_id(0xEB, GLOBAL, 0), b"\x03AB")], MS, "short"),
    "the receiver gives up": ([*connection(LONG, 2, 1)[:4], answer(255, 1, 2)], MS, "aborted"),
    "the sender gives up": ([*connection(LONG, 2, 1)[:4], answer(255, 2, 1)], MS, "aborted"),
}


@pytest.mark.parametrize(("frames", "step_ns", "reason"), REASONS.values(), ids=REASONS.keys())
def test_each_loss_has_its_reason_and_is_counted_once(frames: list[Frame], step_ns: int, reason: str) -> None:
    tp = J1939Tp()
    fed(tp, frames, step_ns)
    tp.close()
    assert dict(tp.lost) == {reason: 1}


def test_frames_of_other_groups_are_nothing_to_it() -> None:
    tp = J1939Tp()
    assert tp.feed(0, EXTENDED | 0x18FEE300, b"\x01" * 8) == tp.feed(0, 0x2EB, b"\x01" * 8) == []
    assert not tp.lost
