"""The models that devices can run: what each signed or local bundle says of itself."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request

from cloud.api.answers import ApiProblem, Json, Problem
from cloud.api.state import state_of
from cloud.config import Config
from shared import bundle as bundles
from shared.bundle import MODEL_ID, SUFFIX, BundleError

router = APIRouter(prefix="/api/v1", tags=["models"], default_response_class=Json)

_KEPT: Final = 64


@router.get("/models")
def models(request: Request) -> Json:
    """Every bundle of the release and of MODELS_DIR, highest counter first; `simulated`: learned from simulations."""
    found = [told for path in _files(state_of(request).config).values() if (told := _told(path))]
    return Json({"models": sorted(found, key=lambda told: (-told["counter"], told["model_id"]))})


@router.get("/models/{model_id}", responses={404: {"model": Problem}})
def model(request: Request, model_id: str) -> Json:
    """One model, as in the list."""
    path = _files(state_of(request).config).get(model_id)
    told = _told(path) if path else None
    if told is None:
        raise ApiProblem(404, f"No model is called {model_id[:80]!r} here; see /api/v1/models.")
    return Json(told)


def _files(config: Config) -> dict[str, Path]:
    """model_id -> its bundle; a signed one counts before a local one of the same name."""
    found = {}
    for folder, signed in ((config.models_dir, False), (config.release_dir / "targets", True)):
        try:
            names = sorted(path.name for path in folder.glob(f"*{SUFFIX}"))
        except OSError:
            continue
        for name in names:
            model_id = name.partition(".")[2] if signed else name
            model_id = model_id.removesuffix(SUFFIX)
            if MODEL_ID.fullmatch(model_id):
                found[model_id] = folder / name
    return found


def _told(path: Path) -> dict[str, Any] | None:
    """What the bundle says; None when it is none, or is gone."""
    try:
        stamp = path.stat()
        return _read(path, stamp.st_mtime_ns, stamp.st_size)
    except OSError:
        return None


@lru_cache(_KEPT)
def _read(path: Path, _mtime_ns: int, size_bytes: int) -> dict[str, Any] | None:
    if size_bytes > bundles.MAX_BYTES:
        return None
    try:
        manifest = bundles.read(path.read_bytes()).manifest
    except BundleError:
        return None
    return {
        "model_id": manifest.model_id,
        "counter": manifest.counter,
        "simulated": bool(manifest.data.get("simulated")),
        "chemistry": list(manifest.chemistry),
        "hardware": manifest.hardware,
        "feature_schema": manifest.feature_schema,
        "features": [spec.name for spec in manifest.features],
        "data": dict(manifest.data),
        "metrics": dict(manifest.metrics),
        "size_bytes": size_bytes,
    }
