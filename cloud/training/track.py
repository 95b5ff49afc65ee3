"""What was trained, noted in MLflow for those who use it. A note that cannot be made never fails a training."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

_STORE: Final = Path(".local/mlflow")
_IMPATIENT: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


def note(
    uri: str, model_id: str, parameters: Mapping[str, Any], metrics: Mapping[str, float], files: list[Path]
) -> str | None:
    """Where the run was noted; None when it could not be. uri: of a store, "" = a file in `.local`, `off` = none."""
    if uri == "off":
        return None
    try:
        for name, value in _IMPATIENT.items():
            os.environ.setdefault(name, value)
        if not uri:
            _STORE.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{_STORE / 'mlflow.db'}"
        import mlflow

        for name in ("alembic", "mlflow"):  # each sets its own level while it is imported
            logging.getLogger(name).setLevel(logging.ERROR)
        mlflow.set_tracking_uri(uri)
        if mlflow.get_experiment_by_name("packtwin") is None:
            mlflow.create_experiment("packtwin", artifact_location=_artifacts() if uri.startswith("sqlite") else None)
        mlflow.set_experiment("packtwin")
        with mlflow.start_run(run_name=model_id):
            mlflow.log_params(dict(parameters))
            mlflow.log_metrics(dict(metrics))
            for file in files:
                mlflow.log_artifact(str(file))
    except Exception as error:  # whatever a store can do wrong, the model is there
        log.warning("MLflow could not note %s: %s", model_id, " ".join(str(error).split())[:200])
        return None
    return uri


def _artifacts() -> str:
    return (_STORE / "artifacts").absolute().as_uri()
