"""One suite over every language of a BMS: what holds for one holds for all."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Final

import pytest
from bms_cases import Case, bus_frames, cases, exchange, extras, heard, some_values, told

from firmware_bridge.frames import EXTENDED
from firmware_bridge.protocol import ALARM, ERRORS, EXTRA, EXTRAS, LineError, Part, Said, Value
from firmware_bridge.shelf import protocol
from shared.fields import ALARMS, BALANCING, BY_NAME, EXTRA_NAME, QUALITY_REASONS

EVERY: Final = cases()
SERIAL: Final = [case for case in EVERY if case.spoken.medium == "serial"]
CAN: Final = [case for case in EVERY if case.spoken.medium == "can"]
CHUNKINGS: Final = 1000
JUNK_BYTES: Final = 64
BY_CHANCE: Final = 1
"""So often junk and the beginning of a frame may make a right check together: of the places where a frame may begin
in these lines, one in 256 (sums) to 65,536 (CRCs) has one. No decoder can tell it from a frame."""

HALF_STEP: Final[Mapping[str, float]] = {
    "pack_v": 0.05,
    "current_a": 0.05,
    "soc_bms": 0.005,
    "soh_bms": 0.005,
    "cell_v": 0.0005,
    "temp_c": 0.5,
    "charge_limit_a": 0.05,
    "discharge_limit_a": 0.05,
    "insulation_kohm": 0.5,
    "ambient_c": 0.5,
    "coolant_in_c": 0.5,
    "coolant_out_c": 0.5,
    "speed_kmh": 0.5,
    "odometer_km": 0.5,
    "throughput_ah": 0.5,
    "energy_kwh": 0.05,
    "cycles": 0.5,
}
"""How far a value may be from what was said, because the wire is coarse: half of the coarsest step of any language."""
HALF_STEP_OF_EXTRAS: Final[Mapping[str | None, float]] = {"V": 0.05, "A": 0.05, "Ah": 0.5, "degC": 0.5}
"""The same of extras, by unit."""
COARSER: Final[Mapping[tuple[str, str], float]] = {
    ("uds_ev", "cell_v"): 0.01,  # Hyundai and Kia: 20 mV
    ("foxbms_can", "charge_limit_a"): 0.125,
    ("foxbms_can", "discharge_limit_a"): 0.125,
    ("foxbms_can", "extra.charge_v_limit"): 2,
    ("foxbms_can", "extra.discharge_v_limit"): 2,
    ("foxbms_can", "insulation_kohm"): 3.5,
    ("seplos_v3", "charge_limit_a"): 0.5,
    ("seplos_v3", "discharge_limit_a"): 0.5,
    ("seplos_v3", "extra.discharged_ah"): 5,
}
"""The same where one language's wire is coarser than others': (language, name)."""
NEVER_BACK: Final[Mapping[str, frozenset[str]]] = {
    "pylontech_can": frozenset({"extra.temp_max_fine_c", "extra.temp_min_fine_c"}),  # under an id that is the model's
    # over Bluetooth only
    "seplos_v2": frozenset(
        {
            "alarm.other",
            "alarm.other:warning",
            "extra.packs",
            *(name for name in protocol("seplos_v2").fields if "system_" in name),
        }
    ),
    # of the system, which has an address of its own
    "seplos_v3": frozenset(
        f"extra.{name}"
        for name in (
            *("nominal_ah", "charge_v_limit", "discharge_v_limit", "packs", "packs_online", "packs_protected"),
            *("pack_highest_v", "pack_lowest_v", "soc_max", "soc_min"),
            *("manufacturer", "model", "sw_version", "serial"),
        )
    ),
    "uds_ev": frozenset({"extra.dtc_count"}),  # another tester's question
}
"""By language: names that only a special frame carries, which a pack with all values does not send."""


def each(chosen: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", chosen, ids=str)


def seeded(case: Case, what: str) -> random.Random:
    return random.Random(f"{case} {what}")


# what goes in comes out


@each(EVERY)
def test_what_a_pack_says_is_understood_to_the_step_of_the_wire(case: Case) -> None:
    rng = seeded(case, "once")
    for _ in range(20):
        values = some_values(case, rng)
        back = told(heard(case, values))
        for name, value in values.items():
            if name in back:
                assert near(case, name, value, back[name]), (name, value, back[name])


@each(EVERY)
def test_what_was_understood_and_is_said_again_comes_back_exactly(case: Case) -> None:
    rng = seeded(case, "twice")
    for _ in range(50):
        on_the_step = told(heard(case, some_values(case, rng)))
        assert told(heard(case, on_the_step)) == on_the_step
        assert told(heard(case, on_the_step, asked=False)) == on_the_step


@each([case for case in EVERY if case.address is None and not case.is_bluetooth])
def test_every_name_that_a_language_has_comes_back(case: Case) -> None:
    """Some only by a dialect that packs at other addresses speak."""
    back: set[str] = set()
    for one in (it for it in EVERY if (it.name, it.vehicle) == (case.name, case.vehicle)):
        said = told(heard(one, some_values(one, seeded(one, "names"))))
        back |= {re.sub(r"\[\d+\]", "[]", name) for name in said}
    assert set(case.fields) - NEVER_BACK.get(case.name, frozenset()) <= back


@each(EVERY)
@pytest.mark.parametrize("times", [1000.0, -1000.0])
def test_what_is_beyond_the_wire_is_said_as_far_as_it_goes(case: Case, times: float) -> None:
    """A simulated pack may be told to say 174 %, or draw more than the maker's numbers hold."""
    values = some_values(case, seeded(case, "beyond"))
    far = {name: value * times if isinstance(value, float) else value for name, value in values.items()}
    assert set(told(heard(case, far))) >= {"pack_v"}


@each(EVERY)
def test_no_state_is_told_that_no_pack_has(case: Case) -> None:
    """174 % is told, so that it is seen that the BMS lies; 6000 % is no state, but bytes that mean something else."""
    values = some_values(case, seeded(case, "states"))
    for name in ("soc_bms", "soh_bms"):
        if name in values:
            back = told(heard(case, values | {name: 60.0})).get(name)
            assert back is None or float(back) <= 2.0, name


@each(EVERY)
def test_a_pack_of_which_nothing_is_known_still_speaks(case: Case) -> None:
    """An encoder takes what values there are."""
    told(heard(case, {}))
    told(heard(case, {"pack_v": 52.0, "cell_v[0]": 3.3, "temp_c[0]": 20.0}))
    told(heard(case, dict.fromkeys(some_values(case, seeded(case, "nothing")))))


def near(case: Case, name: str, value: Value, back: Value) -> bool:
    """Whether a value came back as well as the wire can say it."""
    if not isinstance(value, float):
        return back == value
    assert isinstance(back, float | int) and not isinstance(back, bool), (name, back)
    array = name.partition("[")[0]
    if array.startswith(EXTRA):
        unit, step = extras(case.spoken)[array[len(EXTRA) :]]
        half = max(step / 2, HALF_STEP_OF_EXTRAS.get(unit, 0.5))
    else:
        half = HALF_STEP[array]
    half = COARSER.get((case.name, array), half)
    return abs(value - back) <= half * (1 + 1e-9)


# words


@each(EVERY)
def test_its_names_are_a_samples_names_and_its_alarms_are_known(case: Case) -> None:
    own = extras(case.spoken)
    assert EXTRAS.keys().isdisjoint(case.spoken.extras)
    for name in case.spoken.fields:
        if name.startswith(ALARM):
            assert name[len(ALARM) :] in ALARMS
        elif name.startswith(EXTRA):
            assert name[len(EXTRA) :].removesuffix("[]") in own, name
        else:
            assert name.removesuffix("[]") in BY_NAME or name == BALANCING, name
            assert name.endswith("[]") == (name in ("cell_v[]", "temp_c[]"))
    assert all(EXTRA_NAME.fullmatch(name) for name in own)
    assert len(set(case.spoken.fields)) == len(case.spoken.fields)
    if case.spoken.counter is not None:
        assert EXTRA + case.spoken.counter in case.spoken.fields or case.spoken.counter in case.spoken.fields


@each(EVERY)
def test_a_part_says_nothing_that_its_language_does_not_declare(case: Case) -> None:
    for said in heard(case, some_values(case, seeded(case, "words"))):
        assert well_said(case, said)


def well_said(case: Case, said: Said) -> bool:
    """Whether it is of the shape that everybody relies on."""
    if isinstance(said, LineError):
        return said.error in ERRORS and said.offset >= 0 and bool(said.detail)
    fields = set(case.fields)
    for name, value in said.values.items():
        assert re.sub(r"\[\d+\]", "[]", name) in fields, name
        if value is None:
            assert said.quality.get(name) in QUALITY_REASONS, name
        elif isinstance(value, float):
            assert math.isfinite(value), name
    assert said.quality.keys() <= said.values.keys()
    return True


# only reads

READS_OF_DALY: Final = frozenset((*range(0x50, 0x64), *range(0x90, 0x99)))
ALLOWED: Final[Mapping[str, Callable[[bytes], bool]]] = {
    "jbd": lambda r: (r[:2] == b"\xdd\xa5" and r[3] == 0) or r[1] == 0x78,
    "jk02": lambda r: (
        r[1:7] in (b"\x10\x16\x20\x00\x01\x02", b"\x10\x16\x1e\x00\x01\x02", b"\x10\x16\x1c\x00\x01\x02")
        or r[:5] in (b"\xaa\x55\x90\xeb\x96", b"\xaa\x55\x90\xeb\x97")
    ),
    "jk_uart": lambda r: r[:2] == b"NW" and r[8] in (0x03, 0x06),
    "daly_uart": lambda r: r[0] == 0xA5 and r[2] in READS_OF_DALY,
    "daly_modbus": lambda r: r[1] == 3,
    "seplos_v2": lambda r: (
        (int(r[7:9], 16) if r[:1] == b"~" and r[1:2].isalnum() and len(r) > 15 else r[4])
        in {0x42, 0x44, 0x47, 0x51, 0x61, 0x62}
    ),
    "seplos_v3": lambda r: r[1] in (1, 4),
}
ALLOWED_CAN: Final[Mapping[str, Callable[[int, bytes], bool]]] = {
    "daly_can": lambda i, r: i >> 24 == (EXTENDED >> 24 | 0x18) and (i >> 16 & 0xFF) in READS_OF_DALY,
    "pylontech_hv_can": lambda i, r: i == EXTENDED | 0x4200 and r[0] in (0, 2),
    "uds_ev": lambda i, r: r[0] >> 4 == 0 and r[1] in (0x22, 0x21, 0x01),
}
"""What a request must look like to be a reading one, by what the makers' documents say."""


@each(EVERY)
@pytest.mark.parametrize("address", [None, 1, 2])
def test_it_asks_for_readings_only(case: Case, address: int | None) -> None:
    for poll in case.spoken.polls(case.address if address is None else address, case.vehicle):
        if case.spoken.medium == "serial":
            assert poll.can_id is None
            assert ALLOWED[case.name](poll.request), poll.request.hex(" ")
        else:
            assert poll.can_id is not None
            assert ALLOWED_CAN[case.name](poll.can_id, poll.request), poll.request.hex(" ")


@each(SERIAL)
def test_each_thing_that_it_asks_for_is_answered_by_that_kind(case: Case) -> None:
    values = some_values(case, seeded(case, "kinds"))
    assert case.spoken.answer is not None
    assert case.spoken.bytes_decoder is not None
    for poll in case.polls:
        line = case.spoken.bytes_decoder()
        line.sent(poll.request)
        replies = case.spoken.answer(poll.request, values, case.address)
        said = [it for reply in replies for it in line.feed(reply)] + line.end()
        kinds = {it.kind for it in said if isinstance(it, Part)}
        assert poll.kind in kinds, (poll.kind, said)
        assert poll.replies == 0 or len(replies) <= poll.replies


@each(SERIAL)
def test_a_pack_does_not_answer_what_it_does_not_understand(case: Case) -> None:
    rng = seeded(case, "questions")
    values = some_values(case, rng)
    assert case.spoken.answer is not None
    for _ in range(500):
        assert list(case.spoken.answer(rng.randbytes(rng.randrange(40)), values, case.address)) == []
    for poll in case.polls:
        for at in range(len(poll.request)):
            cut = poll.request[:at]
            assert list(case.spoken.answer(cut, values, case.address)) == []


# pieces and junk


def a_line(case: Case, rng: random.Random) -> bytes:
    """All that a pack replies, two rounds of it."""
    rounds = [exchange(case, some_values(case, rng)) for _ in range(2)]
    return b"".join(reply for one in rounds for _, replies in one for reply in replies)


@each(SERIAL)
def test_pieces_of_any_size_say_the_same(case: Case) -> None:
    rng = seeded(case, "pieces")
    line = a_line(case, rng)
    whole = fed(case, [line])
    assert whole
    for _ in range(CHUNKINGS):
        assert fed(case, pieces(line, rng)) == whole
    assert fed(case, [line[i : i + 1] for i in range(len(line))]) == whole


@each(SERIAL)
def test_junk_in_front_loses_no_frame(case: Case) -> None:
    rng = seeded(case, "junk")
    line = a_line(case, rng)
    clean = [it for it in fed(case, [line]) if isinstance(it, Part)]
    by_chance = 0
    for _ in range(CHUNKINGS):
        said = fed(case, pieces(junk(case, rng) + line, rng))
        by_chance += [it for it in said if isinstance(it, Part)] != clean
    assert by_chance <= BY_CHANCE


@each(SERIAL)
def test_junk_between_frames_loses_none_and_pieces_of_it_say_the_same(case: Case) -> None:
    rng = seeded(case, "between")
    values = some_values(case, rng)
    replies = [reply for _, some in exchange(case, values) for reply in some]
    clean = [it for it in fed(case, replies) if isinstance(it, Part)]
    by_chance = 0
    for _ in range(CHUNKINGS // 4):
        line = b"".join(junk(case, rng) + reply for reply in replies)
        said = fed(case, [line])
        by_chance += [it for it in said if isinstance(it, Part)] != clean
        assert fed(case, pieces(line, rng)) == said
    assert by_chance <= BY_CHANCE


@each(CAN)
def test_other_frames_on_the_bus_lose_none(case: Case) -> None:
    rng = seeded(case, "bus")
    frames = bus_frames(case, some_values(case, rng))
    own = {can_id for can_id, _ in frames}
    clean = heard(case, {}) if not frames else bus_fed(case, frames)
    for _ in range(CHUNKINGS // 10):
        mixed: list[tuple[int, bytes]] = []
        for frame in frames:
            while rng.random() < 0.3:
                other = rng.choice((rng.randrange(0x80), EXTENDED | rng.randrange(1 << 29)))
                if other not in own:
                    mixed.append((other, rng.randbytes(rng.randrange(9))))
            mixed.append(frame)
        said = [it for it in bus_fed(case, mixed) if isinstance(it, Part)]
        assert [it.values for it in said] == [it.values for it in clean if isinstance(it, Part)]


def fed(case: Case, chunks: list[bytes]) -> list[Said]:
    assert case.spoken.bytes_decoder is not None
    line = case.spoken.bytes_decoder()
    return [it for chunk in chunks for it in line.feed(chunk)] + line.end()


def bus_fed(case: Case, frames: list[tuple[int, bytes]]) -> list[Said]:
    assert case.spoken.frames_decoder is not None
    bus = case.spoken.frames_decoder(case.vehicle)
    said = [it for n, (can_id, payload) in enumerate(frames) for it in bus.frame(n * 1_000_000, can_id, payload)]
    return said + bus.end()


def pieces(line: bytes, rng: random.Random) -> list[bytes]:
    """The line cut at random; some cuts are many, some are few."""
    count = rng.choice((1, 2, 5, 20, 80))
    cuts = sorted({0, len(line), *(rng.randrange(len(line) + 1) for _ in range(count))})
    return [line[begin:end] for begin, end in pairwise(cuts)]


def junk(case: Case, rng: random.Random) -> bytes:
    """At most JUNK_BYTES of what lines hold beside frames; pieces that make up a frame with a good check are none."""
    found = drawn_junk(case, rng)
    while any(isinstance(it, Part) for it in fed(case, [found])):
        found = drawn_junk(case, rng)
    return found


@cache
def a_talk(case: Case) -> list[tuple[bytes, list[bytes]]]:
    return exchange(case, some_values(case, seeded(case, "talk")))


def drawn_junk(case: Case, rng: random.Random) -> bytes:
    asked, reply = rng.choice(a_talk(case))
    kinds = (
        b"AT\r\n",
        rng.randbytes(rng.randrange(1, JUNK_BYTES + 1)),
        bytes(rng.randrange(1, 20)),
        b"\xff" * rng.randrange(1, 20),
        asked,  # an echo
        reply[0][: rng.randrange(min(len(reply[0]), JUNK_BYTES))] if reply else b"",  # a frame that was cut off
        bytes.fromhex("aa5590ebc8010100000000000000000000000044"),
        bytes.fromhex("dda50300fffd77"),
        bytes.fromhex("a5409008000000000000000017d"[:26]),
    )
    found = b""
    while not found or rng.random() < 0.4:
        found += rng.choice(kinds)
    return found[:JUNK_BYTES]


# two packs on one line


def two_addresses(case: Case) -> tuple[int, int]:
    """Addresses of two packs on one line; the same twice where packs have none."""
    first = case.address or 1
    asked = [[poll.request for poll in case.spoken.polls(address, case.vehicle)] for address in (first, first + 1)]
    return first, first + (asked[0] != asked[1])


@each([case for case in SERIAL if len(set(two_addresses(case))) == 2 and not case.is_bluetooth])
def test_two_packs_on_one_line_are_never_taken_for_each_other(case: Case) -> None:
    addresses = two_addresses(case)
    rng = seeded(case, "two")
    packs = {address: some_values(case, rng) for address in addresses}
    clean = {address: heard(case, values, address) for address, values in packs.items()}
    answers = {address: next(it.address for it in said if isinstance(it, Part)) for address, said in clean.items()}
    assert len(set(answers.values())) == 2
    assert case.spoken.bytes_decoder is not None
    line = case.spoken.bytes_decoder()
    found: dict[int | None, dict[str, Value]] = {answer: {} for answer in answers.values()}
    rounds = [exchange(case, values, address) for address, values in packs.items()]
    for both in zip(*rounds, strict=True):
        for request, replies in both:
            line.sent(request)
            for said in line.feed(b"".join(replies)):
                assert isinstance(said, Part), said
                found[said.address].update(said.values)
    assert found == {answers[address]: told(said) for address, said in clean.items()}
