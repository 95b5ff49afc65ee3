"""An S3 store on loopback: versitygw over a plain folder. `python s3.py PORT FOLDER` becomes it.

Where versitygw is not installed Go builds it, once. A bucket is a folder below FOLDER.
ROOT_ACCESS_KEY and ROOT_SECRET_KEY come from the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from programs import program
from settings import ROOT

from shared.errors import ConfigError, PacktwinError

SOURCE = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"
BINARIES = ROOT / ".local" / "bin"
HOST = "127.0.0.1"
HEALTH = "/health"  # not a bucket's name: those have three letters or more, but this one is asked first
GET = "https://github.com/versity/versitygw/releases, or Go: https://go.dev/dl"
REGION = "us-east-1"


def problem() -> str | None:
    """Returns what is missing on this machine and how to get it; None when nothing is."""
    if _installed() or program("go"):
        return None
    return f"an S3 store needs versitygw ({GET})"


def buckets(folder: Path, *names: str) -> None:
    """Makes buckets where there are none yet."""
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)


def environment(port: int, access_key: str, secret_key: str) -> Mapping[str, str]:
    """Returns what a client (boto3, MLflow) is told to reach the store."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": REGION,
    }


def binary() -> Path:
    """Returns versitygw, built first where only Go is there (a minute, once). PacktwinError: Go's own complaint."""
    found = _installed()
    if found:
        return found
    go = program("go")
    if go is None:
        raise ConfigError(f"an S3 store needs versitygw ({GET})")
    print("building versitygw (some minutes, once)", flush=True)
    BINARIES.mkdir(parents=True, exist_ok=True)
    told = {**os.environ, "GOBIN": str(BINARIES), "GOFLAGS": "-trimpath", "CGO_ENABLED": "0"}
    done = subprocess.run(
        [str(go), "install", SOURCE], env=told, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["no message"]
        raise PacktwinError(f"Go could not build versitygw: {words[-1]}")
    return BINARIES / "versitygw"


def _installed() -> Path | None:
    ours = BINARIES / "versitygw"
    return ours if ours.exists() else program("versitygw")


def main(port: str, folder: str) -> None:
    """Becomes the store."""
    server = binary()
    command = [str(server), "--port", f"{HOST}:{port}", "--region", REGION, "--health", HEALTH, "--quiet"]
    os.execv(server, [*command, "posix", folder])


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except PacktwinError as error:
        print(f"packtwin: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
