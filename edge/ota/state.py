"""Where the models of this device stand, as one frozen value, and that value as JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

STEPS: Final = ("seen", "fetched", "verified", "probed", "activated", "proven", "refused", "rolled_back")
OPERATOR: Final = "operator"
"""Beside the closed list of `shared.manifest`: the reason of `edge model rollback`."""
_FORMAT: Final = 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A bundle that lies in `bundles/` and was activated. proven: it has given 3 good answers here."""

    model_id: str
    counter: int
    sha256: str
    proven: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The bundle on its way. step: seen | fetched | verified | probed. sha256 None = no signed metadata of it yet.

    whole: it came in one answer, from its first byte. anew: it was fetched a second time because the first did not
    match. probes: how often a probe was begun.
    """

    model_id: str
    counter: int
    sha256: str | None = None
    step: str = "seen"
    whole: bool = False
    anew: bool = False
    probes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What is not tried again. sha256 None = refused by its name, whatever is signed under it."""

    model_id: str
    counter: int
    sha256: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One step that the cloud shall hear of. t_ns: UTC, None = the clock was not trusted then."""

    model_id: str
    counter: int
    step: str
    reason: str | None = None
    t_ns: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """What must outlive everything else. counter, sha256, model_id: the highest bundle proven here (0, None = none).

    above: only a higher counter is taken (a person rolled this one back). t_ns: the latest trusted time at which signed
    metadata was found valid; a clock that says less is wrong.
    """

    counter: int = 0
    sha256: str | None = None
    model_id: str | None = None
    above: int = 0
    t_ns: int = 0

    def joined(self, other: Floor) -> Floor:
        """The higher of each."""
        best = self if self.counter >= other.counter else other
        return Floor(
            counter=best.counter,
            sha256=best.sha256,
            model_id=best.model_id,
            above=max(self.above, other.above),
            t_ns=max(self.t_ns, other.t_ns),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All of it. good: answers of `active` since its last crash (3 = enough); crashes: of `active`, not yet forgiven.

    noted: (model_id, reason) of the last refusal that passes by itself; it is told once, not at each try.
    """

    active: Model | None = None
    previous: Model | None = None
    candidate: Candidate | None = None
    floor: Floor = Floor()
    good: int = 0
    crashes: int = 0
    tried: tuple[Tried, ...] = ()
    noted: tuple[str, str] | None = None
    last: Told | None = None
    unreported: tuple[Told, ...] = ()


def status_of(state: State) -> dict[str, Any]:
    """What `edge model status --json` prints."""
    last = state.last
    return {
        "active": _named(state.active),
        "previous": _named(state.previous),
        "candidate": _named(state.candidate),
        "floor": state.floor.counter,
        "last": None if last is None else {"step": last.step, "reason": last.reason, "t_ns": last.t_ns},
    }


def _named(model: Model | Candidate | None) -> dict[str, Any] | None:
    return None if model is None else {key: getattr(model, key) for key in ("model_id", "counter", "sha256")}


def to_json(state: State) -> dict[str, Any]:
    """The state as JSON can hold it."""
    return {"format": _FORMAT, **asdict(state)}


def from_json(told: Any) -> State:
    """The state that `to_json` wrote. Raises ValueError where it is anything else."""
    try:
        if told["format"] != _FORMAT:
            raise ValueError(f"format {told['format']}")
        return State(
            active=_record(Model, told["active"]),
            previous=_record(Model, told["previous"]),
            candidate=_record(Candidate, told["candidate"]),
            floor=floor_from_json(told["floor"]),
            good=int(told["good"]),
            crashes=int(told["crashes"]),
            tried=tuple(Tried(**item) for item in told["tried"]),
            noted=None if told["noted"] is None else (str(told["noted"][0]), str(told["noted"][1])),
            last=_record(Told, told["last"]),
            unreported=tuple(Told(**item) for item in told["unreported"]),
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no state of models: {error}") from None


def floor_from_json(told: Any) -> Floor:
    """The floor as JSON. Raises ValueError where it is anything else."""
    try:
        sha256, model_id = told["sha256"], told["model_id"]
        return Floor(
            counter=int(told["counter"]),
            sha256=None if sha256 is None else str(sha256),
            model_id=None if model_id is None else str(model_id),
            above=int(told["above"]),
            t_ns=int(told["t_ns"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no floor: {error}") from None


def _record(kind: type[T], told: Any) -> T | None:
    return None if told is None else kind(**told)
