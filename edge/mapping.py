"""mapping.toml: what a source calls it -> what a Sample calls it. The one table between somebody's bus and our names.

A target is a column of the Sample (`pack_v`, `cell_v[3]`, `extra.motor_rpm`), `balancing` or `balancing[3]`, or an
alarm (`alarm.insulation:warning`).
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge.config_sources import find_shipped
from edge.mapping_csv import CsvShape
from edge.mapping_layout import LayoutBuilder
from edge.mapping_mqtt import Published
from edge.mapping_protocol import Spoken
from edge.tables import Table, nearest, read_toml
from firmware_bridge.frames import id_of
from shared.block import Extra, Layout
from shared.fields import (
    ALARMS,
    BALANCING,
    BY_NAME,
    CELL_V,
    EXTRA_NAME,
    FLOAT32,
    MAX_CELLS,
    MAX_TEMPS,
    MAX_UNIT_CHARS,
    STATES,
    TEMP_C,
    Resolution,
    resolution,
)

CHEMISTRIES: Final = ("nmc", "lfp", "nca", "lmo", "lto")
ALARM: Final = "alarm."
EXTRA: Final = "extra."
COUNTER: Final = "counter"
"""The target that no Sample carries: it moves while the BMS lives."""
_DBC_FOLDER: Final = "firmware_bridge"
_ARRAYS: Final = {CELL_V.name: MAX_CELLS, TEMP_C.name: MAX_TEMPS, BALANCING: MAX_CELLS}


@dataclass(frozen=True, slots=True)
class Target:
    """One signal's way into a Sample: value = signal x scale + offset, or `values[signal]` (a state: its number)."""

    name: str
    signal: str  # `Message.Signal` of a DBC, a column of a CSV, a name of a BMS language (`cell_v[3]`), topic#path
    scale: float = 1.0
    offset: float = 0.0
    values: MappingType[float | str, float] | None = None
    max_age_s: float | None = None  # None = the agent's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """What does not change about a pack; None = the mapping does not say."""

    chemistry: str | None = None
    series: int | None = None
    parallel: int | None = None
    nominal_ah: float | None = None
    nominal_v: float | None = None


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A mapping file; one of dbc, csv, spoken and published is what its signals' names mean.

    `digest_text` is what it says, for ids that must follow its content.
    """

    path: Path
    dbc: Path | None
    csv: CsvShape | None
    spoken: Spoken | None
    pack: PackFacts
    targets: tuple[Target, ...]
    layout: Layout
    isotp: tuple[int, ...] = ()  # ids (with EXTENDED) whose frames are put together by ISO-TP
    digest_text: str = field(repr=False)
    published: Published | None = None


def load_mapping(path: Path) -> Mapping:
    """The mapping at `path`. ConfigError in one sentence for anything that is wrong with it."""
    data = read_toml(path)
    table = Table(data, str(path))
    dbc = table.text("dbc", "")
    csv = CsvShape.read(table.table("csv")) if "csv" in table else None
    spoken = Spoken.read(table)
    published = Published.read(table.table("mqtt")) if "mqtt" in table else None
    if [bool(dbc), csv is not None, spoken is not None, published is not None].count(True) != 1:
        raise table.wrong("must say what the names mean: give dbc, protocol, [csv] or [mqtt], one of the four")
    isotp = _isotp(table, is_bus=bool(dbc))
    pack = _pack(table.table("pack"))
    targets: list[Target] = []
    builder = LayoutBuilder(spoken, published)
    fields = table.table("fields")
    for name, raw in fields.items():
        targets += _field(Table(raw, f"{path} [fields] {name}"), name, builder)
    if not targets:
        raise table.fail("[fields]", "is empty: map at least one field")
    targets += _alarms(table.table("alarms"), builder)
    targets += _counter(table, builder)
    table.done()
    shipped = Path(__file__).parent.parent / _DBC_FOLDER
    return Mapping(
        path=path,
        dbc=find_shipped(path.absolute().parent, dbc, shipped) if dbc else None,
        csv=csv,
        spoken=spoken,
        pack=pack,
        targets=tuple(targets),
        layout=builder.layout(),
        isotp=isotp,
        digest_text=repr(sorted(data.items())),
        published=published,
    )


def _pack(table: Table) -> PackFacts:
    facts = PackFacts(
        chemistry=table.choice("chemistry", among=CHEMISTRIES) if "chemistry" in table else None,
        series=table.whole("series", lo=1, hi=MAX_CELLS) if "series" in table else None,
        parallel=table.whole("parallel", lo=1, hi=1_000_000) if "parallel" in table else None,
        nominal_ah=table.number("nominal_ah", lo=0.001, hi=1e6) if "nominal_ah" in table else None,
        nominal_v=table.number("nominal_v", lo=0.001, hi=1e4) if "nominal_v" in table else None,
    )
    table.done()
    return facts


def _isotp(table: Table, *, is_bus: bool) -> tuple[int, ...]:
    given = table.raw("isotp", [])
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given) or (given and not is_bus):
        raise table.fail("isotp", f'= {given!r} must be a list of ids in hex, such as ["7EC"], beside a dbc')
    try:
        return tuple(id_of(one) for one in given)
    except ValueError as error:
        raise table.fail("isotp", str(error)) from None


def _field(table: Table, name: str, builder: LayoutBuilder) -> list[Target]:
    """The targets of one line of [fields]; the builder learns which columns they fill."""
    is_extra = name.startswith(EXTRA)
    if is_extra and not EXTRA_NAME.fullmatch(name[len(EXTRA) :]):
        raise table.wrong("is not a name for an extra: letters, digits and _ after the dot")
    if not is_extra and name not in BY_NAME and name != BALANCING:
        known = [*BY_NAME, BALANCING]
        raise table.wrong(f"is not a field of a Sample{nearest(name, known)} (or write extra.{name})")
    signals = _signals(table, name, builder)
    step = _resolution(table, name)
    unit, own_step = builder.check(table, [signals] if isinstance(signals, str) else signals)
    if is_extra:
        step = step or own_step
    by, add = (1.0, 0.0) if is_extra or builder.published is None else builder.published.converted(table, name)
    if is_extra:
        unit = table.text("unit", unit)
        if len(unit) > MAX_UNIT_CHARS:
            raise table.fail("unit", f"= {unit!r} is longer than {MAX_UNIT_CHARS} letters")
        builder.add_extra(Extra(name[len(EXTRA) :], unit, step or FLOAT32), table)
    elif name in _ARRAYS:
        builder.add_array(name, len(signals) if isinstance(signals, list) else 0, step)
    else:
        builder.add_scalar(name, step)
    scale = table.number("scale", 1.0, lo=-1e12, hi=1e12)
    offset = table.number("offset", 0.0, lo=-1e12, hi=1e12)
    scale, offset = scale * by, offset * by + add
    values = _values(table, name, texts=builder.published is not None)
    max_age_s = table.number("max_age_s", lo=0.1, hi=86_400.0) if "max_age_s" in table else None
    table.done()
    if isinstance(signals, str):
        return [Target(name, signals, scale, offset, values, max_age_s)]
    return [Target(f"{name}[{i}]", signal, scale, offset, values, max_age_s) for i, signal in enumerate(signals)]


def _signals(table: Table, name: str, builder: LayoutBuilder) -> str | list[str]:
    """One signal, or one per position (`from` is a list, or a pattern with `count`)."""
    source = table.raw("from")
    # Places of an array count from 0, what people number from 1.
    counts_from_0 = builder.spoken is not None or (builder.published is not None and "[{}]" in str(source))
    first = 0 if counts_from_0 else 1
    count = table.whole("count", 0, lo=1, hi=_ARRAYS.get(name, 1)) if "count" in table else None
    first = table.whole("first", first, lo=0, hi=100_000)
    if count is not None and isinstance(source, str):
        try:
            source = [source.format(first + i) for i in range(count)]
        except (ValueError, IndexError, KeyError):
            raise table.fail("from", f"= {source!r} must hold one place for the number, such as {{:03d}}") from None
        if len(set(source)) < count:
            raise table.fail("from", f"= {source[0]!r} must hold a place for the number, such as {{:03d}}")
    many = isinstance(source, list)
    if not (isinstance(source, str) or (many and source and all(isinstance(s, str) for s in source))):
        raise table.fail("from", f"= {source!r} must be a name, or a list of names")
    if many and name not in _ARRAYS:
        raise table.fail("from", "is a list, which only cell_v, temp_c and balancing may have")
    if not many and name in (CELL_V.name, TEMP_C.name):
        source = [source]
    if isinstance(source, list) and len(source) > _ARRAYS[name]:
        raise table.fail("from", f"names {len(source)} signals, at most {_ARRAYS[name]} fit")
    return source  # type: ignore[no-any-return]


def _resolution(table: Table, name: str) -> Resolution | None:
    step = table.raw("resolution", None)
    if step is None:
        return None
    if name == BALANCING or (name in BY_NAME and BY_NAME[name].kind != "float"):
        raise table.fail("resolution", "has no meaning here: leave it out")
    try:
        return resolution(step)
    except (ValueError, TypeError, ArithmeticError):
        raise table.fail("resolution", f"= {step!r} must be a step > 0 of at most 9 decimals, such as 0.001") from None


def _values(table: Table, name: str, *, texts: bool) -> dict[float | str, float] | None:
    """The value table; a state is given by its name and kept as its number. texts: a key may be a text."""
    is_state = name in BY_NAME and BY_NAME[name].kind == "state"
    raw = table.raw("values", None)
    if raw is None:
        if is_state:
            raise table.fail(
                "values", 'is missing: say which number is which state, such as { 0 = "park", 1 = "drive" }'
            )
        return None
    inner = Table(raw, f"{table.where} values")
    values: dict[float | str, float] = {}
    for key, value in inner.items():
        if is_state and value not in STATES:
            raise inner.fail(key, f"= {value!r} is not a state: use {', '.join(STATES)}")
        if not is_state and not isinstance(value, int | float):
            raise inner.fail(key, f"= {value!r} must be a number, true or false")
        meant = float(STATES.index(value) if is_state else value)
        if texts:
            values[key] = meant
        try:
            values[float(key)] = meant
        except ValueError:
            if not texts:
                raise inner.fail(key, "must be the number that the signal has") from None
    return values


def _alarms(table: Table, builder: LayoutBuilder) -> list[Target]:
    targets = []
    for code, signal in table.items():
        if code not in ALARMS:
            raise table.fail(code, f"is not an alarm code{nearest(code, ALARMS)}")
        if not isinstance(signal, str):
            raise table.fail(code, f"= {signal!r} must be the name of the signal that is not 0 while the alarm stands")
        builder.check(Table({}, f"{table.where} {code}"), [signal])
        targets.append(Target(ALARM + code, signal))
    return targets


def _counter(table: Table, builder: LayoutBuilder) -> list[Target]:
    """`counter = "Message.Signal"`, or a table with max_age_s: what moves while the BMS lives.

    Where the mapping says nothing it is the counter of the BMS language, if that has one.
    """
    own = builder.spoken.protocol.counter if builder.spoken is not None else None
    raw = table.raw(COUNTER, own and f"{EXTRA}{own}")
    if raw is None:
        return []
    inner = Table(raw if isinstance(raw, dict) else {"from": raw}, f"{table.where} {COUNTER}")
    signal = inner.text("from")
    max_age_s = inner.number("max_age_s", lo=0.1, hi=86_400.0) if "max_age_s" in inner else None
    inner.done()
    builder.check(inner, [signal])
    return [Target(COUNTER, signal, max_age_s=max_age_s)]
