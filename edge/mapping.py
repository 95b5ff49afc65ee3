"""mapping.toml: what a source calls it -> what a Sample calls it. The one table between somebody's bus and our names.

A target is a column of the Sample (`pack_v`, `cell_v[3]`, `extra.motor_rpm`), `balancing` or `balancing[3]`, or an
alarm (`alarm.insulation:warning`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from edge.config import find_shipped
from edge.tables import Table, nearest, read_toml
from shared.block import CELL_STEP, TEMP_STEP, Extra, Layout
from shared.fields import (
    ALARMS,
    BALANCING,
    BALANCING_WORD_BITS,
    BY_NAME,
    CELL_V,
    EXTRA_NAME,
    FLOAT32,
    MAX_CELLS,
    MAX_EXTRAS,
    MAX_TEMPS,
    MAX_UNIT_CHARS,
    SCALARS,
    STATES,
    TEMP_C,
    Resolution,
    resolution,
)

LATEST_NS: Final = 1 << 61
"""Neither the start of a CSV nor the time since then may be more, in ns: their sum is what the wire can carry."""
CHEMISTRIES: Final = ("nmc", "lfp", "nca", "lmo", "lto")
ALARM: Final = "alarm."
EXTRA: Final = "extra."
_DBC_FOLDER: Final = "firmware_bridge"
_ARRAYS: Final = {CELL_V.name: MAX_CELLS, TEMP_C.name: MAX_TEMPS, BALANCING: MAX_CELLS}


@dataclass(frozen=True, slots=True)
class Target:
    """One signal's way into a Sample: value = signal x scale + offset, or `values[signal]` (a state: its number)."""

    name: str
    signal: str  # `Message.Signal` of a DBC, or a column of a CSV
    scale: float = 1.0
    offset: float = 0.0
    values: MappingType[float, float] | None = None
    max_age_s: float | None = None  # None = the agent's own limit


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFacts:
    """What does not change about a pack; None = the mapping does not say."""

    chemistry: str | None = None
    series: int | None = None
    parallel: int | None = None
    nominal_ah: float | None = None
    nominal_v: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvShape:
    """How a CSV tells time: `time` names the column of seconds since `start_ns` (UTC); None = rows every `step_s`."""

    time: str | None
    start_ns: int
    step_s: float
    pack_id: str | None


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A mapping file. `digest_text` is what it says, for ids that must follow its content."""

    path: Path
    dbc: Path | None
    csv: CsvShape | None
    pack: PackFacts
    targets: tuple[Target, ...]
    layout: Layout
    digest_text: str = field(repr=False)


def load_mapping(path: Path) -> Mapping:
    """The mapping at `path`. ConfigError in one sentence for anything that is wrong with it."""
    data = read_toml(path)
    table = Table(data, str(path))
    dbc = table.text("dbc", "")
    csv = _csv(table.table("csv")) if "csv" in data else None
    if bool(dbc) == (csv is not None):
        raise table.fail("dbc", "or a table [csv] must say what the signals' names mean: give one of the two")
    pack = _pack(table.table("pack"))
    targets: list[Target] = []
    builder = _LayoutBuilder()
    fields = table.table("fields")
    for name, raw in fields.items():
        targets += _field(Table(raw, f"{path} [fields] {name}"), name, builder)
    if not targets:
        raise table.fail("[fields]", "is empty: map at least one field")
    targets += _alarms(table.table("alarms"))
    table.done()
    shipped = Path(__file__).parent.parent / _DBC_FOLDER
    return Mapping(
        path=path,
        dbc=find_shipped(path.absolute().parent, dbc, shipped) if dbc else None,
        csv=csv,
        pack=pack,
        targets=tuple(targets),
        layout=builder.layout(),
        digest_text=repr(sorted(data.items())),
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


def _csv(table: Table) -> CsvShape:
    time = table.text("time") if "time" in table else None
    start = table.raw("start", None)
    if isinstance(start, date) and not isinstance(start, datetime):
        start = datetime(start.year, start.month, start.day, tzinfo=UTC)
    if start is not None and (not isinstance(start, datetime) or start.tzinfo is None):
        raise table.fail("start", f"= {start} must be a UTC time such as 2026-01-01T00:00:00Z")
    if start is None and time is None:
        raise table.fail("start", "is missing: say when the first row was, or name a time column of UTC seconds")
    pack_id = table.id("pack_id") if "pack_id" in table else None
    step_s = table.number("step_s", 1.0, lo=0.001, hi=86_400.0)
    table.done()
    start_ns = 0 if start is None else round(start.timestamp() * 1000) * 1_000_000
    if abs(start_ns) >= LATEST_NS:
        raise table.fail("start", f"= {start} must lie before 2043")
    return CsvShape(time=time, start_ns=start_ns, step_s=step_s, pack_id=pack_id)


def _field(table: Table, name: str, builder: _LayoutBuilder) -> list[Target]:
    """The targets of one line of [fields]; the builder learns which columns they fill."""
    is_extra = name.startswith(EXTRA)
    if is_extra and not EXTRA_NAME.fullmatch(name[len(EXTRA) :]):
        raise table.wrong("is not a name for an extra: letters, digits and _ after the dot")
    if not is_extra and name not in BY_NAME and name != BALANCING:
        known = [*BY_NAME, BALANCING]
        raise table.wrong(f"is not a field of a Sample{nearest(name, known)} (or write extra.{name})")
    signals = _signals(table, name)
    step = _resolution(table, name)
    if is_extra:
        unit = table.text("unit", "")
        if len(unit) > MAX_UNIT_CHARS:
            raise table.fail("unit", f"= {unit!r} is longer than {MAX_UNIT_CHARS} letters")
        builder.add_extra(Extra(name[len(EXTRA) :], unit, step or FLOAT32), table)
    elif name in _ARRAYS:
        builder.add_array(name, len(signals) if isinstance(signals, list) else 0, step)
    else:
        builder.add_scalar(name, step)
    scale = table.number("scale", 1.0, lo=-1e12, hi=1e12)
    offset = table.number("offset", 0.0, lo=-1e12, hi=1e12)
    values = _values(table, name)
    max_age_s = table.number("max_age_s", lo=0.1, hi=86_400.0) if "max_age_s" in table else None
    table.done()
    if isinstance(signals, str):
        return [Target(name, signals, scale, offset, values, max_age_s)]
    return [Target(f"{name}[{i}]", signal, scale, offset, values, max_age_s) for i, signal in enumerate(signals)]


def _signals(table: Table, name: str) -> str | list[str]:
    """One signal, or one per position (`from` is a list, or a pattern with `count`)."""
    source = table.raw("from")
    count = table.whole("count", 0, lo=1, hi=_ARRAYS.get(name, 1)) if "count" in table else None
    first = table.whole("first", 1, lo=0, hi=100_000)
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


def _values(table: Table, name: str) -> dict[float, float] | None:
    """The value table; a state is given by its name and kept as its number."""
    is_state = name in BY_NAME and BY_NAME[name].kind == "state"
    raw = table.raw("values", None)
    if raw is None:
        if is_state:
            raise table.fail(
                "values", 'is missing: say which number is which state, such as { 0 = "park", 1 = "drive" }'
            )
        return None
    inner = Table(raw, f"{table.where} values")
    values: dict[float, float] = {}
    for key, value in inner.items():
        if is_state and value not in STATES:
            raise inner.fail(key, f"= {value!r} is not a state: use {', '.join(STATES)}")
        if not is_state and not isinstance(value, int | float):
            raise inner.fail(key, f"= {value!r} must be a number, true or false")
        try:
            number = float(key)
        except ValueError:
            raise inner.fail(key, "must be the number that the signal has") from None
        values[number] = float(STATES.index(value) if is_state else value)
    return values


def _alarms(table: Table) -> list[Target]:
    targets = []
    for code, signal in table.items():
        if code not in ALARMS:
            raise table.fail(code, f"is not an alarm code{nearest(code, ALARMS)}")
        if not isinstance(signal, str):
            raise table.fail(code, f"= {signal!r} must be the name of the signal that is not 0 while the alarm stands")
        targets.append(Target(ALARM + code, signal))
    return targets


class _LayoutBuilder:
    """Collects which columns the mapped fields need."""

    def __init__(self) -> None:
        self._scalars: dict[str, Resolution | None] = {}
        self._sizes: dict[str, int] = {}
        self._steps: dict[str, Resolution | None] = {}
        self._extras: list[Extra] = []

    def add_scalar(self, name: str, step: Resolution | None) -> None:
        self._scalars[name] = step

    def add_array(self, name: str, size: int, step: Resolution | None) -> None:
        self._sizes[name], self._steps[name] = size, step

    def add_extra(self, extra: Extra, table: Table) -> None:
        if len(self._extras) >= MAX_EXTRAS:
            raise table.wrong(f"is one extra too many: at most {MAX_EXTRAS}")
        self._extras.append(extra)

    def layout(self) -> Layout:
        words = 0
        if BALANCING in self._sizes:
            # A single signal holds the whole bit set: as many bits as there are cells.
            bits = self._sizes[BALANCING] or max(self._sizes.get(CELL_V.name, 0), BALANCING_WORD_BITS)
            words = math.ceil(bits / BALANCING_WORD_BITS)
        return Layout(
            scalars=tuple(
                (spec.name, self._scalars[spec.name] or resolution(spec.step))
                for spec in SCALARS
                if spec.name in self._scalars
            ),
            cells=self._sizes.get(CELL_V.name, 0),
            cell_step=self._steps.get(CELL_V.name) or CELL_STEP,
            temps=self._sizes.get(TEMP_C.name, 0),
            temp_step=self._steps.get(TEMP_C.name) or TEMP_STEP,
            balancing_words=words,
            extras=tuple(self._extras),
        )
