"""ISO-TP: whatever the interleaving, what was sent comes out whole; what does not is counted once, with a reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.frames import FD_LENGTHS, REMOTE
from firmware_bridge.isotp import IsoTp
from firmware_bridge.reassembly import Assembled

MS = 1_000_000
ID = 0x7EC


def frames_of(payload: bytes, width: int = 8, *, pad: bool = True) -> list[bytes]:
    """The frames a sender makes of a message, by ISO 15765-2; `width` bytes a frame (8, or up to 64 with CAN FD)."""
    n = len(payload)
    if n <= 7 and n <= width - 1:
        frame = bytes([n]) + payload
        return [frame.ljust(8, b"\xaa") if pad else frame]
    if width > 8 and n <= width - 2:
        frame = bytes([0, n]) + payload
        return [frame.ljust(next(length for length in FD_LENGTHS if length >= max(len(frame), 9)), b"\xaa")]
    head = bytes([0x10 | n >> 8, n & 0xFF]) if n <= 4095 else b"\x10\x00" + n.to_bytes(4, "big")
    frames, rest, number = [head + payload[: width - len(head)]], payload[width - len(head) :], 1
    while rest:
        frame = bytes([0x20 | number & 0xF]) + rest[: width - 1]
        if pad:
            frame = frame.ljust(next(length for length in FD_LENGTHS if length >= len(frame)), b"\xaa")
        frames.append(frame)
        rest, number = rest[width - 1 :], number + 1
    return frames


def fed(isotp: IsoTp, frames: list[bytes], can_id: int = ID, t_ns: int = 0) -> list[Assembled]:
    return [m for i, frame in enumerate(frames) for m in isotp.feed(t_ns + i * MS, can_id, frame)]


message = st.tuples(st.binary(min_size=1, max_size=200), st.sampled_from([8, 12, 64]), st.booleans())


@given(st.lists(st.lists(message, min_size=1, max_size=3), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_any_interleaving_of_ids_gives_every_message_in_its_order(senders: list[list], shuffle) -> None:  # type: ignore[type-arg, no-untyped-def]
    queues = {0x700 + i: [f for m, w, pad in sent for f in frames_of(m, w, pad=pad)] for i, sent in enumerate(senders)}
    isotp, got, t_ns = IsoTp(), {can_id: [] for can_id in queues}, 0
    while any(queues.values()):
        can_id = shuffle.choice([key for key, frames in queues.items() if frames])
        if shuffle.random() < 0.2:
            assert isotp.feed(t_ns, can_id, b"\x30\x00\x00") == []  # flow control says nothing
        for whole in isotp.feed(t_ns, can_id, queues[can_id].pop(0)):
            assert (whole.t_ns, whole.can_id) == (t_ns, can_id)
            got[can_id].append(whole.payload)
        t_ns += MS
    isotp.close()
    assert list(got.values()) == [[m for m, _, _ in sent] for sent in senders]
    assert not isotp.lost


@given(st.lists(st.tuples(st.integers(0, 2**60), st.integers(0, 3), st.binary(max_size=64)), max_size=200))
def test_noise_never_raises_and_never_fills_the_memory(noise: list[tuple[int, int, bytes]]) -> None:
    isotp = IsoTp(max_bytes=500, sessions=2)
    for t_ns, can_id, payload in noise:
        for whole in isotp.feed(t_ns, can_id, payload):
            assert 0 < len(whole.payload) <= 500
        assert len(isotp._sessions) <= 2 and len(isotp._sessions._broken) <= 2


@given(st.binary(min_size=8, max_size=300), st.data())
def test_a_missing_frame_loses_its_message_once_and_not_the_next(payload: bytes, data: st.DataObject) -> None:
    frames = frames_of(payload)
    gone = data.draw(st.integers(0, len(frames) - 1))
    isotp = IsoTp()
    assert fed(isotp, frames[:gone] + frames[gone + 1 :]) == []
    assert [m.payload for m in fed(isotp, frames_of(b"next one, whole"), t_ns=99 * MS)] == [b"next one, whole"]
    assert isotp.lost.total() == 1


FIRST = bytes.fromhex("100a620101010203")
REASONS = {
    "a frame twice": ([FIRST, b"\x21ABCD", b"\x21ABCD"], None),
    "a wrong number": ([FIRST, b"\x22ABCDEFG"], "sequence"),
    "a consecutive frame that is cut": ([FIRST, b"\x21ABC"], "short"),
    "a single frame that is cut": ([b"\x05AB"], "short"),
    "a first frame that is cut": ([b"\x10\x0aAB", b"\x21ABCDEFG"], "short"),
    "a first frame for what fits into one": ([b"\x10\x05ABCDEF"], "length"),
    "no length": ([b"\x00ABCDEFG"], "length"),
    "a length by the escape that is too much": ([b"\x10\x00\x7f\xff\xff\xffAB", b"\x21ABCDEFG"], "overlong"),
    "a beginning that nobody saw": ([b"\x23ABCDEFG", b"\x24ABCDEFG", b"\x25ABCDEFG"], "no_first_frame"),
    "a new message in the middle": ([FIRST, FIRST, b"\x21ABCD"], "interrupted"),
    "an end of the log": ([FIRST], "cut_off"),
    "a kind that there is not": ([b"\x40ABCDEFG"], "unknown_kind"),
}


@pytest.mark.parametrize(("frames", "reason"), REASONS.values(), ids=REASONS.keys())
def test_each_loss_has_its_reason_and_is_counted_once(frames: list[bytes], reason: str | None) -> None:
    isotp = IsoTp()
    fed(isotp, frames)
    isotp.close()
    assert dict(isotp.lost) == ({reason: 1} if reason else {"no_first_frame": 1})


def test_time_is_that_of_the_log() -> None:
    isotp = IsoTp()
    isotp.feed(0, ID, FIRST)
    assert isotp.feed(1_000_000_001, ID, b"\x21ABCD") == []
    assert isotp.lost == {"timeout": 1}


def test_more_ids_than_there_is_room_for_lose_the_oldest() -> None:
    isotp = IsoTp(sessions=2)
    for can_id in (1, 2, 3):
        isotp.feed(0, can_id, FIRST)
    assert [len(isotp.feed(0, can_id, b"\x21ABCD")) for can_id in (1, 2, 3)] == [0, 1, 1]
    assert isotp.lost["too_many"] == 1


def test_a_remote_frame_and_one_without_bytes_are_no_part_of_a_message() -> None:
    isotp = IsoTp()
    isotp.feed(0, ID, FIRST)
    assert isotp.feed(0, ID, b"") == isotp.feed(0, ID | REMOTE, b"\x21ABCD") == []
    assert isotp.feed(0, ID, b"\x21ABCD")[0].payload == FIRST[2:] + b"ABCD"


def test_a_long_message_by_the_escape() -> None:
    payload = bytes(range(256)) * 20
    assert [m.payload for m in fed(IsoTp(), frames_of(payload, 64))] == [payload]
