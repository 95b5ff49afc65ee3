"""MLflow's server on loopback. `python tracking.py PORT FOLDER [s3://BUCKET]` becomes it, installed first if need be.

MLflow is heavy (about 800 MB), so it has a venv of its own below `.local`, from deploy/mlflow/requirements.lock alone.
It serves the same file that `cloud train` notes its runs in without a server: nothing noted before is lost.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import install
from settings import ROOT

LOCK = ROOT / "deploy" / "mlflow" / "requirements.lock"
VENV = ROOT / ".local" / "mlflow" / "venv"
HOST = "127.0.0.1"


def installed(venv: Path = VENV) -> bool:
    """Returns whether the lock's very versions are there."""
    try:
        return (venv / "packtwin.lock").read_text() == _lock_id()
    except OSError:
        return False


def fetch(venv: Path = VENV) -> None:
    """Installs the server; SystemExit in one sentence when it cannot be."""
    print("installing MLflow (about a minute, once)", flush=True)
    told = install.pip_settings(os.environ, install.pip_configuration())
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    uv = [*install.uv(), "pip", "install", "-q", "--python", str(venv / "bin" / "python")]
    install.run([*uv, "--require-hashes", "-r", str(LOCK)], told)
    (venv / "packtwin.lock").write_text(_lock_id())


def _lock_id() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def main(port: str, folder: str, artifacts: str = "") -> None:
    """Becomes the server: one worker, its tables in FOLDER/mlflow.db, files in the S3 bucket or FOLDER/artifacts."""
    store = Path(folder).absolute()
    store.mkdir(parents=True, exist_ok=True)
    if not installed():
        fetch()
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    told = {**plain, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [str(VENV / "bin" / "python"), "-m", "mlflow", "server", "--host", HOST, "--port", port, "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--serve-artifacts", "--artifacts-destination", artifacts or str(store / "artifacts")]
    os.execve(command[0], command, told)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except SystemExit as error:
        print(error.code, file=sys.stderr, flush=True)
        sys.exit(2)
