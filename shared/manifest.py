"""What a Bundle says of itself: `manifest.json` as frozen records, read strictly, written canonically.

Unknown keys are kept out of the way: a newer writer may add some. What is known must be of the right kind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

from shared.errors import PacktwinError

REASONS: Final = (
    "target_hash",
    "signature",
    "manifest",
    "counter",
    "expired",
    "feature_schema",
    "chemistry",
    "hardware",
    "not_finite",
    "golden",
    "out_of_range",
    "too_large",
    "timeout",
    "crash",
    "clock",
)
"""Why a bundle is refused or rolled back; `shared.bundle` itself raises the ones that bytes and numbers can show."""
OUTPUTS: Final = ("rul_cycles_lo", "rul_cycles", "rul_cycles_hi", "p_eol_100")
"""What every bundle answers: three quantiles of the remaining useful life, the chance of its end within 100 cycles."""
TRANSFORMS: Final = ("none", "sqrt", "log")
CHEMISTRIES: Final = ("nmc", "lfp", "nca", "lmo", "lto")
HARDWARE: Final = "cpu-onnx"
"""What today's bundles run on: any 64-bit CPU with onnxruntime."""
MODEL_ID: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,44}[A-Za-z0-9_])?)-([1-9][0-9]{0,8})")
"""NAME-COUNTER, at most 56 characters, so that with its suffix it is the name of a file and of a TUF target."""
_FILE: Final = re.compile(r"[a-z0-9_]{1,40}\.onnx")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_FEATURES: Final = 500
_T = TypeVar("_T")


class BundleError(PacktwinError):
    """A bundle cannot be used. `reason` is one of REASONS; the message is one sentence for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FeatureRange:
    """One column of the graphs' input; lo..hi [unit]: where the model was trained, outside it is out of its domain."""

    name: str
    unit: str
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class Output:
    """One graph: its file in the bundle, the unit of what it means, and what was done to that before training.

    transform: none | sqrt (the graph gives sqrt(y)) | log (the graph gives ln(1 + y)).
    """

    file: str
    unit: str
    transform: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself.

    model_id is NAME-COUNTER, also the stem of the file's name. sha256: of each file beside it; {} until built.
    conformal: {"kind": "none"} or {"kind": "cqr_scaled", "lo": a, "hi": b, "floor": cycles}, see `shared.answers`.
    """

    model_id: str
    counter: int
    feature_schema: str
    features: tuple[FeatureRange, ...]
    outputs: Mapping[str, Output]
    chemistry: tuple[str, ...]
    hardware: str = HARDWARE
    conformal: Mapping[str, Any] = field(default_factory=lambda: {"kind": "none"})
    data: Mapping[str, Any]  # hash, licence, simulated: bool
    metrics: Mapping[str, Any] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """model_id without its counter."""
        return self.model_id.rpartition("-")[0]


def model_id(name: str, counter: int) -> str:
    """NAME-COUNTER; BundleError manifest when these cannot be one."""
    told = f"{name}-{counter}"
    if not MODEL_ID.fullmatch(told):
        raise _wrong(f"{told[:80]!r} is no model_id: letters, digits, . _ - and a counter from 1")
    return told


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, the same bytes for the same value; ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse(body: bytes, what: str) -> Any:
    """The JSON value of one file of a bundle; BundleError manifest."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{what} is no JSON: {error}") from None


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON objects and lists."""
    told = {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}
    told |= {
        "features": [asdict(feature) for feature in manifest.features],
        "outputs": {name: asdict(output) for name, output in manifest.outputs.items()},
        "chemistry": list(manifest.chemistry),
    }
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in told.items()}


def from_json(told: Any) -> Manifest:
    """The Manifest of a JSON object, every value checked; BundleError manifest."""
    read = _Reader(told)
    manifest = Manifest(
        model_id=read.text("model_id", MODEL_ID),
        counter=read.take("counter", _whole),
        feature_schema=read.text("feature_schema", _WORD),
        features=read.take("features", _features),
        outputs=read.take("outputs", _outputs),
        chemistry=read.take("chemistry", _chemistry),
        hardware=read.text("hardware", _WORD),
        conformal=read.take("conformal", _conformal),
        data=read.take("data", _data),
        metrics=read.take("metrics", _object),
        sha256=read.take("sha256", _digests),
    )
    if manifest.model_id != model_id(manifest.name, manifest.counter):
        raise _wrong(f"model_id {manifest.model_id} does not end in the counter {manifest.counter}")
    return manifest


def _wrong(detail: str) -> BundleError:
    return BundleError("manifest", f"the bundle's manifest is wrong: {detail[:240]}")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


class _Reader:
    def __init__(self, told: Any) -> None:
        self._told = _object(told, "manifest.json")

    def take(self, name: str, read: Callable[[Any, str], _T]) -> _T:
        if name not in self._told:
            raise _wrong(f"it has no {name}")
        return read(self._told[name], name)

    def text(self, name: str, form: re.Pattern[str]) -> str:
        return self.take(name, lambda value, what: _text(value, what, form))


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{what} is no object")
    return value


def _list(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _wrong(f"{what} is no list")
    return value


def _text(value: Any, what: str, form: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or (form is not None and not form.fullmatch(value)):
        raise _wrong(f"{what} cannot be {str(value)[:60]!r}")
    return value


def _whole(value: Any, what: str) -> int:
    if type(value) is not int or value < 1:
        raise _wrong(f"{what} cannot be {str(value)[:60]!r}")
    return value


def _number(value: Any, what: str) -> float:
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong(f"{what} cannot be {str(value)[:60]!r}")
    return number


def _features(value: Any, what: str) -> tuple[FeatureRange, ...]:
    rows = [_object(row, what) for row in _list(value, what)]
    found = tuple(
        FeatureRange(
            _text(row.get("name"), "a feature's name", _WORD),
            _text(row.get("unit"), "a feature's unit"),
            _number(row.get("lo"), "a feature's lo"),
            _number(row.get("hi"), "a feature's hi"),
        )
        for row in rows
    )
    if not 0 < len(found) <= _MAX_FEATURES or len({feature.name for feature in found}) < len(found):
        raise _wrong(f"{len(found)} features, or one of them twice")
    if any(feature.lo > feature.hi for feature in found):
        raise _wrong("a feature's lo is above its hi")
    return found


def _outputs(value: Any, what: str) -> dict[str, Output]:
    rows = {name: _object(row, what) for name, row in _object(value, what).items()}
    if set(rows) != set(OUTPUTS):
        raise _wrong(f"its outputs are not {', '.join(OUTPUTS)}")
    found = {
        name: Output(
            _text(row.get("file"), f"the file of {name}", _FILE),
            _text(row.get("unit"), f"the unit of {name}"),
            _text(row.get("transform"), f"the transform of {name}", re.compile("|".join(TRANSFORMS))),
        )
        for name, row in rows.items()
    }
    if found["p_eol_100"].transform != "none":
        raise _wrong("a probability has no transform")
    return found


def _chemistry(value: Any, what: str) -> tuple[str, ...]:
    found = tuple(_text(name, "a chemistry", _WORD) for name in _list(value, what))
    if not found:
        raise _wrong("it names no chemistry")
    return found


def _conformal(value: Any, what: str) -> dict[str, Any]:
    told = _object(value, what)
    if told.get("kind") not in ("none", "cqr_scaled"):
        raise _wrong(f"the kind of conformal cannot be {str(told.get('kind'))[:60]!r}")
    if told["kind"] == "cqr_scaled":
        for name in ("lo", "hi"):
            _number(told.get(name), f"conformal {name}")
        if _number(told.get("floor", 0.0), "conformal floor") < 0:
            raise _wrong("conformal floor is negative")
    return told


def _data(value: Any, what: str) -> dict[str, Any]:
    told = _object(value, what)
    if not isinstance(told.get("simulated"), bool):
        raise _wrong("data does not say whether it is simulated")
    for name in ("hash", "licence"):
        _text(told.get(name), f"data {name}")
    return told


def _digests(value: Any, what: str) -> dict[str, str]:
    return {name: _text(digest, f"sha256 of {name}", _DIGEST) for name, digest in _object(value, what).items()}
