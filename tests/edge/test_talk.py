"""The talk on a serial line, without a line: time and bytes in, requests and what was said out."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from fakes.bms_port import JBD_VALUES
from fakes.toy_language import AMPS, NAME, TOY, VOLTS, ToyDecoder, message, reply

from edge.doctor.probe import serial_languages
from edge.sources.ear import Asking, Ear
from edge.sources.talk import Talk
from firmware_bridge.protocol import LineError, Part, Protocol, Said, Values

MS = 1_000_000
S = 1000 * MS
Answer = Callable[[bytes], list[tuple[int, bytes]]]
"""To a request: what comes back, each so many ms after it."""


class Stage:
    """A Talk, the packs behind the line, and a clock. `sent` and `said` are all there was, with times."""

    def __init__(self, *addresses: int | None, answer: Answer, poll_s: float = 1.0, language: Protocol = TOY) -> None:
        packs = [Asking.of(language, None, address, poll_s) for address in addresses]
        assert language.bytes_decoder is not None
        self.ear = Ear(language.bytes_decoder(), packs)
        self.talk = Talk(self.ear, packs, silence_s=0.3, gap_s=0.02)
        self.answer = answer
        self.now = 10 * S
        self.coming: list[tuple[int, bytes]] = []
        self.sent: list[tuple[int, bytes]] = []
        self.said: list[tuple[int, int, Said]] = []
        self.talk.reset(self.now)

    def run(self, seconds: float, step_ms: int = 20) -> None:
        end = self.now + int(seconds * S)
        while self.now < end:
            self.now += step_ms * MS
            due = sorted(one for one in self.coming if one[0] <= self.now)
            self.coming = [one for one in self.coming if one[0] > self.now]
            if due:
                told = self.talk.heard(self.now, b"".join(data for _, data in due))
                self.said += [(self.now, owner, said) for owner, said in told]
            if self.talk.is_silent(self.now):
                self.said += [(self.now, owner, said) for owner, said in self.talk.end(self.now)]
            if (ask := self.talk.due(self.now)) is not None:
                pack, poll = ask
                self.talk.sent(self.now, pack, poll)
                self.sent.append((self.now, poll.request))
                self.coming += [(self.now + after * MS, data) for after, data in self.answer(poll.request)]

    def parts(self) -> list[tuple[int, Values]]:
        return [(owner, said.values) for _, owner, said in self.said if isinstance(said, Part)]

    def errors(self) -> list[str]:
        return [said.error for *_, said in self.said if not isinstance(said, Part)]


def packs(**volts: int) -> Answer:
    """Packs `a1`, `a2` .. with these volts."""

    def answer(request: bytes) -> list[tuple[int, bytes]]:
        address = request[1]
        values = {"pack_v": volts.get(f"a{address}"), "current_a": address, "extra.model": 7}
        return [(40, reply(request, values, address))] if f"a{address}" in volts else []

    return answer


def test_a_pack_is_asked_for_everything_each_round_and_for_what_never_changes_now_and_then() -> None:
    stage = Stage(None, answer=packs(a1=50))
    stage.run(9.9)
    kinds = [request[2] for _, request in stage.sent]
    assert kinds.count(1) == kinds.count(2) == 10 and kinds.count(NAME) == 1
    assert stage.parts().count((0, {"pack_v": 50.0})) == 10 and stage.errors() == []


def test_the_next_request_waits_for_the_reply_and_a_pause() -> None:
    stage = Stage(None, answer=lambda request: [(200, reply(request, {"pack_v": 1, "current_a": 1}, 1))])
    stage.run(2, step_ms=5)
    times = [at for at, _ in stage.sent]
    assert min(b - a for a, b in pairwise(times)) >= 220 * MS


def test_a_sleeping_pack_is_woken_by_asking_again_and_then_tells_all() -> None:
    heard = 0

    def answer(request: bytes) -> list[tuple[int, bytes]]:
        nonlocal heard
        heard += 1
        return [] if heard < 3 else packs(a1=50)(request)

    stage = Stage(None, answer=answer)
    stage.run(2.2)
    assert [request[2] for _, request in stage.sent][:4] == [1, 1, 1, AMPS]
    assert (0, {"pack_v": 50.0}) in stage.parts() and stage.talk.timeouts == [2] and stage.talk.unanswered(0) == 0


def test_a_dead_pack_is_asked_less_often_and_holds_up_its_neighbour_little() -> None:
    stage = Stage(1, 2, answer=packs(a2=51))
    stage.run(60)
    assert stage.talk.unanswered(0) > 3 and stage.talk.unanswered(1) == 0
    volts = [at for at, owner, said in stage.said if owner == 1 and isinstance(said, Part) and "pack_v" in said.values]
    assert len(volts) > 35 and max(b - a for a, b in pairwise(volts)) < 4 * S
    assert {owner for owner, _ in stage.parts()} == {1}


def test_a_request_that_the_bms_does_not_know_is_not_waited_for_in_every_round() -> None:
    def answer(request: bytes) -> list[tuple[int, bytes]]:
        return [] if request[2] == AMPS else packs(a1=50)(request)

    stage = Stage(None, answer=answer)
    stage.run(60)
    kinds = [request[2] for _, request in stage.sent]
    assert kinds.count(1) > 45 and kinds.count(AMPS) < 10 and stage.talk.unanswered(0) == 0


def test_a_bms_that_does_not_know_the_first_request_is_asked_the_others() -> None:
    def answer(request: bytes) -> list[tuple[int, bytes]]:
        return packs(a1=50)(request) if request[2] == AMPS else []

    stage = Stage(None, answer=answer)
    stage.run(30)
    assert (0, {"current_a": 1.0}) in stage.parts()


def test_a_no_of_the_bms_is_an_answer() -> None:
    stage = Stage(None, answer=lambda request: [(40, reply(request, {}, 1))])
    stage.run(0.9)
    assert set(stage.errors()) == {"response"} and len(stage.sent) == 3


def test_a_bad_reply_is_asked_for_again_after_the_line_has_fallen_silent() -> None:
    once: list[bytes] = []

    def answer(request: bytes) -> list[tuple[int, bytes]]:
        good = packs(a1=50)(request)
        if request in once:
            return good
        once.append(request)
        return [(40, good[0][1][:-1] + b"\0"), (120, b"junk")]

    stage = Stage(None, answer=answer)
    stage.run(0.95)
    (first, one), (second, two) = stage.sent[:2]
    assert one == two and second - first >= 420 * MS
    assert stage.parts()[0] == (0, {"pack_v": 50.0}) and "checksum" in stage.errors()


@pytest.mark.parametrize("late_ms", [450, 520, 600, 800, 1200, 1700, 2400])
def test_what_comes_too_late_is_never_another_packs(late_ms: int) -> None:
    """Pack 1 answers late, at all times within and after the other's turn: it may be lost, it must not be pack 2's."""
    chance = random.Random(late_ms)

    def answer(request: bytes) -> list[tuple[int, bytes]]:
        address = request[1]
        wait = late_ms + chance.randrange(100) if address == 1 else chance.randrange(1, 60)
        return [(wait, reply(request, {"pack_v": 40 + address, "current_a": address, "extra.model": 1}, address))]

    stage = Stage(1, 2, answer=answer)
    stage.run(60)
    assert {values["pack_v"] for owner, values in stage.parts() if owner == 1 and "pack_v" in values} == {42.0}
    assert {values["pack_v"] for owner, values in stage.parts() if owner == 0 and "pack_v" in values} <= {41.0}


def test_replies_without_an_address_belong_to_who_was_asked_and_to_nobody_when_nobody_was() -> None:
    def answer(request: bytes) -> list[tuple[int, bytes]]:
        return [(40, message(0, request[2] | 0x80, 40 + request[1]))]

    stage = Stage(1, 2, answer=answer)
    stage.run(5)
    assert {owner: values["pack_v"] for owner, values in stage.parts() if "pack_v" in values} == {0: 41.0, 1: 42.0}
    before = stage.parts()
    stage.talk.end(stage.now)
    stage.talk.heard(stage.now, message(0, 0x81, 99))
    assert stage.parts() == before


def test_an_adapter_that_sends_back_what_it_is_told_changes_nothing() -> None:
    def answer(request: bytes) -> list[tuple[int, bytes]]:
        return [(1, request), *packs(a1=50)(request)]

    stage = Stage(None, answer=answer)
    stage.run(4.9)
    assert stage.parts().count((0, {"pack_v": 50.0})) == 5 and set(stage.errors()) == {"echo"}
    assert stage.talk.timeouts == [0]


def test_many_packs_all_get_their_turn() -> None:
    addresses = range(1, 17)
    stage = Stage(*addresses, answer=packs(**{f"a{at}": 30 + at for at in addresses}))
    stage.run(30)
    counts = [sum(owner == at and "pack_v" in values for owner, values in stage.parts()) for at in range(16)]
    assert min(counts) >= 8 and max(counts) - min(counts) <= 1
    assert all(values["pack_v"] == 31 + owner for owner, values in stage.parts() if "pack_v" in values)


def test_an_ear_goes_on_from_where_another_was() -> None:
    stage = Stage(1, 2, answer=packs(a1=50, a2=51))
    stage.run(3)
    first = stage.ear
    request = TOY.polls(2, None)[0].request
    whole = reply(request, {"pack_v": 51}, 2)
    first.sent(request)
    first.feed(whole[:3])
    state = first.snapshot()
    second = Ear(ToyDecoder(), [Asking.of(TOY, None, address, 1.0) for address in (1, 2)])
    second.restore(state)
    assert first.feed(whole[3:]) == second.feed(whole[3:]) != []
    first.end()
    third = Ear(ToyDecoder(), [Asking.of(TOY, None, address, 1.0) for address in (1, 2)])
    third.restore(first.snapshot())
    for ear in (first, third):  # nobody has the word any more
        assert [said.error for _, said in ear.feed(whole) if isinstance(said, LineError)] == ["address"]


def heard_by(ear: Ear, *addresses: int) -> list[tuple[int, object]]:
    """(owner, volts or what was wrong) of replies to another one; the volts are 40 and the address."""
    told = [one for at in addresses for one in ear.feed(message(at, 0x80 | VOLTS, 40 + at))]
    return [(owner, said.values["pack_v"] if isinstance(said, Part) else said.error) for owner, said in told]


def test_an_ear_for_one_pack_without_an_address_takes_the_first_that_speaks_and_nobody_else() -> None:
    """An inverter asks two packs, one source listens without an address: its Samples were of both, by turns."""
    ear = Ear(ToyDecoder(), [Asking.of(TOY, None, None, 1.0, polls=False)])
    assert heard_by(ear, 2, 1, 2, 0, 3) == [(0, 42.0), (0, "address"), (0, 42.0), (0, 40.0), (0, "address")]
    assert (ear.bound, ear.other) == (2, 3)
    second = Ear(ToyDecoder(), [Asking.of(TOY, None, None, 1.0, polls=False)])
    second.restore(ear.snapshot())
    assert heard_by(second, 1, 2) == [(0, "address"), (0, 42.0)]


def test_where_packs_are_asked_the_one_without_an_address_is_the_one_that_answers() -> None:
    ear = Ear(ToyDecoder(), [Asking.of(TOY, None, None, 1.0)])
    assert heard_by(ear, 2) == [(0, "address")] and ear.bound is None
    request = TOY.polls(None, None)[0].request
    ear.sent(request)
    (answer,) = ear.feed(reply(request, {"pack_v": 41}, 1))
    assert isinstance(answer[1], Part) and answer[0] == 0 and ear.bound == 1
    ear.end()
    assert heard_by(ear, 2) == [(0, "address")]


ADDRESSED = [one for one in serial_languages() if one.answer and tuple(one.polls(1, None)) != tuple(one.polls(2, None))]


@pytest.mark.parametrize("language", ADDRESSED, ids=lambda language: language.name)
def test_of_packs_that_another_one_asks_only_one_is_heard_without_an_address(language: Protocol) -> None:
    assert language.answer is not None and language.bytes_decoder is not None
    ear = Ear(language.bytes_decoder(), [Asking.of(language, None, None, 1.0, polls=False)])
    volts = set()
    addresses = (81, 82) if language.name == "daly_modbus" else (1, 2)  # known of packs that nobody here asks
    for address in addresses * 3:
        for poll in language.polls(address, None):
            for frame in (
                poll.request,
                *language.answer(poll.request, {**JBD_VALUES, "pack_v": 12.0 + address}, address),
            ):
                parts = [said for owner, said in ear.feed(frame) if isinstance(said, Part) and owner == 0]
                volts |= {part.values["pack_v"] for part in parts if "pack_v" in part.values}
            ear.end()
    assert volts == {12.0 + addresses[0]} and (ear.bound, ear.other) == addresses


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("language", ADDRESSED, ids=lambda language: language.name)
def test_on_a_bad_line_no_pack_is_told_what_another_said(language: Protocol, seed: int) -> None:
    """Replies that come late, cut off, twice, after an echo or junk, or from the pack that was not asked."""
    chance = random.Random(seed)
    values = {at: {**JBD_VALUES, "pack_v": 12.0 + at, "soc_bms": 0.2 * at} for at in (1, 2, 3)}
    assert language.answer is not None
    ask = language.answer

    def answer(request: bytes) -> list[tuple[int, bytes]]:
        out, after = [], chance.choice((20, 40, 40, 40, 510, 900, 1600))
        for address, told in values.items():
            for good in ask(request, told, address):
                spoilt = [good[: chance.randrange(len(good))], good * 2, request + good, chance.randbytes(40) + good]
                out.append((after, chance.choice([*spoilt, *[good] * 6])))
                after += chance.randrange(40)
        if chance.random() < 0.1:  # one that nobody asked
            other = chance.choice([poll.request for poll in language.polls(3, None)])
            out += [(after, stray) for stray in ask(other, values[3], 3)]
        return out

    stage = Stage(1, 2, answer=answer, poll_s=0.5, language=language)
    stage.run(90)
    for owner in (0, 1):
        told = [each for at, each in stage.parts() if at == owner]
        assert sum("pack_v" in each for each in told) > 5
        assert {each["pack_v"] for each in told if "pack_v" in each} == {13.0 + owner}
        assert {round(float(each["soc_bms"] or 0), 3) for each in told if "soc_bms" in each} == {0.2 + 0.2 * owner}


class Noisy(Stage):
    """A stage on whose line something else is heard all the time, each so many ms."""

    def run(self, seconds: float, step_ms: int = 20, *, noise: bytes = b"", each_ms: int = 100) -> None:
        self.coming += [(self.now + at * MS, noise) for at in range(0, int(seconds * 1000), each_ms) if noise]
        super().run(seconds, step_ms)


JUNK = bytes.fromhex("53ff0180aa1122334455")


def test_noise_that_never_ends_is_no_answer_and_a_pack_is_asked_again_and_again() -> None:
    """Every byte put off the end of the exchange: nothing was asked any more, for ever, and nobody was told."""
    stage = Noisy(1, answer=packs())
    stage.run(60, noise=JUNK)
    times = [at for at, _ in stage.sent]
    assert len(times) >= 10 and max(b - a for a, b in pairwise(times)) <= 11 * S
    assert stage.talk.is_restless and stage.talk.unanswered(0) >= 2 and stage.talk.timeouts[0] >= 9
    assert not stage.parts()


def test_after_the_noise_a_pack_is_heard_again_and_the_line_is_at_rest() -> None:
    stage = Noisy(1, answer=packs(a1=50))
    stage.run(20, noise=JUNK)
    stage.run(10)
    last = [at for at, _, said in stage.said if isinstance(said, Part)]
    assert stage.now - max(last) < 2 * S and not stage.talk.is_restless and stage.talk.unanswered(0) == 0


def test_a_line_on_which_packs_talk_to_another_one_without_a_pause_is_not_restless() -> None:
    listening = Noisy(None, answer=packs())
    packs_here = [Asking.of(TOY, None, None, 1.0, polls=False)]
    listening.ear = Ear(ToyDecoder(), packs_here)
    listening.talk = Talk(listening.ear, packs_here, silence_s=0.3, gap_s=0.02)
    listening.talk.reset(listening.now)
    whole = reply(message(1, 1, 0), {"pack_v": 50}, 1)
    for at in range(0, 20_000, 100):
        listening.coming += [(listening.now + at * MS, whole[:3]), (listening.now + (at + 60) * MS, whole[3:])]
    listening.run(20)
    assert len(listening.parts()) == 200 and not listening.errors() and not listening.talk.is_restless


def test_a_reply_that_comes_amid_noise_is_taken() -> None:
    stage = Noisy(1, answer=packs(a1=50))
    stage.run(30, noise=b"\x00\xff\x00", each_ms=100)
    assert stage.parts().count((0, {"pack_v": 50.0})) >= 20
