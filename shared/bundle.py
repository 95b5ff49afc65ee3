"""A Bundle: manifest, ONNX graphs and golden rows in one zip whose bytes depend on nothing but its contents.

Deflate, fixed dates, sorted names, no folders. Everything is judged before it is used: sizes before inflating, each
file against the manifest's sha256, names against the manifest, shapes of the golden rows. A graph itself is not judged
here: whoever runs it does so in a limited process of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.answers import Answer, answer, interval_cycles, quantiles_cycles
from shared.manifest import (
    CHEMISTRIES,
    HARDWARE,
    MODEL_ID,
    OUTPUTS,
    REASONS,
    TRANSFORMS,
    BundleError,
    FeatureRange,
    Manifest,
    Output,
    canonical,
    from_json,
    model_id,
    parse,
    to_json,
)

__all__ = [
    "CHEMISTRIES",
    "HARDWARE",
    "MAX_BYTES",
    "MODEL_ID",
    "OUTPUTS",
    "REASONS",
    "SUFFIX",
    "TRANSFORMS",
    "Answer",
    "Bundle",
    "BundleError",
    "FeatureRange",
    "Golden",
    "Manifest",
    "Output",
    "answer",
    "build",
    "interval_cycles",
    "model_id",
    "quantiles_cycles",
    "read",
    "renumbered",
]

MAX_BYTES: Final = 5_000_000
SUFFIX: Final = ".bundle"
MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.json"
_MAX_INFLATED_BYTES: Final = 32_000_000
_MAX_FILES: Final = 16
_MAX_GOLDEN_ROWS: Final = 10_000
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_LEVEL: Final = 9

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Golden:
    """Rows in, rows out. rows: float32[n, F], NaN = no estimate; outputs: float32[n], what each graph gives itself."""

    rows: Singles
    outputs: Mapping[str, Singles]


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: `files` holds all of it, the manifest too."""

    manifest: Manifest
    files: Mapping[str, bytes]
    golden: Golden

    def onnx(self, output: str) -> bytes:
        """The graph of one of OUTPUTS: float32[n, F] in, its last output float32[n] (or [n, 1], [n, 2]) out."""
        return self.files[self.manifest.outputs[output].file]


def build(manifest: Manifest, files: Mapping[str, bytes], golden: Golden) -> bytes:
    """The bundle's bytes. files: the graphs by name; the manifest's sha256 is filled in. BundleError as `read`."""
    try:
        whole = {**files, GOLDEN: canonical(_golden_json(golden))}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in whole.items()}
        body = _pack(to_json(dataclasses.replace(manifest, sha256=digests)), whole)
    except (TypeError, ValueError) as error:
        raise BundleError("manifest", f"{manifest.model_id} cannot be written: {error}") from None
    read(body)
    return body


def read(body: bytes) -> Bundle:
    """The bundle of these bytes; BundleError too_large | manifest."""
    files = _unpack(body)
    manifest = from_json(parse(files.pop(MANIFEST), MANIFEST))
    graphs = {output.file for output in manifest.outputs.values()}
    if set(files) != set(manifest.sha256) or set(files) != graphs | {GOLDEN}:
        raise BundleError("manifest", f"{manifest.model_id}: the files are not those that its manifest names")
    for name, content in sorted(files.items()):
        if hashlib.sha256(content).hexdigest() != manifest.sha256[name]:
            raise BundleError("manifest", f"{manifest.model_id}: {name} has another sha256 than its manifest says")
    return Bundle(manifest, files, _golden(parse(files[GOLDEN], GOLDEN), manifest))


def renumbered(body: bytes, counter: int) -> bytes:
    """The same model under another counter, every other byte of its files the same. BundleError as `read`."""
    name = read(body).manifest.name
    files = _unpack(body)
    told: dict[str, Any] = parse(files.pop(MANIFEST), MANIFEST)
    return _pack({**told, "counter": counter, "model_id": model_id(name, counter)}, files)


def _pack(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, body in sorted({**files, MANIFEST: canonical(manifest)}.items()):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, body, compresslevel=_LEVEL)
    packed = target.getvalue()
    if len(packed) > MAX_BYTES:
        raise BundleError("too_large", f"the bundle would have {len(packed)} bytes; at most {MAX_BYTES} are taken")
    return packed


def _unpack(body: bytes) -> dict[str, bytes]:
    """Every file of the zip; BundleError too_large before more is inflated than may be."""
    if len(body) > MAX_BYTES:
        raise BundleError("too_large", f"the bundle has {len(body)} bytes; at most {MAX_BYTES} are taken")
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            names = {entry.filename for entry in entries}
            if len(entries) > _MAX_FILES or len(names) < len(entries) or MANIFEST not in names or GOLDEN not in names:
                raise BundleError("manifest", "the file is no bundle: it has not the files that a bundle has")
            files, left = {}, _MAX_INFLATED_BYTES
            for entry in entries:
                files[entry.filename] = _inflate(archive, entry, left)
                left -= len(files[entry.filename])
            return files
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleError("manifest", f"the file is no bundle: {str(error)[:200]}") from None


def _inflate(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int) -> bytes:
    with archive.open(entry) as stream:
        content = stream.read(left + 1)
    if len(content) > left:
        raise BundleError("too_large", f"the bundle holds more than {_MAX_INFLATED_BYTES} bytes")
    return content


def _golden_json(golden: Golden) -> dict[str, Any]:
    rows = np.asarray(golden.rows, np.float32)
    outputs = {name: _short(np.asarray(values, np.float32)) for name, values in golden.outputs.items()}
    return {"rows": [_short(row) for row in rows], "outputs": outputs}


def _short(values: Singles) -> list[float | None]:
    """The shortest decimals that read back as these float32; NaN = null."""
    return [None if np.isnan(value) else float(str(value)) for value in values]


def _golden(told: Any, manifest: Manifest) -> Golden:
    try:
        rows = np.array(told["rows"], np.float32)  # null becomes NaN
        outputs = {name: np.array(told["outputs"][name], np.float32) for name in OUTPUTS}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BundleError("manifest", f"{manifest.model_id}: its golden rows are no table of numbers") from None
    shapes = {values.shape for values in outputs.values()}
    count = len(rows) if rows.ndim == 2 else 0
    if rows.shape != (count, len(manifest.features)) or not 0 < count <= _MAX_GOLDEN_ROWS or shapes != {(count,)}:
        raise BundleError("manifest", f"{manifest.model_id}: its golden rows have not the shape of its features")
    if not all(np.isfinite(values).all() for values in outputs.values()) or np.isinf(rows).any():
        raise BundleError("manifest", f"{manifest.model_id}: its golden rows are not finite")
    return Golden(rows, outputs)
