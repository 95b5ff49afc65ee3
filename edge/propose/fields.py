"""A mapping for a DBC that nobody has mapped: which signal is which field of a Sample, and the evidence for it. Pure.

Every signal gets points for every field: its unit, the words of its name, of its message and its sender, how far it can
go, and what was heard of it. The best is taken; one that is as good, and whatever the data cannot prove, is a question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from edge.dbc.model import Database, Signal
from edge.propose.targets import BATTERY, TARGETS, Target
from edge.propose.values import Heard
from edge.propose.words import meanings, unit_of

TIE: Final = 1.0
"""Two candidates that are no more points apart are a question."""
UNHEARD: Final = 4.0
"""Points lost by what never came in the log."""
NEVER_CAME: Final = "is it sent at all? It never came in the log."
_LONGEST_COMMENT: Final = 100  # a longer one speaks of many things
_AROUND: Final = {"aux": 1.0, "charger": 0.6, "other": 0.6, "cell": 0.3, "link": 0.6}
"""How much of what a word tells against a signal counts when it stands in the message's name only."""
_TOGETHER: Final = frozenset({"V", "A"})  # units of a message that is likely to be a battery's
_STUCK: Final = 0.98  # this much of the values out of range: no measurement


@dataclass(frozen=True, slots=True)
class Facts:
    """What a DBC says of one signal, understood. words: of its name; around: of its message and sender.

    told: of its comment. unit: family of the unit, None = one that is no battery's; value in it = value x scale +
    offset. lo, hi: how far it can go, in that unit. beside: the families of units in its message.
    """

    signal: Signal
    words: tuple[str, ...]
    around: tuple[str, ...]
    told: tuple[str, ...]
    unit: str | None
    scale: float
    offset: float
    lo: float
    hi: float
    beside: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One line of [fields]: the signals for a field, why, and what a person should look at.

    signals: one, or by position. value = signal x scale + offset; values: of a state or a switch. step: how fine the
    signal is, in the field's unit.
    """

    name: str
    signals: tuple[str, ...]
    is_array: bool = False
    scale: float = 1.0
    offset: float = 0.0
    step: float | None = None
    values: Mapping[int, str | bool] | None = None
    max_age_s: float | None = None
    score: float = 0.0
    why: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What is proposed. missing: the fields of a battery for which nothing was found. is_battery: whether it is one."""

    fields: tuple[Choice, ...]
    alarms: tuple[Choice, ...] = ()
    series: int | None = None
    missing: tuple[str, ...] = ()
    is_battery: bool = False

    @property
    def questions(self) -> tuple[tuple[str, str], ...]:
        """(field, question) of all that a person should look at."""
        return tuple((choice.name, asked) for choice in (*self.fields, *self.alarms) for asked in choice.questions)

    def field(self, name: str) -> Choice | None:
        """The choice for a field."""
        return next((choice for choice in self.fields if choice.name == name), None)


Evidence = Sequence[tuple[float, str]]
"""Points and the reason for them."""


@dataclass(slots=True)
class Candidate:
    """A signal for a target with its points and their reasons. is_silent: the log does not have it at all."""

    facts: Facts
    score: float = 0.0
    is_silent: bool = False
    why: list[str] = field(default_factory=list)

    def add(self, points: float, reason: str) -> None:
        """Points for (or against) it."""
        self.score += points
        if reason:
            self.why.append(reason)


def facts_of(database: Database, senders: Mapping[str, str]) -> list[Facts]:
    """Each signal of a DBC, understood. senders: message -> the node that sends it, as far as it is known."""
    found: dict[str, Facts] = {}
    for message in database.messages:
        around = meanings(message.name) + meanings(senders.get(message.name, ""))
        units = [unit_of(signal.unit) for signal in message.signals]
        beside = frozenset(unit[0] for unit in units if unit is not None and unit[0])
        for signal in message.signals:
            if signal.path not in found and not signal.is_switch:
                found[signal.path] = _facts(signal, around, beside)
    return list(found.values())


def _facts(signal: Signal, around: tuple[str, ...], beside: frozenset[str]) -> Facts:
    unit = unit_of(signal.unit)
    family, scale, offset = unit or (None, 1.0, 0.0)
    lo, hi = _span(signal)
    ends = sorted((lo * scale + offset, hi * scale + offset))
    told = meanings(signal.comment) if len(signal.comment) <= _LONGEST_COMMENT else ()
    return Facts(signal, meanings(signal.name), around, told, family, scale, offset, ends[0], ends[1], beside)


def _span(signal: Signal) -> tuple[float, float]:
    """How far it can go: what its bits hold, within the DBC's limits."""
    if signal.is_float:
        return signal.lo, signal.hi
    least, most = (
        (-(1 << signal.bits - 1), (1 << signal.bits - 1) - 1) if signal.signed else (0, (1 << signal.bits) - 1)
    )
    with_scale = sorted(float(signal.scale) * raw + float(signal.offset) for raw in (least, most))
    return max(with_scale[0], signal.lo), min(with_scale[1], signal.hi)


def propose_scalars(
    all_facts: Sequence[Facts], heard: Heard | None, taken: set[str], more: Mapping[tuple[str, str], Evidence]
) -> list[Choice]:
    """The fields that are one signal each. `taken`: signals that are something else already; grows.

    more: what else speaks for a signal as a field, by (field, `Message.Signal`).
    """
    candidates = {target.name: candidates_for(target, all_facts, heard, more) for target in TARGETS}
    chosen: dict[str, Choice] = {}
    order = sorted(
        ((candidate.score, target.name) for target in TARGETS for candidate in candidates[target.name][:1]),
        reverse=True,
    )
    for _, name in order:
        target = next(target for target in TARGETS if target.name == name)
        free = [
            c
            for c in candidates[name]
            if c.facts.signal.path not in taken and enough(c.score, c.is_silent, target.least)
        ]
        if free:
            chosen[name] = _choice(target, free, heard)
            taken.add(free[0].facts.signal.path)
    return [chosen[target.name] for target in TARGETS if target.name in chosen]


def candidates_for(
    target: Target,
    all_facts: Sequence[Facts],
    heard: Heard | None,
    more: Mapping[tuple[str, str], Evidence] = MappingProxyType({}),
) -> list[Candidate]:
    """The signals that could be a target's, the best first; those with no points at all are left out."""
    found = []
    for facts in all_facts:
        candidate = _by_name(target, facts)
        if candidate is not None:
            if heard is not None:
                _by_values(target, candidate, heard)
            for points, reason in more.get((target.name, facts.signal.path), ()):
                candidate.add(points, reason)
            found.append(candidate)
    return sorted(found, key=lambda c: -c.score)


def _by_name(target: Target, facts: Facts) -> Candidate | None:
    """The points of what the DBC says; None = it cannot be this."""
    has_word = all(need & set(facts.words) for need in target.needs)
    told_word = has_word or all(need & {*facts.words, *facts.told, *facts.around} for need in target.needs)
    fits_unit = facts.unit in target.units
    if facts.unit is None or (facts.unit and not fits_unit) or facts.signal.bits < target.least_bits:
        return None
    if not (told_word or (fits_unit and facts.unit and target.unit_is_enough)):
        return None
    if not (has_word or (fits_unit and facts.unit)) or target.never & set(facts.words):
        return None
    candidate = Candidate(facts)
    if facts.unit and fits_unit:
        candidate.add(3.0, f'unit "{facts.signal.unit}"')
    if has_word or told_word:
        candidate.add(3.0 if has_word else 1.0, f"its {'name' if has_word else 'message or comment'} says so")
    elif not BATTERY & set(facts.around):
        candidate.add(-0.5 if facts.unit in _TOGETHER and facts.beside >= _TOGETHER else -4.0, "")
    if target.unit_is_enough and facts.beside >= _TOGETHER:
        candidate.add(1.5, "")
    _by_words(target, candidate)
    _by_span(target, candidate)
    return candidate


def _by_words(target: Target, candidate: Candidate) -> None:
    """Points for the other words of a name, and half of them for those around it."""
    facts = candidate.facts
    for word in dict.fromkeys(facts.words):
        candidate.add(target.words.get(word, 0.0), "")
    for word in set(facts.around) - set(facts.words):
        points = target.words.get(word, 0.0)
        candidate.add(points * (0.5 if points > 0 else _AROUND.get(word, 0.2)), "")
    for word in set(facts.told) - set(facts.words) - set(facts.around):
        candidate.add(max(-0.3, min(0.5, target.words.get(word, 0.0) / 3)), "")
    if BATTERY & {*facts.words, *facts.around}:
        candidate.add(1.0, "it is the battery's")


def _by_span(target: Target, candidate: Candidate) -> None:
    """Points for how far it can go."""
    facts = candidate.facts
    if target.reaches is not None and (facts.hi < target.reaches or facts.lo > target.hi):
        candidate.add(-8.0, "")
    elif facts.hi <= 20 * target.hi:
        candidate.add(1.0, f"reaches {_short(facts.lo)}..{_short(facts.hi)}")
    if target.has_sign:
        candidate.add(1.5 if facts.lo < 0 < facts.hi else -1.5, "")
    if facts.signal.values and len(facts.signal.values) > 3:  # numbers with names are seldom measurements
        candidate.add(-3.0, "")


def _by_values(target: Target, candidate: Candidate, heard: Heard) -> None:
    """Points for what was heard of it."""
    facts = candidate.facts
    seen = heard.signals.get(facts.signal.path)
    if seen is None:
        candidate.is_silent = True
        candidate.add(-UNHEARD, "never heard in the log")
        return
    if seen.bad > _STUCK * (seen.bad + seen.count):
        candidate.add(-5.0, "always out of range in the log")
        return
    lo, hi = sorted((seen.lo * facts.scale + facts.offset, seen.hi * facts.scale + facts.offset))
    mean = seen.mean * facts.scale + facts.offset
    candidate.add(1.5 if target.lo <= mean <= target.hi else -5.0, f"{_short(lo)}..{_short(hi)} in the log")
    if lo < min(target.lo, 0.0) or hi > target.hi:
        candidate.add(-1.0, "")
    if seen.varies:
        candidate.add(target.moving, "")
    if lo == hi == 0:
        candidate.add(-1.5, "")


def enough(score: float, is_silent: bool, least: float) -> bool:
    """Whether the points are enough: what was heard goes first, but a log need not have all that there is."""
    return score + UNHEARD * is_silent >= least


def _choice(target: Target, ranked: list[Candidate], heard: Heard | None) -> Choice:
    """The best of the candidates, with a question where the next is as good."""
    best = ranked[0]
    scale, offset = scaled(target, best.facts, heard)
    questions = []
    rivals = [c.facts.signal.path for c in ranked[1:] if c.score >= best.score - TIE][:4]
    if rivals:
        questions.append(f"is it {best.facts.signal.path}, or rather {' or '.join(rivals)}? They look alike.")
    elif not any(need & set(best.facts.words) for need in target.needs):
        questions.append(f"is this it? Only {', '.join(best.why)} speak for it, not its name.")
    if best.is_silent:
        questions.append(NEVER_CAME)
    return Choice(
        name=target.name,
        signals=(best.facts.signal.path,),
        scale=scale,
        offset=offset,
        step=step_of(best.facts.signal, scale),
        score=best.score,
        why=tuple(best.why),
        questions=tuple(questions),
        max_age_s=max_age_s([best.facts.signal.path], heard),
    )


def scaled(target: Target, facts: Facts, heard: Heard | None) -> tuple[float, float]:
    """(scale, offset) from a signal to a target's unit."""
    scale, offset = facts.scale, facts.offset
    if target.guess_scale:
        seen = heard.signals.get(facts.signal.path) if heard is not None else None
        is_fine = abs(float(facts.signal.scale)) < target.guess_scale * 2
        is_part = facts.hi <= target.guess_below or (
            not facts.unit and is_fine and seen is not None and 0 < seen.hi <= target.guess_below
        )
        scale = 1.0 if is_part else scale * target.guess_scale
    return scale, offset


def step_of(signal: Signal, scale: float) -> float | None:
    """How fine a signal is in the field's unit; None = a float, or finer than can be said."""
    step = abs(float(signal.scale) * scale)
    return None if signal.is_float or not 1e-9 <= step < math.inf else float(f"{step:.6g}")


def max_age_s(paths: Sequence[str], heard: Heard | None) -> float | None:
    """How old the values may become where they come so seldom that the agent's own limit is too strict."""
    seen = [heard.signals.get(path) for path in paths] if heard is not None else []
    periods = [one.period_s for one in seen if one is not None and one.period_s is not None]
    slowest = max(periods, default=0.0)
    return float(math.ceil(3 * slowest)) if slowest > 1.5 else None


def with_questions(choice: Choice, *asked: str) -> Choice:
    """The choice with more to ask."""
    return replace(choice, questions=(*choice.questions, *asked))


def _short(value: float) -> str:
    return f"{value:.4g}"
