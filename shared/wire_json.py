"""Batch and Receipt <-> JSON, for devices that cannot do protobuf. Values are kept as written, to 9 decimals.

    {"schema": 1, "device": "D", "boot": "16 hex", "samples": [{"pack_id", "seq", "mono_ns", "t_ns", Sample's names}],
     "estimates": [], "events": [], "reports": [], "gaps": [], "sessions": [], "captures": []}

A field left out, or null, is absent; bytes are base64. A name that is not known is refused, never dropped in silence.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from decimal import Decimal
from typing import Any, Final, TypeVar, get_args, get_type_hints

from shared.batch import MAX_BODY_BYTES, MAX_COLUMNS, MAX_ROWS, MAX_VALUES, SCHEMA, Batch, check
from shared.block import Extra, Layout, SampleBlock, block_of, layout_of, pack_row, union_layout
from shared.errors import WireError
from shared.fields import (
    ALARMS,
    BY_NAME,
    EXTRA_NAME,
    FLOAT32,
    MAX_CELLS,
    MAX_EXTRAS,
    QUALITY_KEY,
    QUALITY_REASONS,
    STATES,
    Resolution,
    resolution,
)
from shared.records import Capture, Estimate, Event, Gap, Receipt, Report, Sample, Session, Single, boot_hex

_BOOT: Final = re.compile(r"[0-9a-fA-F]{16}")
_MAX_DECIMALS: Final = 9
_KINDS: Final = {
    "estimates": Estimate,
    "events": Event,
    "reports": Report,
    "gaps": Gap,
    "sessions": Session,
    "captures": Capture,
}
_HINTS: Final[dict[Any, dict[str, Any]]] = {kind: get_type_hints(kind) for kind in _KINDS.values()}
_INT_LIMIT: Final = 2**62
_SAFE_INT: Final = 2**53 - 1
T = TypeVar("T")


def decode_batch_json(body: bytes) -> Batch:
    """The Batch of a JSON upload, fully validated; WireError with its reason and the place otherwise."""
    if len(body) > MAX_BODY_BYTES:
        raise WireError("too_large", f"a body of {len(body)} bytes, at most {MAX_BODY_BYTES}")
    try:
        document = json.loads(body, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise WireError("malformed", f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise WireError("malformed", "the body is not a JSON object")
    unknown = document.keys() - {"schema", "device", "boot", "samples", *_KINDS}
    if unknown:
        raise WireError("malformed", f"unknown key {min(unknown)!r} in the batch")
    if document.get("schema") != SCHEMA or document["schema"] is True:
        raise WireError("unknown_schema", f"schema {document.get('schema')!r} is not known here (known: {SCHEMA})")
    device, boot = document.get("device"), document.get("boot")
    if not isinstance(device, str):
        raise WireError("malformed", "device is missing or not text")
    if not isinstance(boot, str) or not _BOOT.fullmatch(boot):
        raise WireError("malformed", "boot is not 16 hex digits")
    items = {name: _list(document, name) for name in ("samples", *_KINDS)}
    if sum(map(len, items.values())) > MAX_ROWS:
        raise WireError("too_large", f"more than {MAX_ROWS} records in a batch")
    samples = [_sample(item, f"samples[{i}]") for i, item in enumerate(items["samples"])]
    singles: dict[str, Any] = {
        name: tuple(single_of(kind, item, f"{name}[{i}]") for i, item in enumerate(items[name]))
        for name, kind in _KINDS.items()
    }
    return check(Batch(device=device, boot=int(boot, 16), blocks=tuple(_blocks(samples)), **singles))


def receipt_json(receipt: Receipt) -> bytes:
    """The body of the answer to a JSON upload."""
    document: dict[str, Any] = {
        "accepted": [list(pair) for pair in receipt.accepted],
        "rejected": [{"first": r.first, "last": r.last, "reason": r.reason} for r in receipt.rejected],
        "t_ns": receipt.t_ns,
    }
    if receipt.mode is not None:
        document["mode"] = receipt.mode
    return json.dumps(document).encode()


def batch_json(batch: Batch) -> bytes:
    """A Batch as a JSON upload: the other direction of `decode_batch_json`."""
    document: dict[str, Any] = {"schema": SCHEMA, "device": batch.device, "boot": boot_hex(batch.boot)}
    document["samples"] = [plain(sample) for block in batch.blocks for sample in block.dicts()]
    for name in _KINDS:
        document[name] = [plain(record_dict(record)) for record in getattr(batch, name)]
    return json.dumps(document, allow_nan=False).encode()


def record_dict(record: Single) -> dict[str, Any]:
    """A single record by its names; boots as 16 hex digits, bytes in base64."""
    values = {item.name: getattr(record, item.name) for item in fields(record)}
    if "of_boot" in values:
        values["of_boot"] = boot_hex(values["of_boot"])
    if "data" in values:
        values["data"] = base64.b64encode(values["data"]).decode()
    return values


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON writes it: a bit set that JavaScript could not hold becomes a "0x.." text."""
    values = dict(record)
    bits = values.get("balancing")
    if bits is not None and bits > _SAFE_INT:
        values["balancing"] = hex(bits)
    return values


# --- reading ---------------------------------------------------------------------------------------------------------


def no_constant(name: str) -> float:
    """For `json.loads`: NaN and Infinity are no JSON."""
    raise ValueError(f"{name} is not a number that JSON knows")


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    items = document.get(name)
    if items is None:
        return []
    if not isinstance(items, list):
        raise WireError("malformed", f"{name} is not a list")
    return items


def _object(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise WireError("malformed", f"{where} is not an object")
    return item


def _integer(value: Any, where: str, low: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < _INT_LIMIT:
        raise WireError("malformed", f"{where} is not an integer >= {low}")
    return value


def _number(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WireError("malformed", f"{where} is not a number")
    if abs(value) > 1e300 or not math.isfinite(value):
        raise WireError("malformed", f"{where} is not a finite number")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise WireError("malformed", f"{where} is not text")
    return value


def _boot_number(value: Any, where: str) -> int:
    if not isinstance(value, str) or not _BOOT.fullmatch(value):
        raise WireError("malformed", f"{where} is not 16 hex digits")
    return int(value, 16)


def _numbers(value: Any, where: str) -> tuple[float | None, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_CELLS:
        raise WireError("malformed", f"{where} is not a list of at most {MAX_CELLS} numbers")
    return tuple(_number(item, f"{where}[{i}]") for i, item in enumerate(value))


def _bits(value: Any, where: str) -> int:
    try:
        bits = int(value, 16) if isinstance(value, str) else value
    except ValueError:
        bits = -1
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 0 or bits.bit_length() > MAX_CELLS:
        raise WireError("malformed", f"{where} is not a bit set (a number >= 0 or a hex text)")
    return bits


def _state(value: Any, where: str) -> str:
    if value not in STATES:
        raise WireError("malformed", f"{where} is none of {', '.join(STATES)}")
    return str(value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise WireError("malformed", f"{where} is neither true nor false")
    return value


def _alarm_codes(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > len(ALARMS):
        raise WireError("malformed", f"{where} is not a list")
    for code in value:
        if not isinstance(code, str) or code not in ALARMS:
            raise WireError("malformed", f"{where} has {code!r}, which is not in the list of alarms")
    return tuple(value)


def _quality(value: Any, where: str) -> dict[str, str]:
    for key, reason in _object(value, where).items():
        if not QUALITY_KEY.fullmatch(key) or reason not in QUALITY_REASONS:
            raise WireError("malformed", f"{where} has {key[:80]!r}: {reason!r}, which is not a known reason")
    return dict(value)


def _extra(value: Any, where: str) -> dict[str, float | None]:
    for name in _object(value, where):
        if not EXTRA_NAME.fullmatch(name):
            raise WireError("malformed", f"{where} has {name[:80]!r}, which is not a name")
    return {name: _number(item, f"{where}.{name}") for name, item in value.items()}


_READERS: Final[dict[str, Any]] = {
    "pack_id": _text,
    "seq": _integer,
    "mono_ns": _integer,
    "t_ns": lambda value, where: _integer(value, where, -_INT_LIMIT + 1),
    "cell_v": _numbers,
    "temp_c": _numbers,
    "balancing": _bits,
    "state": _state,
    "alarms": _alarm_codes,
    "quality": _quality,
    "extra": _extra,
    **{name: _flag for name, spec in BY_NAME.items() if spec.kind == "bool"},
}
_SAMPLE_FIELDS: Final = frozenset(item.name for item in fields(Sample))


def _sample(item: Any, where: str) -> Sample:
    values: dict[str, Any] = {}
    for name, value in _object(item, where).items():
        if name not in _SAMPLE_FIELDS:
            raise WireError("malformed", f"{where} has {name[:80]!r}, which is not a field of a Sample")
        if value is not None:
            values[name] = _READERS.get(name, _number)(value, f"{where}.{name}")
    for name in ("pack_id", "seq", "mono_ns"):
        if name not in values:
            raise WireError("malformed", f"{where} has no {name}")
    return Sample(**values)


def single_of(kind: type[T], item: Any, where: str) -> T:
    """Any record but a Sample: each field read by its declared type."""
    hints = _HINTS[kind]
    values: dict[str, Any] = {}
    for name, value in _object(item, where).items():
        if name not in hints:
            raise WireError("malformed", f"{where} has {name[:80]!r}, which is not a field of {kind.__name__}")
        if value is not None:
            values[name] = _typed(hints[name], name, value, f"{where}.{name}")
    for spec in fields(kind):  # type: ignore[arg-type]
        if spec.default is MISSING and spec.default_factory is MISSING and spec.name not in values:
            raise WireError("malformed", f"{where} has no {spec.name}")
    return kind(**values)


def _typed(hint: Any, name: str, value: Any, where: str) -> Any:
    kinds = get_args(hint) or (hint,)
    if name == "of_boot":
        return _boot_number(value, where)
    if name == "stored":
        return tuple((_integer(first, where), _integer(last, where)) for first, last in _pairs(value, where))
    if name == "numbers":
        return {_text(k, where): _number(v, where) for k, v in _object(value, where).items() if v is not None}
    if name == "reasons":
        return {_text(k, where): _text(v, where) for k, v in _object(value, where).items()}
    if str in kinds:
        return _text(value, where)
    if bytes in kinds:
        return _bytes(value, where)
    if bool in kinds:
        return _flag(value, where)
    if int in kinds:
        return _integer(value, where, -1 if name == "last_seq" else 0 if name in ("seq", "mono_ns") else -_INT_LIMIT)
    if float in kinds and Ellipsis not in kinds:
        return _number(value, where)
    numbers = _numbers(value, where)
    if None in numbers:
        raise WireError("malformed", f"{where} holds null")
    return numbers


def _bytes(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        raise WireError("malformed", f"{where} is not base64") from None


def _pairs(value: Any, where: str) -> Iterable[tuple[Any, Any]]:
    if not isinstance(value, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in value):
        raise WireError("malformed", f"{where} is not a list of [first, last]")
    return [(pair[0], pair[1]) for pair in value]


# --- samples to blocks -----------------------------------------------------------------------------------------------


def _blocks(samples: list[Sample]) -> Iterable[SampleBlock]:
    packs: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: s.seq):
        packs[sample.pack_id].append(sample)
    room = MAX_VALUES
    columns = 0
    layouts: dict[Layout, Layout] = {}  # equal ones are one object, so that their columns are made once
    for pack_id, rows in packs.items():
        new = _layout(pack_id, rows)
        layout = layouts.setdefault(new, new)
        columns += layout.width if layout is new else 0
        room -= layout.width * len(rows)
        if room < 0 or columns > MAX_COLUMNS:
            raise WireError("too_large", f"more than {MAX_VALUES} values or {MAX_COLUMNS} different columns in a batch")
        yield _block(pack_id, layout, rows)


def _layout(pack_id: str, samples: list[Sample]) -> Layout:
    """One layout for all samples of a pack, each field as fine as its finest value."""
    steps: dict[str, Resolution] = {}
    for name, spec in BY_NAME.items():
        if spec.kind == "float":
            steps[name] = _step(_values(samples, name), resolution(spec.step))
    names = dict.fromkeys(name for sample in samples for name in sample.extra)
    if len(names) > MAX_EXTRAS:
        raise WireError("malformed", f"more than {MAX_EXTRAS} extras for {pack_id}")
    extras = [Extra(name, "", _extra_step([s.extra.get(name) for s in samples])) for name in names]
    return union_layout([layout_of(sample, steps, extras) for sample in samples])


def _block(pack_id: str, layout: Layout, samples: list[Sample]) -> SampleBlock:
    bodies, qualities = [], []
    for sample in samples:
        row, quality = pack_row(sample, layout)
        lost = [name for name, reason in quality.items() if sample.quality.get(name) != reason]
        if lost:
            raise WireError("malformed", f"{lost[0]} of seq {sample.seq} holds an impossible value")
        bodies.append(row.astype("<i4").tobytes())
        qualities.append(quality)
    return block_of(
        pack_id,
        layout,
        [s.seq for s in samples],
        [s.mono_ns for s in samples],
        [s.t_ns for s in samples],
        b"".join(bodies),
        qualities,
        [s.alarms for s in samples],
    )


def _values(samples: list[Sample], name: str) -> list[float | None]:
    if name in ("cell_v", "temp_c"):
        return [value for sample in samples for value in getattr(sample, name)]
    return [getattr(sample, each) for sample in samples for each in BY_NAME[name].names]


def _step(values: Iterable[float | None], default: Resolution) -> Resolution:
    """The table's resolution, or as many decimals as the values have and an int32 can hold."""
    decimals = default.exponent
    largest = 1.0
    for value in values:
        if value is not None:
            largest = max(largest, abs(value))
            if round(value, decimals) != value:
                exponent = Decimal(repr(value)).as_tuple().exponent
                decimals = max(decimals, min(-int(exponent), _MAX_DECIMALS))
    room = math.floor(math.log10(2**31 / largest))
    if decimals <= default.exponent:
        return default
    return Resolution(1, max(default.exponent, min(decimals, room)))


def _extra_step(values: list[float | None]) -> Resolution:
    """Decimal where an int32 can hold every value exactly, else float32."""
    step = _step(values, Resolution(1, 0))
    for value in values:
        if value is not None:
            n = round(value * 10**step.exponent)
            if abs(n) >= 2**31 or n / 10**step.exponent != value:
                return FLOAT32
    return step
