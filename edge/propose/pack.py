"""A whole battery out of a DBC: cells, values and states together, and what they say of one another. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from edge.dbc.model import Database
from edge.propose.arrays import groups_of, propose_cells, propose_temps
from edge.propose.fields import (
    Choice,
    Facts,
    Proposal,
    candidates_for,
    facts_of,
    propose_scalars,
    step_of,
    with_questions,
)
from edge.propose.states import propose_alarms, propose_state, propose_switches
from edge.propose.targets import TARGETS
from edge.propose.values import Floats, Heard, Seen, correlation

WANTED: Final = ("pack_v", "current_a", "soc_bms", "cell_v", "temp_c")
"""What a battery's page lives from."""
_SAME: Final = 0.03  # the sum of the cells is the pack's voltage but for wires and time
_GOES_WITH: Final = 0.6
_ONE_WAY: Final = 0.8
_MOST_CHANGE: Final = 0.5  # of the state of charge within one log
_NOT_A_LEVEL: Final = frozenset(
    ("limit", "want", "alarm", "other", "charger", "delta", "index", "temp", "power", "aux", "fraction", "time")
)
_MOST_COMPARED: Final = 6
_DISCHARGES: Final = re.compile(
    r"(positive|pos\.|\+|>\s*0|plus)\W[^.;]{0,30}(discharg|entlad)|negative\W[^.;]{0,20}\bcharg", re.I
)
_CHARGES: Final = re.compile(
    r"(positive|pos\.|\+|>\s*0|plus)\W[^.;]{0,30}\b(charg|laden|ladung)|negative\W[^.;]{0,20}discharg", re.I
)


def to_compare(database: Database, senders: Mapping[str, str], heard: Heard) -> tuple[list[str], list[str]]:
    """The signals whose course in time says more: candidates for the pack's voltage and for its current."""
    facts = facts_of(database, senders)
    found = []
    for name in ("pack_v", "current_a"):
        target = next(target for target in TARGETS if target.name == name)
        ranked = [c for c in candidates_for(target, facts, heard) if c.score > target.least - 3.0]
        found.append([c.facts.signal.path for c in ranked[:_MOST_COMPARED]])
    return found[0], found[1]


def propose(
    database: Database,
    senders: Mapping[str, str],
    heard: Heard | None = None,
    courses: Mapping[str, Floats] | None = None,
) -> Proposal:
    """The fields of the battery in a DBC. senders: message -> node. heard: what a bus said; None = nothing was heard.

    courses: means over time of the signals of `to_compare`.
    """
    facts = facts_of(database, senders)
    groups = groups_of(facts)
    cells, temps = propose_cells(groups, heard), propose_temps(groups, facts, heard)
    taken = {path for choice in (cells, temps) if choice is not None for path in choice.signals}
    more = _sum_of_cells(cells, facts, heard)
    _together(courses or {}, facts, more)
    scalars = propose_scalars(facts, heard, taken, more)
    scalars += _by_rest(scalars, facts, heard, taken)
    switches = propose_switches(facts, heard, taken)
    state = propose_state(facts, heard, taken)
    fields = [*scalars, *(choice for choice in (cells, temps) if choice is not None), *switches]
    fields += [state] if state is not None else []
    fields = [_with_sign(c, fields, facts, heard, courses or {}) if c.name == "current_a" else c for c in fields]
    names = {choice.name for choice in fields}
    return Proposal(
        fields=tuple(fields),
        alarms=tuple(propose_alarms(facts, heard, taken)),
        series=len(cells.signals) if cells is not None else None,
        missing=tuple(name for name in WANTED if name not in names),
        is_battery=_is_battery(fields, facts),
    )


def _is_battery(fields: Sequence[Choice], all_facts: Sequence[Facts]) -> bool:
    """Whether there is more than a number that happens to be in V."""
    facts = {one.signal.path: one for one in all_facts}
    core = {choice.name: facts[choice.signals[0]] for choice in fields if choice.name in WANTED}
    named = any({"pack", "bms"} & {*one.words, *one.around} for one in core.values())
    together = [name for name, one in core.items() if "soc" in one.words or one.beside >= {"V", "A"}]
    return "cell_v" in core or named or len(together) >= 2


def _sum_of_cells(
    cells: Choice | None, facts: Sequence[Facts], heard: Heard | None
) -> dict[tuple[str, str], list[tuple[float, str]]]:
    """Evidence for the signal that is as many volts as all cells together."""
    more: dict[tuple[str, str], list[tuple[float, str]]] = {}
    if cells is None or heard is None:
        return more
    seen = [heard.signals.get(path) for path in cells.signals]
    means = [one.mean * cells.scale + cells.offset for one in seen if one is not None and one.count]
    if len(means) < len(cells.signals):
        return more
    total = math.fsum(means)
    for one in facts:
        told = heard.signals.get(one.signal.path)
        if one.unit not in ("V", "") or told is None or not told.count or one.signal.path in cells.signals:
            continue
        value = told.mean * one.scale + one.offset
        if total > 0 and abs(value / total - 1) < _SAME:
            reason = f"{value:.1f} V in the mean, and the {len(means)} cells add up to {total:.1f} V"
            more.setdefault(("pack_v", one.signal.path), []).append((4.0, reason))
    return more


def _together(
    courses: Mapping[str, Floats], facts: Sequence[Facts], more: dict[tuple[str, str], list[tuple[float, str]]]
) -> None:
    """Evidence for a current that the voltage follows."""
    units = {one.signal.path: one.unit for one in facts}
    volts = [path for path in courses if units.get(path) == "V"]
    for path in (path for path in courses if units.get(path) == "A"):
        found = [(abs(r), other) for other in volts if (r := correlation(courses[path], courses[other])) is not None]
        best = max(found, default=(0.0, ""))
        if best[0] >= _GOES_WITH:
            more.setdefault(("current_a", path), []).append((1.5, f"{best[1]} goes with it (r = {best[0]:.2f})"))


def _by_rest(scalars: Sequence[Choice], facts: Sequence[Facts], heard: Heard | None, taken: set[str]) -> list[Choice]:
    """Numbers in % whose names say nothing: beside voltage and current the charge, beside that the health."""
    chosen = {choice.name: choice.signals[0].partition(".")[0] for choice in scalars}
    found = []
    message = chosen.get("soc_bms")
    if message is None and chosen.get("pack_v") == chosen.get("current_a"):
        message = chosen.get("pack_v")
    rest = [
        one
        for one in facts
        if one.signal.message == message
        and one.unit == "%"
        and one.signal.path not in taken
        and not _NOT_A_LEVEL & set(one.words)
        and one.hi >= 90
    ]
    if "soc_bms" not in chosen and 1 <= len(rest) <= 2:
        # The charge moves and is told more finely.
        rest.sort(key=lambda one: (-_moves(one, heard), abs(float(one.signal.scale))))
        others = [one.signal.path for one in rest[1:]]
        alike = f", or rather {others[0]}" if others else ""
        asked = f"is this the state of charge{alike}? Nothing but its unit and its place says so."
        found.append(_percent("soc_bms", rest.pop(0), "in % beside voltage and current", asked, taken))
    if "soh_bms" not in chosen and len(rest) == 1:
        asked = "is this the state of health? Nothing but its unit and its place says so."
        found.append(_percent("soh_bms", rest[0], "the other number in % beside the state of charge", asked, taken))
    return found


def _moves(one: Facts, heard: Heard | None) -> float:
    seen = heard.signals.get(one.signal.path) if heard is not None else None
    return seen.hi - seen.lo if seen is not None and seen.count else 0.0


def _percent(name: str, one: Facts, why: str, asked: str, taken: set[str]) -> Choice:
    taken.add(one.signal.path)
    return Choice(
        name=name,
        signals=(one.signal.path,),
        scale=0.01,
        step=step_of(one.signal, 0.01),
        score=3.0,
        why=(why,),
        questions=(asked,),
    )


def _went(charge: Seen, scale: float) -> bool:
    """Whether a state of charge went one way, by 1 % or more; one that jumps about is none."""
    whole, way = (charge.hi - charge.lo) * scale, abs(charge.last - charge.first) * scale
    return way >= 0.01 and way >= _ONE_WAY * whole and whole <= _MOST_CHANGE


def _with_sign(
    current: Choice,
    fields: Sequence[Choice],
    facts: Sequence[Facts],
    heard: Heard | None,
    courses: Mapping[str, Floats],
) -> Choice:
    """The current with the question which way is which, and the side that the evidence is on as the default."""
    votes: list[tuple[bool, str]] = []  # whether > 0 discharges, and why
    path = current.signals[0]
    pack = next((choice for choice in fields if choice.name == "pack_v"), None)
    if pack is not None and path in courses and pack.signals[0] in courses:
        r = correlation(courses[path], courses[pack.signals[0]])
        if r is not None and abs(r) >= _GOES_WITH:
            way = "falls" if r < 0 else "rises"
            votes.append((r < 0, f"{pack.signals[0]} {way} when it rises (r = {r:+.2f})"))
    soc = next((choice for choice in fields if choice.name == "soc_bms"), None)
    if heard is not None and soc is not None:
        charge, mean = heard.signals.get(soc.signals[0]), heard.signals.get(path)
        if charge is not None and mean is not None and _went(charge, soc.scale):
            rose = charge.last > charge.first
            is_out = (mean.mean > 0) != rose
            votes.append(
                (
                    is_out,
                    f"the state of charge {'rose' if rose else 'fell'} while it was {mean.mean:+.3g} A in the mean",
                )
            )
    comment = next(one.signal.comment for one in facts if one.signal.path == path)
    if _DISCHARGES.search(comment) or _CHARGES.search(comment):
        votes.append((bool(_DISCHARGES.search(comment)), "the DBC's comment says so"))
    turn = f"Write scale = {-current.scale:g} if > 0 discharges."
    sides = {is_out for is_out, _ in votes}
    told = "; ".join(reason for _, reason in votes)
    if sides == {True}:
        asked = f"does > 0 discharge here? {told}: it seems so, and scale turns it round. Take the minus away if not."
        return with_questions(replace(current, scale=-current.scale), asked)
    if sides == {False}:
        asked = f"does > 0 charge here? {told}: it seems so. {turn}"
    elif votes:
        asked = f"which way is > 0? The evidence is not of one mind: {told}. {turn}"
    else:
        asked = f"which way is > 0? Nothing proves the sign; > 0 must charge. {turn}"
    return with_questions(current, asked)
