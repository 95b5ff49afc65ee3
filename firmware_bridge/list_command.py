"""`firmware_bridge list`: what each language of a BMS tells, generated from the languages themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from firmware_bridge.protocol import ALARM, EXTRA, EXTRAS, Protocol, Value
from firmware_bridge.shelf import NAMES, protocol
from shared.fields import ALARM_CODES, BALANCING, CELL_V, SCALARS, TEMP_C

_FIELDS: Final = (*(spec.name for spec in SCALARS), f"{CELL_V.name}[]", f"{TEMP_C.name}[]", BALANCING)
_UNVERIFIED: Final = "unverified on hardware"
_AT_A, _TO_A = 10.0, 30.0
_BISECTIONS: Final = 24


@dataclass(frozen=True, slots=True)
class _Column:
    """A language, or one vehicle of a language."""

    spoken: Protocol
    vehicle: str | None

    @property
    def name(self) -> str:
        return self.spoken.name if self.vehicle is None else f"{self.spoken.name} {self.vehicle}"

    @property
    def title(self) -> str:
        """What it is for."""
        return self.spoken.vehicle_titles.get(self.vehicle or "", self.spoken.title)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.spoken.vehicle_fields.get(self.vehicle or "", self.spoken.fields)


def add_list(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds `list` to the command line."""
    parser = commands.add_parser(
        "list",
        help="the languages of BMSs, and what each tells",
        description="The languages of BMSs that are known here, and which fields of a Sample each of them tells.",
    )
    parser.add_argument("--markdown", action="store_true", help="as docs/reference/protocols.md has it")
    parser.set_defaults(run=run_list)


def run_list(args: argparse.Namespace) -> int:
    """Runs `list`."""
    columns = _columns()
    print("\n".join(_markdown(columns) if args.markdown else _text(columns)))
    return 0


def _columns() -> list[_Column]:
    return [_Column(it, vehicle) for it in map(protocol, NAMES) for vehicle in (it.vehicles or (None,))]


def sign_on_the_wire(spoken: Protocol, vehicle: str | None) -> int:
    """1: the number on the wire grows while more current charges; -1: while more is discharged; 0: it tells no current.

    It is looked for in what a pack would send: in the two messages between which the current is one step larger.
    """
    low_a, high_a = _AT_A, _TO_A
    first = _sent(spoken, vehicle, low_a)
    if first == _sent(spoken, vehicle, high_a):
        return 0
    for _ in range(_BISECTIONS):
        middle_a = (low_a + high_a) / 2
        if _sent(spoken, vehicle, middle_a) == first:
            low_a = middle_a
        else:
            high_a = middle_a
    pairs = zip(first, _sent(spoken, vehicle, high_a), strict=True)
    step = next(after - before for before, after in pairs if before != after)
    # A byte that ran over goes from 255 to 0.
    return 1 if (step > 0) == (abs(step) < 128) else -1


def _sent(spoken: Protocol, vehicle: str | None, current_a: float) -> bytes:
    """All that a pack with this current sends, in one piece."""
    values: dict[str, Value] = {"pack_v": 52.0, "current_a": current_a}
    if spoken.answer is not None:
        answer = spoken.answer
        return b"".join(it for poll in spoken.polls(None, vehicle) for it in answer(poll.request, values, None))
    if spoken.frames is not None:
        return b"".join(payload for _, payload in spoken.frames(values, None, vehicle))
    return b""


def _sign(column: _Column) -> str:
    return {1: "charging", -1: "discharging", 0: "-"}[sign_on_the_wire(column.spoken, column.vehicle)]


def _extras(spoken: Protocol) -> Iterator[tuple[str, str, str]]:
    """(name, unit, step) of each extra of a language; of a text the step is empty."""
    own = {**EXTRAS, **spoken.extras}
    for field in spoken.fields:
        if field.startswith(EXTRA):
            name = field[len(EXTRA) :]
            unit, step = own[name.removesuffix("[]")]
            yield name, "text" if unit is None else unit, "" if unit is None else f"{step:g}"


def _rows(columns: Sequence[_Column]) -> Iterator[tuple[str, list[bool]]]:
    """(field, whether each column tells it) of all fields and alarms that any tells."""
    for field in _FIELDS:
        yield field, [field in column.fields for column in columns]
    for code in ALARM_CODES:
        for level in ("", ":warning"):
            told = [f"{ALARM}{code}{level}" in column.fields for column in columns]
            if any(told):
                yield f"{ALARM}{code}{level}", told


def _text(columns: Sequence[_Column]) -> Iterator[str]:
    names = max(len(column.name) for column in columns)
    for number, column in enumerate(columns, 1):
        spoken = column.spoken
        mark = "verified" if spoken.verified else _UNVERIFIED
        asked = "polled" if spoken.polls(None, column.vehicle) else "listens"
        medium = f"{spoken.medium} {spoken.rate} bit/s, {asked}, + is {_sign(column)}"
        yield f"{number:2} {column.name:{names}}  {mark:{len(_UNVERIFIED)}}  {medium:46}  {column.title}".rstrip()
    yield ""
    rows = list(_rows(columns))
    width = max(len(field) for field, _ in rows)
    yield " " * width + "".join(f"{number:>4}" for number in range(1, len(columns) + 1))
    for field, told in rows:
        yield (field.ljust(width) + "".join("   x" if has else "   ." for has in told)).rstrip()


def _markdown(columns: Sequence[_Column]) -> Iterator[str]:
    yield from (
        "# Languages of BMSs",
        "Generated: `python -m firmware_bridge list --markdown > docs/reference/protocols.md`.",
        "",
        "*Verified*: bytes captured from real packs prove the decoder. *Unverified on hardware*: written by the",
        "description of the maker or of another project, proved by no capture; compare it with the maker's display.",
        "*Grows while*: what the number on the wire does; here `current_a` > 0 charges, whatever it is there.",
        "",
        "| protocol | for | medium | bit/s | asked or listened to | current grows while | |",
        "|---|---|---|---|---|---|---|",
    )
    for column in columns:
        spoken = column.spoken
        cells = (
            f"`{column.name}`",
            column.title,
            spoken.medium,
            f"{spoken.rate}",
            "asked" if spoken.polls(None, column.vehicle) else "listened to",
            _sign(column),
            "verified" if spoken.verified else f"**{_UNVERIFIED}**",
        )
        yield "| " + " | ".join(cells) + " |"
    yield from ("", "## Fields", "| field | " + " | ".join(f"`{column.name}`" for column in columns) + " |")
    yield "|---" * (len(columns) + 1) + "|"
    for field, told in _rows(columns):
        yield f"| `{field}` | " + " | ".join("x" if has else "" for has in told) + " |"
    yield from ("", "## Extras", "Name, unit and step, as `extra` of a Sample holds them; texts stand in no Sample.")
    for name in dict.fromkeys(column.spoken.name for column in columns):
        listed = [" ".join(f"`{extra}` {unit} {step}".split()) for extra, unit, step in _extras(protocol(name))]
        yield f"- **{name}**: {', '.join(listed) if listed else 'none'}"
