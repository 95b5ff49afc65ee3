"""A Proposal as the text of mapping.toml, and the edge.toml beside it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge.propose.fields import Choice, Proposal
from edge.propose.toml_text import comment, key, quoted
from shared.fields import BY_NAME, resolution

PACK_QUESTIONS: Final = (
    ("chemistry", '"nmc"', "nmc, lfp, nca, lmo or lto? No DBC says so."),
    ("nominal_ah", "60.0", "how many Ah did it have when new?"),
)
"""(key of [pack], an example, what to ask)."""
_LAST_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """How the agent is to reach the bus, and what is not sure about that."""

    interface: str
    channel: str
    bitrate: int
    questions: tuple[str, ...] = ()


def mapping_text(proposal: Proposal, *, dbc: str, made_from: str) -> str:
    """mapping.toml. dbc: the path as it stands in there; made_from: a sentence about what it was made from."""
    lines = [
        "# mapping.toml: proposed by `python -m edge doctor --write-config`. Look at each QUESTION.",
        *comment(made_from),
        "# Units here: V, A, 0..1, degC, kohm, km/h, km, Ah, kWh; value = signal x scale + offset; > 0 A charges.",
        "",
        f"dbc = {quoted(dbc)}",
        "",
        "[pack]",
    ]
    if proposal.series is not None:
        lines.append(f"series = {proposal.series}")
    lines += [
        *(f"# {name} = {example:10} # QUESTION: {asked}" for name, example, asked in PACK_QUESTIONS),
        "",
        "[fields]",
    ]
    for choice in proposal.fields:
        lines += [*_why(choice), f"{choice.name} = {_line(choice)}"]
    for name in proposal.missing:
        lines += comment(f"QUESTION: {name}: nothing in the DBC looks like it. Map it here if there is such a signal.")
    if proposal.alarms:
        lines += ["", "[alarms]"]
    for choice in proposal.alarms:
        # What stands all the time is no alarm until somebody says so.
        off = "# " if choice.questions else ""
        lines += [line for asked in choice.questions for line in comment(f"QUESTION: {asked}")]
        lines.append(f"{off}{key(choice.name)} = {quoted(choice.signals[0])}")
    return "\n".join(lines) + "\n"


def edge_text(*, device: str, pack_id: str, bus: Bus, mapping: str) -> str:
    """edge.toml with one source and no cloud."""
    lines = [
        "# edge.toml: proposed by `python -m edge doctor --write-config`; start it: `python -m edge run`",
        "",
        f"device = {quoted(device)}",
        'clock = "system"              # "trusted" beside a cloud: its time, or a synchronised kernel\'s',
        'data_dir = "data"',
        "",
        "[uplink]",
        'url = ""                      # no cloud yet: the outbox keeps all. Or http://HOST:5001, mqtt://BROKER',
        "",
        "[page]",
        "port = 5002                   # http://127.0.0.1:5002",
        "",
        "[[source]]",
        f"pack_id = {quoted(pack_id)}",
        *(line for asked in bus.questions for line in comment(f"QUESTION: {asked}")),
        f"interface = {quoted(bus.interface)}",
        f"channel = {quoted(bus.channel)}",
        f"bitrate = {bus.bitrate}",
        f"mapping = {quoted(mapping)}",
    ]
    return "\n".join(lines) + "\n"


def _why(choice: Choice) -> list[str]:
    lines = comment(f"{choice.name}: {'; '.join(choice.why)}.") if choice.why else []
    for asked in choice.questions:
        lines += comment(f"QUESTION: {asked}")
    return lines


def _line(choice: Choice) -> str:
    """The inline table of a field."""
    parts = [_signals(choice)]
    if choice.scale != 1.0:
        parts.append(f"scale = {_number(choice.scale)}")
    if choice.offset != 0.0:
        parts.append(f"offset = {_number(choice.offset)}")
    spec = BY_NAME[choice.name]
    if choice.step is not None and spec.kind == "float" and choice.step < spec.step and _can_be(choice.step):
        parts.append(f"resolution = {_number(choice.step)}")
    if choice.values is not None:
        inner = ", ".join(f"{quoted(str(n)) if n < 0 else n} = {_value(v)}" for n, v in sorted(choice.values.items()))
        parts.append(f"values = {{ {inner} }}")
    if choice.max_age_s is not None:
        parts.append(f"max_age_s = {_number(choice.max_age_s)}")
    return f"{{ {', '.join(parts)} }}"


def _can_be(step: float) -> bool:
    """Whether a Sample can be kept to such a step."""
    try:
        resolution(step)
    except ValueError:
        return False
    return True


def _signals(choice: Choice) -> str:
    if not choice.is_array:
        return f"from = {quoted(choice.signals[0])}"
    pattern = _pattern(choice.signals)
    if pattern is not None:
        text, first = pattern
        return f"from = {quoted(text)}, first = {first}, count = {len(choice.signals)}"
    return f"from = [{', '.join(map(quoted, choice.signals))}]"


def _pattern(signals: Sequence[str]) -> tuple[str, int] | None:
    """(pattern, first number) of names that only count up, such as `M.Cell{:02d}_V`; None when a list is needed."""
    if len(signals) < 2 or any("{" in name or "}" in name for name in signals):
        return None
    for found in _LAST_NUMBER.finditer(signals[0]):
        width = len(found[0])
        pattern = f"{signals[0][: found.start()]}{{:0{width}d}}{signals[0][found.end() :]}"
        first = int(found[0])
        for text in (pattern, pattern.replace(f"{{:0{width}d}}", "{}")):
            if [text.format(first + i) for i in range(len(signals))] == list(signals):
                return text, first
    return None


def _value(value: str | bool) -> str:
    return quoted(value) if isinstance(value, str) else str(value).lower()


def _number(value: float) -> str:
    return repr(float(f"{value:.12g}"))
