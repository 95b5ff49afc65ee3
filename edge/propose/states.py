"""Contactors, switches, what the vehicle does, and alarms in a DBC: signals of few values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge.dbc.model import Signal
from edge.propose.fields import NEVER_CAME, TIE, UNHEARD, Choice, Facts, enough
from edge.propose.targets import BATTERY
from edge.propose.values import Heard

_WARNINGS: Final = frozenset({"warning"})
_MOST_BITS: Final = 8
_STATE_WORDS: Final = {
    "fault": ("fault", "error", "err", "fehler", "fail", "emergency", "crash", "stoerung"),
    "charge_dc": ("chargedc", "dccharge", "dccharging", "chargingdc", "fastcharge", "quickcharge", "dcfc", "chademo"),
    "charge_ac": ("charge", "charging", "laden", "ladung", "onboard", "acch"),
    "drive": (
        "drive",
        "driving",
        "fahren",
        "fahrt",
        "discharge",
        "discharging",
        "entladen",
        "run",
        "propulsion",
        "moving",
    ),
    "park": (
        "park",
        "standby",
        "ready",
        "idle",
        "precharge",
        "prechg",
        "vorladen",
        "bereit",
        "on",
        "active",
        "wake",
        "normal",
    ),
    "off": (
        "off",
        "aus",
        "sleep",
        "shutdown",
        "init",
        "uninit",
        "initial",
        "initialization",
        "down",
        "sna",
        "none",
        "open",
    ),
}
_OTHER_STATE: Final = frozenset({"charger", "other", "aux", "want", "link", "lock", "disp", "balance", "insulation"})


@dataclass(frozen=True, slots=True)
class _Switch:
    """A field that is on or off. all_of: meanings that must be there; any_of: one of these; never: none of these."""

    name: str
    all_of: frozenset[str]
    any_of: frozenset[str]
    never: frozenset[str]


def _set(*words: str) -> frozenset[str]:
    return frozenset(words)


_NOT_A_STATE: Final = _set(
    "want", "alarm", "warning", "limit", "index", "temp", "volt", "current", "time", "resistance"
)
_SWITCHES: Final = (
    _Switch(
        "contactor_precharge",
        _set("precharge"),
        _set("contactor", "closed", "state", "flag", "precharge"),
        _NOT_A_STATE,
    ),
    _Switch(
        "contactor_main",
        _set("contactor"),
        _set("main", "plus", "closed", "state", "flag", "pack", "bms", "contactor"),
        _NOT_A_STATE | _set("precharge", "minus", "quick", "charger", "other", "aux", "charge", "discharge"),
    ),
    _Switch("contactor_main", _set("main", "plus"), _set("main"), _NOT_A_STATE | _set("other", "aux")),
    _Switch(
        "charge_mos",
        _set("charge"),
        _set("mos", "enable"),
        _NOT_A_STATE - {"limit"} | _set("discharge", "charger", "quick"),
    ),
    _Switch(
        "discharge_mos",
        _set("discharge"),
        _set("mos", "enable"),
        _NOT_A_STATE - {"limit"} | _set("charger", "quick", "other"),
    ),
)
_CLOSED: Final = (
    "closed",
    "close",
    "on",
    "geschlossen",
    "zu",
    "ein",
    "active",
    "enabled",
    "true",
    "yes",
    "engaged",
    "energized",
)
_OPEN: Final = ("open", "opened", "off", "offen", "auf", "aus", "inactive", "disabled", "false", "no", "deenergized")

_ALARMS: Final[tuple[tuple[str, frozenset[str], frozenset[str]], ...]] = (
    ("mos_over_temp", _set("mos", "over", "temp"), _set()),
    ("ambient_over_temp", _set("ambient", "over", "temp"), _set()),
    ("ambient_under_temp", _set("ambient", "under", "temp"), _set()),
    ("discharge_over_temp", _set("discharge", "over", "temp"), _set()),
    ("discharge_under_temp", _set("discharge", "under", "temp"), _set()),
    ("charge_over_temp", _set("over", "temp"), _set("other", "charger", "coolant")),
    ("charge_under_temp", _set("under", "temp"), _set("other", "charger", "coolant")),
    ("discharge_over_current", _set("discharge", "over", "current"), _set("charger")),
    ("charge_over_current", _set("charge", "over", "current"), _set("charger", "discharge")),
    ("pack_over_voltage", _set("pack", "over", "volt"), _set("cell", "link", "aux")),
    ("pack_under_voltage", _set("pack", "under", "volt"), _set("cell", "link", "aux")),
    ("cell_over_voltage", _set("over", "volt"), _set("link", "aux", "charger", "other")),
    ("cell_under_voltage", _set("under", "volt"), _set("link", "aux", "charger", "other")),
    ("short_circuit", _set("short"), _set("other", "charger", "aux")),
    ("temp_imbalance", _set("imbalance", "temp"), _set()),
    ("cell_imbalance", _set("imbalance"), _set()),
    ("low_soc", _set("under", "soc"), _set()),
    ("insulation", _set("insulation", "alarm"), _set("time")),
    ("precharge_fault", _set("precharge", "alarm"), _set()),
    ("contactor_fault", _set("contactor", "alarm"), _set("charger")),
    ("current_sensor_fault", _set("current", "sensor", "alarm"), _set("other")),
    ("voltage_sensor_fault", _set("volt", "sensor", "alarm"), _set("other")),
    ("temp_sensor_fault", _set("temp", "sensor", "alarm"), _set("other")),
    ("front_end_fault", _set("front", "alarm"), _set()),
    ("lockout", _set("lock", "alarm"), _set("other", "charger", "contactor")),
    ("mos_fault", _set("mos", "alarm"), _set()),
    ("balance_fault", _set("balance", "alarm"), _set()),
    ("communication_fault", _set("comm", "alarm"), _set("other", "charger")),
    ("bms_fault", _set("bms", "alarm"), _set("temp", "volt", "current", "other", "charger")),
)


def propose_switches(all_facts: Sequence[Facts], heard: Heard | None, taken: set[str]) -> list[Choice]:
    """Contactors and the switches of a smaller BMS. Grows `taken`."""
    found: list[Choice] = []
    for switch in _SWITCHES:
        if any(choice.name == switch.name for choice in found):
            continue
        ranked: list[tuple[float, Facts, Mapping[int, str | bool] | None]] = []
        for facts in all_facts:
            words = set(facts.words)
            if facts.signal.path in taken or facts.unit or facts.signal.bits > _MOST_BITS:
                continue
            if not (switch.all_of <= words and switch.any_of & words) or switch.never & words:
                continue
            if {"want", "alarm"} & set(facts.around) or not _is_battery(facts):
                continue
            values = _on_off(facts.signal)
            if facts.signal.bits > 1 and values is None:
                continue
            score = 2.0 + len(switch.any_of & words) + (1.0 if BATTERY & words else 0.0)
            score += 1.0 if "closed" in words or values else 0.0
            score -= 1.5 * len({"other", "charger", "unknown", "quick"} & {*words, *facts.around})
            if heard is not None:
                score += _heard(facts, heard)
            ranked.append((score, facts, values))
        ranked.sort(key=lambda row: -row[0])
        if ranked and enough(ranked[0][0], _is_silent(ranked[0][1], heard), 3.0):
            score, facts, table = ranked[0]
            taken.add(facts.signal.path)
            rivals = [row[1].signal.path for row in ranked[1:] if row[0] >= score - TIE / 2][:3]
            asked: tuple[str, ...] = (f"is it {facts.signal.path}, or rather {' or '.join(rivals)}?",) if rivals else ()
            asked += (NEVER_CAME,) if _is_silent(facts, heard) else ()
            why = (
                "its name says so",
                *(("its value table says which is closed",) if table else ()),
                *_said(facts, heard),
            )
            found.append(
                Choice(
                    name=switch.name, signals=(facts.signal.path,), values=table, score=score, why=why, questions=asked
                )
            )
    return found


def _is_battery(facts: Facts) -> bool:
    """Whether it is of the battery; `cell` alone may be a telephone's."""
    words = {*facts.words, *facts.around}
    return bool({"pack", "bms"} & words or ("cell" in words and {"volt", "temp", "over", "under"} & words))


def _heard(facts: Facts, heard: Heard) -> float:
    seen = heard.signals.get(facts.signal.path)
    return -UNHEARD if seen is None else 1.0 if seen.varies else 0.0


def _is_silent(facts: Facts, heard: Heard | None) -> bool:
    return heard is not None and facts.signal.path not in heard.signals


def _said(facts: Facts, heard: Heard | None) -> tuple[str, ...]:
    seen = heard.signals.get(facts.signal.path) if heard is not None else None
    return () if seen is None else ("it changes in the log" if seen.varies else f"always {seen.last:g} in the log",)


def _on_off(signal: Signal) -> dict[int, str | bool] | None:
    """Which numbers mean closed, by the value table; None when the table does not say."""
    if not signal.values:
        return None
    found: dict[int, str | bool] = {}
    for number, text in signal.values.items():
        words = "".join(char if char.isalpha() else " " for char in text.lower()).split()
        if any(word in _OPEN for word in words) or any(word.startswith(("open", "offen")) for word in words):
            found[number] = False
        elif any(word in _CLOSED for word in words) or any(word.startswith(("clos", "geschl")) for word in words):
            found[number] = True
    is_plain = set(found.values()) == {True, False}
    return found if is_plain and found != {0: False, 1: True} else None


def propose_state(all_facts: Sequence[Facts], heard: Heard | None, taken: set[str]) -> Choice | None:
    """The state of the vehicle by a value table whose texts say what it does. Grows `taken`."""
    ranked = []
    for facts in all_facts:
        if facts.signal.path in taken or facts.unit or not facts.signal.values or len(facts.signal.values) < 3:
            continue
        words = {*facts.words, *facts.around}
        if _OTHER_STATE & words or not {"state", "bms", "pack", "vehicle"} & words:
            continue
        values = {number: _state_of(text) for number, text in facts.signal.values.items()}
        known = {number: state for number, state in values.items() if state is not None}
        kinds = set(known.values())
        if len(kinds) < 3 or "drive" not in kinds or 3 * len(known) < 2 * len(values):
            continue
        score = (
            len(kinds)
            + (1.5 if "bms" in words else 0.0)
            + (2.0 if "state" in facts.words else 0.0)
            + (2.0 if BATTERY & words else 0.0)
        )
        if heard is not None:
            score += _heard(facts, heard)
        ranked.append((score, facts, known))
    if not ranked:
        return None
    score, facts, known = max(ranked, key=lambda row: row[0])
    taken.add(facts.signal.path)
    table = facts.signal.values or {}
    asked = []
    left_out = [text for number, text in table.items() if number not in known]
    if left_out:
        asked.append(
            f"what are {', '.join(left_out[:6])}? As long as they are not in `values`, the state is None then."
        )
    if "charge_ac" in known.values() and "charge_dc" not in known.values():
        asked.append("is its charging AC? Its table does not say.")
    if _is_silent(facts, heard):
        asked.append(NEVER_CAME)
    rivals = [row[1].signal.path for row in ranked if row[0] >= score - TIE / 2 and row[1] is not facts][:3]
    if rivals:
        asked.append(f"is it {facts.signal.path}, or rather {' or '.join(rivals)}?")
    return Choice(
        name="state",
        signals=(facts.signal.path,),
        values=dict(known),
        score=score,
        why=("its value table: " + ", ".join(f"{n} {text}" for n, text in list(table.items())[:16]),),
        questions=tuple(asked),
    )


def _state_of(text: str) -> str | None:
    plain = "".join(char if char.isalpha() else " " for char in text.lower())
    joined = plain.replace(" ", "")
    words = set(plain.split())
    for state, known in _STATE_WORDS.items():
        for word in known:
            if word in words or (
                len(word) > 4 and word in joined and not (word in ("charge", "charging") and "dis" in joined)
            ):
                if state == "charge_ac" and "precharge" in joined:
                    return "park"
                return "charge_dc" if state == "charge_ac" and "dc" in joined.replace("dch", "") else state
    return None


def propose_alarms(all_facts: Sequence[Facts], heard: Heard | None, taken: set[str]) -> list[Choice]:
    """Bits of the battery that say that something is wrong. The first of each kind; set all the time is a question."""
    found: dict[str, Choice] = {}
    for facts in all_facts:
        signal, words = facts.signal, set(facts.words)
        if signal.path in taken or signal.bits > 2 or facts.unit or not _is_battery(facts):
            continue
        if {"want", "index", "time"} & words or (signal.values and len(signal.values) > 4):
            continue
        told = words | ({"alarm"} & set(facts.around))
        seen = heard.signals.get(signal.path) if heard is not None else None
        if heard is not None and seen is None:
            continue
        for code, needs, never in _ALARMS:
            if needs <= told | ({"bms"} & set(facts.around) if code == "bms_fault" else set()) and not never & words:
                name = f"{code}:warning" if _WARNINGS & words else code
                asked: tuple[str, ...] = ()
                if seen is not None and seen.count and seen.lo > 0:
                    asked = (f"{signal.path} is set all the time in the log: is it an alarm at all?",)
                if name not in found or (found[name].questions and not asked):
                    found[name] = Choice(name=name, signals=(signal.path,), why=("its name says so",), questions=asked)
                break
    return list(found.values())
