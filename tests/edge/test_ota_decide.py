"""What becomes of a model: every step, every reason, every way back, as values."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from edge.ota import decide
from edge.ota.decide import Device, Named, Signed
from edge.ota.state import OPERATOR, Floor, Model, State, from_json, status_of, to_json
from shared.manifest import REASONS

DEVICE = Device(feature_schema="schema", hardware="cpu", max_bytes=5_000_000, chemistry=frozenset({"nmc"}))
DAY_NS = 86_400 * 10**9
T_NS = 20_000 * DAY_NS


def sha(counter: int, which: str = "a") -> str:
    return f"{counter:04d}".rjust(60, "0") + which * 4


def said(number: int, which: str = "a", **more: object) -> Signed:
    return replace(
        Signed(
            sha256=sha(number, which),
            length=1000,
            model_id=f"m-{number}",
            counter=number,
            feature_schema="schema",
            hardware="cpu",
            chemistry=("nmc", "lfp"),
        ),
        **more,
    )


def steps(state: State) -> list[str]:
    return [told.step if told.reason is None else f"{told.step} {told.reason}" for told in state.unreported]


def on_its_way(state: State, counter: int, until: str = "probed") -> State:
    state = decide.seen(state, Named(f"m-{counter}", counter), T_NS)
    state = decide.signed(state, said(counter), DEVICE, T_NS)
    for step in ("fetched", "verified", "probed"):
        if step == "fetched":
            state = decide.fetched(state, whole=True, numbers={}, t_ns=T_NS)
        elif step == "verified":
            state = decide.verified(state, T_NS)
        else:
            state = decide.probed(decide.probing(state, T_NS), numbers={}, t_ns=T_NS)
        if step == until:
            break
    return state


def installed(state: State, counter: int, *, proven: bool = True) -> State:
    state = decide.activated(on_its_way(state, counter), T_NS)
    for _ in range(decide.GOOD_ANSWERS * proven):
        state = decide.good(state, T_NS)
    return state


def test_a_bundle_goes_its_way_and_each_step_is_told_once() -> None:
    state = installed(State(), 1)
    assert steps(state) == ["seen", "fetched", "verified", "probed", "activated", "proven"]
    assert all(told.model_id == "m-1" and told.counter == 1 and told.t_ns == T_NS for told in state.unreported)
    assert state.active == Model(model_id="m-1", counter=1, sha256=sha(1), proven=True)
    assert state.floor.counter == 1 and state.candidate is None and state.previous is None
    state = installed(state, 4)
    assert state.previous is not None and state.previous.counter == 1
    assert state.floor == Floor(counter=4, sha256=sha(4), model_id="m-4")
    assert decide.runs(state, Named("m-4", 4)) and not decide.runs(state, Named("m-1", 1))


@pytest.mark.parametrize(
    ("desired", "parts"),
    [
        ("rul-7", Named("rul-7", 7)),
        ("rul-nmc.v2-10", Named("rul-nmc.v2-10", 10)),
        ("rul-0", None),
        ("a-b-12", Named("a-b-12", 12)),
        (None, None),
        ("", None),
        ("rul", None),
        ("rul-07", None),
        ("rul--1", None),
        ("-1", None),
        ("../evil-3", None),
        ("rul-3\n", None),
        ("rul-٣", None),
        ("x" * 70 + "-1", None),
        ("rul-99999999999999999", None),
    ],
)
def test_only_the_name_of_a_bundle_is_one(desired: str | None, parts: Named | None) -> None:
    assert decide.named(desired) == parts


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"model_id": "other-2"}, "manifest"),
        ({"counter": 3}, "manifest"),
        ({"counter": 1}, "counter"),
        ({"length": 5_000_001}, "too_large"),
        ({"feature_schema": "other"}, "feature_schema"),
        ({"hardware": "gpu"}, "hardware"),
        ({"chemistry": ("lfp",)}, "chemistry"),
        ({"chemistry": ()}, "chemistry"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_byte_is_fetched(wrong: dict[str, object], reason: str) -> None:
    state = decide.seen(installed(State(), 1), Named("m-2", 2), T_NS)
    state = decide.signed(state, said(2, **wrong), DEVICE, T_NS)
    assert steps(state)[-2:] == ["seen", f"refused {reason}"]
    assert state.candidate is None and state.active is not None and state.active.counter == 1
    assert decide.barred(state, Named("m-2", 2), None) and decide.barred(state, Named("m-2", 2), sha(2))
    assert not decide.barred(state, Named("m-2", 2), sha(2, "b")), "another bundle under the same counter is another"


def test_what_metadata_does_not_say_is_left_to_the_manifest() -> None:
    state = decide.seen(State(), Named("m-2", 2), T_NS)
    state = decide.signed(state, Signed(sha256=sha(2), length=1), DEVICE, T_NS)
    assert state.candidate is not None and state.candidate.sha256 == sha(2)
    unknown = replace(DEVICE, chemistry=frozenset())
    assert decide.unfit(state, said(2, chemistry=("lto",)), unknown) is None


@pytest.mark.parametrize("reason", sorted({*REASONS} - {"signature", "expired", "clock"}))
@pytest.mark.parametrize("at", ["fetched", "verified"])
def test_every_reason_refuses_for_good_and_what_runs_goes_on(reason: str, at: str) -> None:
    state = decide.refused(on_its_way(installed(State(), 1), 2, at), reason, T_NS)
    assert steps(state)[-1] == f"refused {reason}"
    assert state.active is not None and state.active.counter == 1 and state.candidate is None
    assert state.floor.counter == 1
    assert decide.barred(state, Named("m-2", 2), sha(2))


@pytest.mark.parametrize("reason", ["signature", "expired", "clock", "counter"])
def test_a_doubt_is_told_once_and_forgotten_when_all_is_well(reason: str) -> None:
    state = decide.seen(installed(State(), 1), Named("m-2", 2), T_NS)
    state = decide.doubted(state, reason, T_NS)
    assert decide.doubted(state, reason, T_NS) is state
    other = "expired" if reason != "expired" else "clock"
    assert steps(decide.doubted(state, other, T_NS))[-2:] == [f"refused {reason}", f"refused {other}"]
    assert not decide.barred(state, Named("m-2", 2), None) and decide.pursued(state, Named("m-2", 2))
    state = decide.signed(state, said(2), DEVICE, T_NS)
    assert state.noted is None
    state = decide.activated(decide.probed(state, numbers={}, t_ns=T_NS), T_NS)
    assert state.active is not None and state.active.counter == 2


def test_bytes_put_together_from_several_answers_get_a_second_chance_and_only_one() -> None:
    state = on_its_way(State(), 2, "fetched")
    assert steps(decide.mismatched(state, T_NS))[-1] == "refused target_hash", "it came whole: it is the server's"
    state = decide.fetched(state, whole=False, numbers={}, t_ns=T_NS)
    state = decide.mismatched(state, T_NS)
    assert state.candidate is not None and state.candidate.step == "seen"
    state = decide.mismatched(decide.fetched(state, whole=False, numbers={}, t_ns=T_NS), T_NS)
    assert steps(state)[-1] == "refused target_hash" and state.candidate is None


def test_a_file_that_vanished_is_fetched_again() -> None:
    state = decide.vanished(on_its_way(State(), 2, "probed"))
    assert state.candidate is not None and (state.candidate.step, state.candidate.sha256) == ("seen", sha(2))


def test_another_bundle_under_the_same_name_starts_anew() -> None:
    state = decide.signed(on_its_way(State(), 2, "verified"), said(2, "b"), DEVICE, T_NS)
    assert state.candidate is not None
    assert (state.candidate.step, state.candidate.sha256) == ("seen", sha(2, "b"))


def test_probes_that_take_the_agent_down_end() -> None:
    state = on_its_way(State(), 2, "verified")
    begun = 0
    while state.candidate is not None:
        begun += 1
        state = decide.probing(state, T_NS)
    assert begun == decide.PROBES + 1
    assert steps(state)[-1] == "refused crash"
    state = on_its_way(State(), 2, "verified")
    for _ in range(2 * decide.PROBES):
        state = decide.unprobed(decide.probing(state, T_NS))
    assert state.candidate is not None, "what the machine could not do says nothing of the bundle"


def test_the_floor_holds_and_a_lower_counter_is_refused_by_name() -> None:
    state = installed(State(), 5)
    for counter in (1, 4):
        refused = decide.seen(state, Named(f"m-{counter}", counter), T_NS)
        assert steps(refused)[-2:] == ["seen", "refused counter"]
        assert decide.hopeless(refused, Named(f"m-{counter}", counter))
    assert steps(decide.seen(state, Named("other-5", 5), T_NS))[-1] == "refused counter"
    assert steps(decide.seen(state, Named("m-6", 6), T_NS))[-1] == "seen"


def test_below_the_floor_nothing_is_taken_while_a_model_is_not_proven() -> None:
    state = installed(installed(State(), 5), 9, proven=False)
    assert steps(decide.seen(state, Named("m-7", 7), T_NS))[-1] == "seen", "9 has proven nothing yet"
    assert steps(decide.seen(state, Named("m-4", 4), T_NS))[-1] == "refused counter"


@pytest.mark.parametrize("reason", ["not_finite", "out_of_range"])
@pytest.mark.parametrize("proven", [True, False])
def test_an_answer_that_cannot_be_brings_the_model_before_back(reason: str, proven: bool) -> None:
    state = decide.bad(installed(installed(State(), 1), 2, proven=proven), reason, T_NS)
    assert state.active == Model(model_id="m-1", counter=1, sha256=sha(1), proven=True)
    assert state.previous is None and steps(state)[-1] == f"rolled_back {reason}"
    assert state.floor.counter == (2 if proven else 1)
    assert decide.barred(state, Named("m-2", 2), sha(2))
    assert decide.hopeless(state, Named("m-2", 2)) == proven, "below the floor nothing else can come either"


@pytest.mark.parametrize("reasons", list(itertools.product(["crash", "timeout"], repeat=2)))
def test_the_second_crash_brings_the_model_before_back(reasons: tuple[str, str]) -> None:
    state = decide.bad(installed(installed(State(), 1), 2, proven=False), reasons[0], T_NS)
    assert state.active is not None and state.active.counter == 2
    state = decide.bad(decide.good(state, T_NS), reasons[1], T_NS)
    assert state.active is not None and state.active.counter == 1
    assert steps(state)[-1] == f"rolled_back {reasons[1]}"


@pytest.mark.parametrize("proven", [True, False])
def test_three_good_answers_forgive_a_crash(proven: bool) -> None:
    state = installed(installed(State(), 1), 2, proven=proven)
    for _ in range(5):
        state = decide.bad(state, "crash", T_NS)
        for _ in range(decide.GOOD_ANSWERS):
            state = decide.good(state, T_NS)
    assert state.active == Model(model_id="m-2", counter=2, sha256=sha(2), proven=True)
    assert steps(state).count("proven") == 2, "each model once"
    assert decide.good(state, T_NS) is state, "a proven model's answers cost no write"


def test_a_proven_model_with_nothing_before_it_stays() -> None:
    state = installed(State(), 1)
    for reason in ("not_finite", "crash", "crash", "out_of_range", "timeout", "timeout"):
        state = decide.bad(state, reason, T_NS)
    assert state.active is not None and state.active.counter == 1
    assert "rolled_back" not in " ".join(steps(state))


def test_a_first_model_that_proves_nothing_goes() -> None:
    state = decide.bad(installed(State(), 1, proven=False), "not_finite", T_NS)
    assert state.active is None and steps(state)[-1] == "rolled_back not_finite"
    assert decide.bad(state, "crash", T_NS) is state and decide.good(state, T_NS) is state


def test_what_is_kept_is_the_last_that_was_proven() -> None:
    state = installed(installed(installed(State(), 1), 2, proven=False), 3, proven=False)
    assert state.previous is not None and state.previous.counter == 1
    state = installed(installed(State(), 1, proven=False), 2, proven=False)
    assert state.previous is not None and state.previous.counter == 1, "better than none"


def test_a_proven_model_may_come_again_while_the_one_after_it_has_proven_nothing() -> None:
    state = decide.seen(installed(installed(State(), 1), 2, proven=False), Named("m-1", 1), T_NS)
    state = decide.activated(decide.signed(state, said(1), DEVICE, T_NS), T_NS)
    assert state.active is not None and state.active.counter == 1
    assert state.previous is not None and state.previous.counter == 2, "two different ones"


def test_after_a_person_went_back_only_a_higher_counter_is_taken() -> None:
    state = on_its_way(installed(installed(State(), 1), 5, proven=False), 3, "verified")
    state = decide.rolled_back(state, OPERATOR, T_NS)
    assert state.active is not None and state.active.counter == 1 and state.candidate is None
    assert steps(state)[-1] == "rolled_back operator"
    for counter in (2, 5):
        assert steps(decide.seen(state, Named(f"x-{counter}", counter), T_NS))[-1] == "refused counter"
    assert steps(decide.seen(state, Named("x-6", 6), T_NS))[-1] == "seen"
    assert status_of(state)["floor"] == 1, "the floor is what was proven"


def test_a_higher_candidate_survives_a_rollback() -> None:
    state = decide.rolled_back(on_its_way(installed(installed(State(), 1), 5), 6, "verified"), OPERATOR, T_NS)
    assert state.candidate is not None and state.candidate.counter == 6


def test_a_damaged_bundle_gives_way_and_may_come_again() -> None:
    two = installed(installed(State(), 1), 2)
    assert decide.damaged(two, {sha(1), sha(2)}, T_NS) is two
    state = decide.damaged(two, {sha(1)}, T_NS)
    assert state.active is not None and state.active.counter == 1
    assert steps(state)[-1] == "rolled_back target_hash"
    assert not decide.barred(state, Named("m-2", 2), None)
    again = decide.signed(decide.seen(state, Named("m-2", 2), T_NS), said(2), DEVICE, T_NS)
    assert again.candidate is not None and again.candidate.sha256 == sha(2)
    forged = decide.signed(decide.seen(state, Named("m-2", 2), T_NS), said(2, "b"), DEVICE, T_NS)
    assert steps(forged)[-1] == "refused counter", "the same counter, but not what was proven"
    none = decide.damaged(two, set(), T_NS)
    assert none.active is None and none.previous is None
    assert decide.damaged(two, {sha(2)}, T_NS) == replace(two, previous=None)


@pytest.mark.parametrize(
    ("expires_days", "wrong"),
    [
        ({"timestamp": 0.5, "snapshot": 6, "targets": 89, "root": 364}, False),
        ({"timestamp": 1.9, "snapshot": 7.9, "targets": 90.9, "root": 365.9}, False),
        ({"timestamp": 2.1}, True),
        ({"snapshot": 8.1}, True),
        ({"targets": 92}, True),
        ({"root": 366.5}, True),
        ({"timestamp": 3650}, True),
        ({}, False),
    ],
)
def test_what_would_live_longer_than_anybody_signs_means_a_wrong_clock(
    expires_days: dict[str, float], wrong: bool
) -> None:
    expires_ns = {role: T_NS + int(days * DAY_NS) for role, days in expires_days.items()}
    assert decide.clock_wrong(State(), T_NS, expires_ns) == wrong


def test_no_clock_is_believed_that_says_less_than_was_seen() -> None:
    state = decide.valid_at(State(), T_NS)
    assert decide.valid_at(state, T_NS + 60 * 10**9) is state, "not a write each time"
    assert decide.valid_at(state, T_NS - DAY_NS) is state
    assert not decide.clock_wrong(state, T_NS - DAY_NS // 2, {})
    assert decide.clock_wrong(state, T_NS - 2 * DAY_NS, {})


def test_reports_are_kept_in_order_until_they_are_in_the_outbox() -> None:
    state = installed(State(), 1)
    assert decide.reported(state, 0) is state
    assert steps(decide.reported(state, 4)) == ["activated", "proven"]


def test_every_state_on_the_way_reads_back_as_it_was() -> None:
    state = installed(State(), 1)
    state = decide.refused(on_its_way(state, 2, "verified"), "golden", None)
    state = decide.doubted(on_its_way(state, 3, "fetched"), "expired", T_NS)
    for value in (State(), state, decide.bad(installed(state, 4), "not_finite", T_NS)):
        assert from_json(json.loads(json.dumps(to_json(value)))) == value


@pytest.mark.parametrize("told", [None, [], {}, {"format": 2}, {"format": 1}, {"format": 1, "active": 3}, 7])
def test_what_is_no_state_is_said_to_be_none(told: object) -> None:
    with pytest.raises(ValueError):
        from_json(told)


def test_the_status_is_what_the_contract_says() -> None:
    state = on_its_way(installed(State(), 1), 2, "verified")
    assert status_of(state) == {
        "active": {"model_id": "m-1", "counter": 1, "sha256": sha(1)},
        "previous": None,
        "candidate": {"model_id": "m-2", "counter": 2, "sha256": sha(2)},
        "floor": 1,
        "last": {"step": "verified", "reason": None, "t_ns": T_NS},
    }
    assert status_of(State()) == {"active": None, "previous": None, "candidate": None, "floor": 0, "last": None}


def test_any_sequence_keeps_a_model_once_one_was_proven() -> None:
    """All sequences of five events: never none once one was proven, never active = previous, never below the floor."""
    events = {
        "install": lambda s, n: installed(s, n, proven=False),
        "good": lambda s, n: decide.good(s, T_NS),
        "crash": lambda s, n: decide.bad(s, "crash", T_NS),
        "nan": lambda s, n: decide.bad(s, "not_finite", T_NS),
        "back": lambda s, n: decide.rolled_back(s, OPERATOR, T_NS) if s.active and s.previous else s,
    }
    for sequence in itertools.product(events, repeat=5):
        state = installed(State(), 1)
        floors = [state.floor.counter]
        for number, event in enumerate(sequence, start=2):
            state = events[event](state, number)
            floors.append(state.floor.counter)
            assert state.active is not None, sequence
            assert state.active != state.previous
            assert state.previous is None or state.previous.counter < state.active.counter
        assert floors == sorted(floors)
