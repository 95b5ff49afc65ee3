"""Batches gone wrong, by seed: half of them noise, half valid ones changed inside and compressed again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Final

from fake_batches import T0_NS, batch, block, layout

from shared.errors import WireError
from shared.planes import compress, decompress
from shared.records import Event, Gap
from shared.wire import decode_batch, encode_batch
from shared.wire_json import batch_json
from shared.wire_pb2 import Batch as PbBatch

_HUGE: Final = (0, 1, 2, 3, 5, 7, 255, 256, 1024, 1025, 65_536, 100_001, 2**31 - 1, 2**32 - 1)
_WIDE: Final = (*_HUGE, 2**53, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
_VALUES: Final = (None, True, -1, 2**53, 2**62, 2**64, 10**400, 1e308, 1e-320, float("nan"), float("inf"), 0.1 + 0.2,
                  "", "1", "\ud800", "x" * 5000, [], [None], [[1, 2]], [[]], {}, {"a": 1},
                  {"pack_v": "stale"})  # fmt: skip
_TEXTS: Final = ("", "A", "a b", "../x", "x" * 65, "\x00", "💡", "P'; DROP TABLE pack; --", "low_soc")


def valid(seed: int) -> bytes:
    """A small valid body: one block, an Event, a Gap."""
    head = {"mono_ns": 5, "t_ns": T0_NS}
    pack_id = f"P{seed % 50}"
    of = layout(seed % 7, seed % 3)
    return encode_batch(
        batch(
            f"car-{seed % 50}",
            block(pack_id, 1 + seed % 6, seed=seed, of=of),
            boot=seed + 1,
            events=(Event(pack_id=pack_id, seq=50, id="e", code="low_soc", severity="warning", cell=3, **head),),
            gaps=(Gap(seq=51, of_boot=1, first_seq=0, last_seq=9, cause="killed", stored=((0, 4),), **head),),
        )
    )


def malformed(number: int) -> bytes:
    """The body of case `number`."""
    dice = random.Random(number)
    if number % 2:
        noise = dice.randbytes(dice.choice((0, 1, 2, 8, 40, 300)))
        return dice.choice((noise, valid(number)[: dice.randrange(60)] + noise))
    message = PbBatch.FromString(valid(number))
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        dice.choice(_CHANGES)(dice, message)
    return bytes(message.SerializeToString())


def malformed_json(number: int) -> bytes:
    """A JSON body of case `number`: a valid one with a few of its values, names or bytes changed."""
    dice = random.Random(number)
    document = json.loads(batch_json(decode_batch(valid(number % 30))))
    for _ in range(dice.choice((1, 1, 2, 3))):
        where: Any = document
        while True:
            key = dice.choice(list(where) if isinstance(where, dict) else range(len(where)))
            if not (isinstance(where[key], dict | list) and where[key]) or dice.random() < 0.2:
                break
            where = where[key]
        where[key] = deepcopy(dice.choice(_VALUES))
        if isinstance(where, dict) and dice.random() < 0.1:
            where[dice.choice(_TEXTS)] = where.pop(key)
    body = json.dumps(document).encode()
    return _bytes(dice, body) if dice.random() < 0.1 else body


def _bytes(dice: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(3):
            case 0 if at < len(changed):
                changed[at] = dice.randrange(256)
            case 1:
                changed[at:at] = dice.randbytes(dice.choice((1, 8)))
            case _:
                del changed[at : at + dice.choice((1, 8))]
    return bytes(changed)


def _planes(dice: random.Random, message: PbBatch) -> None:
    each = message.blocks[0]
    try:
        content = decompress(each.planes)
    except WireError:  # an earlier change broke the frame
        content = b""
    each.planes = compress(_bytes(dice, content))


def _frame(dice: random.Random, message: PbBatch) -> None:
    message.blocks[0].planes = dice.choice(
        (_bytes(dice, message.blocks[0].planes), compress(bytes(2**20)), b"", compress(b""))
    )


def _count(dice: random.Random, message: PbBatch) -> None:
    target, name = dice.choice(
        ((message.blocks[0], "rows"), (message.blocks[0], "layout"), (message.layouts[0], "cells"),
         (message.layouts[0], "temps"), (message.layouts[0], "balancing_words"), (message, "schema"))
    )  # fmt: skip
    setattr(target, name, dice.choice(_HUGE))


def _range(dice: random.Random, message: PbBatch) -> None:
    target, name = dice.choice(
        ((message.blocks[0], "first_seq"), (message.blocks[0], "first_mono"), (message.blocks[0], "mono_unit_ns"),
         (message.events[0].head, "seq"), (message.gaps[0].head, "mono_ns"), (message, "boot"))
    )  # fmt: skip
    setattr(target, name, dice.choice(_WIDE))


def _gap(dice: random.Random, message: PbBatch) -> None:
    gap = message.gaps[0]
    for name in ("first_seq", "last_seq", "ahead"):
        if dice.random() < 0.5:
            setattr(gap, name, dice.choice([n for n in _WIDE if n < 2**63]))
    gap.stored.add(first=dice.choice((0, 3, 9)), last=dice.choice((0, 3, 9)))


def _time(dice: random.Random, message: PbBatch) -> None:
    message.events[0].head.t_ns = dice.choice((0, -1, 2**62, -(2**62), T0_NS * 2, -(2**63), 2**63 - 1))


def _event(dice: random.Random, message: PbBatch) -> None:
    event = message.events[0]
    event.value = dice.choice((float("nan"), float("inf"), 1e308, -0.0))
    event.code = dice.choice(_TEXTS)
    event.severity = dice.choice(("warning", "critical", "loud", ""))
    event.cell = dice.choice((0, 1024, 2**32 - 1))


def _text(dice: random.Random, message: PbBatch) -> None:
    target, name = dice.choice(
        ((message, "device"), (message.blocks[0], "pack_id"), (message.events[0], "pack_id"),
         (message.events[0], "id"), (message.gaps[0], "cause"))
    )  # fmt: skip
    setattr(target, name, dice.choice(_TEXTS))


def _layout(dice: random.Random, message: PbBatch) -> None:
    of = message.layouts[0]
    match dice.randrange(4):
        case 0:
            of.scalars = _bytes(dice, of.scalars)
        case 1:
            of.steps.extend(dice.choice(((1, 1, 3), (1, 0, 0), (16, 1, 1), (1, 2**31, 9), (1,), (200, 1, 1))))
        case 2:
            of.extra_names.extend(dice.choice((("a",), ("a", "a"), ("",), ("x" * 70,))))
            of.extra_steps.extend(dice.choice(((), (1, 2), (0, 0), (1, 99))))
        case _:
            of.extra_units[dice.choice(_HUGE)] = dice.choice(_TEXTS)


def _words(dice: random.Random, message: PbBatch) -> None:
    message.blocks[0].qualities.add().reasons[dice.choice(_TEXTS)] = dice.choice((0, 7, 8, 2**32 - 1))
    message.blocks[0].alarms.add(codes=[dice.choice(_TEXTS)])


def _copy(_: random.Random, message: PbBatch) -> None:
    message.blocks.add().CopyFrom(message.blocks[0])


_CHANGES: Final[tuple[Callable[[random.Random, PbBatch], None], ...]] = (
    _planes, _planes, _planes, _frame, _count, _range, _gap, _time, _event, _text, _layout, _words, _copy,
)  # fmt: skip
