"""What becomes of a model on this device: values in, values out. No file, socket, clock or log.

    seen -> fetched -> verified -> probed -> activated -> proven
    each of the first four -> refused;  activated, proven -> rolled_back

Every function takes the State and returns the next one (the same object = nothing changed); what the cloud shall hear
of it is appended to `unreported`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from edge.ota.state import OPERATOR, Candidate, Model, State, Told, Tried
from shared.manifest import MODEL_ID, REASONS

GOOD_ANSWERS: Final = 3
"""So many answers prove a model, and so many after a crash forgive it."""
CRASHES: Final = 2
PROBES: Final = 5
"""A probe that was begun so often and never ended took the agent down with it: that ends every loop of reboots."""
LIFETIME_S: Final = {"timestamp": 86_400, "snapshot": 7 * 86_400, "targets": 90 * 86_400, "root": 365 * 86_400}
"""How long each role's metadata is signed for, at the longest."""
_CLOCK_SLACK_S: Final = 86_400
_SECOND_NS: Final = 1_000_000_000
_HOUR_NS: Final = 3600 * _SECOND_NS
_COUNTED: Final = ("crash", "timeout")
_MOST_TRIED: Final = 50
_MOST_UNREPORTED: Final = 200


@dataclass(frozen=True, slots=True)
class Named:
    """A bundle as `desired` names it."""

    model_id: str
    counter: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What signed metadata says of a bundle; None = it does not say. length in bytes."""

    sha256: str
    length: int
    model_id: str | None = None
    counter: int | None = None
    feature_schema: str | None = None
    hardware: str | None = None
    chemistry: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a bundle must fit. chemistry: of the packs here; empty = none is known, all fit."""

    feature_schema: str
    hardware: str
    max_bytes: int
    chemistry: Collection[str] = field(default_factory=frozenset)


def named(desired: str | None) -> Named | None:
    """The name's parts; None if nothing is desired or it is no name of a bundle."""
    match = MODEL_ID.fullmatch(desired) if desired is not None else None
    return Named(match[0], int(match[2])) if match else None


def runs(state: State, name: Named) -> bool:
    """Whether what is desired is what runs."""
    return state.active is not None and state.active.model_id == name.model_id


def pursued(state: State, name: Named) -> bool:
    """Whether it is on its way already."""
    return state.candidate is not None and state.candidate.model_id == name.model_id


def barred(state: State, name: Named, sha256: str | None) -> bool:
    """Whether it was refused or rolled back before. sha256 None = not known yet: then any bundle of that name."""
    return any(
        item.model_id == name.model_id and item.counter == name.counter and sha256 in (None, item.sha256)
        for item in state.tried
    )


def hopeless(state: State, name: Named) -> bool:
    """Whether nothing that may be signed under this name can be taken any more."""
    by_name = any(item.model_id == name.model_id and item.sha256 is None for item in state.tried)
    return by_name or (barred(state, name, None) and name.counter <= max(state.floor.counter, state.floor.above))


def clock_wrong(state: State, t_ns: int, expires_ns: Mapping[str, int]) -> bool:
    """Whether UTC `t_ns` cannot be: valid metadata was seen later than that, or what is signed would live too long.

    expires_ns: role -> its expiry [UTC, ns].
    """
    if t_ns < state.floor.t_ns - _CLOCK_SLACK_S * _SECOND_NS:
        return True
    return any(expiry - t_ns > (LIFETIME_S[role] + _CLOCK_SLACK_S) * _SECOND_NS for role, expiry in expires_ns.items())


def valid_at(state: State, t_ns: int) -> State:
    """Signed metadata was valid at that time: no earlier one will be believed (to the hour: each is a write)."""
    if t_ns < state.floor.t_ns + _HOUR_NS:
        return state
    return replace(state, floor=replace(state.floor, t_ns=t_ns))


def seen(state: State, name: Named, t_ns: int | None) -> State:
    """The cloud desires a bundle that is not known here. A counter that can never be taken is refused at once."""
    candidate = Candidate(model_id=name.model_id, counter=name.counter)
    state = _told(replace(state, candidate=candidate, noted=None), candidate, "seen", t_ns=t_ns)
    return refused(state, "counter", t_ns) if _too_low(state, name.counter, None) else state


def signed(state: State, said: Signed, device: Device, t_ns: int | None) -> State:
    """Metadata is verified: the candidate is what was signed, or is refused before a byte of it is fetched."""
    candidate = _candidate(state)
    if candidate.sha256 != said.sha256:
        candidate = Candidate(model_id=candidate.model_id, counter=candidate.counter, sha256=said.sha256)
        state = replace(state, candidate=candidate)
    if barred(state, Named(candidate.model_id, candidate.counter), said.sha256):
        return replace(state, candidate=None)
    reason = unfit(state, said, device)
    if reason is not None:
        return refused(state, reason, t_ns)
    return replace(state, noted=None) if state.noted else state


def unfit(state: State, said: Signed, device: Device) -> str | None:
    """Why the candidate, as its metadata or its manifest describes it, does not belong here; None = it does."""
    candidate = _candidate(state)
    for counter in (candidate.counter, candidate.counter if said.counter is None else said.counter):
        if _too_low(state, counter, said.sha256):
            return "counter"
    if said.counter not in (None, candidate.counter) or said.model_id not in (None, candidate.model_id):
        return "manifest"
    if said.length > device.max_bytes:
        return "too_large"
    if said.feature_schema not in (None, device.feature_schema):
        return "feature_schema"
    if said.hardware not in (None, device.hardware):
        return "hardware"
    if device.chemistry and said.chemistry is not None and not set(device.chemistry) & set(said.chemistry):
        return "chemistry"
    return None


def _too_low(state: State, counter: int, sha256: str | None) -> bool:
    """Below what was proven here, or not above what a person rolled back.

    The very bundle that was proven may come again (its file was damaged); sha256 None = not known yet.
    """
    floor = state.floor
    if counter <= floor.above:
        return True
    if counter == floor.counter and floor.counter and floor.sha256 is not None:
        same_runs = state.active is not None and state.active.counter == counter
        return same_runs or sha256 not in (None, floor.sha256)
    return counter <= floor.counter


def refused(state: State, reason: str, t_ns: int | None) -> State:
    """The candidate is refused for good."""
    assert reason in REASONS, reason
    candidate = _candidate(state)
    state = replace(state, candidate=None, noted=None, tried=_with(state, candidate, reason))
    return _told(state, candidate, "refused", reason, t_ns)


def doubted(state: State, reason: str, t_ns: int | None) -> State:
    """Not to be believed now, which says something of the metadata or the clock and nothing of the bundle itself.

    It is refused for this time and told once; the next try may find everything right.
    """
    assert reason in REASONS, reason
    candidate = _candidate(state)
    note = (candidate.model_id, reason)
    if state.noted == note:
        return state
    return _told(replace(state, noted=note), candidate, "refused", reason, t_ns)


def fetched(state: State, *, whole: bool, numbers: Mapping[str, float], t_ns: int | None) -> State:
    """All bytes of the candidate are here, as many as were signed."""
    candidate = replace(_candidate(state), step="fetched", whole=whole)
    return _told(replace(state, candidate=candidate), candidate, "fetched", t_ns=t_ns, numbers=numbers)


def mismatched(state: State, t_ns: int | None) -> State:
    """The bytes are not those that were signed. What was put together from several answers is fetched anew, once."""
    candidate = _candidate(state)
    if candidate.whole or candidate.anew:
        return refused(state, "target_hash", t_ns)
    return replace(state, candidate=replace(candidate, step="seen", anew=True))


def vanished(state: State) -> State:
    """The candidate's file is not where it was: it is fetched again."""
    return replace(state, candidate=replace(_candidate(state), step="seen"))


def verified(state: State, t_ns: int | None) -> State:
    """Its bytes are what was signed, and its inside is what they say."""
    candidate = replace(_candidate(state), step="verified")
    return _told(replace(state, candidate=candidate), candidate, "verified", t_ns=t_ns)


def probing(state: State, t_ns: int | None) -> State:
    """A probe begins; one that has begun too often is not begun again."""
    candidate = _candidate(state)
    if candidate.probes >= PROBES:
        return refused(state, "crash", t_ns)
    return replace(state, candidate=replace(candidate, probes=candidate.probes + 1))


def unprobed(state: State) -> State:
    """The probe could not be made, which says nothing of the candidate."""
    candidate = _candidate(state)
    return replace(state, candidate=replace(candidate, probes=max(candidate.probes - 1, 0)))


def probed(state: State, *, numbers: Mapping[str, float], t_ns: int | None) -> State:
    """It loads and answers its golden rows."""
    candidate = replace(_candidate(state), step="probed")
    return _told(replace(state, candidate=candidate), candidate, "probed", t_ns=t_ns, numbers=numbers)


def activated(state: State, t_ns: int | None) -> State:
    """The candidate runs from now on. What it replaces is kept; of two, the one that was proven."""
    candidate, old = _candidate(state), state.active
    assert candidate.sha256 is not None
    model = Model(model_id=candidate.model_id, counter=candidate.counter, sha256=candidate.sha256)
    keep = state.previous if old is None or not old.proven else old
    if keep is None or keep.sha256 == model.sha256:
        keep = old
    state = replace(state, active=model, previous=keep, candidate=None, good=0, crashes=0, noted=None)
    return _told(state, model, "activated", t_ns=t_ns)


def good(state: State, t_ns: int | None) -> State:
    """The active model has given a good answer."""
    active = state.active
    if active is None or (active.proven and not state.crashes):
        return state
    state = replace(state, good=state.good + 1)
    if state.good < GOOD_ANSWERS:
        return state
    state = replace(state, good=0, crashes=0)
    if active.proven:
        return state
    active = replace(active, proven=True)
    floor = state.floor
    if active.counter >= floor.counter:
        floor = replace(floor, counter=active.counter, sha256=active.sha256, model_id=active.model_id)
    return _told(replace(state, active=active, floor=floor), active, "proven", t_ns=t_ns)


def bad(state: State, reason: str, t_ns: int | None) -> State:
    """The active model has crashed or hung (each time), or its answer cannot be: perhaps back to the one before.

    A proven model with nothing before it stays: what it answers is withheld one by one, and it may come right again.
    """
    active = state.active
    if active is None:
        return state
    if reason in _COUNTED and state.crashes + 1 < CRASHES:
        return replace(state, good=0, crashes=state.crashes + 1)
    if state.previous is None and active.proven:
        return replace(state, good=0, crashes=0) if state.good or state.crashes else state
    return rolled_back(state, reason, t_ns)


def rolled_back(state: State, reason: str, t_ns: int | None) -> State:
    """The model before runs again (None = none does); the one that ran is not tried again.

    An operator's rollback also bars every counter up to it.
    """
    active = state.active
    assert active is not None
    state = replace(state, active=state.previous, previous=None, good=0, crashes=0, tried=_with(state, active, reason))
    if reason == OPERATOR:
        state = replace(state, floor=replace(state.floor, above=max(state.floor.above, active.counter)))
        if state.candidate is not None and state.candidate.counter <= state.floor.above:
            state = replace(state, candidate=None, noted=None)
    return _told(state, active, "rolled_back", reason, t_ns)


def damaged(state: State, sound: Collection[str], t_ns: int | None) -> State:
    """At start: only bundles whose sha256 is in `sound` can be read whole. What is damaged may be fetched again."""
    if state.previous is not None and state.previous.sha256 not in sound:
        state = replace(state, previous=None)
    if state.active is None or state.active.sha256 in sound:
        return state
    return replace(rolled_back(state, "target_hash", t_ns), tried=state.tried)


def reported(state: State, count: int) -> State:
    """The first `count` of `unreported` are in the outbox."""
    return replace(state, unreported=state.unreported[count:]) if count else state


def _candidate(state: State) -> Candidate:
    assert state.candidate is not None
    return state.candidate


def _with(state: State, model: Candidate | Model, reason: str) -> tuple[Tried, ...]:
    item = Tried(model_id=model.model_id, counter=model.counter, sha256=model.sha256, reason=reason)
    return (*state.tried, item)[-_MOST_TRIED:]


def _told(
    state: State,
    model: Candidate | Model,
    step: str,
    reason: str | None = None,
    t_ns: int | None = None,
    numbers: Mapping[str, float] | None = None,
) -> State:
    told = Told(
        model_id=model.model_id, counter=model.counter, step=step, reason=reason, t_ns=t_ns, numbers=dict(numbers or {})
    )
    return replace(state, last=told, unreported=(*state.unreported, told)[-_MOST_UNREPORTED:])
