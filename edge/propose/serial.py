"""What a BMS on a serial port told -> mapping.toml and edge.toml. Pure: what it cannot prove is a question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from edge.doctor.found import Pack
from edge.propose.toml_text import comment, key, quoted
from firmware_bridge.protocol import ALARM, EXTRA, EXTRAS, Value
from shared.fields import BALANCING, BY_NAME, CELL_V, EXTRA_NAME, SPANNED, TEMP_C

_PLACE: Final = re.compile(r"(\w+)\[(\d+)\]")
_FINE: Final = 0.01
_PATIENCE: Final = 2.5  # rounds that a value may be missing from
_NOMINAL: Final = ("extra.nominal_ah", "extra.full_ah")


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """Where the agent is to run. url "" = no cloud; the ports are free."""

    device: str
    port: str
    url: str
    page_port: int
    metrics_port: int


@dataclass(slots=True)
class SerialProposal:
    """The files by their names, and what a person is to be asked, as (of what, question)."""

    files: dict[str, str] = field(default_factory=dict)
    questions: list[tuple[str, str]] = field(default_factory=list)


def propose_serial(packs: Sequence[Pack], here: Here) -> SerialProposal:
    """The files for the packs of one port; packs that tell the same share a mapping."""
    proposal = SerialProposal()
    names: list[str] = []
    for pack in packs:
        told, asked = _mapping(pack)
        known = next((name for name, other in proposal.files.items() if other == told), None)
        if known is None:
            known = "mapping.toml" if not names else f"mapping-{pack.address}.toml"
            proposal.files[known] = told
            proposal.questions += [(f"{known} {of}", question) for of, question in asked]
        names.append(known)
    proposal.files["edge.toml"] = _edge(packs, names, here, proposal.questions)
    return proposal


def pack_id(pack: Pack, device: str) -> str:
    """An id that no other box has."""
    at = "" if pack.address is None else f"-{pack.address}"
    tail = f"-{pack.protocol.name}{at}"
    return f"{device[: 64 - len(tail)]}{tail}"


def open_questions(pack: Pack) -> list[str]:
    """What a person is to be asked of a pack because of how it was found, beside what its BMS cannot say."""
    return [question for _, question in (*_of_messages(pack), *_of_likeness(pack))]


def _of_messages(pack: Pack) -> list[tuple[str, str]]:
    """What is missing of what a BMS in its language says."""
    asked = []
    if not pack.cells:
        why = "" if pack.was_asked else ", as nobody asked for them meanwhile"
        question = f"no cell voltages were told{why}: so none are mapped. Does it have any? Then run doctor again."
        asked.append(("cell_v", question))
    if pack.unheard:
        question = (
            f"not heard: {', '.join(pack.unheard)}. Does whoever asks there never ask for that? Else run doctor again; "
            "alone on the line it asks for all."
        )
        asked.append(("messages", question))
    return asked


def _of_likeness(pack: Pack) -> list[tuple[str, str]]:
    """Whether it is one pack, where two addresses say the same."""
    asked = []
    here = "the usual address" if pack.address is None else f"address {pack.address}"
    if pack.doubles:
        others = " and ".join(map(str, pack.doubles))
        question = (
            f"address {others} says just the same as {here}: is it one pack that answers to each? "
            "Else give each a [[source]] with its address."
        )
        asked.append(("edge.toml address", question))
    if pack.alike is not None:
        other = "the usual address" if pack.alike.address is None else f"address {pack.alike.address}"
        question = f"{here} says nearly the same as {other}: are they two packs? Else take this [[source]] out."
        asked.append(("edge.toml address", question))
    return asked


def _mapping(pack: Pack) -> tuple[str, list[tuple[str, str]]]:
    """(mapping.toml, questions) of one pack."""
    facts, asked = _facts(pack)
    missing = _of_messages(pack)
    asked += missing
    alarms = sorted(name for name in pack.values if name.startswith(ALARM))
    lines = [
        "# mapping.toml: made by `python -m edge doctor --port P --write-config`. Look at each QUESTION.",
        f"# Made from what a BMS said in {pack.protocol.name}; the names behind `from` are those of that language.",
        "# Units here: V, A, 0..1, degC, Ah; > 0 A charges.",
        "",
        f"protocol = {quoted(pack.protocol.name)}",
        "",
        "[pack]",
        *facts,
        "",
        "[fields]",
        *_fields(pack),
        *(line for _, question in missing for line in comment(f"QUESTION: {question}")),
    ]
    if alarms:
        lines += ["", "[alarms]"]
        lines += [f"{key(name[len(ALARM) :])} = {quoted(name)}" for name in alarms]
    return "\n".join(lines) + "\n", asked


def _facts(pack: Pack) -> tuple[list[str], list[tuple[str, str]]]:
    """The lines of [pack], and what it cannot say."""
    lines, asked = [], []
    cells = [float(value) for value in _array(pack, CELL_V.name) if value is not None]
    if cells:
        lines.append(f"series = {len(_array(pack, CELL_V.name))}")
    at = f" Its cells are at {sum(cells) / len(cells):.3f} V now." if cells else ""
    question = "nmc, lfp, nca, lmo or lto? The BMS does not say."
    lines += [f'# chemistry = "lfp" # QUESTION: {question}']
    asked.append(("chemistry", f"{question}{at}"))
    nominal = next(((name, value) for name in _NOMINAL if (value := pack.values.get(name))), None)
    if nominal is None or not isinstance(nominal[1], int | float):
        question = "how many Ah did the pack have when new? The BMS does not say."
        lines.append(f"# nominal_ah = 100.0 # QUESTION: {question}")
        asked.append(("nominal_ah", question))
    else:
        lines.append(f"nominal_ah = {nominal[1]:g}  # {nominal[0]} of the BMS")
        if nominal[0] != _NOMINAL[0]:
            question = f"was it {nominal[1]:g} Ah when new? That is what the BMS has learned that it has."
            lines += comment(f"QUESTION: {question}")
            asked.append(("nominal_ah", question))
    return lines, asked


def _fields(pack: Pack) -> list[str]:
    """A line each for what it said, in the order of a Sample's fields."""
    every = {poll.kind: poll.every for poll in pack.protocol.polls(pack.address, None)}
    lines = []
    for name in (*(spec for spec in BY_NAME if spec in pack.values), CELL_V.name, TEMP_C.name, BALANCING):
        source = f"{name}[0]" if name in (CELL_V.name, TEMP_C.name) else name
        if source not in pack.values:
            continue
        parts = [f"from = {quoted(name)}"]
        if name in (CELL_V.name, TEMP_C.name):
            count = len(_array(pack, name))
            if not count:
                continue
            parts = [f"from = {quoted(f'{name}[{{}}]')}, count = {count}"]
        elif name in SPANNED:
            parts.append(f"resolution = {_FINE}")
        lines.append(f"{name} = {{ {', '.join([*parts, *_age(pack, every, source)])} }}")
    for name, value in sorted(pack.values.items(), key=lambda item: item[0]):  # whatever came first
        if name.startswith(EXTRA) and _is_number(pack, name, value):
            parts = [f"from = {quoted(name)}", *_age(pack, every, name)]
            lines.append(f"{key(name)} = {{ {', '.join(parts)} }}")
    return lines


def _age(pack: Pack, every: dict[str, int], name: str) -> list[str]:
    """What is only asked for now and then may be as old."""
    rounds = every.get(pack.kinds[name], 1)
    limit_s = min(_PATIENCE * rounds * pack.protocol.period_s, 86_400.0)
    return [f"max_age_s = {limit_s:g}"] if rounds > 1 else []


def _array(pack: Pack, array: str) -> list[Value]:
    """The values by position, without those at the end that are not measured."""
    places = {
        int(at[2]): value for name, value in pack.values.items() if (at := _PLACE.fullmatch(name)) and at[1] == array
    }
    last = max((at for at, value in places.items() if value is not None), default=-1)
    return [places.get(at) for at in range(last + 1)]


def _is_number(pack: Pack, name: str, value: Value) -> bool:
    """Whether an extra is one that a Sample can hold; one that is not measured now counts."""
    extra = name[len(EXTRA) :]
    unit, _ = {**EXTRAS, **pack.protocol.extras}.get(extra, ("", 0.0))
    is_there = pack.quality.get(name) != "not_supported"
    return unit is not None and not isinstance(value, str) and is_there and bool(EXTRA_NAME.fullmatch(extra))


def _edge(packs: Sequence[Pack], mappings: Sequence[str], here: Here, questions: list[tuple[str, str]]) -> str:
    lines = [
        "# edge.toml: made by `python -m edge doctor --port P --write-config`; start it: `python -m edge run`",
        "",
        f"device = {quoted(here.device)}",
        'clock = "system"              # "trusted" beside a cloud: its time, or a synchronised kernel\'s',
        'data_dir = "data"',
        "",
        "[uplink]",
        f"url = {quoted(here.url):23} # "
        + (
            "the cloud that answers on this machine"
            if here.url
            else "no cloud yet: the outbox keeps all. Or http://..."
        ),
        "",
        "[page]",
        f"port = {here.page_port:<22} # http://127.0.0.1:{here.page_port}",
        "",
        "[metrics]",
        f"port = {here.metrics_port}",
    ]
    for pack, mapping in zip(packs, mappings, strict=True):
        lines += [
            "",
            "[[source]]",
            f"pack_id = {quoted(pack_id(pack, here.device))}",
            'type = "serial"',
            f"channel = {quoted(here.port)}",
            f"baudrate = {pack.baudrate}",
        ]
        lines += [f"address = {pack.address}"] if pack.address is not None else []
        if not pack.was_asked:
            question = "somebody else asks on this line, so it is only listened to: is that one to stay?"
            lines += [f"poll = false # QUESTION: {question}"]
            questions.append(("edge.toml poll", question))
        for of, question in _of_likeness(pack):
            lines += comment(f"QUESTION: {question}")
            questions.append((of, question))
        lines.append(f"mapping = {quoted(mapping)}")
    return "\n".join(lines) + "\n"
