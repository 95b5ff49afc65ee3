"""Cells and temperatures in a DBC: signals whose names differ by a number or a letter only. Pure.

A name is a template and the numbers in it: `Module2_Cell05_V` is `Module#_Cell#_V` and (2, 5), `Voltage_1_0_B` is
`Voltage_#_#_@` and (1, 0, 2). The order of the numbers is the position in the pack.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.propose.fields import NEVER_CAME, TIE, UNHEARD, Choice, Facts, enough, max_age_s, step_of
from edge.propose.targets import BATTERY
from edge.propose.values import Heard
from shared.fields import CELL_V, MAX_CELLS, MAX_TEMPS, TEMP_C

_PIECE: Final = re.compile(r"\d+|(?<![A-Za-z])[A-Z](?![A-Za-z])")
_LEAST_CELL_V, _MOST_CELL_V = 0.5, 5.0
_LEAST: Final = 5.0
_ALONE: Final = 3.0
_AGAINST: Final = {
    "alarm": -5.0,
    "flag": -5.0,
    "index": -4.0,
    "limit": -4.0,
    "want": -4.0,
    "delta": -4.0,
    "time": -5.0,
    "resistance": -5.0,
    "balance": -5.0,
    "soc": -5.0,
    "soh": -5.0,
    "capacity": -5.0,
    "energy": -5.0,
    "current": -4.0,
    "power": -4.0,
    "aux": -5.0,
    "charger": -4.0,
    "other": -5.0,
    "contactor": -3.0,
    "link": -3.0,
    "speed": -5.0,
    "insulation": -4.0,
    "avg": -2.0,
    "min": -4.0,
    "max": -4.0,
    "coolant": -3.0,
    "ambient": -4.0,
}


@dataclass(slots=True)
class Group:
    """Signals of one template in the order of their numbers. numbers: of each, as many as the template has."""

    template: str
    members: list[Facts]
    numbers: list[tuple[int, ...]]
    score: float = 0.0
    why: list[str] = field(default_factory=list)
    is_silent: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """`Message.Signal` by position."""
        return tuple(facts.signal.path for facts in self.members)

    def kept(self, keep: Sequence[bool]) -> Group:
        """The group with only some of its members."""
        members = [m for m, wanted in zip(self.members, keep, strict=True) if wanted]
        numbers = [n for n, wanted in zip(self.numbers, keep, strict=True) if wanted]
        return Group(self.template, members, numbers, self.score, list(self.why))


def groups_of(all_facts: Sequence[Facts]) -> list[Group]:
    """The groups of signals with one template, unit and encoding."""
    found: dict[tuple[object, ...], list[tuple[tuple[int, ...], tuple[int, ...], Facts]]] = defaultdict(list)
    for facts in all_facts:
        signal = facts.signal
        if signal.bits < 4 or (signal.values and len(signal.values) > 3):
            continue
        template, numbers = _template(signal.name)
        if numbers:
            around, place = _template(signal.message)
            key = (template, facts.unit, signal.bits, float(signal.scale), float(signal.offset), around)
            found[key].append((numbers, place, facts))
    return [_sorted(str(key[0]), rows) for key, rows in _merged(found).items()]


def _template(name: str) -> tuple[str, tuple[int, ...]]:
    numbers = tuple(int(p) if p.isdigit() else ord(p) - ord("A") + 1 for p in _PIECE.findall(name))
    return _PIECE.sub(lambda found: "#" if found[0].isdigit() else "@", name), numbers


_Rows = list[tuple[tuple[int, ...], tuple[int, ...], Facts]]


def _merged(found: dict[tuple[object, ...], _Rows]) -> dict[tuple[object, ...], _Rows]:
    """Groups of one template whose messages are called differently are one where no number comes twice."""
    merged: dict[tuple[object, ...], _Rows] = {}
    by_name: dict[tuple[object, ...], list[tuple[object, ...]]] = defaultdict(list)
    for key, rows in found.items():
        mine = {numbers for numbers, _, _ in rows}
        for other in by_name[key[:-1]]:
            if mine.isdisjoint(numbers for numbers, _, _ in merged[other]):
                merged[other] = merged[other] + rows
                break
        else:
            merged[key] = rows
            by_name[key[:-1]].append(key)
    return merged


def _sorted(template: str, rows: _Rows) -> Group:
    """By the numbers of the signals; by those of the messages first where signals repeat them."""
    is_once = len({numbers for numbers, _, _ in rows}) == len(rows)
    rows = sorted(rows, key=lambda row: row[0] if is_once else (*row[1], *row[0]))
    return Group(template, [row[2] for row in rows], [row[0] if is_once else (*row[1], *row[0]) for row in rows])


def propose_cells(groups: Sequence[Group], heard: Heard | None) -> Choice | None:
    """cell_v, or None where the DBC has no cells."""
    ranked = []
    for every in groups:
        group = _present(every, heard, _is_cell)
        if len(group.members) >= 2:
            _score_cells(group, heard)
            ranked.append(group)
    return _best(CELL_V.name, ranked, heard, MAX_CELLS)


def propose_temps(groups: Sequence[Group], all_facts: Sequence[Facts], heard: Heard | None) -> Choice | None:
    """temp_c: numbered sensors, or else the battery's temperatures that there are one by one."""
    ranked = []
    for every in groups:
        group = _present(every, heard, _is_temp)
        if len(group.members) >= 2:
            _score_temps(group, heard)
            ranked.append(group)
    best = _best(TEMP_C.name, ranked, heard, MAX_TEMPS)
    return best or _single_temps(all_facts, heard)


def _present(group: Group, heard: Heard | None, is_right: object) -> Group:
    """Without the members at the end that were never heard, or never with a value that can be: the DBC's spare ones."""
    every = group.kept([True] * len(group.members))
    if heard is None:
        return every
    there = [_says(facts, heard, is_right) for facts in group.members]
    if not any(there):
        return every
    last = max(i for i, one in enumerate(there) if one)
    short = group.kept([i <= last for i in range(len(there))])
    if last + 1 < len(there):
        short.why.append(f"{len(there) - last - 1} more in the DBC that the log does not have")
    return short


def _says(facts: Facts, heard: Heard, is_right: object) -> bool:
    seen = heard.signals.get(facts.signal.path)
    assert callable(is_right)
    return seen is not None and seen.count > 0 and bool(is_right(seen.mean * facts.scale + facts.offset))


def _is_cell(value: float) -> bool:
    return _LEAST_CELL_V <= value <= _MOST_CELL_V


def _is_temp(value: float) -> bool:
    return -60.0 <= value <= 150.0


def _score_cells(group: Group, heard: Heard | None) -> None:
    facts = group.members[0]
    words, around = set(facts.words), set(facts.around)
    if facts.unit not in ("V", "") or facts.signal.bits < 7:
        group.score = -10.0
        return
    if facts.unit == "V":
        _add(group, 2.0, f'unit "{facts.signal.unit}"')
    if "cell" in words:
        _add(group, 3.0, "named cells")
    elif "cell" in around or "module" in words | around:
        _add(group, 2.0, "the message is of cells")
    if "volt" in words | around:
        _add(group, 1.0, "")
    if not facts.unit and "volt" not in words | around:
        _add(group, -2.0, "")
    if BATTERY & (words | around):
        _add(group, 1.0, "")
    for word in words:
        _add(group, _AGAINST.get(word, 0.0), "")
    _add(group, -8.0 if "temp" in words else -2.0 if "temp" in around else 0.0, "")
    if facts.unit and not 2.0 <= facts.hi <= 100.0 and heard is None:
        _add(group, -3.0 if "cell" in words else -6.0, "")
    count = len(group.members)
    _add(
        group, 3.0 if count >= 12 else 2.0 if count >= 8 else 1.0 if count >= 4 else -1.0, f"{count} of them, numbered"
    )
    if facts.unit and _MOST_CELL_V - 0.5 <= facts.hi <= 2 * _MOST_CELL_V:
        _add(group, 1.0, f"reach {facts.hi:.4g} V")
    if heard is not None:
        _heard(group, heard, _is_cell, "V")


def _score_temps(group: Group, heard: Heard | None) -> None:
    facts = group.members[0]
    words, around = set(facts.words), set(facts.around)
    if facts.unit not in ("degC", "") or ("temp" not in words | around and facts.unit != "degC"):
        group.score = -10.0
        return
    if facts.unit == "degC":
        _add(group, 2.5, f'unit "{facts.signal.unit}"')
    if "temp" in words | around:
        _add(group, 1.5, "named temperatures")
    if BATTERY & (words | around) or "module" in words | around:
        _add(group, 2.0, "the battery's")
    against = {**_AGAINST, "current": 0.0, "soc": 0.0, "volt": -5.0}
    for word in words:
        _add(group, against.get(word, 0.0), "")
    for word in around - words:
        _add(group, against.get(word, 0.0) * (0.7 if word in ("other", "charger", "aux") else 0.2), "")
    count = len(group.members)
    _add(group, 3.0 if count >= 12 else 2.0 if count >= 8 else 1.0 if count >= 4 else 0.0, f"{count} of them, numbered")
    if heard is not None:
        _heard(group, heard, _is_temp, "degC")


def _heard(group: Group, heard: Heard, is_right: object, unit: str) -> None:
    there = [facts for facts in group.members if _says(facts, heard, is_right)]
    if not there:
        group.is_silent = not any(facts.signal.path in heard.signals for facts in group.members)
        _add(group, -UNHEARD if group.is_silent else -8.0, "none of them in the log")
        return
    means = [heard.signals[f.signal.path].mean * f.scale + f.offset for f in there]
    _add(
        group,
        2.0 if 2 * len(there) > len(group.members) else -2.0,
        f"{min(means):.4g}..{max(means):.4g} {unit} in the log",
    )


def _best(name: str, ranked: list[Group], heard: Heard | None, most: int) -> Choice | None:
    """The best group; more of them with the same points are a question."""
    ranked = sorted(
        (g for g in ranked if enough(g.score, g.is_silent, _LEAST)), key=lambda g: (-g.score, -len(g.members))
    )
    if not ranked:
        return None
    best = ranked[0]
    asked = []
    rivals = [g for g in ranked[1:] if g.score >= best.score - TIE][:3]
    if rivals:
        others = " or ".join(f"{g.paths[0]} .. {g.members[-1].signal.name} ({len(g.paths)})" for g in rivals)
        asked.append(f"is it these {len(best.paths)}, or rather {others}?")
    holes = _holes(best)
    if holes:
        asked.append(f"is the order right? The numbers leave out {', '.join(map(str, holes))}.")
    if best.is_silent:
        asked.append(NEVER_CAME)
    facts = best.members[0]
    return Choice(
        name=name,
        signals=best.paths[:most],
        is_array=True,
        scale=facts.scale,
        offset=facts.offset,
        step=step_of(facts.signal, facts.scale),
        score=best.score,
        why=tuple(best.why),
        questions=tuple(asked),
        max_age_s=max_age_s(best.paths, heard),
    )


def _holes(group: Group) -> list[int]:
    """Numbers that are left out, where one number alone counts the members."""
    moving = [i for i in range(len(group.numbers[0])) if len({n[i] for n in group.numbers}) > 1]
    if len(moving) != 1:
        return []
    numbers = sorted(n[moving[0]] for n in group.numbers)
    there = set(numbers)
    return [n for n in range(numbers[0], numbers[-1]) if n not in there][:5]


def _single_temps(all_facts: Sequence[Facts], heard: Heard | None) -> Choice | None:
    """The battery's temperatures that are not numbered: mean, least and greatest, or whatever it tells."""
    found: list[tuple[float, Facts]] = []
    for facts in all_facts:
        words, around = set(facts.words), set(facts.around)
        silent = False
        if facts.unit != "degC" or not (BATTERY | {"module"}) & (words | around | set(facts.told)):
            continue
        against = {**_AGAINST, "min": 0.0, "max": 0.0, "avg": 0.0, "soc": 0.0, "current": 0.0, "volt": -5.0}
        score = 3.0 + (2.0 if BATTERY & words else 1.0) + sum(against.get(word, 0.0) for word in words)
        score += sum(0.6 * against.get(word, 0.0) for word in around - words if word in ("other", "charger", "aux"))
        if heard is not None:
            silent = facts.signal.path not in heard.signals
            score += 1.0 if _says(facts, heard, _is_temp) else -UNHEARD if silent else -8.0
        if score + UNHEARD * silent > _ALONE:
            found.append((score, facts))
    if not found:
        return None
    top = max(score for score, _ in found)
    chosen = [facts for score, facts in found if score >= top - TIE]
    by_scale = [f for f in chosen if (f.scale, f.offset) == (chosen[0].scale, chosen[0].offset)][:8]
    return Choice(
        name=TEMP_C.name,
        signals=tuple(facts.signal.path for facts in by_scale),
        is_array=True,
        scale=by_scale[0].scale,
        offset=by_scale[0].offset,
        step=step_of(by_scale[0].signal, by_scale[0].scale),
        score=top,
        why=("no numbered sensors; these are what the battery tells of its temperature",),
        max_age_s=max_age_s([f.signal.path for f in by_scale], heard),
        questions=(NEVER_CAME,) if heard is not None and by_scale[0].signal.path not in heard.signals else (),
    )


def _add(group: Group, points: float, reason: str) -> None:
    group.score += points
    if reason:
        group.why.append(reason)
